package soak

import (
	"errors"
	"fmt"
	"slices"
	"sort"
)

// A place is a partition of a topic, as clients name it.
type place struct {
	topic     string
	partition int32
}

func (p place) String() string { return fmt.Sprintf("%s/%d", p.topic, p.partition) }

// An entry is a record as it lies in a partition. Each writer numbers the records
// it writes to a partition; a writer's name holds the place it writes to.
type entry struct {
	offset int64
	writer string
	n      int64
}

func (e entry) String() string { return fmt.Sprintf("%s#%d at offset %d", e.writer, e.n, e.offset) }

// A violation is a broken promise about one record.
type violation struct {
	at     place
	offset int64 // where to look; -1: nowhere
	what   string
}

func (v *violation) Error() string { return fmt.Sprintf("%v: %s", v.at, v.what) }

func broken(at place, offset int64, format string, args ...any) error {
	return &violation{at, offset, fmt.Sprintf(format, args...)}
}

// A partitionLog is what the brokers hold of a partition, as far as it was read.
type partitionLog struct {
	at      place
	entries []entry
	end     int64            // where reading goes on
	writers map[string]*hand // by name
}

// A hand is what a log holds of one writer.
type hand struct {
	last    int64
	offsets map[int64]int64 // of its numbers
}

func newPartitionLog(at place) *partitionLog {
	return &partitionLog{at: at, writers: make(map[string]*hand)}
}

// take adds the next record. Each number comes once, and after the lower ones of
// its writer.
func (l *partitionLog) take(e entry) error {
	if e.offset < l.end {
		return broken(l.at, e.offset, "%v, but offset %d was read before", e, l.end-1)
	}
	l.end = e.offset + 1
	l.entries = append(l.entries, e)
	h := l.writers[e.writer]
	if h == nil {
		h = &hand{last: -1, offsets: make(map[int64]int64)}
		l.writers[e.writer] = h
	}
	if first, ok := h.offsets[e.n]; ok {
		return broken(l.at, e.offset, "duplicate: %v was at offset %d before", e, first)
	}
	h.offsets[e.n] = e.offset
	if e.n < h.last {
		return broken(l.at, e.offset, "order: %v comes after #%d of the same writer", e, h.last)
	}
	h.last = e.n
	return nil
}

// reach says up to where the partition was read, control records included.
func (l *partitionLog) reach(end int64) error {
	if end < l.end {
		return broken(l.at, end, "lost: the partition ends at %d and has ended at %d before", end, l.end)
	}
	l.end = end
	return nil
}

// begins checks that a log that was read later begins with this one.
func (l *partitionLog) begins(later *partitionLog) error {
	for i, e := range l.entries {
		if i >= len(later.entries) {
			return broken(l.at, e.offset, "lost: %v was read before and is not there", e)
		}
		if later.entries[i] != e {
			return broken(l.at, e.offset, "changed: %v, where %v was read before", later.entries[i], e)
		}
	}
	return nil
}

// An ack is what a writer was told of one of its records.
type ack struct {
	entry       // offset -1: it was not told where
	at    place //
}

// acknowledged checks that the record is there, and where its writer was told.
func (l *partitionLog) acknowledged(a ack) error {
	h := l.writers[a.writer]
	if h == nil {
		return broken(l.at, a.offset, "lost: %v was acknowledged, nothing of its writer is there", a.entry)
	}
	offset, ok := h.offsets[a.n]
	switch {
	case !ok:
		return broken(l.at, a.offset, "lost: %v was acknowledged and is not there", a.entry)
	case a.offset >= 0 && offset != a.offset:
		return broken(l.at, a.offset, "misplaced: %v was acknowledged and is at offset %d", a.entry, offset)
	}
	return nil
}

// replaced checks what a client took for a loss: that the offsets from one to
// another, which it has read, have been written anew. franz-go thinks so, and reads
// on unharmed, if they are the end of a transaction and the first of a new leader:
// it counts with the epoch of the last record it has returned.
func (l *partitionLog) replaced(from, to int64) error {
	if i, _ := l.find(from); i < len(l.entries) && l.entries[i].offset < to {
		return broken(l.at, from, "lost: %v is one of those from offset %d to %d that a client was told to have been written anew", l.entries[i], from, to-1)
	}
	return nil
}

// find is where in entries an offset is, and whether it is there.
func (l *partitionLog) find(offset int64) (int, bool) {
	i := sort.Search(len(l.entries), func(i int) bool { return l.entries[i].offset >= offset })
	return i, i < len(l.entries) && l.entries[i].offset == offset
}

// near are the entries around an offset.
func (l *partitionLog) near(offset int64, each int) []entry {
	i, _ := l.find(offset)
	return l.entries[max(0, i-each):min(len(l.entries), i+each+1)]
}

// A readership is what the members of a group have read of a partition.
type readership struct {
	pending []entry // not compared yet; n -1: only the offset is known
	covered []bool  // by index in entries
	missing int     // the first index that is not covered
}

// compare checks what was read against the log as it is known now.
func (r *readership) compare(group string, l *partitionLog) error {
	r.covered = append(r.covered, make([]bool, len(l.entries)-len(r.covered))...)
	var later []entry
	for _, e := range r.pending {
		if e.offset >= l.end {
			later = append(later, e)
			continue
		}
		i, ok := l.find(e.offset)
		if !ok {
			return broken(l.at, e.offset, "group %s read %v, where no record is to be seen", group, e)
		}
		if e.n >= 0 && e != l.entries[i] {
			return broken(l.at, e.offset, "group %s read %v, where the brokers hold %v", group, e, l.entries[i])
		}
		r.covered[i] = true
	}
	r.pending = later
	return nil
}

// complete reports the first record that no member has read.
func (r *readership) complete(group string, l *partitionLog) error {
	for r.missing < len(l.entries) && r.missing < len(r.covered) && r.covered[r.missing] {
		r.missing++
	}
	if r.missing < len(l.entries) {
		e := l.entries[r.missing]
		return broken(l.at, e.offset, "unread: no member of group %s has read %v (%d records follow)", group, e, len(l.entries)-r.missing-1)
	}
	return nil
}

// What became of a transaction, as its producer knows.
type outcome uint8

const (
	unknown outcome = iota // all of it or nothing
	committed
	aborted
)

func (o outcome) String() string { return [...]string{"of unknown outcome", "committed", "aborted"}[o] }

// A transaction is what was written in one.
type transaction struct {
	id      string
	outcome outcome
	records []ack // offsets are not known
}

// atomic checks that all records of a transaction are to be seen, or none, as its
// outcome says.
func (t *transaction) atomic(logs map[place]*partitionLog) error {
	var there, gone []ack
	for _, r := range t.records {
		h := logs[r.at].writers[r.writer]
		if h != nil {
			if offset, ok := h.offsets[r.n]; ok {
				r.offset = offset
				there = append(there, r)
				continue
			}
		}
		gone = append(gone, r)
	}
	switch {
	case t.outcome != aborted && len(there) > 0 && len(gone) > 0:
		return broken(there[0].at, there[0].offset, "transaction %s, %v: %v is to be seen, %s#%d of %v is not",
			t.id, t.outcome, there[0].entry, gone[0].writer, gone[0].n, gone[0].at)
	case t.outcome == committed && len(there) == 0:
		return broken(gone[0].at, -1, "lost: transaction %s, %v: %s#%d is not to be seen", t.id, t.outcome, gone[0].writer, gone[0].n)
	case t.outcome == aborted && len(there) > 0:
		return broken(there[0].at, there[0].offset, "transaction %s, %v: %v is to be seen", t.id, t.outcome, there[0].entry)
	}
	return nil
}

// errIncomplete says that not everything was moved yet, which time may cure.
var errIncomplete = errors.New("not everything was moved")

// moved checks that to holds the records of from, which is one of several places
// its records come from, each once and in the same order.
func moved(from, to *partitionLog) error {
	i := 0
	for _, e := range to.entries {
		if from.writers[e.writer] == nil {
			continue // from elsewhere
		}
		if i == len(from.entries) {
			return broken(to.at, e.offset, "moved: %v, but all %d records of %v were moved before", e, i, from.at)
		}
		if want := from.entries[i]; e.writer != want.writer || e.n != want.n {
			return broken(to.at, e.offset, "moved: %v, where %v of %v was due", e, want, from.at)
		}
		i++
	}
	if i < len(from.entries) {
		return fmt.Errorf("%w: %d of %d records of %v, next %v", errIncomplete, i, len(from.entries), from.at, from.entries[i])
	}
	return nil
}

// commits are the offsets that groups have committed, by where they were asked for.
type commits map[commit]int64

type commit struct {
	asked, group string
	at           place
}

// sample checks that a committed offset has not gone back. -1 is none.
func (c commits) sample(at commit, offset int64) error {
	if before, ok := c[at]; ok && offset < before {
		return broken(at.at, offset, "committed offset of group %s went from %d back to %d, as %s says", at.group, before, offset, at.asked)
	}
	c[at] = offset
	return nil
}

// strangers are writers whose records do not belong into a log.
func (l *partitionLog) strangers(known func(writer string) bool) error {
	var names []string
	for name := range l.writers {
		if !known(name) {
			names = append(names, name)
		}
	}
	if len(names) == 0 {
		return nil
	}
	slices.Sort(names)
	for _, offset := range l.writers[names[0]].offsets {
		return broken(l.at, offset, "astray: records of %q, which nobody wrote here", names[0])
	}
	return nil
}
