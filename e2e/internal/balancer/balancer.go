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

// A Balancer copies bytes, hands connections to the nodes in turn, and passes over
// those that do not accept.
type Balancer struct {
	listener net.Listener
	nodes    []string
	next     atomic.Uint32
	wg       sync.WaitGroup

	mu     sync.Mutex
	open   map[net.Conn]bool
	closed bool
}

// Start listens on an address.
func Start(address string, nodes []string) (*Balancer, error) {
	l, err := net.Listen("tcp", address)
	if err != nil {
		return nil, err
	}
	b := &Balancer{listener: l, nodes: nodes, open: make(map[net.Conn]bool)}
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

func (b *Balancer) serve(client net.Conn) {
	defer client.Close()
	first := int(b.next.Add(1))
	for i := range b.nodes {
		node, err := net.DialTimeout("tcp", b.nodes[(first+i)%len(b.nodes)], 2*time.Second)
		if err != nil {
			continue
		}
		defer node.Close()
		if b.hold(client, node) {
			b.copy(client, node)
		}
		return
	}
}

// copy returns when either side has ended, and ends the other.
func (b *Balancer) copy(client, node net.Conn) {
	ctx, end := context.WithCancel(context.Background())
	one := func(to, from net.Conn) {
		defer end()
		io.Copy(to, from)
	}
	var wg sync.WaitGroup
	wg.Go(func() { one(node, client) })
	wg.Go(func() { one(client, node) })
	<-ctx.Done()
	client.Close()
	node.Close()
	wg.Wait()
	b.mu.Lock()
	defer b.mu.Unlock()
	delete(b.open, client)
	delete(b.open, node)
}

func (b *Balancer) hold(conns ...net.Conn) bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	for _, c := range conns {
		b.open[c] = true
	}
	return !b.closed
}

// Close ends every connection, and waits for it.
func (b *Balancer) Close() {
	b.listener.Close()
	b.mu.Lock()
	b.closed = true
	for c := range b.open {
		c.Close()
	}
	b.mu.Unlock()
	b.wg.Wait()
}
