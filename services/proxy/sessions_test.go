package proxy_test

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"

	board "tollgate.internal/pkg/fleet"
	"tollgate.internal/services/proxy"
)

// Who is connected, as whom, with what, since when and how busy: as far as it is asked.
func TestSessionsAreToldOf(t *testing.T) {
	bubble(t, func(t *testing.T, g *gateway) {
		self := g.restart(t, func(*proxy.Config) {})
		began := time.Now()
		dev := g.client(t, "acme-dev.gw.test", loginDev, kgo.ClientID("\x1b[31mred\xff"+strings.Repeat("x", 200)), kgo.SoftwareNameAndVersion("tool", "1.2"))
		if err := dev.Ping(t.Context()); err != nil {
			t.Fatal(err)
		}
		time.Sleep(10 * time.Second)
		open := g.rawInBubble(t, "open.gw.test")
		open.ask(kmsg.NewPtrApiVersionsRequest())
		quiet := g.rawInBubble(t, "acme-dev.gw.test")
		quiet.ask(kmsg.NewPtrApiVersionsRequest()) // and does not log in
		time.Sleep(20 * time.Second)
		open.ask(kmsg.NewPtrApiVersionsRequest())
		time.Sleep(time.Second)
		some, all := self.Sessions(board.Ask{Limit: 10})
		if all != 3 || len(some) != 3 {
			t.Fatalf("%d of %d sessions: %+v", len(some), all, some)
		}
		tell := func(s board.Session) string {
			return fmt.Sprintf("%s/%s %q %q since %v last %v", s.Tenant, s.VirtualCluster, s.Principal, s.Mechanism,
				s.Since.Sub(began).Round(time.Second), s.LastRequest.Sub(began).Round(2*time.Second))
		}
		for i, want := range []string{
			`acme/acme-dev "" "" since 10s last 10s`,
			`acme/acme-dev "User:dev" "SCRAM-SHA-512" since 0s last 0s`,
			`acme/open "User:ANONYMOUS" "anonymous" since 10s last 30s`,
		} {
			if got := tell(some[i]); got != want {
				t.Errorf("session %d: %s, want %s", i, got, want)
			}
		}
		s := some[1]
		if s.Software != "tool" || s.SoftwareVersion != "1.2" || s.Address != "127.0.0.1" || !strings.HasPrefix(s.ClientID, "\x1b[31mred\ufffdxxx") || len(s.ClientID) > 150 {
			t.Errorf("the client is %+v", s)
		}
		if s.Requests < 3 || s.BytesIn < 300 || s.BytesOut < 300 {
			t.Errorf("it did %+v", s)
		}
		ids := []string{some[0].ID, some[1].ID, some[2].ID}
		slices.Sort(ids)
		if len(slices.Compact(ids)) != 3 {
			t.Errorf("ids %q", ids)
		}
		for _, c := range []struct {
			ask  board.Ask
			all  int
			some int
		}{
			{board.Ask{Limit: 1}, 3, 1},
			{board.Ask{Limit: 10, VirtualCluster: "acme-dev"}, 2, 2},
			{board.Ask{Limit: 10, VirtualCluster: "acme-dev", Principal: "User:dev"}, 1, 1},
			{board.Ask{Limit: 10, Principal: "User:de"}, 0, 0},
			{board.Ask{Limit: 10, Tenant: "acme"}, 3, 3},
			{board.Ask{Limit: 10, Tenant: "globex"}, 0, 0},
			{board.Ask{Limit: 10, Tenant: "acme", VirtualCluster: "none"}, 0, 0},
			{board.Ask{Limit: 10, Session: s.ID}, 1, 1},
			{board.Ask{Limit: 10, Session: s.ID, Tenant: "globex"}, 0, 0},
		} {
			if some, all := self.Sessions(c.ask); all != c.all || len(some) != c.some {
				t.Errorf("%+v: %d of %d, want %d of %d", c.ask, len(some), all, c.some, c.all)
			}
		}

		// One is closed, and no other.
		if self.CloseSession("nothing") {
			t.Error("a session is closed that there is not")
		}
		if !self.CloseSession(some[2].ID) || self.CloseSession("") {
			t.Error("not closed, or another one is")
		}
		open.closed()
		time.Sleep(time.Second)
		if again, all := self.Sessions(board.Ask{Limit: 10}); all != 2 {
			t.Errorf("left: %+v", again)
		}
		quiet.Close()
		dev.Close()
	})
}

// Small answers of large nodes are the first of all, in order.
func TestTheFirstSessionsAreToldOf(t *testing.T) {
	bubble(t, func(t *testing.T, g *gateway) {
		self := g.restart(t, func(*proxy.Config) {})
		var all []*raw
		for range 30 {
			c := g.rawInBubble(t, "open.gw.test")
			c.ask(kmsg.NewPtrApiVersionsRequest())
			all = append(all, c)
			time.Sleep(time.Second)
		}
		whole, _ := self.Sessions(board.Ask{Limit: 100})
		some, n := self.Sessions(board.Ask{Limit: 3})
		if n != 30 || !slices.Equal(some, whole[:3]) || !slices.IsSortedFunc(whole, board.CompareSessions) {
			t.Errorf("%d: %+v, want the first of %+v", n, some, whole)
		}
		for _, c := range all {
			c.Close()
		}
	})
}
