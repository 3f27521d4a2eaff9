package proxy

import (
	"cmp"
	"context"
	"fmt"
	"net"
	"os"
	"strconv"
	"sync"

	board "tollgate.internal/pkg/fleet"
	"tollgate.internal/pkg/version"
	"tollgate.internal/services/proxy/internal/fleet"
	"tollgate.internal/services/proxy/internal/listener"
)

// runControlled is Run with a control plane.
func runControlled(ctx context.Context, cfg *Config) error {
	g, err := newGateway(cfg)
	if err != nil {
		return err
	}
	defer g.close()
	return g.run(ctx)
}

// join makes ready to be one of a fleet. The listeners are open.
func (g *gateway) join() error {
	c := g.cfg.Control
	if c == nil {
		return nil
	}
	if g.cfg.source == nil {
		f, err := fleet.Open(fleet.Options{
			Redis: c.Redis, RedisPassword: c.RedisPassword, Keys: c.PublicKeys, State: c.State, Deployment: c.Deployment,
			Node: g.record(), Preload: c.Preload, Log: g.cfg.Log,
		})
		if err != nil {
			return fmt.Errorf("control plane: %w", err)
		}
		g.cfg.source, g.redis = f, f
	}
	g.finder = newFinder(g.life, g.cfg.source, g)
	return nil
}

// record is what never changes about the node.
func (g *gateway) record() board.Node {
	n := board.Node{ID: g.cfg.Control.Node, Rack: g.cfg.Control.Rack, Version: version.String()}
	for _, l := range g.cfg.Listeners {
		addr := g.listener.Addr(l.Name)
		if l.Routing != listener.BySNI || addr == nil {
			continue
		}
		host, port, err := net.SplitHostPort(addr.String())
		if err != nil {
			continue
		}
		if ip := net.ParseIP(host); ip == nil || ip.IsUnspecified() {
			host, _ = os.Hostname()
		}
		digits, _ := strconv.ParseUint(port, 10, 16) // of an address that is listened on
		n.Host, n.Port = host, int32(cmp.Or(l.AdvertisedPort, uint16(digits)))
		break
	}
	if domain, port, _ := g.cfg.Fleet.address(); domain != "" { // it was checked
		n.Domain, n.Port = domain, cmp.Or(int32(port), n.Port)
	}
	return n
}

// control begins to follow the control plane, until life ends. Without an error clients
// can be let in.
func (g *gateway) control(ctx, life context.Context, wg *sync.WaitGroup) error {
	ready := make(chan struct{})
	ended := make(chan error, 1)
	wg.Go(func() {
		err := g.cfg.source.Run(life, g, sync.OnceFunc(func() { close(ready) }))
		if err != nil && life.Err() == nil {
			g.cfg.Log.Error("the control plane is no longer followed", "err", err)
		}
		ended <- err
	})
	select {
	case <-ready:
		return nil
	case err := <-ended:
		return fmt.Errorf("follow the control plane: %w", err)
	case <-ctx.Done():
		return ctx.Err()
	}
}
