package bench

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"sync/atomic"
	"time"

	"golang.org/x/sync/errgroup"
)

// ArrivalArgs say for how long new clients come, and how many at a time.
type ArrivalArgs struct {
	Target   Target
	Parallel int
	For      time.Duration
	Login    bool // or leave after the handshake
}

// Arrivals connects, over and over. Every handshake is a full one.
func (l *load) Arrivals(a ArrivalArgs, result *LoadResult) error {
	host := a.Target.Host
	start := time.Now()
	var count atomic.Int64
	var g errgroup.Group
	for i := range a.Parallel {
		from := &net.TCPAddr{IP: net.IPv4(127, 0, 1, byte(1+i))}
		g.Go(func() error {
			for time.Since(start) < a.For {
				if err := arrive(&a.Target, host, from, a.Login); err != nil {
					return err
				}
				count.Add(1)
			}
			return nil
		})
	}
	err := g.Wait()
	result.Requests, result.Elapsed = count.Load(), time.Since(start)
	return err
}

func arrive(t *Target, host string, from net.Addr, login bool) error {
	connect := t.open
	if login {
		connect = t.connect
	}
	c, err := connect(host, from)
	if err != nil {
		return err
	}
	defer c.Close()
	// The server has done its whole part when it has answered the farewell.
	c.SetDeadline(time.Now().Add(timeLimit))
	tc := c.Conn.(*tls.Conn)
	if err := tc.CloseWrite(); err != nil {
		return err
	}
	if _, err := io.Copy(io.Discard, tc); err != nil {
		return fmt.Errorf("%s: await the end of the connection: %w", t.Name, err)
	}
	// A reset keeps no port waiting.
	return tc.NetConn().(*net.TCPConn).SetLinger(0)
}

// arrival is what one client that comes costs.
type arrival struct {
	says   string
	server *server
	target Target
	login  bool
	cpu    []float64 // microseconds each
	rate   []float64
}

func (b *run) handshakes(ctx context.Context) error {
	var sides []*arrival
	for _, g := range b.gateways {
		sides = append(sides, &arrival{says: "TLS handshake", server: g, target: g.target})
	}
	patient := b.haproxy.target
	patient.Addr = b.patient
	sides = append(sides, &arrival{says: "TLS handshake", server: b.haproxy, target: patient})
	for _, mechanism := range []string{"SCRAM-SHA-512", "PLAIN"} {
		for _, g := range b.gateways {
			t := g.target
			t.Mechanism = mechanism
			sides = append(sides, &arrival{says: "handshake and login by " + mechanism, server: g, target: t, login: true})
		}
	}
	before, err := stubStats(ctx, b.stub)
	if err != nil {
		return err
	}
	for round := range b.Rounds + 1 {
		for _, s := range sides {
			span := b.RoundTime
			if round == 0 {
				span /= 5
			}
			if err := b.arrive(ctx, s, span, round > 0); err != nil {
				return err
			}
		}
	}
	after, err := stubStats(ctx, b.stub)
	if err != nil {
		return err
	}
	// A handshake that drew a broker connection after it would not be alone in its figure.
	if n := after.Accepted - before.Accepted; n > 10 {
		return fmt.Errorf("%d broker connections for clients that ask for nothing", n)
	}
	b.report.addArrivals(sides)
	return nil
}

func (b *run) arrive(ctx context.Context, s *arrival, span time.Duration, keep bool) error {
	before, err := cpuTime(s.server.process.PID())
	if err != nil {
		return err
	}
	var r LoadResult
	if err := b.load.call(ctx, "Load.Arrivals", ArrivalArgs{s.target, connections, span, s.login}, &r); err != nil {
		return err
	}
	after, err := cpuTime(s.server.process.PID())
	if err != nil {
		return err
	}
	if r.Requests == 0 {
		return errors.New("nobody came")
	}
	if keep {
		s.cpu = append(s.cpu, float64((after-before).Nanoseconds())/1e3/float64(r.Requests))
		s.rate = append(s.rate, float64(r.Requests)/r.Elapsed.Seconds())
	}
	return nil
}
