package bench

import (
	"bufio"
	"encoding/binary"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/twmb/franz-go/pkg/kmsg"
	"github.com/xdg-go/scram"
	"golang.org/x/sync/errgroup"
)

// load is the process of the clients.
type load struct {
	mu    sync.Mutex
	lanes map[int][]*lane
}

func newLoad() *load { return &load{lanes: make(map[int][]*lane)} }

// ConnectArgs say which connections to open, and what they will carry.
type ConnectArgs struct {
	Target      Target
	Workload    workload
	Connections int
}

// Connect opens connections to whoever serves the workload, and returns a number
// for them.
func (l *load) Connect(a ConnectArgs, id *int) error {
	var lanes []*lane
	var err error
	switch kmsg.Key(a.Workload.Key) {
	case kmsg.Metadata:
		lanes, err = askingLanes(&a.Target, a.Workload, a.Connections)
	case kmsg.OffsetCommit:
		lanes, err = committingLanes(&a.Target, a.Workload, a.Connections)
	default:
		lanes, err = leaderLanes(&a.Target, a.Workload, a.Connections)
	}
	if err != nil {
		return err
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	*id = len(l.lanes)
	l.lanes[*id] = lanes
	return nil
}

// Disconnect closes the connections.
func (l *load) Disconnect(id int, _ *struct{}) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, c := range l.lanes[id] {
		c.Close()
	}
	l.lanes[id] = nil
	return nil
}

func (l *load) get(id int) []*lane {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.lanes[id]
}

// SaturateArgs say for how long to keep InFlight requests out on each connection.
type SaturateArgs struct {
	ID       int
	InFlight int
	For      time.Duration
}

// LoadResult is what came of it. Every answer was compared byte for byte.
type LoadResult struct {
	Requests int64
	Elapsed  time.Duration
}

// Saturate sends a request whenever one was answered.
func (l *load) Saturate(a SaturateArgs, result *LoadResult) error {
	var g errgroup.Group
	start := time.Now()
	lanes := l.get(a.ID)
	counts := make([]int64, len(lanes))
	for i, c := range lanes {
		g.Go(func() (err error) {
			counts[i], err = c.saturate(a.InFlight, start.Add(a.For))
			return err
		})
	}
	if err := g.Wait(); err != nil {
		return err
	}
	for _, n := range counts {
		result.Requests += n
	}
	result.Elapsed = time.Since(start)
	return nil
}

// lane is a connection that carries a workload.
type lane struct {
	*conn
	request []byte
	want    *expectation
	next    int32 // correlation id of the next answer
}

// leaderLanes carry Produce or Fetch to the leader of the topic's partition.
func leaderLanes(t *Target, w workload, n int) ([]*lane, error) {
	host, found, err := t.toLeader()
	if err != nil {
		return nil, err
	}
	lanes := make([]*lane, n)
	for i := range lanes {
		if lanes[i], err = t.lane(host); err != nil {
			return nil, err
		}
		if lanes[i].request, err = w.request(found); err != nil {
			return nil, err
		}
		if lanes[i].want, err = w.answer(found); err != nil {
			return nil, err
		}
	}
	return lanes, nil
}

// lane connects to a host.
func (t *Target) lane(host string) (*lane, error) {
	c, err := t.connect(host, nil)
	if err != nil {
		return nil, err
	}
	c.r = bufio.NewReaderSize(c.Conn, 128<<10)
	return &lane{conn: c, next: c.correlationID + 1}, nil
}

func (l *lane) send() error {
	l.correlationID++
	binary.BigEndian.PutUint32(l.request[8:], uint32(l.correlationID))
	_, err := l.Write(l.request)
	return err
}

func (l *lane) await() error {
	if err := l.receive(); err != nil {
		return err
	}
	if err := l.want.matches(l.frame, l.next); err != nil {
		return fmt.Errorf("%w: %q", err, l.frame[:min(len(l.frame), 200)])
	}
	l.next++
	return nil
}

func (l *lane) saturate(inFlight int, end time.Time) (answered int64, err error) {
	l.SetDeadline(end.Add(timeLimit))
	out := 0
	for ; out < inFlight; out++ {
		if err := l.send(); err != nil {
			return 0, fmt.Errorf("send: %w", err)
		}
	}
	for out > 0 {
		if err := l.await(); err != nil {
			return 0, fmt.Errorf("await an answer: %w", err)
		}
		answered++
		if time.Now().After(end) {
			out--
			continue
		}
		if err := l.send(); err != nil {
			return 0, fmt.Errorf("send: %w", err)
		}
	}
	return answered, nil
}

// scramClients keep the salted passwords, which cost a client most of a login.
var scramClients struct {
	sync.Mutex
	byUser map[string]*scram.Client
}

func scramClient(user, password string) (*scram.Client, error) {
	scramClients.Lock()
	defer scramClients.Unlock()
	if c := scramClients.byUser[user]; c != nil {
		return c, nil
	}
	c, err := scram.SHA512.NewClient(user, password, "")
	if err != nil {
		return nil, errors.Join(fmt.Errorf("user %s", user), err)
	}
	if scramClients.byUser == nil {
		scramClients.byUser = make(map[string]*scram.Client)
	}
	scramClients.byUser[user] = c
	return c, nil
}
