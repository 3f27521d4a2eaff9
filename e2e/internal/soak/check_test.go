package soak

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"
)

// A history is what a run would have: what lies in each place, and what clients
// were told and have read.
type history struct {
	logs    map[place][]entry
	acks    []ack
	txs     []*transaction
	read    map[place][]entry
	commits []commitSample
}

type commitSample struct {
	at     commit
	offset int64
}

var (
	numbersAt = place{"numbers-a", 0}
	txAt      = place{"tx-a", 0}
	txAt1     = place{"tx-a", 1}
	movedAt   = place{"moved", 0}
)

// clean is a history without a fault in it: two writers share a place, three
// transactions of two places each committed, aborted and were never answered, and
// everything was moved and read, some of it twice.
func clean() *history {
	h := &history{logs: make(map[place][]entry), read: make(map[place][]entry)}
	for n := range int64(10) {
		for w := range int64(2) {
			e := entry{2*n + w, writer(fmt.Sprint("w", w), numbersAt), n}
			h.logs[numbersAt] = append(h.logs[numbersAt], e)
			h.acks = append(h.acks, ack{e, numbersAt})
			// A transaction's end lies between two of its records.
			h.logs[movedAt] = append(h.logs[movedAt], entry{2 * e.offset, e.writer, e.n})
		}
	}
	for i, o := range []outcome{committed, aborted, unknown, unknown, committed} {
		t := &transaction{id: fmt.Sprint("tx/", i), outcome: o}
		for _, at := range []place{txAt, txAt1} {
			e := entry{int64(2 * i), writer("tx", at), int64(i)}
			t.records = append(t.records, ack{entry{-1, e.writer, e.n}, at})
			if o == committed || i == 2 { // of those that were not answered the first has committed
				h.logs[at] = append(h.logs[at], e)
			}
		}
		h.txs = append(h.txs, t)
	}
	for at, entries := range h.logs {
		h.read[at] = append(slices.Clone(entries), entries[len(entries)-2:]...)
		for _, offset := range []int64{-1, 1, 3, 3, 4} {
			h.commits = append(h.commits, commitSample{commit{"home", "group", at}, offset})
		}
	}
	return h
}

// judge is what a run does with its history, to the first broken promise.
func (h *history) judge() error {
	logs := make(map[place]*partitionLog)
	for _, at := range []place{numbersAt, txAt, txAt1, movedAt} {
		logs[at] = newPartitionLog(at)
		for _, e := range h.logs[at] {
			if err := logs[at].take(e); err != nil {
				return err
			}
		}
		known := func(name string) bool {
			return strings.HasSuffix(name, " "+at.String()) || at == movedAt && strings.HasSuffix(name, " "+numbersAt.String())
		}
		if err := logs[at].strangers(known); err != nil {
			return err
		}
	}
	for _, a := range h.acks {
		if err := logs[a.at].acknowledged(a); err != nil {
			return err
		}
	}
	for _, t := range h.txs {
		if err := t.atomic(logs); err != nil {
			return err
		}
	}
	if err := moved(logs[numbersAt], logs[movedAt]); err != nil {
		return err
	}
	for at, entries := range h.read {
		r := &readership{pending: entries}
		if err := r.compare("group", logs[at]); err != nil {
			return err
		}
		if err := r.complete("group", logs[at]); err != nil {
			return err
		}
	}
	offsets := make(commits)
	for _, c := range h.commits {
		if err := offsets.sample(c.at, c.offset); err != nil {
			return err
		}
	}
	return nil
}

// renumber gives entries the offsets they would have had if they had always been
// all there is; acknowledgements keep what was said.
func renumber(entries []entry) {
	for i := range entries {
		entries[i].offset = int64(i)
	}
}

func TestEveryBrokenPromiseIsFound(t *testing.T) {
	if err := clean().judge(); err != nil {
		t.Fatalf("a clean history: %v", err)
	}
	for _, c := range []struct {
		name  string
		spoil func(*history)
		want  string
	}{
		{"an acknowledged record is not there", func(h *history) {
			h.logs[numbersAt] = slices.Delete(h.logs[numbersAt], 6, 7)
		}, "lost: w0 numbers-a/0#3 at offset 6 was acknowledged and is not there"},
		{"the last acknowledged record is not there", func(h *history) {
			h.logs[numbersAt] = h.logs[numbersAt][:19]
		}, "lost: w1 numbers-a/0#9 at offset 19 was acknowledged and is not there"},
		{"nothing of a writer is there", func(h *history) {
			h.logs[numbersAt] = slices.DeleteFunc(h.logs[numbersAt], func(e entry) bool { return e.writer[1] == '0' })
		}, "lost: w0 numbers-a/0#0 at offset 0 was acknowledged, nothing of its writer is there"},
		{"the log was cut and written again", func(h *history) {
			h.logs[numbersAt][18].offset, h.logs[numbersAt][19].offset = 19, 20
		}, "misplaced: w0 numbers-a/0#9 at offset 18 was acknowledged and is at offset 19"},
		{"a record is there twice", func(h *history) {
			h.logs[numbersAt] = slices.Insert(h.logs[numbersAt], 9, h.logs[numbersAt][8])
			renumber(h.logs[numbersAt])
		}, "duplicate: w0 numbers-a/0#4 at offset 9 was at offset 8 before"},
		{"a record is there again, long after", func(h *history) {
			again := h.logs[numbersAt][2]
			again.offset = 20
			h.logs[numbersAt] = append(h.logs[numbersAt], again)
		}, "duplicate: w0 numbers-a/0#1 at offset 20 was at offset 2 before"},
		{"two records of a writer have changed places", func(h *history) {
			l := h.logs[numbersAt]
			l[4].n, l[6].n = l[6].n, l[4].n
		}, "order: w0 numbers-a/0#2 at offset 6 comes after #3 of the same writer"},
		{"a record of another place", func(h *history) {
			h.logs[txAt] = append(h.logs[txAt], entry{100, writer("w0", numbersAt), 10})
		}, `astray: records of "w0 numbers-a/0", which nobody wrote here`},
		{"a committed transaction is not there", func(h *history) {
			h.logs[txAt], h.logs[txAt1] = h.logs[txAt][1:], h.logs[txAt1][1:]
		}, "lost: transaction tx/0, committed: tx tx-a/0#0 is not to be seen"},
		{"half of a committed transaction is there", func(h *history) {
			h.logs[txAt1] = h.logs[txAt1][1:]
		}, "transaction tx/0, committed: tx tx-a/0#0 at offset 0 is to be seen, tx tx-a/1#0 of tx-a/1 is not"},
		{"half of a transaction of unknown outcome is there", func(h *history) {
			h.logs[txAt] = slices.Delete(h.logs[txAt], 1, 2)
		}, "transaction tx/2, of unknown outcome: tx tx-a/1#2 at offset 4 is to be seen"},
		{"a record of an aborted transaction is to be seen", func(h *history) {
			h.logs[txAt] = slices.Insert(h.logs[txAt], 1, entry{2, writer("tx", txAt), 1})
		}, "transaction tx/1, aborted: tx tx-a/0#1 at offset 2 is to be seen"},
		{"a record was moved twice", func(h *history) {
			h.logs[numbersAt] = h.logs[numbersAt][:19]
			h.acks = h.acks[:19]
			h.read = nil
		}, "moved: w1 numbers-a/0#9 at offset 38, but all 19 records of numbers-a/0 were moved before"},
		{"a record was left out by the mover", func(h *history) {
			h.logs[movedAt] = slices.Delete(h.logs[movedAt], 3, 4)
		}, "moved: w0 numbers-a/0#2 at offset 8, where w1 numbers-a/0#1 at offset 3 of numbers-a/0 was due"},
		{"records were moved out of order", func(h *history) {
			l := h.logs[movedAt]
			l[3], l[4] = entry{l[3].offset, l[4].writer, l[4].n}, entry{l[4].offset, l[3].writer, l[3].n}
		}, "moved: w0 numbers-a/0#2 at offset 6, where w1 numbers-a/0#1 at offset 3 of numbers-a/0 was due"},
		{"the last records were not moved", func(h *history) {
			h.logs[movedAt] = h.logs[movedAt][:18]
		}, "not everything was moved: 18 of 20 records of numbers-a/0"},
		{"no member has read a record", func(h *history) {
			h.read[numbersAt] = slices.Delete(h.read[numbersAt], 5, 6)
		}, "unread: no member of group group has read w1 numbers-a/0#2 at offset 5 (14 records follow)"},
		{"no member has read the last record", func(h *history) {
			h.read[numbersAt] = h.read[numbersAt][:19]
		}, "unread: no member of group group has read w1 numbers-a/0#9 at offset 19 (0 records follow)"},
		{"a member has read something else", func(h *history) {
			h.read[numbersAt][3].n = 7
		}, "group group read w1 numbers-a/0#7 at offset 3, where the brokers hold w1 numbers-a/0#1 at offset 3"},
		{"a member has read a record of an aborted transaction", func(h *history) {
			h.read[txAt] = append(h.read[txAt], entry{2, writer("tx", txAt), 1})
		}, "group group read tx tx-a/0#1 at offset 2, where no record is to be seen"},
		{"a committed offset went back", func(h *history) {
			h.commits = append(h.commits, commitSample{commit{"home", "group", numbersAt}, 3})
		}, "committed offset of group group went from 4 back to 3, as home says"},
		{"a committed offset has vanished", func(h *history) {
			h.commits = append(h.commits, commitSample{commit{"home", "group", numbersAt}, -1})
		}, "committed offset of group group went from 4 back to -1, as home says"},
	} {
		t.Run(c.name, func(t *testing.T) {
			h := clean()
			c.spoil(h)
			err := h.judge()
			if err == nil || !strings.Contains(err.Error(), c.want) {
				t.Errorf("judged %v, want %s", err, c.want)
			}
		})
	}
}

func TestAPartitionThatEndsBeforeItsEndIsFound(t *testing.T) {
	l := newPartitionLog(numbersAt)
	for _, end := range []int64{5, 5, 9} {
		if err := l.reach(end); err != nil {
			t.Fatal(err)
		}
	}
	err := l.reach(8)
	if v, ok := errors.AsType[*violation](err); !ok || v.at != numbersAt || v.offset != 8 {
		t.Errorf("the end went from 9 to 8: %v", err)
	}
}

func TestALogThatHasChangedIsFound(t *testing.T) {
	first := []entry{{0, "w", 0}, {1, "w", 1}}
	for name, c := range map[string]struct {
		later []entry
		want  string
	}{
		"it goes on":               {append(slices.Clone(first), entry{2, "w", 2}), ""},
		"its last record is gone":  {first[:1], "lost: w#1 at offset 1 was read before and is not there"},
		"its first record is gone": {first[1:], "changed: w#1 at offset 1, where w#0 at offset 0 was read before"},
	} {
		before, later := newPartitionLog(numbersAt), newPartitionLog(numbersAt)
		before.entries, later.entries = first, c.later
		err := before.begins(later)
		if c.want == "" && err != nil || c.want != "" && (err == nil || !strings.Contains(err.Error(), c.want)) {
			t.Errorf("%s: %v, want %q", name, err, c.want)
		}
	}
}

// The end of a transaction has an offset of its own, and only that may be replaced.
func TestWhatWasReadIsNotReplaced(t *testing.T) {
	l := newPartitionLog(txAt)
	l.entries = []entry{{0, "w", 0}, {2, "w", 1}}
	for _, c := range []struct {
		from, to int64
		want     bool
	}{{1, 2, true}, {3, 5, true}, {1, 3, false}, {0, 1, false}, {2, 3, false}} {
		if err := l.replaced(c.from, c.to); (err == nil) != c.want {
			t.Errorf("offsets %d to %d: %v", c.from, c.to-1, err)
		}
	}
}

// What was read before the brokers were asked is compared when they were.
func TestReadersMayBeAheadOfTheLog(t *testing.T) {
	l := newPartitionLog(numbersAt)
	r := new(readership)
	both := []entry{{0, "w", 0}, {1, "w", 1}}
	r.pending = append(r.pending, both...)
	for _, e := range both {
		if err := r.compare("group", l); err != nil {
			t.Fatal(err)
		}
		if err := l.take(e); err != nil {
			t.Fatal(err)
		}
		if err := r.complete("group", l); err == nil {
			t.Error("a record that was not compared counts as read")
		}
		if err := r.compare("group", l); err != nil {
			t.Fatal(err)
		}
		if err := r.complete("group", l); err != nil {
			t.Error(err)
		}
	}
}

// What the brokers keep is understood, and what is not this tenant's is passed over.
func TestKeptCommitsAreRead(t *testing.T) {
	key := func(version int16, group string) []byte {
		k := kmsg.NewOffsetCommitKey()
		k.Version, k.Group, k.Topic, k.Partition = version, group, cluster+".numbers-a", 2
		return k.AppendTo(nil)
	}
	value := func(version int16) []byte {
		v := kmsg.NewOffsetCommitValue()
		v.Version, v.Offset = version, 17
		return v.AppendTo(nil)
	}
	ours := commit{"the topic of offsets", "group", place{cluster + ".numbers-a", 2}}
	for _, c := range []struct {
		name       string
		key, value []byte
		want       commit
		offset     int64
	}{
		{"a commit", key(1, cluster+".group"), value(3), ours, 17},
		{"a commit with an older value", key(1, cluster+".group"), value(1), ours, 17},
		{"a removal", key(1, cluster+".group"), nil, ours, -1},
		{"somebody else's", key(1, "other.group"), value(3), commit{}, 0},
		{"the state of a group", key(2, cluster+".group"), value(3), commit{}, 0},
		{"nothing", nil, nil, commit{}, 0},
	} {
		at, offset, err := kept(&kgo.Record{Key: c.key, Value: c.value})
		if at != c.want || offset != c.offset || err != nil {
			t.Errorf("%s: %v, %d, %v, want %v, %d", c.name, at, offset, err, c.want, c.offset)
		}
	}
	if _, _, err := kept(&kgo.Record{Key: key(1, cluster+".group")[:9], Value: value(3)}); err == nil {
		t.Error("half a commit was read")
	}
}

// A secret is found wherever reads are cut, and a name that is shown is none.
func TestTheWatchFindsWhatClientsMustNotSee(t *testing.T) {
	const secret = "tenant-seven"
	for cut := range len(secret) {
		w := new(watch)
		w.add("a physical name", []byte(secret))
		text := "\x00\x0e" + secret[:cut]
		tail := w.search("a client", nil, []byte("first \x00"))
		tail = w.search("a client", tail, []byte(text))
		if err := w.err(); err != nil {
			t.Fatalf("cut at %d, before its end: %v", cut, err)
		}
		w.search("a client", tail, []byte(secret[cut:]+" more"))
		if err := w.err(); err == nil || !strings.Contains(err.Error(), "leak: a client was sent a physical name") {
			t.Errorf("cut at %d: %v", cut, err)
		}
	}
	w := new(watch)
	w.add("a physical name", []byte(secret))
	other := w.search("another client", nil, []byte("tenant-"))
	w.search("a client", nil, []byte("seven"))
	if err := w.err(); err != nil {
		t.Errorf("halves of two clients: %v", err)
	}
	w.search("another client", other, []byte("eight"))
	if err := w.err(); err != nil {
		t.Errorf("another name: %v", err)
	}
}
