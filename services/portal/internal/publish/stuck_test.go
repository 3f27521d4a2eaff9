package publish

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync/atomic"
	"testing"

	"tollgate.internal/pkg/bundle"
	"tollgate.internal/services/portal/internal/control"
)

// spoilt is a store of which one bundle cannot be made.
type spoilt struct {
	*control.Control
	name atomic.Value // of the virtual cluster
}

func (s *spoilt) Compile(ctx context.Context, id bundle.ID) (*bundle.Bundle, error) {
	if id.Kind == bundle.VirtualCluster && id.Name == s.name.Load() {
		return nil, errors.New("its row is rubbish")
	}
	return s.Control.Compile(ctx, id)
}

// One tenant's bundle that cannot be made keeps nobody else's changes back: not when it is
// to be published, and not when everything is.
func TestABundleThatCannotBeMadeHoldsUpNobody(t *testing.T) {
	b := newBed(t)
	s := &spoilt{Control: b.Control}
	s.name.Store("")
	l, _ := b.publishFrom(s, b.board())
	labelled := func(name, label string) string {
		return fmt.Sprintf("{apiVersion: tollgate/v1, kind: VirtualCluster, metadata: {name: %s, tenant: acme, labels: {is: %s}}, spec: {type: standard, host: %[1]s, home: main, authentication: {plain: {}}}}\n", name, label)
	}
	label := func(name string) string {
		got := b.bundle(bundle.VirtualCluster, name)
		if got == nil {
			return "nothing"
		}
		return got.Set().VirtualClusters[name].Metadata.Labels["is"]
	}
	b.put(acme)
	b.head(l, b.put(labelled("shop", "first")+"---\n"+labelled("till", "first")))

	s.name.Store("shop")
	spoilt := b.put(labelled("shop", "second"))
	last := b.put(labelled("till", "second"))
	b.head(l, last)
	until(t, l, patience, "the status has it", func() bool { return len(l.Status().Stuck) == 1 && l.Status().Revision == last })
	status := l.Status()
	if shop, till := label("shop"), label("till"); shop != "first" || till != "second" {
		t.Errorf("shop is %s, till %s", shop, till)
	}
	if !status.Lacks(spoilt) || status.Lacks(last) || !status.Lacks(last+1) {
		t.Errorf("lacking: %v, %v; %+v", status.Lacks(spoilt), status.Lacks(last), status)
	}
	if err := status.Problem(); err == nil || !strings.Contains(err.Error(), "shop") || !strings.Contains(err.Error(), "its row is rubbish") {
		t.Errorf("problem: %v", err)
	}

	// An old copy of Redis, which lacks a change behind the one that is stuck.
	old := b.copy()
	last = b.put(labelled("till", "third"))
	b.head(l, last)
	b.goBack(old)
	b.head(l, last)
	if shop, till := label("shop"), label("till"); shop != "first" || till != "third" {
		t.Errorf("Redis is an old copy: shop is %s, till %s", shop, till)
	}
	b.redis.FlushAll()
	b.head(l, last)
	if shop, till := label("shop"), label("till"); shop != "nothing" || till != "third" {
		t.Errorf("Redis was emptied: shop is %s, till %s", shop, till)
	}

	// Another portal can.
	b.publish()
	until(t, l, patience, "it is published by the other", func() bool { return label("shop") == "second" })
	until(t, l, patience, "nothing is wrong any more", func() bool { return l.Status().Problem() == nil && !l.Status().Lacks(last) })
}

// One that could not be made for a while is published when it can.
func TestWhatIsStuckIsTriedAgain(t *testing.T) {
	b := newBed(t)
	s := &spoilt{Control: b.Control}
	s.name.Store("shop")
	l, _ := b.publishFrom(s, b.board())
	last := b.put(acme)
	until(t, l, patience, "it is stuck", func() bool { return l.Status().Lacks(last) && len(l.Status().Stuck) == 1 })
	s.name.Store("")
	until(t, l, patience, "nothing is wrong any more", func() bool { return l.Status().Problem() == nil && !l.Status().Lacks(last) })
	if b.bundle(bundle.VirtualCluster, "shop") == nil {
		t.Error("it is not there")
	}
	// Nor is it lost when Redis loses it meanwhile.
	s.name.Store("shop")
	b.redis.FlushAll()
	until(t, l, patience, "it is stuck", func() bool { return len(l.Status().Stuck) == 1 })
	s.name.Store("")
	until(t, l, patience, "it is there again", func() bool { return l.Status().Problem() == nil && b.bundle(bundle.VirtualCluster, "shop") != nil })
}
