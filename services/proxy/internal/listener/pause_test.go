package listener

import (
	"net"
	"testing"
)

// While a listener is paused nobody comes in and who is in stays; then the sockets are
// where they were, on the ports that the system had chosen and for new brokers too.
func TestAPauseKeepsThoseWhoAreIn(t *testing.T) {
	spec := portSpec(t)
	b := serve(t, Config{Specs: []Spec{spec}})
	if err := b.SetBrokers(spec.VirtualCluster, []int32{0}); err != nil {
		t.Fatal(err)
	}
	addr := b.Addr(spec.Name)
	inside := dial(t, addr)
	echo(t, inside)
	b.Pause()
	b.Pause()
	if c, err := net.Dial("tcp", addr.String()); err == nil {
		c.Close()
		t.Error("somebody came in during the pause")
	}
	if err := b.SetBrokers(spec.VirtualCluster, []int32{0, 1}); err != nil {
		t.Error(err)
	}
	added := portSpec(t)
	added.Name = "added"
	if err := b.Add(added); err != nil {
		t.Error(err)
	}
	if b.Addr("added") != nil {
		t.Error("a listener that was added is open during the pause")
	}
	echo(t, inside)

	// Somebody else has the port: it is tried again.
	thief, err := net.Listen("tcp", addr.String())
	if err != nil {
		t.Fatal(err)
	}
	if err := b.Resume(); err == nil {
		t.Error("no error about a port that somebody else has")
	}
	thief.Close()
	if err := b.Resume(); err != nil {
		t.Fatal(err)
	}
	if err := b.SetBrokers(spec.VirtualCluster, []int32{0, 1}); err != nil {
		t.Fatal(err)
	}
	if got := b.Addr(spec.Name); got == nil || got.String() != addr.String() {
		t.Errorf("it is at %v after the pause, was at %v", got, addr)
	}
	echo(t, dial(t, addr))
	echo(t, dial(t, b.Addr("added")))
	echo(t, inside)
	if err := b.Resume(); err != nil {
		t.Error(err)
	}
	b.Stop()
	b.Pause()
	if err := b.Resume(); err != nil || b.Addr(spec.Name) != nil {
		t.Errorf("it came back after Stop: %v", err)
	}
}
