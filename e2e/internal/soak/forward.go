package soak

import (
	"context"
	"io"
	"net"
	"sync"
	"sync/atomic"
	"time"
)

// A forwarder is the balancer before the gateway's nodes: it copies bytes, hands
// connections to the nodes in turn, and passes over those that do not accept.
type forwarder struct {
	listener net.Listener
	nodes    []string
	next     atomic.Uint32
	wg       sync.WaitGroup

	mu     sync.Mutex
	open   map[net.Conn]bool
	closed bool
}

func forward(address string, nodes []string) (*forwarder, error) {
	l, err := net.Listen("tcp", address)
	if err != nil {
		return nil, err
	}
	f := &forwarder{listener: l, nodes: nodes, open: make(map[net.Conn]bool)}
	f.wg.Go(func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			f.wg.Go(func() { f.serve(c) })
		}
	})
	return f, nil
}

func (f *forwarder) serve(client net.Conn) {
	defer client.Close()
	first := int(f.next.Add(1))
	for i := range f.nodes {
		node, err := net.DialTimeout("tcp", f.nodes[(first+i)%len(f.nodes)], 2*time.Second)
		if err != nil {
			continue
		}
		defer node.Close()
		if f.hold(client, node) {
			f.copy(client, node)
		}
		return
	}
}

// copy returns when either side has ended, and ends the other.
func (f *forwarder) copy(client, node net.Conn) {
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
	f.mu.Lock()
	defer f.mu.Unlock()
	delete(f.open, client)
	delete(f.open, node)
}

func (f *forwarder) hold(conns ...net.Conn) bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	for _, c := range conns {
		f.open[c] = true
	}
	return !f.closed
}

func (f *forwarder) close() {
	f.listener.Close()
	f.mu.Lock()
	f.closed = true
	for c := range f.open {
		c.Close()
	}
	f.mu.Unlock()
	f.wg.Wait()
}
