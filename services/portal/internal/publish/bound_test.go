package publish

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"slices"
	"sync"
	"testing"

	"tollgate.internal/pkg/bundle"
	"tollgate.internal/pkg/fleet"
	"tollgate.internal/pkg/resource"
	"tollgate.internal/services/portal/internal/control"
)

// large is a board for large bundles, and counts what is held of them.
type large struct {
	*fleet.Publisher
	t *testing.T

	mu      sync.Mutex // guards those below
	whole   int        // bundles that were compiled and not sealed
	most    int        // of those, at the same moment
	sealed  int        // bytes that were sealed and not put up
	largest int        // of one
	held    int        // the most of sealed
	put     []string   // names, in their order
	puts    int
	fails   string // the name of one that cannot be compiled
}

// largeStore has them.
type largeStore struct {
	Store
	*large
}

func (l largeStore) Compile(_ context.Context, id bundle.ID) (*bundle.Bundle, error) {
	if id.Name == l.fails {
		return nil, errors.New("no such luck")
	}
	l.mu.Lock()
	l.whole++
	l.most = max(l.most, l.whole)
	l.mu.Unlock()
	b := &bundle.Bundle{ID: id, Revision: 7, Objects: bundle.Objects{
		&resource.Tenant{Metadata: resource.Metadata{Name: "acme"}},
		&resource.VirtualCluster{Metadata: resource.Metadata{Name: id.Name, Tenant: "acme"}},
	}}
	for i := range 20 { // of names that do not compress
		acl := &resource.ACL{Metadata: resource.Metadata{Name: fmt.Sprint("a", i), VirtualCluster: id.Name}}
		acl.Spec.Resource.Name = rand.Text() + rand.Text()
		b.Objects = append(b.Objects, acl)
	}
	return b, nil
}

func (l *large) Seal(b *bundle.Bundle) (*fleet.Sealed, error) {
	s, err := l.Publisher.Seal(b)
	l.mu.Lock()
	defer l.mu.Unlock()
	l.whole--
	if err == nil {
		l.sealed += s.Size()
		l.largest, l.held = max(l.largest, s.Size()), max(l.held, l.sealed)
	}
	return s, err
}

func (l *large) PutSealed(ctx context.Context, all ...*fleet.Sealed) error {
	err := l.Publisher.PutSealed(ctx, all...)
	l.mu.Lock()
	defer l.mu.Unlock()
	l.puts++
	for _, s := range all {
		l.sealed -= s.Size()
		l.put = append(l.put, s.Name)
	}
	return err
}

// Bundles are as large as tenants make them. However many are to be put up, what is
// held of them at once is bounded by its size.
func TestLargeBundlesAreNotHeldAllAtOnce(t *testing.T) {
	b := newBed(t)
	s := &large{Publisher: b.board(), t: t}
	l := New(largeStore{large: s}, s, "eu", slog.New(slog.DiscardHandler))
	l.atOnce = 5000
	var marks []control.Mark
	var names []string
	for i := range page {
		names = append(names, fmt.Sprint("vc", i))
		marks = append(marks, control.Mark{ID: bundle.ID{Kind: bundle.VirtualCluster, Name: names[i]}, Revision: 6})
	}
	done, err := l.put(t.Context(), marks)
	if err != nil || len(done) != page {
		t.Fatalf("%d of %d were put up, %v", len(done), page, err)
	}
	for i, m := range done {
		if m.ID != marks[i].ID || m.Revision != 7 || m.Published != 7 {
			t.Fatalf("mark %d is %+v", i, m)
		}
	}
	if !slices.Equal(s.put, names) {
		t.Errorf("they were put up as %v", s.put)
	}
	if bound := l.atOnce + compilers*s.largest; s.held > bound || s.held == s.largest || s.puts < 10 {
		t.Errorf("%d bytes were held at once of bundles of up to %d, put up in %d goes: want %d at most, and not one by one", s.held, s.largest, s.puts, bound)
	}
	if s.most > compilers {
		t.Errorf("%d bundles were held whole, want %d at most", s.most, compilers)
	}
	if s.sealed != 0 || s.whole != 0 {
		t.Errorf("%d bytes and %d bundles are still held", s.sealed, s.whole)
	}

	// One that cannot be made keeps none of the others back.
	s.fails, s.put = names[150], nil
	done, err = l.put(t.Context(), marks)
	if err != nil || len(done) != page-1 || !slices.Equal(s.put, slices.Delete(slices.Clone(names), 150, 151)) {
		t.Errorf("with one that fails: %d done, %d put up, %v", len(done), len(s.put), err)
	}
	if got := slices.Collect(maps.Keys(l.stuck)); len(got) != 1 || got[0] != marks[150].ID {
		t.Errorf("stuck are %v", got)
	}
}
