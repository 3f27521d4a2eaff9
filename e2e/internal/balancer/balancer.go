// Package balancer stands before the nodes of a gateway, as a load balancer for TCP
// does.
package balancer

import (
	"context"
	"io"
	"net"
	"sync"
	"sync/atomic"
	"time"
)

// healthEvery is how often a node is asked whether it is ready.
const healthEvery = 200 * time.Millisecond

// A Balancer copies bytes and hands connections to the nodes in turn. It passes over
// those that were not ready when it asked last, or do not accept, and closes nothing by
// itself.
type Balancer struct {
	listener net.Listener
	next     atomic.Uint32
	wg       sync.WaitGroup
	ctx      context.Context // that the questions for health end with
	end      context.CancelFunc

	mu     sync.Mutex // guards those below
	nodes  []*node
	open   map[net.Conn]bool
	closed bool
}

type node struct {
	address string
	ready   atomic.Bool
}

// Start listens on an address.
func Start(address string) (*Balancer, error) {
	l, err := net.Listen("tcp", address)
	if err != nil {
		return nil, err
	}
	b := &Balancer{listener: l, open: make(map[net.Conn]bool)}
	b.ctx, b.end = context.WithCancel(context.Background())
	b.wg.Go(func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			b.wg.Go(func() { b.serve(c) })
		}
	})
	return b, nil
}

// Add has a node get connections while it is ready; always, if there is nothing to ask.
func (b *Balancer) Add(address string, ready func(context.Context) bool) {
	n := &node{address: address}
	n.ready.Store(true)
	b.mu.Lock()
	b.nodes = append(b.nodes, n)
	b.mu.Unlock()
	if ready == nil {
		return
	}
	b.wg.Go(func() {
		tick := time.NewTicker(healthEvery)
		defer tick.Stop()
		for {
			select {
			case <-b.ctx.Done():
				return
			case <-tick.C:
				n.ready.Store(ready(b.ctx))
			}
		}
	})
}

func (b *Balancer) serve(client net.Conn) {
	defer client.Close()
	b.mu.Lock()
	nodes := b.nodes
	b.mu.Unlock()
	first := int(b.next.Add(1))
	for i := range nodes {
		n := nodes[(first+i)%len(nodes)]
		if !n.ready.Load() {
			continue
		}
		conn, err := net.DialTimeout("tcp", n.address, 2*time.Second)
		if err != nil {
			continue
		}
		defer conn.Close()
		if b.hold(client, conn) {
			// Each direction ends by itself, as with any balancer of TCP: what is on its way
			// when one side has ended still arrives.
			var both sync.WaitGroup
			both.Go(func() { pass(conn, client) })
			both.Go(func() { pass(client, conn) })
			both.Wait()
		}
		b.forget(client, conn)
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

func (b *Balancer) hold(conns ...net.Conn) bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	for _, c := range conns {
		b.open[c] = true
	}
	return !b.closed
}

func (b *Balancer) forget(conns ...net.Conn) {
	b.mu.Lock()
	defer b.mu.Unlock()
	for _, c := range conns {
		delete(b.open, c)
	}
}

// Close ends every connection, and waits for it.
func (b *Balancer) Close() {
	b.end()
	b.listener.Close()
	b.mu.Lock()
	b.closed = true
	for c := range b.open {
		c.Close()
	}
	b.mu.Unlock()
	b.wg.Wait()
}
