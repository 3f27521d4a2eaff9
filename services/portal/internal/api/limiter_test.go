package api

import (
	"strconv"
	"testing"
	"time"
)

func TestLimiter(t *testing.T) {
	now := time.Unix(1_000_000, 0)
	l := newLimiter(func() time.Time { return now })
	for i := range freeFailures {
		if wait := l.failed("a"); wait != 0 {
			t.Fatalf("failure %d: wait %v, want none", i, wait)
		}
	}
	if wait := l.failed("a"); wait != failureReturn {
		t.Errorf("wait %v, want %v", wait, failureReturn)
	}
	if wait := l.failed("b"); wait != 0 {
		t.Errorf("another address: wait %v, want none", wait)
	}
	now = now.Add(failureReturn)
	if wait := l.failed("a"); wait != 0 {
		t.Errorf("after the wait: %v, want none", wait)
	}
	if wait := l.failed("a"); wait == 0 {
		t.Error("one more: no wait, want one")
	}
	for i := range 3 * maxAddresses {
		l.failed(strconv.Itoa(i))
	}
	if len(l.blocked) > maxAddresses+1 {
		t.Errorf("%d addresses are kept, want at most %d", len(l.blocked), maxAddresses)
	}
}
