package stub

import (
	"testing"
	"time"
)

func TestStubsAreMadeAndConfirmed(t *testing.T) {
	withBed(t, func(t *testing.T, b *bed) {
		k := b.keeper(Settings{})
		if err := k.Wait(t.Context()); err != nil {
			t.Fatal(err)
		}
		k.Want([]Want{b.want("orders", 3), b.want("bills", 1)})
		if k.Current().Settled() {
			t.Error("settled before anything was done")
		}
		settle(t, k, 2*time.Second)
		confirmed(t, b, k, map[string]int{"orders": 3, "bills": 1})
		k.Want([]Want{b.want("orders", 5), b.want("bills", 1)})
		settle(t, k, 2*time.Second)
		confirmed(t, b, k, map[string]int{"orders": 5, "bills": 1})
	})
}
