package redistest

import (
	"errors"
	"net"
	"path/filepath"
	"sync"
	"testing"
	"time"
)

// A Link leads to a server, whose answers take their time by way of it. What is asked
// goes through at once.
type Link struct {
	URL      string
	socket   string
	listener net.Listener
	wg       sync.WaitGroup

	mu      sync.Mutex // guards those below
	delay   time.Duration
	bytes   int // at a time; 0: all there are
	changed chan struct{}
	open    map[net.Conn]struct{} // both sides; nil: ended
}

// Link makes another way to the server, which is as fast as the server at first. It ends
// with its test.
func (s *Server) Link(t testing.TB) *Link {
	t.Helper()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	l := &Link{
		URL: "redis://" + listener.Addr().String(), socket: filepath.Join(s.dir, "s"), listener: listener,
		changed: make(chan struct{}), open: make(map[net.Conn]struct{}),
	}
	l.wg.Go(l.serve)
	t.Cleanup(l.end)
	return l
}

// Delay has each answer come so much later, from now on; those that are on their way too.
func (l *Link) Delay(by time.Duration) { l.set(by, 0) }

// Trickle has answers come in pieces of so many bytes, each so much later than the one before.
func (l *Link) Trickle(bytes int, every time.Duration) { l.set(every, bytes) }

func (l *Link) set(delay time.Duration, bytes int) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.delay, l.bytes = delay, bytes
	close(l.changed)
	l.changed = make(chan struct{})
}

func (l *Link) now() (delay time.Duration, bytes int, changed <-chan struct{}) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.delay, l.bytes, l.changed
}

func (l *Link) end() {
	_ = l.listener.Close()
	l.mu.Lock()
	for c := range l.open {
		_ = c.Close()
	}
	l.open = nil
	l.mu.Unlock()
	l.Delay(0)
	l.wg.Wait()
}

// keep takes note of a connection, unless the link has ended.
func (l *Link) keep(c net.Conn) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.open == nil {
		return false
	}
	l.open[c] = struct{}{}
	return true
}

func (l *Link) drop(c net.Conn) {
	_ = c.Close()
	l.mu.Lock()
	defer l.mu.Unlock()
	delete(l.open, c)
}

func (l *Link) serve() {
	for {
		client, err := l.listener.Accept()
		if errors.Is(err, net.ErrClosed) {
			return
		}
		if err != nil {
			continue
		}
		l.wg.Go(func() { l.lead(client) })
	}
}

// lead leads one connection until either side ends it.
func (l *Link) lead(client net.Conn) {
	defer l.drop(client)
	server, err := net.Dial("unix", l.socket)
	if err != nil {
		return // it was killed, and so the client learns
	}
	defer l.drop(server)
	if !l.keep(client) || !l.keep(server) {
		return
	}
	pieces := make(chan piece, 1<<10)
	gone := make(chan struct{}) // closed when the client is
	var wg sync.WaitGroup
	defer wg.Wait()
	wg.Go(func() {
		defer close(gone)
		defer server.Close()
		forward(server, client)
	})
	wg.Go(func() {
		defer client.Close()
		l.answer(client, pieces, gone)
	})
	defer close(pieces)
	for {
		buf := make([]byte, 64<<10)
		n, err := server.Read(buf)
		if err != nil {
			return
		}
		select {
		case pieces <- piece{buf[:n], time.Now()}:
		case <-gone:
			return
		}
	}
}

func forward(to, from net.Conn) {
	buf := make([]byte, 64<<10)
	for {
		n, err := from.Read(buf)
		if err != nil {
			return
		}
		if _, err := to.Write(buf[:n]); err != nil {
			return
		}
	}
}

// piece is what the server said at a time.
type piece struct {
	bytes []byte
	at    time.Time
}

// answer passes pieces on when it is time. What the server said at the same time comes
// at the same time.
func (l *Link) answer(client net.Conn, pieces <-chan piece, gone <-chan struct{}) {
	for p := range pieces {
		for len(p.bytes) > 0 {
			if !l.wait(p.at, gone) {
				return
			}
			n := len(p.bytes)
			if _, bytes, _ := l.now(); bytes > 0 {
				n, p.at = min(n, bytes), time.Now()
			}
			if _, err := client.Write(p.bytes[:n]); err != nil {
				return
			}
			p.bytes = p.bytes[n:]
		}
	}
}

// wait waits until what was said at a time is due, and reports whether anybody wants it.
func (l *Link) wait(said time.Time, gone <-chan struct{}) bool {
	for {
		delay, _, changed := l.now()
		left := time.Until(said.Add(delay))
		if left <= 0 {
			return true
		}
		t := time.NewTimer(left)
		select {
		case <-t.C:
			return true
		case <-gone:
			t.Stop()
			return false
		case <-changed:
			t.Stop()
		}
	}
}
