package refusal

import (
	"bytes"
	"context"
	"log/slog"
	"strconv"
	"strings"
	"testing"
	"testing/synctest"
	"time"
)

func TestThereIsALineASecondOfARefusalInAPlace(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var out bytes.Buffer
		notes := NewNotes(slog.New(slog.NewTextHandler(&out, nil)))
		write := func(place string) {
			notes.Write(context.Background(), slog.LevelWarn, "request refused", place, TopicUnknown.Errorf("topic %q", "orders"))
		}
		for range 5 {
			write("acme")
		}
		write("globex")
		if got := strings.Count(out.String(), "\n"); got != 2 {
			t.Errorf("%d lines, want one for each place:\n%s", got, out.String())
		}
		time.Sleep(time.Second)
		out.Reset()
		write("acme")
		if !strings.Contains(out.String(), "refusal="+TopicUnknown.ID) || !strings.Contains(out.String(), "suppressed=4") {
			t.Errorf("a second later: %s, want the id and the four that were left out", out.String())
		}
	})
}

func TestNotesForgetOldPlaces(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var out bytes.Buffer
		notes := NewNotes(slog.New(slog.NewTextHandler(&out, nil)))
		notes.places = 10
		write := func(place string) {
			notes.Write(context.Background(), slog.LevelWarn, "request refused", place, TopicUnknown)
		}
		for i := range 100 {
			write(strconv.Itoa(i))
		}
		if lines := strings.Count(out.String(), "\n"); len(notes.last) != 10 || lines != 10 {
			t.Errorf("%d notes and %d lines after a hundred places in a second, want 10", len(notes.last), lines)
		}
		time.Sleep(time.Second)
		out.Reset()
		write("new")
		if len(notes.last) != 1 || out.Len() == 0 {
			t.Errorf("%d notes and the line %q a second later, want 1 and a line", len(notes.last), out.String())
		}
	})
}

func TestWhatNobodyCataloguedCountsAsInternal(t *testing.T) {
	c := NewCounts()
	c.Add(Of(context.Canceled))
	c.Add(TopicUnknown)
	c.Add(TopicUnknown)
	got := make(map[*Refusal]uint64)
	c.Each(func(r *Refusal, n uint64) { got[r] = n })
	if len(got) != 2 || got[Internal] != 1 || got[TopicUnknown] != 2 {
		t.Errorf("counted %v, want one %s and two %s", got, Internal.ID, TopicUnknown.ID)
	}
}
