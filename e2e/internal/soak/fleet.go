package soak

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"strings"
	"testing"
	"time"

	"tollgate.internal/e2e/internal/load"
	bed "tollgate.internal/e2e/internal/site"
	"tollgate.internal/e2e/internal/tb"
)

// A Fleet is nodes that follow a portal through a real Redis.
type Fleet struct {
	*bed.Site
	t       testing.TB
	changes int
}

// fleetNodes is how many nodes a fleet has.
const fleetNodes = 3

// drainOver is the time that a drain is spread over.
const drainOver = 2 * time.Second

// StartFleet starts one.
func StartFleet(t testing.TB) *Fleet {
	t.Helper()
	return &Fleet{Site: bed.Start(t, bed.Options{Nodes: fleetNodes, Flags: []string{"--drain-grace", "500ms", "--drain-timeout", "10s"}}), t: t}
}

// must does what may give the test up.
func (f *Fleet) must(do func(t testing.TB)) error {
	return tb.Try(f.t, func() error { do(f.t); return nil })
}

// useFleet tells the portal of what there is, and has clients go through its nodes.
func (s *soak) useFleet(context.Context) error {
	f := s.options.Fleet
	err := f.must(func(t testing.TB) {
		f.Apply(t, s.resources())
		f.Secret(t, cluster, user, password)
	})
	if err != nil {
		return err
	}
	s.target = f.Target(label, "SCRAM-SHA-512", user, password)
	host, _, _ := strings.Cut(s.target.Bootstrap, ":")
	for _, name := range s.brokerHosts(host) {
		s.target.Hosts[name] = s.target.Hosts[host]
	}
	for _, n := range f.Nodes {
		s.nodes = append(s.nodes, fleetNode{f, n})
	}
	return nil
}

// A fleetNode is a node of a fleet.
type fleetNode struct {
	fleet *Fleet
	node  *bed.Node
}

func (n fleetNode) String() string  { return n.node.Name }
func (n fleetNode) logFile() string { return n.node.Log }

func (n fleetNode) start(context.Context) error {
	return n.fleet.must(func(t testing.TB) { n.node.Launch(t) })
}
func (n fleetNode) kill() error { return n.fleet.must(func(t testing.TB) { n.node.Kill(t) }) }

func (n fleetNode) check() error {
	if !n.node.Runs() {
		return fmt.Errorf("%v ended", n)
	}
	return nil
}

// breakFleet is [soak.breakIt] for what only a fleet has.
func (s *soak) breakFleet(ctx context.Context, f fault) error {
	fleet := s.options.Fleet
	try := func(do func(t testing.TB)) error { return fleet.must(do) }
	lasting := func(begin, end func(t testing.TB)) error {
		if err := try(begin); err != nil {
			return err
		}
		err := pause(ctx, f.length)
		return errors.Join(try(end), err)
	}
	switch f.kind {
	case flushRedis:
		return fleet.Redis.Client().FlushAll(ctx).Err()
	case killRedis:
		return lasting(fleet.Redis.Kill, fleet.Redis.Launch)
	case freezeRedis:
		return lasting(fleet.Redis.Freeze, fleet.Redis.Thaw)
	case killPortal:
		return lasting(fleet.Portals[0].Kill, fleet.Portals[0].Launch)
	}
	return s.drain(ctx, f)
}

// drain moves the clients off a node, and lets it take clients again.
func (s *soak) drain(ctx context.Context, f fault) error {
	fleet := s.options.Fleet
	node := fleet.Nodes[f.node]
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	command := func(path, body string) error {
		var refused error
		err := load.Wait(ctx, func() error {
			a, err := fleet.Do(ctx, http.MethodPost, "/v1/nodes/"+node.Name+path, body)
			if err != nil || a.Status < 300 {
				return err
			}
			err = fmt.Errorf("%s of %s: %d %s", path, node.Name, a.Status, a.Body)
			if a.Status == http.StatusNotFound {
				return err // Redis has just forgotten it: the next heartbeat tells of it
			}
			refused = err
			return nil
		})
		return errors.Join(err, refused)
	}
	if err := command("/drain", fmt.Sprintf(`{"over": %q}`, drainOver)); err != nil {
		return err
	}
	if err := load.Wait(ctx, func() error {
		if n, err := node.Sessions(ctx); err != nil || n > 0 {
			return fmt.Errorf("%s still has %d sessions: %w", node.Name, n, err)
		}
		return nil
	}); err != nil {
		return err
	}
	s.event("%s has no sessions", node.Name)
	if err := pause(ctx, f.length); err != nil {
		return err
	}
	if err := command("/undrain", ""); err != nil {
		return err
	}
	return load.Wait(ctx, func() error {
		if !node.Ready(ctx) {
			return fmt.Errorf("%s is not ready again", node.Name)
		}
		return nil
	})
}

// change changes the virtual cluster, which has to arrive at every node.
func (s *soak) change(ctx context.Context) error {
	fleet := s.options.Fleet
	fleet.changes++
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	document := fmt.Sprintf("{apiVersion: tollgate/v1, kind: ServiceAccount, metadata: {name: changed, virtualCluster: %s, labels: {round: \"%d\"}}, spec: {type: local}}\n", cluster, fleet.changes)
	return load.Wait(ctx, func() error {
		a, err := fleet.Do(ctx, http.MethodPost, "/v1/apply?wait=applied&timeout=10s", document)
		if err == nil && a.Status != http.StatusOK {
			err = fmt.Errorf("change %d: %d, applied: %s\n%s", fleet.changes, a.Status, a.Header.Get("Tollgate-Applied"), a.Body)
		}
		return err
	})
}
