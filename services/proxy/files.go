package proxy

import (
	"errors"
	"maps"
	"slices"
	"strings"

	"tollgate.internal/pkg/resource"
	"tollgate.internal/services/proxy/internal/listener"
	"tollgate.internal/services/proxy/internal/policy"
)

// files are a directory of resource files that is served whole: a change of them takes
// effect in all its parts, or in none.
type files struct {
	dir  string
	seen uint64 // [resource.Signature] of those that were loaded last
}

// load reads the directory.
func (f *files) load() (*resource.Set, error) {
	f.seen = resource.Signature(f.dir) // before: what changes while it loads is loaded again
	return resource.LoadDir(f.dir)
}

// follow loads the files again if they changed. It keeps the old resources, and says
// why, when there is a mistake in the new ones.
func (f *files) follow(g *gateway) {
	if resource.Signature(f.dir) == f.seen {
		return
	}
	set, err := f.load()
	if err == nil {
		err = g.apply(set)
	}
	if err != nil {
		g.problem.Store(&err)
		g.counts.reloads.Add(1)
		g.cfg.Log.Error("resources not applied, the previous ones stay in service", "err", err)
		return
	}
	g.problem.Store(nil)
	g.cfg.Log.Info("resources applied", "virtual_clusters", len(set.VirtualClusters))
	if g.cfg.Applied != nil {
		g.cfg.Applied(set)
	}
}

// apply puts a whole set of resources into service in place of the one before, or
// reports why it cannot and changes nothing. Nobody else changes what is served.
func (g *gateway) apply(set *resource.Set) error {
	starting := len(g.upstreams()) == 0
	var errs []error
	var reached []*opened
	for _, name := range slices.Sorted(maps.Keys(set.UpstreamClusters)) {
		o, err := g.open(set.UpstreamClusters[name], starting)
		if err != nil {
			errs = append(errs, err)
			continue
		}
		reached = append(reached, o)
	}
	common, err := policy.NewCommon(set.PoliciesOf(""))
	if err != nil {
		errs = append(errs, err)
	}
	var changes []*change
	var hosts []listener.Hosts
	for _, name := range slices.Sorted(maps.Keys(set.VirtualClusters)) {
		c, err := g.prepare(set, name, common, 0)
		if err != nil {
			errs = append(errs, err)
		}
		if c != nil {
			changes = append(changes, c)
			hosts = append(hosts, c.hosts)
		}
	}
	if err := g.names.Check(hosts...); err != nil {
		errs = append(errs, err)
	}
	if len(errs) > 0 {
		for _, o := range reached {
			o.abandon()
		}
		for _, c := range changes {
			c.port.abandon(g)
		}
		slices.SortFunc(errs, func(a, b error) int { return strings.Compare(a.Error(), b.Error()) })
		return errors.Join(errs...)
	}
	g.reaching.Lock()
	for _, o := range reached {
		g.install(o)
	}
	g.reaching.Unlock()
	for _, c := range changes {
		unlock := g.changing.lock(c.view.Name)
		g.commit(c)
		unlock()
	}
	g.names.Put(hosts...)
	for name := range g.loaded() {
		if set.VirtualClusters[name] == nil {
			unlock := g.changing.lock(name)
			g.drop(name, errMoved)
			unlock()
		}
	}
	for _, name := range g.upstreams() {
		if set.UpstreamClusters[name] == nil {
			g.forgetUpstream(name)
		}
	}
	return nil
}
