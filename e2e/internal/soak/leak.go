package soak

import (
	"bytes"
	"context"
	"fmt"
	"net"
	"sync"
)

// A watch searches everything clients read, as it comes out of their TLS, for
// what they must not see.
type watch struct {
	mu      sync.Mutex
	secrets map[string][]byte // by what they are
	longest int
	first   error
}

// add makes the watch search for more, on connections that are there too.
func (w *watch) add(what string, secret []byte) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.secrets == nil {
		w.secrets = make(map[string][]byte)
	}
	w.secrets[what] = secret
	w.longest = max(w.longest, len(secret))
}

// search looks through what has come, where tail is the end of what came before it,
// and returns the tail for what comes next.
func (w *watch) search(who string, tail, news []byte) []byte {
	w.mu.Lock()
	defer w.mu.Unlock()
	text := append(tail, news...)
	for what, secret := range w.secrets {
		if at := bytes.Index(text, secret); at >= 0 && w.first == nil {
			w.first = fmt.Errorf("leak: %s was sent %s: %q", who, what, text[max(0, at-40):min(len(text), at+len(secret)+40)])
		}
	}
	return append([]byte(nil), text[max(0, len(text)-max(0, w.longest-1)):]...)
}

func (w *watch) err() error {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.first
}

// dialer makes connections that are searched.
func (w *watch) dialer(who string, dial func(context.Context, string, string) (net.Conn, error)) func(context.Context, string, string) (net.Conn, error) {
	return func(ctx context.Context, network, address string) (net.Conn, error) {
		c, err := dial(ctx, network, address)
		if err != nil {
			return nil, err
		}
		return &watched{Conn: c, watch: w, who: who}, nil
	}
}

type watched struct {
	net.Conn
	watch *watch
	who   string
	tail  []byte // of one reader only
}

func (c *watched) Read(p []byte) (int, error) {
	n, err := c.Conn.Read(p)
	if n > 0 {
		c.tail = c.watch.search(c.who, c.tail, p[:n])
	}
	return n, err
}
