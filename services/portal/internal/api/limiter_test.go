package api

import (
	"strconv"
	"testing"
	"time"
)

func TestLimiter(t *testing.T) {
	now := time.Unix(1_000_000, 0)
	l := newLimiter(func() time.Time { return now })
	for i := range freeFailures {
		if wait := l.failed("a"); wait != 0 {
			t.Fatalf("failure %d: wait %v, want none", i, wait)
		}
	}
	if wait := l.failed("a"); wait != failureReturn {
		t.Errorf("wait %v, want %v", wait, failureReturn)
	}
	if wait := l.failed("b"); wait != 0 {
		t.Errorf("another address: wait %v, want none", wait)
	}
	now = now.Add(failureReturn)
	if wait := l.failed("a"); wait != 0 {
		t.Errorf("after the wait: %v, want none", wait)
	}
	if wait := l.failed("a"); wait == 0 {
		t.Error("one more: no wait, want one")
	}
	for i := range 3 * maxAddresses {
		l.failed(strconv.Itoa(i))
	}
	if len(l.blocked) > maxAddresses+1 {
		t.Errorf("%d addresses are kept, want at most %d", len(l.blocked), maxAddresses)
	}
}

func TestNoTenantFollowsForAll(t *testing.T) {
	f := &followers{of: make(map[string]int)}
	for range streamsOfTenant {
		if !f.enter("acme") {
			t.Fatal("no room for what one tenant may have")
		}
	}
	if f.enter("acme") {
		t.Error("a tenant has more than its part")
	}
	if !f.enter("globex") || !f.enter("") {
		t.Error("one tenant left no room for others")
	}
	f.leave("acme")
	if !f.enter("acme") {
		t.Error("what was given back is not there")
	}
	for f.enter("") {
	}
	if f.all != streamsAtMax || f.enter("hooli") {
		t.Errorf("%d follow, want %d at most", f.all, streamsAtMax)
	}
	for tenant, n := range map[string]int{"acme": f.of["acme"], "globex": f.of["globex"], "": f.of[""]} {
		for range n {
			f.leave(tenant)
		}
	}
	if f.all != 0 || len(f.of) != 0 {
		t.Errorf("after all %d are left: %v", f.all, f.of)
	}
}
