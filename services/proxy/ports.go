package proxy

import (
	"errors"
	"fmt"
	"maps"
	"reflect"
	"slices"

	"tollgate.internal/pkg/resource"
	"tollgate.internal/services/proxy/internal/listener"
)

// portChanges are the listeners by port that a set of resources asks for, see
// Config.PortsOf. New ones are open before the set is in service, and refuse
// clients until it is.
type portChanges struct {
	wanted  map[string]listener.Spec // by virtual cluster
	opened  []string                 // names of new listeners
	changed []string                 // virtual clusters whose listener is another now
}

func (g *gateway) openPorts(set *resource.Set) (*portChanges, error) {
	p := &portChanges{wanted: make(map[string]listener.Spec)}
	if g.cfg.PortsOf == nil {
		return p, nil
	}
	var errs []error
	for _, name := range slices.Sorted(maps.Keys(set.VirtualClusters)) {
		vc := set.VirtualClusters[name]
		spec, ok := g.cfg.PortsOf(vc)
		if !ok {
			continue
		}
		p.wanted[name] = spec
		switch old, open := g.ports[name]; {
		case !open:
			if err := g.listener.Add(spec); err != nil {
				errs = append(errs, vc.Metadata.Problem("", "%v", err))
				continue
			}
			p.opened = append(p.opened, spec.Name)
		case !reflect.DeepEqual(old, spec):
			p.changed = append(p.changed, name)
		}
	}
	return p, errors.Join(errs...)
}

// abandon closes what was opened.
func (p *portChanges) abandon(g *gateway) {
	for _, name := range p.opened {
		g.listener.Remove(name)
	}
}

// commit closes the listeners of virtual clusters that are gone, and opens those
// that were changed anew.
func (p *portChanges) commit(g *gateway) {
	for name, old := range g.ports {
		if _, stays := p.wanted[name]; !stays {
			g.listener.Remove(old.Name)
		}
	}
	for _, name := range p.changed {
		g.listener.Remove(g.ports[name].Name)
		if err := g.listener.Add(p.wanted[name]); err != nil {
			g.cfg.Log.Error("listener not opened", "virtual_cluster", name, "err", fmt.Errorf("reopen: %w", err))
			delete(p.wanted, name) // tried again with the next change
		}
	}
	g.ports = p.wanted
}

// portListeners are all listeners by port.
func (g *gateway) portListeners() (specs []listener.Spec) {
	for _, spec := range g.cfg.Listeners {
		if spec.Routing == listener.ByPort {
			specs = append(specs, spec)
		}
	}
	g.mu.Lock()
	defer g.mu.Unlock()
	for _, spec := range g.ports {
		specs = append(specs, spec)
	}
	return specs
}
