package credential

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"
)

// source is where a renewing value comes from: each fetch takes a second and counts up.
type source struct {
	fetches, under atomic.Int32
	life           time.Duration
	err            error
	most           int32 // fetches at the same time
}

func (s *source) fetch(ctx context.Context) (lease[int], error) {
	s.most = max(s.most, s.under.Add(1))
	defer s.under.Add(-1)
	n := s.fetches.Add(1)
	select {
	case <-time.After(time.Second):
	case <-ctx.Done():
		return lease[int]{}, ctx.Err()
	}
	if s.err != nil {
		return lease[int]{}, s.err
	}
	l := lease[int]{value: int(n)}
	if s.life != 0 {
		l.expires = time.Now().Add(s.life)
	}
	return l, nil
}

// renewals runs f in a bubble with a value whose source is s.
func renewals(t *testing.T, s *source, f func(t *testing.T, r *renewing[int])) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		k := NewKeeper(nil)
		defer k.Close()
		f(t, &renewing[int]{keeper: k, text: "it", fetch: s.fetch})
	})
}

func (r *renewing[T]) wants(t *testing.T, want T) {
	t.Helper()
	began := time.Now()
	got, err := r.get(t.Context())
	if err != nil || fmt.Sprint(got) != fmt.Sprint(want) {
		t.Errorf("at %v: %v, %v, want %v", began, got, err, want)
	}
}

func TestManyWaitForOneFetch(t *testing.T) {
	s := &source{life: time.Hour}
	renewals(t, s, func(t *testing.T, r *renewing[int]) {
		var all sync.WaitGroup
		for range 100 {
			all.Go(func() { r.wants(t, 1) })
		}
		all.Wait()
		if n := s.fetches.Load(); n != 1 {
			t.Errorf("%d fetches, want 1", n)
		}
	})
}

// Before its end a value is renewed, once, and nobody waits for that.
func TestAValueIsRenewedBeforeItEnds(t *testing.T) {
	s := &source{life: time.Hour}
	renewals(t, s, func(t *testing.T, r *renewing[int]) {
		r.wants(t, 1)
		time.Sleep(47 * time.Minute)
		r.wants(t, 1)
		time.Sleep(2 * time.Minute)
		began := time.Now()
		for range 10 {
			r.wants(t, 1)
		}
		if took := time.Since(began); took != 0 {
			t.Errorf("waited %v", took)
		}
		time.Sleep(2 * time.Second)
		r.wants(t, 2)
		if n := s.fetches.Load(); n != 2 || s.most != 1 {
			t.Errorf("%d fetches, up to %d at once, want 2, one after the other", n, s.most)
		}
	})
}

// While it cannot be renewed a value serves on, to its end and not beyond.
func TestAValueIsNotUsedBeyondItsEnd(t *testing.T) {
	s := &source{life: time.Hour}
	renewals(t, s, func(t *testing.T, r *renewing[int]) {
		r.wants(t, 1)
		ends := time.Now().Add(time.Hour)
		s.err = errors.New("endpoint is down")
		for time.Until(ends) > expiryMargin+time.Minute {
			r.wants(t, 1)
			time.Sleep(30 * time.Second)
		}
		time.Sleep(time.Until(ends) - expiryMargin + time.Millisecond)
		if got, err := r.get(t.Context()); err == nil || !strings.Contains(err.Error(), "endpoint is down") {
			t.Errorf("shortly before its end: %v, %v, want the error of the endpoint", got, err)
		}
		s.err = nil
		time.Sleep(lastRetry)
		got, err := r.get(t.Context())
		if err != nil || got == 1 {
			t.Errorf("when the endpoint is back: %v, %v", got, err)
		}
	})
}

// An endpoint that fails is asked with growing pauses, whoever asks how often.
func TestAnEndpointThatFailsIsLeftInPeace(t *testing.T) {
	s := &source{err: errors.New("no")}
	renewals(t, s, func(t *testing.T, r *renewing[int]) {
		for range 600 {
			if _, err := r.get(t.Context()); err == nil {
				t.Fatal("a value of nobody")
			}
			time.Sleep(100 * time.Millisecond)
		}
		if n := s.fetches.Load(); n < 5 || n > 14 {
			t.Errorf("%d fetches in a minute", n)
		}
	})
}

// Whoever has no time to wait does not wait, and the fetch goes on for the others.
func TestACallerGivesUpAndTheFetchGoesOn(t *testing.T) {
	s := &source{life: time.Hour}
	renewals(t, s, func(t *testing.T, r *renewing[int]) {
		ctx, cancel := context.WithTimeout(t.Context(), 100*time.Millisecond)
		defer cancel()
		if _, err := r.get(ctx); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("err = %v", err)
		}
		r.wants(t, 1)
		if n := s.fetches.Load(); n != 1 {
			t.Errorf("%d fetches, want 1", n)
		}
	})
}

// A value that a broker refused is renewed, though not again and again.
func TestARefusedValueIsRenewed(t *testing.T) {
	s := &source{life: time.Hour}
	renewals(t, s, func(t *testing.T, r *renewing[int]) {
		r.wants(t, 1)
		time.Sleep(time.Minute)
		r.doubt()
		r.wants(t, 1) // somebody else may find it good
		time.Sleep(2 * time.Second)
		r.wants(t, 2)
		r.doubt()
		r.wants(t, 2)
		time.Sleep(2 * time.Second)
		r.wants(t, 2)
		if n := s.fetches.Load(); n != 2 {
			t.Errorf("%d fetches, want 2", n)
		}
	})
}

func TestAValueThatHasEndedIsNotTaken(t *testing.T) {
	s := &source{life: -time.Minute}
	renewals(t, s, func(t *testing.T, r *renewing[int]) {
		if got, err := r.get(t.Context()); err == nil || !strings.Contains(err.Error(), "compare the clocks") {
			t.Errorf("%v, %v", got, err)
		}
	})
}
