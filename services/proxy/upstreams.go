package proxy

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"reflect"
	"slices"
	"time"

	"tollgate.internal/pkg/credential"
	"tollgate.internal/pkg/resource"
	"tollgate.internal/services/proxy/internal/refusal"
	"tollgate.internal/services/proxy/internal/upstream"
)

// runningCluster is an upstream cluster as it was configured last. Virtual clusters may
// use it before its document is there: it is then one that does not answer.
type runningCluster struct {
	cluster *upstream.Cluster
	there   chan struct{} // closed when the document has come

	// Guarded by gateway.mu, and changed under gateway.reaching.
	resource   *resource.UpstreamCluster // nil: it has not come
	credential *credential.Credential
	problem    error // why the files are not as they are in use
	removed    bool  // the document has gone again

	users int // virtual clusters; guarded by gateway.mu
}

// opened is what an upstream cluster is to be reached by, not yet in service.
type opened struct {
	resource   *resource.UpstreamCluster
	credential *credential.Credential // nil: as before
	problem    error
}

// open makes ready what a document says.
//
// Files that cannot be read refuse a change that names them. Those of a cluster that is
// as it was do not, nor does a cluster that is new keep a gateway from starting, or
// others from being served.
func (g *gateway) open(u *resource.UpstreamCluster, tolerant bool) (*opened, error) {
	g.mu.RLock()
	old := g.clusters[u.Metadata.Name]
	same := old != nil && old.resource != nil && reflect.DeepEqual(old.resource.Spec, u.Spec) && old.resource.Metadata.BaseDir() == u.Metadata.BaseDir()
	g.mu.RUnlock()
	o := &opened{resource: u}
	if same {
		return o, nil
	}
	if o.credential, o.problem = g.credentials.Open(u); o.problem != nil && !tolerant {
		o.credential.Close()
		return nil, o.problem
	}
	return o, nil
}

// abandon gives up what was opened.
func (o *opened) abandon() {
	if o.credential != nil {
		o.credential.Close()
	}
}

// install puts what was opened into service. A cluster is the one of its name, whatever
// is changed about how it is reached: its sessions go on. g.reaching is held.
func (g *gateway) install(o *opened) {
	name := o.resource.Metadata.Name
	g.mu.Lock()
	c := g.clusters[name]
	made := c == nil
	if made {
		c = &runningCluster{there: make(chan struct{})}
		c.cluster = upstream.New(upstream.Config{
			Name: name, Bootstrap: o.resource.Spec.Bootstrap, TLS: o.credential.TLS, SASL: o.credential.SASL,
			Log: g.cfg.Log, Dial: g.cfg.Dial,
		})
		g.clusters[name] = c
	}
	first := c.resource == nil
	c.resource, c.removed = o.resource, false
	former := c.credential
	if o.credential != nil {
		c.credential, c.problem = o.credential, o.problem
	}
	g.mu.Unlock()
	if !made && o.credential != nil {
		c.cluster.Reconfigure(o.resource.Spec.Bootstrap, o.credential.TLS, o.credential.SASL)
	}
	if first {
		close(c.there)
	}
	if o.credential == nil {
		return
	}
	if former != nil {
		former.Close()
	}
	g.warn(c)
	if o.problem != nil {
		g.unusable(name, o.problem, "upstream credential cannot be used")
	}
}

// PutUpstream says how an upstream cluster is reached.
func (g *gateway) PutUpstream(u *resource.UpstreamCluster, revision int64) error {
	g.reaching.Lock()
	defer g.reaching.Unlock()
	name := u.Metadata.Name
	g.mu.Lock()
	c := g.clusters[name]
	due, err := g.upstreamRevisions[name].follows(revision, false, c != nil && c.resource != nil)
	ended := g.ended
	if c != nil { // it may be about to go with the last who uses it
		c.users++
		defer g.unuse([]*runningCluster{c})
	}
	g.mu.Unlock()
	switch {
	case ended:
		return errEnded
	case err != nil || !due:
		return err
	}
	o, err := g.open(u, c == nil || c.resource == nil)
	if err != nil {
		return err
	}
	g.install(o)
	g.mu.Lock()
	g.upstreamRevisions[name] = applied{revision: revision}
	g.mu.Unlock()
	return nil
}

// RemoveUpstream forgets an upstream cluster when nobody uses it any more.
func (g *gateway) RemoveUpstream(name string, revision int64) error {
	g.reaching.Lock()
	defer g.reaching.Unlock()
	g.mu.RLock()
	c := g.clusters[name]
	due, err := g.upstreamRevisions[name].follows(revision, true, c != nil)
	g.mu.RUnlock()
	if err != nil || !due {
		return err
	}
	g.mu.Lock()
	g.upstreamRevisions[name] = applied{revision: revision, removed: true}
	g.mu.Unlock()
	g.forgetUpstream(name)
	return nil
}

// forgetUpstream closes a cluster, at once or when the last virtual cluster that uses it
// has gone.
func (g *gateway) forgetUpstream(name string) {
	g.mu.Lock()
	c := g.clusters[name]
	if c != nil {
		c.removed = true
		c.users++ // for unuse
	}
	g.mu.Unlock()
	if c != nil {
		g.unuse([]*runningCluster{c})
	}
}

// use has clusters kept for one more virtual cluster. Those whose documents are missing
// are asked for.
func (g *gateway) use(names []string) []*runningCluster {
	clusters := make([]*runningCluster, 0, len(names))
	g.mu.Lock()
	defer g.mu.Unlock()
	for _, name := range names {
		c := g.clusters[name]
		if c == nil {
			c = &runningCluster{there: make(chan struct{})}
			c.cluster = upstream.New(upstream.Config{Name: name, Log: g.cfg.Log, Dial: g.cfg.Dial})
			g.clusters[name] = c
			if !g.ended && g.cfg.source != nil {
				g.background.Go(func() { g.bring(c) })
			}
		}
		c.users++
		clusters = append(clusters, c)
	}
	return clusters
}

// unuse undoes use, and closes clusters that are of no more use.
func (g *gateway) unuse(clusters []*runningCluster) {
	var last []*runningCluster
	g.mu.Lock()
	for _, c := range clusters {
		if c.users--; c.users == 0 && (c.removed || c.resource == nil) {
			delete(g.clusters, c.cluster.Name())
			last = append(last, c)
		}
	}
	g.mu.Unlock()
	for _, c := range last {
		c.cluster.Close()
		if c.credential != nil {
			c.credential.Close()
		}
	}
}

// askAgain is how often a document is asked for that is missing.
const askAgain = time.Second

// bring asks for the document of a cluster until it is there or nobody needs it.
func (g *gateway) bring(c *runningCluster) {
	name := c.cluster.Name()
	for first := true; ; first = false {
		ctx, cancel := context.WithTimeout(g.life, loadLimit)
		err := g.cfg.source.Upstream(ctx, name)
		cancel()
		again := time.NewTimer(askAgain)
		select {
		case <-c.there:
			again.Stop()
			return
		case <-g.life.Done():
			again.Stop()
			return
		case <-again.C:
		}
		g.mu.RLock()
		needed := g.clusters[name] == c
		g.mu.RUnlock()
		if !needed {
			return
		}
		if first {
			g.cfg.Log.Warn("upstream cluster is not known yet", "cluster", name, "err", err)
		}
	}
}

func (g *gateway) warn(c *runningCluster) {
	for _, w := range c.credential.Warnings {
		g.cfg.Log.Warn("upstream credential is not safe on its way", "cluster", c.cluster.Name(), "warning", w)
	}
}

func (g *gateway) unusable(cluster string, problem error, text string) {
	refusal.Log(context.Background(), g.cfg.Log, slog.LevelError, text, refusal.CredentialUnusable.With(problem), "cluster", cluster)
}

// reread looks at the files that the clusters' credentials were made of, wherever they
// are, and has new connections made with what is in them now. What cannot be used is
// reported, and the last that could be stays.
func (g *gateway) reread() {
	g.reaching.Lock()
	defer g.reaching.Unlock()
	g.mu.RLock()
	clusters := maps.Clone(g.clusters)
	g.mu.RUnlock()
	for _, name := range slices.Sorted(maps.Keys(clusters)) {
		c := clusters[name]
		if c.resource == nil || !c.credential.Changed() {
			continue
		}
		next, err := g.credentials.Open(c.resource)
		old := c.credential
		known := c.problem != nil && err != nil && c.problem.Error() == err.Error()
		keep := next.Same(old) || err != nil && old.Usable()
		g.mu.Lock()
		gone := g.clusters[name] != c
		if !gone {
			c.problem = err
			if !keep {
				c.credential = next
			}
		}
		g.mu.Unlock()
		switch {
		case gone:
			next.Close()
			continue
		case keep:
			old.Follow(next)
			next.Close()
		default:
			c.cluster.Reconfigure(c.resource.Spec.Bootstrap, next.TLS, next.SASL)
			old.Close()
		}
		switch {
		case err != nil && !known && keep:
			g.unusable(name, err, "upstream credential cannot be used, the one before serves on")
		case err != nil && !known:
			g.unusable(name, err, "upstream credential cannot be used")
		case err == nil && !keep:
			g.cfg.Log.Info("upstream credential replaced", "cluster", name)
			g.warn(c)
		}
	}
}

// credentialProblems are, by cluster, documents that are missing, files that cannot be
// used and logins that failed. g.mu is held.
func (g *gateway) credentialProblems() map[string]error {
	problems := make(map[string]error)
	for name, c := range g.clusters {
		var errs []error
		if c.resource == nil {
			errs = append(errs, fmt.Errorf("cluster %s: its UpstreamCluster has not come from the control plane", name))
		}
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

// upstreams are the names of the upstream clusters.
func (g *gateway) upstreams() []string {
	g.mu.RLock()
	defer g.mu.RUnlock()
	return slices.Sorted(maps.Keys(g.clusters))
}
