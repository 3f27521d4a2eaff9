package proxy

import (
	"errors"
	"sync"

	"tollgate.internal/pkg/resource"
	"tollgate.internal/services/proxy/internal/policy"
)

// common are the policies of all virtual clusters, as a control plane says them. Nobody is
// served before they are known.
type common struct {
	// RWMutex guards those below. It is held for reading from when a virtual cluster is
	// compiled until it is served, so that whoever changes them finds it. Behind it comes
	// gateway.mu.
	sync.RWMutex
	policies *policy.Common
	revision applied
	known    bool

	changing sync.Mutex // one change after the other; before all other locks
}

var errNoPolicies = errors.New("the policies of all virtual clusters are not known yet")

// PutPolicies puts the policies of all virtual clusters into service: under every session,
// whatever its virtual cluster is, by the time it returns. One that cannot be read refuses
// the change.
func (g *gateway) PutPolicies(policies []*resource.Policy, revision int64) error {
	g.common.changing.Lock()
	defer g.common.changing.Unlock()
	compiled, err := policy.NewCommon(policies)
	g.common.Lock()
	due, older := g.common.revision.follows(revision, false, g.common.known)
	if older == nil && err == nil && due {
		g.common.policies, g.common.revision, g.common.known = compiled, applied{revision: revision}, true
	}
	g.common.Unlock()
	if err := errors.Join(older, err); err != nil || !due {
		return err
	}
	for name := range g.loaded() {
		g.renewPolicies(name)
	}
	return nil
}

// renewPolicies puts the policies of all virtual clusters under the sessions of one.
func (g *gateway) renewPolicies(name string) {
	defer g.changing.lock(name)()
	sv := g.find(name)
	if sv == nil {
		return
	}
	g.common.RLock()
	defer g.common.RUnlock()
	was := sv.vc.View()
	if v := was.Under(sv.set, g.common.policies); v != was {
		sv.vc.Swap(v, sv.byName())
	}
}
