package fleet

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"tollgate.internal/pkg/bundle"
	board "tollgate.internal/pkg/fleet"
	"tollgate.internal/pkg/resource"
)

// policies are those of all virtual clusters from now on.
func (b *bed) policies(t *testing.T, names ...string) (revision int64) {
	t.Helper()
	return b.change(t, func(r int64) *bundle.Bundle {
		o := &bundle.Bundle{Deployment: eu, ID: bundle.Everywhere, Revision: r}
		for _, name := range names {
			o.Objects = append(o.Objects, &resource.Policy{
				Metadata: resource.Metadata{Name: name},
				Spec:     resource.PolicySpec{Type: resource.PolicyProduce, Config: resource.PolicyConfig{Acks: resource.AcksAll}},
			})
		}
		return o
	})
}

// rules are the names of the policies in force.
func (g *gateway) rules() string {
	g.mu.Lock()
	defer g.mu.Unlock()
	var names []string
	for _, p := range g.policies {
		names = append(names, p.Metadata.Name)
	}
	return strings.Join(names, " ")
}

func (n *node) obeys(t *testing.T, rules string) {
	t.Helper()
	if got := n.gateway.rules(); got != rules {
		t.Errorf("in force is %q, want %q", got, rules)
	}
}

const policiesKey = "tollgate:eu:policies"

// lose takes the policies out of Redis, and nothing else.
func (b *bed) lose(t *testing.T) {
	t.Helper()
	if err := b.redis.Client().Del(t.Context(), policiesKey).Err(); err != nil {
		t.Fatal(err)
	}
}

func TestPoliciesOfAllAreFollowed(t *testing.T) {
	t.Parallel()
	b := newBed(t)
	b.set(t, "a")
	n := b.ready(t, t.TempDir())
	n.find(t, "a", "a", 1)
	n.obeys(t, "")
	n.appliesAll(t, b.policies(t, "first"))
	n.obeys(t, "first")
	n.appliesAll(t, b.policies(t, "first", "second"))
	n.obeys(t, "first second")
	n.appliesAll(t, b.policies(t))
	n.obeys(t, "")
	n.appliesAll(t, b.policies(t, "third"))
	if err := n.Problem(); err != nil {
		t.Errorf("Problem: %v", err)
	}
}

// A node that is started again without Redis serves nobody without the policies that it
// was told of.
func TestPoliciesOfAllAreInForceWithoutRedis(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		before func(*testing.T, *bed, *node)
		served bool
		rules  string
	}{
		"they are on disk": {nil, true, "first"},
		"they were removed": {func(t *testing.T, b *bed, n *node) {
			removed := b.policies(t)
			n.appliesAll(t, removed)
		}, true, ""},
		"they are not on disk":        {func(t *testing.T, _ *bed, n *node) { n.remove(t, policiesFile) }, false, ""},
		"nor is how far it was told":  {func(t *testing.T, _ *bed, n *node) { n.remove(t, policiesFile); n.remove(t, "head") }, false, ""},
		"those on disk are of before": {func(t *testing.T, b *bed, n *node) { n.heldBack(t, b) }, false, "first"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			b := newBed(t)
			b.set(t, "a")
			b.policies(t, "first")
			n := b.ready(t, t.TempDir())
			n.find(t, "a", "a", 1)
			n.obeys(t, "first")
			if c.before != nil {
				c.before(t, b, n)
			}
			n.stop()
			b.redis.Kill(t)
			again := b.node(t, n.state)
			err := again.Find(within(t, 20*time.Second), "a")
			if revision := again.gateway.revision("a"); (err == nil) != c.served || (revision != 0) != c.served {
				t.Errorf("Find: %v, served at revision %d, want served %v", err, revision, c.served)
			}
			again.obeys(t, c.rules)
			if !c.served {
				if err := again.Problem(); err == nil {
					t.Error("there is no problem")
				}
			}
		})
	}
}

// remove takes a file from the node's directory.
func (n *node) remove(t *testing.T, name string) {
	t.Helper()
	if err := os.Remove(filepath.Join(n.state, name)); err != nil {
		t.Fatal(err)
	}
}

// heldBack has the node told of later policies that do not come.
func (n *node) heldBack(t *testing.T, b *bed) {
	t.Helper()
	b.revision++
	if err := b.publisher.Advance(t.Context(), 0, board.Head{Revision: b.revision, Policies: b.revision}); err != nil {
		t.Fatal(err)
	}
	until(t, "the node was told", func() bool { return n.Health().Seen >= b.revision })
}

// Somebody takes the policies out of Redis, or puts something else there: who is served
// already is by those of before, nobody else is, and nothing passes for applied. When the
// portal has put them up again, all is well.
func TestPoliciesOfAllThatDoNotCome(t *testing.T) {
	t.Parallel()
	for name, meddle := range map[string]func(t *testing.T, b *bed){
		"they are missing": func(t *testing.T, b *bed) { b.lose(t) },
		"they are forged": func(t *testing.T, b *bed) {
			if err := b.redis.Client().HSet(t.Context(), policiesKey, "revision", b.revision, "data", "nobody's").Err(); err != nil {
				t.Fatal(err)
			}
		},
		"they are those of before": func(t *testing.T, b *bed) {
			old, err := b.signer.SealBundle(&bundle.Bundle{Deployment: eu, ID: bundle.Everywhere, Revision: 1})
			if err == nil {
				err = b.redis.Client().HSet(t.Context(), policiesKey, "revision", b.revision, "data", old).Err()
			}
			if err != nil {
				t.Fatal(err)
			}
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			b := newBed(t)
			b.set(t, "a")
			later := b.set(t, "b")
			b.policies(t, "first")
			n := b.ready(t, t.TempDir())
			n.find(t, "a", "a", 1)
			before := n.Health().Applied

			// They are stored, and their place in Redis is not what was put there.
			b.keep(func(r int64) *bundle.Bundle {
				o := *b.store[bundle.Everywhere]
				o.Revision, o.Objects = r, append(bundle.Objects{&resource.Policy{
					Metadata: resource.Metadata{Name: "second"}, Spec: resource.PolicySpec{Type: resource.PolicyProduce, Config: resource.PolicyConfig{Idempotent: true}},
				}}, o.Objects...)
				return &o
			})
			meddle(t, b)
			b.head(t, b.revision)
			until(t, "the node says it", func() bool {
				err := n.Problem()
				return err != nil && strings.Contains(err.Error(), "the policies of all virtual clusters")
			})
			n.obeys(t, "first")
			if err := n.Find(t.Context(), "b"); err == nil || n.gateway.revision("b") != 0 {
				t.Errorf("brought in without them: %v", err)
			}
			if applied := n.Health().Applied; applied != before {
				t.Errorf("applied %d, want %d", applied, before)
			}
			stranger := b.node(t, t.TempDir(), func(o *Options) { o.Node.ID = "n2" })
			if err := stranger.Find(t.Context(), "a"); err == nil || stranger.gateway.revision("a") != 0 {
				t.Errorf("a node that is new brought it in without them: %v", err)
			}
			stranger.obeys(t, "")

			b.repair(t)
			for _, n := range []*node{n, stranger} {
				n.appliesAll(t, b.revision)
			}
			n.obeys(t, "first second")
			n.find(t, "b", "b", later)
			stranger.find(t, "a", "a", 1)
			stranger.obeys(t, "first second")
		})
	}
}

// repair is what the portal does when it finds that something is not there as it was put up.
func (b *bed) repair(t *testing.T) {
	t.Helper()
	o := b.store[bundle.Everywhere]
	err := errors.Join(b.publisher.Put(t.Context(), o), b.publisher.Announce(t.Context(), board.Change{ID: o.ID, Revision: o.Revision}))
	if err != nil {
		t.Fatal(err)
	}
	b.head(t, b.revision)
}

// A copy of Redis brings nothing back that was changed behind it.
func TestAnOldCopyBringsNoPolicyBack(t *testing.T) {
	t.Parallel()
	b := newBed(t)
	b.set(t, "a")
	b.policies(t, "first", "second")
	n := b.ready(t, t.TempDir())
	n.find(t, "a", "a", 1)
	old := b.redis.Copy(t)
	removed := b.policies(t, "second")
	n.appliesAll(t, removed)
	n.obeys(t, "second")
	b.redis.Restore(t, old)
	until(t, "the node knows it for an old one", func() bool { return n.Health().Stale })
	n.obeys(t, "second")
	n.stop()
	again := b.node(t, n.state)
	again.find(t, "a", "a", 1)
	again.obeys(t, "second")
	again.stop()

	if err := b.redis.Client().FlushAll(t.Context()).Err(); err != nil {
		t.Fatal(err)
	}
	empty := b.node(t, n.state)
	empty.find(t, "a", "a", 1)
	empty.obeys(t, "second")
	removed = b.policies(t)
	b.publishAll(t)
	empty.appliesAll(t, removed)
	empty.obeys(t, "")
}

// A node whose directory cannot be written would forget
// after a restart what it was told: it obeys them, and does not pass for one that has.
func TestPoliciesThatCannotBeKeptAreNotApplied(t *testing.T) {
	t.Parallel()
	b := newBed(t)
	b.set(t, "a")
	n := b.ready(t, t.TempDir())
	n.find(t, "a", "a", 1)
	before := n.Health().Applied
	// Nothing can take the place of a directory with something in it.
	inTheWay := filepath.Join(n.state, policiesFile, "x")
	if err := os.MkdirAll(inTheWay, 0o700); err != nil {
		t.Fatal(err)
	}
	revision := b.policies(t, "first")
	until(t, "the policy is in force", func() bool { return n.gateway.rules() == "first" })
	until(t, "the node says that it cannot be kept", func() bool {
		err := n.Problem()
		return err != nil && strings.Contains(err.Error(), "state directory")
	})
	if applied := n.Health().Applied; applied != before {
		t.Errorf("applied %d, want %d", applied, before)
	}
	if err := os.RemoveAll(filepath.Dir(inTheWay)); err != nil {
		t.Fatal(err)
	}
	until(t, "it is kept, and applied", func() bool { return n.Health().Applied >= revision })
}

// A policy that the gateway does not know refuses the change, and holds nothing else up.
func TestPoliciesThatAreRefused(t *testing.T) {
	t.Parallel()
	b := newBed(t)
	b.set(t, "a")
	b.policies(t, "first")
	n := b.ready(t, t.TempDir())
	n.find(t, "a", "a", 1)
	n.gateway.refuses(bundle.Everywhere.Name, errors.New("unknown type"))
	b.policies(t, "tap-dance")
	until(t, "the node says it", func() bool {
		err := n.Problem()
		return err != nil && strings.Contains(err.Error(), "unknown type")
	})
	n.obeys(t, "first")
	n.applies(t, "a", b.set(t, "a"))
	n.gateway.refuses(bundle.Everywhere.Name, nil)
	n.appliesAll(t, b.revision)
	n.obeys(t, "tap-dance")
}

// What is loaded beforehand waits for the policies, too.
func TestPoliciesOfAllComeBeforeWhatIsPreloaded(t *testing.T) {
	t.Parallel()
	b := newBed(t)
	b.set(t, "a")
	b.policies(t, "first")
	b.lose(t)
	n := b.node(t, t.TempDir(), func(o *Options) { o.Preload = true })
	if revision := n.gateway.revision("a"); revision != 0 {
		t.Errorf("preloaded without them at revision %d", revision)
	}
	b.repair(t)
	n.applies(t, "a", 1)
	n.obeys(t, "first")
}
