package proxy

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"reflect"
	"slices"

	"tollgate.internal/pkg/resource"
	"tollgate.internal/services/proxy/internal/credential"
	"tollgate.internal/services/proxy/internal/refusal"
	"tollgate.internal/services/proxy/internal/upstream"
)

// runningCluster is an upstream cluster as it was configured last.
type runningCluster struct {
	resource   *resource.UpstreamCluster
	cluster    *upstream.Cluster
	credential *credential.Credential
	problem    error // why the files are not as they are in use; guarded by gateway.mu
}

// reached are the upstream clusters of a set of resources, not yet in service.
type reached struct {
	clusters map[string]*runningCluster
	fresh    []*runningCluster // made for this; of a cluster that is in service, or of one that was started
	started  []*upstream.Cluster
}

// reach finds or starts the clusters of a set. A cluster is the one of its name,
// whatever is changed about how it is reached: its sessions go on.
//
// Files that cannot be read refuse a change of the resources that names them. Those of
// a cluster that is as it was do not, nor does one cluster keep a gateway from starting.
func (g *gateway) reach(set *resource.Set) (*reached, error) {
	r := &reached{clusters: make(map[string]*runningCluster)}
	var errs []error
	starting := g.serving.Load() == nil
	for _, name := range slices.Sorted(maps.Keys(set.UpstreamClusters)) {
		u := set.UpstreamClusters[name]
		old := g.clusters[name]
		if old != nil && reflect.DeepEqual(old.resource.Spec, u.Spec) && old.resource.Metadata.BaseDir() == u.Metadata.BaseDir() {
			r.clusters[name] = old
			continue
		}
		next := &runningCluster{resource: u}
		next.credential, next.problem = g.credentials.Open(u)
		if next.problem != nil && !starting {
			errs = append(errs, next.problem)
			next.credential.Close()
			continue
		}
		if old != nil {
			next.cluster = old.cluster
		} else {
			next.cluster = upstream.New(upstream.Config{
				Name: name, Bootstrap: u.Spec.Bootstrap, TLS: next.credential.TLS, SASL: next.credential.SASL,
				Log: g.cfg.Log, Dial: g.cfg.Dial,
			})
			r.started = append(r.started, next.cluster)
		}
		r.clusters[name] = next
		r.fresh = append(r.fresh, next)
	}
	return r, errors.Join(errs...)
}

// abandon ends what was started.
func (r *reached) abandon() {
	for _, c := range r.fresh {
		c.credential.Close()
	}
	for _, c := range r.started {
		c.Close()
	}
}

// commit puts the clusters into service, and returns those that are no longer.
func (r *reached) commit(g *gateway) (unused []*upstream.Cluster) {
	for _, next := range r.fresh {
		name := next.resource.Metadata.Name
		if old := g.clusters[name]; old != nil {
			next.use()
			old.credential.Close()
		}
		g.warn(next)
		if next.problem != nil {
			g.unusable(next, "upstream credential cannot be used")
		}
	}
	for name, old := range g.clusters {
		if r.clusters[name] == nil {
			unused = append(unused, old.cluster)
			old.credential.Close()
		}
	}
	g.clusters = r.clusters
	return unused
}

// use has new connections made with the credential.
func (c *runningCluster) use() {
	c.cluster.Reconfigure(c.resource.Spec.Bootstrap, c.credential.TLS, c.credential.SASL)
}

func (g *gateway) warn(c *runningCluster) {
	for _, w := range c.credential.Warnings {
		g.cfg.Log.Warn("upstream credential is not safe on its way", "cluster", c.resource.Metadata.Name, "warning", w)
	}
}

func (g *gateway) unusable(c *runningCluster, text string) {
	refusal.Log(context.Background(), g.cfg.Log, slog.LevelError, text, refusal.CredentialUnusable.With(c.problem), "cluster", c.resource.Metadata.Name)
}

// reread looks at the files that the clusters' credentials were made of, wherever they
// are, and has new connections made with what is in them now. What cannot be used is
// reported, and the last that could be stays.
//
// It is called by the goroutine that applies resources.
func (g *gateway) reread() {
	g.mu.Lock()
	clusters := maps.Clone(g.clusters)
	g.mu.Unlock()
	for _, name := range slices.Sorted(maps.Keys(clusters)) {
		c := clusters[name]
		if !c.credential.Changed() {
			continue
		}
		next, err := g.credentials.Open(c.resource)
		old := c.credential
		known := c.problem != nil && err != nil && c.problem.Error() == err.Error()
		keep := next.Same(old) || err != nil && old.Usable()
		g.mu.Lock()
		c.problem = err
		if !keep {
			c.credential = next
		}
		g.mu.Unlock()
		switch {
		case keep:
			old.Follow(next)
			next.Close()
		default:
			c.use()
			old.Close()
		}
		switch {
		case err != nil && !known && keep:
			g.unusable(c, "upstream credential cannot be used, the one before serves on")
		case err != nil && !known:
			g.unusable(c, "upstream credential cannot be used")
		case err == nil && !keep:
			g.cfg.Log.Info("upstream credential replaced", "cluster", name)
			g.warn(c)
		}
	}
}

// credentialProblems are, by cluster, files that cannot be used and logins that failed.
// g.mu is held.
func (g *gateway) credentialProblems() map[string]error {
	problems := make(map[string]error)
	for name, c := range g.clusters {
		var errs []error
		if c.problem != nil {
			errs = append(errs, fmt.Errorf("cluster %s: credential cannot be used: %w", name, c.problem))
		}
		if _, err := c.cluster.Logins(); err != nil {
			errs = append(errs, fmt.Errorf("cluster %s: %w", name, err))
		}
		if len(errs) > 0 {
			problems[name] = errors.Join(errs...)
		}
	}
	return problems
}
