package fleet

import (
	"context"
	"io"
	"net"
	"sync"
	"sync/atomic"
	"testing"
	"time"
)

// healthEvery is how often the balancer asks whether a node is ready.
const healthEvery = 200 * time.Millisecond

// A balancer copies bytes between clients and nodes, and hands connections to those
// nodes in turn that were ready when it asked last. It closes nothing by itself.
type balancer struct {
	listener net.Listener
	ready    []atomic.Bool
	nodes    []*Node
	next     atomic.Uint32
	wg       sync.WaitGroup
	end      context.CancelFunc

	mu   sync.Mutex
	open map[net.Conn]bool
}

func startBalancer(t testing.TB, address string, nodes []*Node) *balancer {
	t.Helper()
	l, err := net.Listen("tcp", address)
	if err != nil {
		t.Fatal(err)
	}
	ctx, end := context.WithCancel(context.Background())
	b := &balancer{listener: l, nodes: nodes, ready: make([]atomic.Bool, len(nodes)), end: end, open: make(map[net.Conn]bool)}
	for i, n := range nodes {
		b.ready[i].Store(true)
		b.wg.Go(func() {
			tick := time.NewTicker(healthEvery)
			defer tick.Stop()
			for {
				select {
				case <-ctx.Done():
					return
				case <-tick.C:
					b.ready[i].Store(n.ready(ctx))
				}
			}
		})
	}
	b.wg.Go(func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			b.wg.Go(func() { b.serve(c) })
		}
	})
	t.Cleanup(b.close)
	return b
}

func (b *balancer) serve(client net.Conn) {
	b.hold(client, true)
	defer b.hold(client, false)
	defer client.Close()
	first := int(b.next.Add(1))
	for i := range b.nodes {
		at := (first + i) % len(b.nodes)
		if !b.ready[at].Load() {
			continue
		}
		node, err := net.DialTimeout("tcp", b.nodes[at].address, 2*time.Second)
		if err != nil {
			continue
		}
		b.hold(node, true)
		defer b.hold(node, false)
		defer node.Close()
		// Each direction ends by itself, as with any balancer of TCP: what is on its way
		// when one side has ended still arrives.
		var both sync.WaitGroup
		both.Go(func() { pass(node, client) })
		both.Go(func() { pass(client, node) })
		both.Wait()
		return
	}
}

func pass(to, from net.Conn) {
	_, err := io.Copy(to, from)
	if half, ok := to.(*net.TCPConn); ok && err == nil && half.CloseWrite() == nil {
		return
	}
	to.Close()
	from.Close()
}

func (b *balancer) hold(c net.Conn, open bool) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if open {
		b.open[c] = true
	} else {
		delete(b.open, c)
	}
}

func (b *balancer) close() {
	b.end()
	b.listener.Close()
	b.mu.Lock()
	for c := range b.open {
		c.Close()
	}
	b.mu.Unlock()
	b.wg.Wait()
}
