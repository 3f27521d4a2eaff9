package view

import (
	"context"
	"sync"

	"tollgate.internal/services/proxy/internal/quota"
)

// accounts are the quotas of the service accounts that somebody has logged in as.
type accounts struct {
	mu     sync.Mutex
	now    *View // whose limits are in force
	byName map[string]*quota.Quotas
}

// limit puts the limits of a view in force.
func (vc *VirtualCluster) limit(v *View) {
	q := v.Spec.Quotas
	vc.Quotas.Set(quota.Limits{
		Produce: q.ProduceBytesPerSecond, Fetch: q.FetchBytesPerSecond, Requests: q.RequestsPerSecond,
		Connects: q.ConnectionsPerSecond, Connections: int64(q.Connections),
	})
	a := &vc.accounts
	a.mu.Lock()
	defer a.mu.Unlock()
	a.now = v
	for name, q := range a.byName {
		q.Set(v.accountLimits(name))
		if _, ok := v.Accounts[name]; !ok {
			delete(a.byName, name)
		}
	}
}

func (v *View) accountLimits(name string) quota.Limits {
	q := v.Accounts[name]
	return quota.Limits{
		Produce: q.ProduceBytesPerSecond, Fetch: q.FetchBytesPerSecond, Requests: q.RequestsPerSecond,
		Connects: q.ConnectionsPerSecond, Connections: int64(q.Connections),
	}
}

// Account are the quotas of a service account, the same ones as long as it is there;
// nil: there is no such account.
func (vc *VirtualCluster) Account(name string) *quota.Quotas {
	a := &vc.accounts
	a.mu.Lock()
	defer a.mu.Unlock()
	if _, ok := a.now.Accounts[name]; !ok {
		return nil
	}
	q := a.byName[name]
	if q == nil {
		if a.byName == nil {
			a.byName = make(map[string]*quota.Quotas)
		}
		q = quota.New("account:"+vc.Name+":"+name, vc.fleet)
		q.Set(a.now.accountLimits(name))
		a.byName[name] = q
	}
	return q
}

// A Turn is had by one at a time.
type Turn chan struct{}

// NewTurn is free.
func NewTurn() Turn { return make(Turn, 1) }

// Take waits for the turn. An error is the end of ctx.
func (t Turn) Take(ctx context.Context) (done func(), err error) {
	select {
	case t <- struct{}{}:
		return func() { <-t }, nil
	case <-ctx.Done():
		return nil, context.Cause(ctx)
	}
}
