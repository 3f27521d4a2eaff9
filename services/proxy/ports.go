package proxy

import (
	"fmt"
	"reflect"
	"slices"

	"tollgate.internal/pkg/resource"
	"tollgate.internal/services/proxy/internal/listener"
)

// portChange is what becomes of the listener by port of a virtual cluster, see
// Config.PortsOf. A new one is open before the virtual cluster is in service, and
// refuses clients until it is.
type portChange struct {
	vc     string
	spec   listener.Spec
	wanted bool
	opened bool // it is new
}

// openPort is called under the lock of the virtual cluster's name, as commit and
// closePort are.
func (g *gateway) openPort(vc *resource.VirtualCluster) (p portChange, err error) {
	p.vc = vc.Metadata.Name
	if g.cfg.PortsOf == nil {
		return p, nil
	}
	g.asking.Lock()
	p.spec, p.wanted = g.cfg.PortsOf(vc)
	g.asking.Unlock()
	if _, open := g.port(p.vc); !p.wanted || open {
		return p, nil
	}
	if err := g.listener.Add(p.spec); err != nil {
		return p, vc.Metadata.Problem("", "%v", err)
	}
	p.opened = true
	return p, nil
}

// abandon closes what was opened.
func (p *portChange) abandon(g *gateway) {
	if p.opened {
		g.listener.Remove(p.spec.Name)
	}
}

// commit opens a listener that was changed anew.
func (p *portChange) commit(g *gateway) {
	old, open := g.port(p.vc)
	switch {
	case !p.wanted:
		g.closePort(p.vc)
		return
	case open && reflect.DeepEqual(old, p.spec):
		return
	case open:
		g.listener.Remove(old.Name)
		if err := g.listener.Add(p.spec); err != nil {
			g.cfg.Log.Error("listener not opened", "virtual_cluster", p.vc, "err", fmt.Errorf("reopen: %w", err))
			g.setPort(p.vc, nil) // tried again with the next change
			return
		}
	}
	g.setPort(p.vc, &p.spec)
}

// closePort closes the listener of a virtual cluster that has none any more.
func (g *gateway) closePort(vc string) {
	if old, open := g.port(vc); open {
		g.listener.Remove(old.Name)
		g.setPort(vc, nil)
	}
}

func (g *gateway) port(vc string) (listener.Spec, bool) {
	g.mu.RLock()
	defer g.mu.RUnlock()
	spec, open := g.ports[vc]
	return spec, open
}

func (g *gateway) setPort(vc string, spec *listener.Spec) {
	g.mu.Lock()
	defer g.mu.Unlock()
	if spec == nil {
		delete(g.ports, vc)
		return
	}
	g.ports[vc] = *spec
}

// hasPort reports whether a virtual cluster has a listener of its own. g.mu is held.
func (g *gateway) hasPort(vc string) bool {
	_, open := g.ports[vc]
	return open || slices.ContainsFunc(g.cfg.Listeners, func(s listener.Spec) bool { return s.VirtualCluster == vc })
}

// portListeners are all listeners by port.
func (g *gateway) portListeners() (specs []listener.Spec) {
	for _, spec := range g.cfg.Listeners {
		if spec.Routing == listener.ByPort {
			specs = append(specs, spec)
		}
	}
	g.mu.RLock()
	defer g.mu.RUnlock()
	for _, spec := range g.ports {
		specs = append(specs, spec)
	}
	return specs
}
