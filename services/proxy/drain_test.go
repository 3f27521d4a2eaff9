package proxy_test

import (
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kmsg"
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
