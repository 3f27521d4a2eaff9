package proxy_test

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"

	"tollgate.internal/services/proxy"
	"tollgate.internal/services/proxy/internal/fleet"
)

// A member waits for the others for as long as the rebalance timeout; the proxy
// does not, once its time for draining is over (PROTOCOL.md §H3).
func TestAWaitingMemberDoesNotHoldUpTheEnd(t *testing.T) {
	bubble(t, func(t *testing.T, g *gateway) {
		joining := make(chan struct{}, 1)
		g.upstream.ControlKey(int16(kmsg.JoinGroup), func(kmsg.Request) (kmsg.Response, error, bool) {
			joining <- struct{}{}
			return nil, nil, true // the others have not come
		})
		cl := g.client(t, "acme-dev.gw.test", loginDev)
		join := kmsg.NewPtrJoinGroupRequest()
		join.Group, join.ProtocolType = "readers", "consumer"
		join.SessionTimeoutMillis, join.RebalanceTimeoutMillis = 45000, 300000
		go join.RequestWith(t.Context(), cl)
		<-joining
		began := time.Now()
		if err := g.stop(); err != nil {
			t.Errorf("Run: %v", err)
		}
		// 30 s are for draining, and a second or two for who looks every second.
		if took := time.Since(began); took > 35*time.Second {
			t.Errorf("it took %v to end", took)
		}
		cl.Close()
	})
}

// apiVersions is a request that anybody may make.
func apiVersions(id uint32) []byte {
	b := frame(18, 0)
	binary.BigEndian.PutUint32(b[8:], id)
	return b
}

// answered reads an answer and wants it to be that of a request.
func (r *raw) answered(id uint32) error {
	var head [8]byte
	if _, err := io.ReadFull(r, head[:]); err != nil {
		return err
	}
	if got := binary.BigEndian.Uint32(head[4:]); got != id {
		return fmt.Errorf("answer to request %d, want %d", got, id)
	}
	_, err := io.CopyN(io.Discard, r, int64(binary.BigEndian.Uint32(head[:])-4))
	return err
}

// restart runs the proxy again with another configuration, and returns what it shows of itself.
func (g *gateway) restart(t *testing.T, change func(cfg *proxy.Config)) fleet.Self {
	t.Helper()
	shown := make(chan fleet.Self, 1)
	g.addr, g.admin = "", ""
	g.again(t, func(cfg *proxy.Config) {
		change(cfg)
		cfg.Self(func(s fleet.Self) { shown <- s })
	})
	return <-shown
}

// reach waits until the node is in a state.
func reach(t *testing.T, self fleet.Self, want fleet.State) {
	t.Helper()
	limit := time.After(5 * time.Minute)
	for {
		r, changed := self.Report()
		if r.State == want {
			return
		}
		select {
		case <-changed:
		case <-limit:
			t.Fatalf("the node is %s after five minutes, want %s", r.State, want)
		}
	}
}

// A node that drains lets clients in until who stands before it has learnt of it, and
// then nobody; those who are in leave one after the other over the stated time; and it
// ends when the last has left.
func TestClientsLeaveOneAfterTheOther(t *testing.T) {
	const grace, spread, clients = 5 * time.Second, time.Minute, 60
	for name, byCommand := range map[string]bool{"at its end": false, "by command": true} {
		t.Run(name, func(t *testing.T) {
			bubble(t, func(t *testing.T, g *gateway) {
				self := g.restart(t, func(cfg *proxy.Config) { cfg.DrainGrace = grace; cfg.DrainSpread = time.Hour })
				began := make(chan struct{})
				var start time.Time
				var mu sync.Mutex
				var gone []time.Duration
				var wg sync.WaitGroup
				session := func() {
					c := g.rawInBubble(t, "open.gw.test")
					c.ask(kmsg.NewPtrApiVersionsRequest())
					wg.Go(func() {
						n, err := c.Read(make([]byte, 1))
						<-began
						if n != 0 || !errors.Is(err, io.EOF) {
							t.Errorf("read %d bytes and %v, want the end", n, err)
						}
						mu.Lock()
						defer mu.Unlock()
						gone = append(gone, time.Since(start))
						c.Close()
					})
				}
				for range clients - 1 {
					session()
				}
				start = time.Now()
				close(began)
				ended := make(chan error, 1)
				if byCommand {
					self.Drain(spread)
				} else {
					self.Drain(spread) // the end comes on top
					go func() { ended <- g.stop() }()
				}
				reach(t, self, fleet.Draining)
				time.Sleep(grace - time.Second)
				session() // who has not heard of it is served
				time.Sleep(2 * time.Second)
				if c, err := g.dial(t.Context(), "tcp", g.addr); err == nil {
					c.Close()
					t.Error("somebody is let in after the grace")
				}
				wg.Wait()
				if byCommand {
					reach(t, self, fleet.Drained)
				} else if err := <-ended; err != nil {
					t.Errorf("Run: %v", err)
				}
				if took := time.Since(start); took > grace+spread+3*time.Second {
					t.Errorf("all had left after %v", took)
				}
				slices.Sort(gone)
				if len(gone) != clients || gone[0] < grace {
					t.Fatalf("%d left, the first after %v", len(gone), gone[0])
				}
				for i, at := range gone {
					want := grace + spread*time.Duration(i)/clients
					if off := at - want; off < -2*time.Second || off > 2*time.Second {
						t.Errorf("client %d left after %v, want about %v", i, at, want)
					}
				}
			})
		})
	}
}

// A node without clients waits only for those who may send it some.
func TestANodeWithoutClientsEndsAfterTheGrace(t *testing.T) {
	bubble(t, func(t *testing.T, g *gateway) {
		g.restart(t, func(cfg *proxy.Config) { cfg.DrainGrace, cfg.DrainSpread = 5*time.Second, time.Minute })
		began := time.Now()
		if err := g.stop(); err != nil {
			t.Errorf("Run: %v", err)
		}
		if took := time.Since(began); took < 5*time.Second || took > 8*time.Second {
			t.Errorf("it took %v, want the grace of 5 s", took)
		}
	})
}

// What was asked is answered: a Produce that the broker takes its time for, and a
// request that had only begun to arrive. What comes after is not read.
func TestASessionEndsBetweenTwoRequests(t *testing.T) {
	bubble(t, func(t *testing.T, g *gateway) {
		self := g.restart(t, func(cfg *proxy.Config) {})
		cl := g.client(t, "acme.gw.test", loginAdmin, kgo.DefaultProduceTopic("orders"), kgo.RecordPartitioner(kgo.ManualPartitioner()))
		produceN(t, cl, 1)
		var asked atomic.Int32
		taken := make(chan struct{}, 1)
		g.upstream.ControlKey(int16(kmsg.Produce), func(kmsg.Request) (kmsg.Response, error, bool) {
			g.upstream.KeepControl()
			asked.Add(1)
			taken <- struct{}{}
			g.upstream.SleepControl(func() { time.Sleep(8 * time.Second) })
			return nil, nil, false
		})
		produced := make(chan error, 1)
		go func() { produced <- cl.ProduceSync(t.Context(), kgo.StringRecord("slow")).FirstErr() }()
		<-taken

		half := g.rawInBubble(t, "open.gw.test")
		half.send(apiVersions(1))
		if err := half.answered(1); err != nil {
			t.Fatal(err)
		}
		half.send(apiVersions(2)[:9])
		time.Sleep(time.Second)
		self.Drain(0)
		time.Sleep(2 * time.Second)
		half.send(apiVersions(2)[9:])
		if err := half.answered(2); err != nil {
			t.Errorf("the request that had begun: %v", err)
		}
		half.closed()
		if err := <-produced; err != nil {
			t.Errorf("produce: %v", err)
		}
		reach(t, self, fleet.Drained)
		if n := asked.Load(); n != 1 {
			t.Errorf("the broker was asked %d times, want once", n)
		}
		cl.Close()
	})
}

// A node comes back, in the middle of a drain too: who was not asked to leave stays, and
// others are let in again at the same address.
func TestADrainIsTakenBack(t *testing.T) {
	bubble(t, func(t *testing.T, g *gateway) {
		self := g.restart(t, func(cfg *proxy.Config) { cfg.DrainGrace, cfg.DrainSpread = time.Second, time.Minute })
		var all []*raw
		for range 20 {
			c := g.rawInBubble(t, "open.gw.test")
			c.ask(kmsg.NewPtrApiVersionsRequest())
			all = append(all, c)
		}
		self.Drain(0)
		time.Sleep(30 * time.Second)
		self.Undrain()
		reach(t, self, fleet.Serving)
		stayed := 0
		for _, c := range all {
			if _, err := c.Write(apiVersions(3)); err == nil && c.answered(3) == nil {
				stayed++
			}
			c.Close()
		}
		if stayed < 8 || stayed > 12 {
			t.Errorf("%d of 20 stayed when the drain was taken back in its middle", stayed)
		}
		again := g.rawInBubble(t, "open.gw.test")
		again.ask(kmsg.NewPtrApiVersionsRequest())
		again.Close()

		self.Drain(time.Second)
		reach(t, self, fleet.Drained)
		if c, err := g.dial(t.Context(), "tcp", g.addr); err == nil {
			c.Close()
			t.Error("a drained node lets somebody in")
		}
		self.Undrain()
		reach(t, self, fleet.Serving)
		again = g.rawInBubble(t, "open.gw.test")
		again.ask(kmsg.NewPtrApiVersionsRequest())
		again.Close()

		// Drained and told to end, it ends at once.
		self.Drain(time.Second)
		reach(t, self, fleet.Drained)
		began := time.Now()
		if err := g.stop(); err != nil {
			t.Errorf("Run: %v", err)
		}
		if took := time.Since(began); took > handshakesEnd {
			t.Errorf("a drained node took %v to end", took)
		}
	})
}

const handshakesEnd = 3 * time.Second

// The last answers reach a client also when it has sent on meanwhile: a socket that is
// closed with something left to read resets the connection.
func TestTheLastAnswersAreNotLost(t *testing.T) {
	g := start(t)
	self := g.restart(t, func(cfg *proxy.Config) {})
	c := g.raw(t, "open.gw.test")
	const before = 100
	var flood []byte
	for id := range uint32(before) {
		flood = append(flood, apiVersions(id)...)
	}
	c.send(flood)
	if err := c.answered(0); err != nil {
		t.Fatal(err)
	}
	self.Drain(0)
	// It sends on until it sees the end, and reads nothing until then.
	stop := make(chan struct{})
	var wg sync.WaitGroup
	wg.Go(func() {
		for id := uint32(before); ; id++ {
			select {
			case <-stop:
				return
			default:
			}
			if _, err := c.Write(apiVersions(id)); err != nil {
				return
			}
		}
	})
	id := uint32(1)
	var err error
	for ; err == nil; id++ {
		err = c.answered(id)
	}
	close(stop)
	if !errors.Is(err, io.EOF) {
		t.Errorf("after %d answers: %v, want the end", id-1, err)
	}
	c.Close()
	wg.Wait()
	reach(t, self, fleet.Drained)
}

// Who looks at the node sees how far it has come.
func TestADrainIsSeen(t *testing.T) {
	g := start(t)
	self := g.restart(t, func(cfg *proxy.Config) { cfg.DrainGrace, cfg.DrainSpread = 200*time.Millisecond, time.Hour })
	ready := func() bool { code, _ := g.get(t, "/readyz"); return code == 200 }
	metric := func(line string) bool {
		_, body := g.get(t, "/metrics")
		return strings.Contains(body, "\n"+line+"\n")
	}
	c := g.raw(t, "open.gw.test")
	c.ask(kmsg.NewPtrApiVersionsRequest())
	c2 := g.raw(t, "open.gw.test")
	c2.ask(kmsg.NewPtrApiVersionsRequest())
	eventually(t, "the node serves", func() bool {
		return ready() && metric(`tollgate_proxy_node_state{state="serving"} 1`) && metric(`tollgate_proxy_node_sessions 2`)
	})
	self.Drain(0)
	eventually(t, "it drains, and one is left", func() bool {
		_, body := g.get(t, "/status")
		return !ready() && metric(`tollgate_proxy_node_state{state="draining"} 1`) && metric(`tollgate_proxy_node_state{state="serving"} 0`) &&
			metric(`tollgate_proxy_node_sessions 1`) && strings.Contains(body, `"step": "moving"`) && strings.Contains(body, `"sessions": 1`)
	})
	c.Close()
	c2.Close()
	eventually(t, "it is drained", func() bool { return !ready() && metric(`tollgate_proxy_node_state{state="drained"} 1`) })
	self.Undrain()
	eventually(t, "it serves again", func() bool { return ready() && metric(`tollgate_proxy_node_state{state="serving"} 1`) })
	again, err := (&net.Dialer{}).DialContext(context.Background(), "tcp", g.addr)
	if err != nil {
		t.Fatalf("the port that the system had chosen is not open again: %v", err)
	}
	again.Close()
}
