package fleet

import (
	"crypto/ed25519"
	"crypto/rand"
	"crypto/x509"
	"encoding/base64"
	"encoding/binary"
	"encoding/pem"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"tollgate.internal/pkg/bundle"
	board "tollgate.internal/pkg/fleet"
	"tollgate.internal/pkg/resource"
)

// keptHead is the revision of the head that a state directory holds; 0: none.
func (b *bed) keptHead(t *testing.T, state string) int64 {
	t.Helper()
	sealed, err := os.ReadFile(filepath.Join(state, "head"))
	if err != nil {
		return 0
	}
	h, err := board.OpenHead(b.signer.Keyring(), eu, sealed)
	if err != nil {
		t.Error(err)
	}
	return h.Revision
}

// A node that says it has applied a revision, and is killed in that moment, knows an old
// copy of Redis when it comes back, though all portals are away: a revocation of what it
// had not loaded is not forgotten.
func TestAHeadIsOnDiskBeforeItCounts(t *testing.T) {
	t.Parallel()
	b := newBed(t)
	b.set(t, "a")
	b.set(t, "other")
	old := b.redis.Copy(t)
	state := t.TempDir()
	n := b.ready(t, state)
	n.find(t, "a", "a", 1)
	for range 20 {
		revision := b.set(t, "other") // a revocation, say
		until(t, "it is applied", func() bool { return n.Health().Applied >= revision })
		if kept := b.keptHead(t, state); kept < revision {
			t.Fatalf("the node has applied revision %d, and would know of %d after kill -9", revision, kept)
		}
	}
	// kill -9: what is on disk is all that there is.
	killed := t.TempDir()
	if err := os.CopyFS(killed, os.DirFS(state)); err != nil {
		t.Fatal(err)
	}
	n.stop()
	b.redis.Restore(t, old)
	n = b.node(t, killed)
	until(t, "the node notices", func() bool { return strings.Contains(fmt.Sprint(n.Problem()), "from a copy of revision 2") })
	if err := n.Find(t.Context(), "other"); err == nil || n.gateway.revision("other") != 0 {
		t.Errorf("what was revoked is served at revision %d from an old copy, %v", n.gateway.revision("other"), err)
	}
	n.find(t, "a", "a", 1)
	// The portal learns from the node how far it was told.
	n.join(t)
	until(t, "the portal knows", func() bool {
		seen, node, err := b.publisher.Seen(t.Context())
		return err == nil && seen == b.revision && node == "n1"
	})
}

// A head that somebody puts into the stream again says nothing of what stands in Redis.
func TestAHeadOfTheStreamIsOvertaken(t *testing.T) {
	t.Parallel()
	b := newBed(t)
	b.set(t, "a")
	stale, err := b.redis.Client().HGet(t.Context(), "tollgate:eu:head", "data").Result()
	if err != nil {
		t.Fatal(err)
	}
	b.set(t, "a")
	n := b.ready(t, t.TempDir())
	last, err := b.redis.Client().XRevRangeN(t.Context(), "tollgate:eu:changes", "+", "-", 1).Result()
	if err != nil {
		t.Fatal(err)
	}
	if err := b.redis.Client().Do(t.Context(), "XADD", "tollgate:eu:changes", "*", "after", last[0].ID, "head", stale).Err(); err != nil {
		t.Fatal(err)
	}
	n.find(t, "a", "a", 2)
	n.applies(t, "a", b.set(t, "a")) // which stands behind it
	if h := n.Health(); h.Stale || h.Head < 2 {
		t.Errorf("Health = %+v", h)
	}
}

// next is something sealed as a version would seal it that writes a newer format.
func next(t *testing.T, s *bundle.Signer, purpose bundle.Purpose, sealed []byte) []byte {
	t.Helper()
	const magic, key, length = 4, 8, 4
	text, err := s.Private()
	if err != nil {
		t.Fatal(err)
	}
	block, _ := pem.Decode(text)
	private, err := x509.ParsePKCS8PrivateKey(block.Bytes)
	if err != nil {
		t.Fatal(err)
	}
	out := append([]byte(nil), sealed...)
	format := binary.BigEndian.Uint16(out[magic:]) + 1
	if purpose == bundle.ForBundle {
		format = bundle.Format + 1
	}
	binary.BigEndian.PutUint16(out[magic:], format)
	signed := append([]byte("tollgate sealed "+string(purpose)+"\x00"), out[magic:magic+2+key]...)
	signed = append(signed, out[magic+2+key+ed25519.SignatureSize+length:]...)
	copy(out[magic+2+key:], ed25519.Sign(private.(ed25519.PrivateKey), signed))
	return out
}

// A portal writes bundles that an older node cannot read. The node knows how far
// everything is published, serves and loads what it can read, obeys, and keeps what it
// had of the rest; when the portal is taken back, it has everything again.
func TestAFleetOfTwoFormats(t *testing.T) {
	t.Parallel()
	b := newBed(t)
	b.set(t, "a")
	b.set(t, "old")
	n := b.ready(t, t.TempDir())
	n.find(t, "a", "a", 1)
	newer := func(name string) int64 {
		t.Helper()
		b.keep(func(r int64) *bundle.Bundle { return virtualCluster(name, r, name) })
		sealed, err := b.signer.SealBundle(b.store[idOf(name)])
		if err != nil {
			t.Fatal(err)
		}
		err = b.redis.Client().HSet(t.Context(), "tollgate:eu:vc:"+name, "revision", b.revision, "data", next(t, b.signer, bundle.ForBundle, sealed)).Err()
		if err == nil {
			err = b.redis.Client().HSet(t.Context(), "tollgate:eu:host:"+name, "revision", b.revision, "data", name).Err()
		}
		if err == nil {
			err = b.publisher.Announce(t.Context(), board.Change{ID: idOf(name), Revision: b.revision})
		}
		if err == nil {
			err = b.publisher.SetHead(t.Context(), b.revision)
		}
		if err != nil {
			t.Fatal(err)
		}
		return b.revision
	}
	newer("a")
	unread := newer("unread")
	until(t, "the node says what it cannot read", func() bool {
		return n.Health().Refused[bundle.Newer] > 0 && strings.Contains(fmt.Sprint(n.Problem()), "a bundle of format 3")
	})
	until(t, "the node knows how far everything is published", func() bool { h := n.Health(); return h.Head == unread && !h.Stale })
	n.find(t, "a", "a", 1)
	n.find(t, "old", "old", 2)
	if err := n.Find(t.Context(), "unread"); err == nil {
		t.Error("what cannot be read is found without an error")
	}
	n.find(t, "fresh", "fresh", 0)
	fresh := b.set(t, "fresh") // in the format of before
	n.find(t, "fresh", "fresh", fresh)
	n.applies(t, "fresh", b.set(t, "fresh"))

	// The portal of before puts up again what it cannot read, and newer ones.
	b.publishAll(t)
	if err := b.publisher.Announce(t.Context(), board.Change{ID: idOf("a"), Revision: b.store[idOf("a")].Revision}); err != nil {
		t.Fatal(err)
	}
	n.applies(t, "a", b.store[idOf("a")].Revision)
	n.find(t, "unread", "unread", unread)
	n.follows(t)
	if err := n.Problem(); err != nil {
		t.Errorf("Problem: %v", err)
	}
}

// What is republished costs what it is, not what is loaded beside it.
func TestManyChangesOfManyAreLinear(t *testing.T) {
	t.Parallel()
	b := newBed(t)
	names := make([]string, 300)
	for i := range names {
		names[i] = fmt.Sprintf("vc-%d", i)
		b.keep(func(r int64) *bundle.Bundle { return virtualCluster(names[i], r, names[i]) })
	}
	b.publishAll(t)
	n := b.ready(t, t.TempDir())
	for _, name := range names {
		n.find(t, name, name, b.store[idOf(name)].Revision)
	}
	n.follows(t)
	listed := func() int {
		n.gateway.mu.Lock()
		defer n.gateway.mu.Unlock()
		return n.gateway.listed
	}
	before := listed()
	changes := make([]board.Change, len(names))
	for i, name := range names {
		b.keep(func(r int64) *bundle.Bundle { return virtualCluster(name, r, name) })
		changes[i] = board.Change{ID: idOf(name), Revision: b.revision}
		if err := b.publisher.Put(t.Context(), b.store[idOf(name)]); err != nil {
			t.Fatal(err)
		}
	}
	if err := b.publisher.Announce(t.Context(), changes...); err != nil {
		t.Fatal(err)
	}
	if err := b.publisher.SetHead(t.Context(), b.revision); err != nil {
		t.Fatal(err)
	}
	for _, name := range names {
		n.applies(t, name, b.store[idOf(name)].Revision)
	}
	if times := listed() - before; times > 5 { // now and then everything is looked at for other reasons
		t.Errorf("all that is loaded was listed %d times for %d changes", times, len(names))
	}
}

// A large virtual cluster is brought by itself, with no harm to those that are small, and
// what is larger than anybody signs is refused unread.
func TestLargeBundles(t *testing.T) {
	t.Parallel()
	b := newBed(t)
	names := []string{"a", "large", "b", "huge"}
	for _, name := range names {
		b.set(t, name)
	}
	n := b.ready(t, t.TempDir())
	for _, name := range names {
		n.find(t, name, name, b.store[idOf(name)].Revision)
	}
	noise := make([]byte, 1<<20) // which compression makes nothing of
	if _, err := rand.Read(noise); err != nil {
		t.Fatal(err)
	}
	grow := func(name string) {
		b.keep(func(r int64) *bundle.Bundle {
			large := virtualCluster(name, r, name)
			large.Objects[0].(*resource.Tenant).Spec.DisplayName = base64.StdEncoding.EncodeToString(noise)
			return large
		})
	}
	grow("large")
	b.keep(func(r int64) *bundle.Bundle { return virtualCluster("a", r, "a") })
	b.keep(func(r int64) *bundle.Bundle { return virtualCluster("b", r, "b") })
	changes := []board.Change{{ID: idOf("huge"), Revision: 1000}}
	for _, name := range names[:3] {
		if err := b.publisher.Put(t.Context(), b.store[idOf(name)]); err != nil {
			t.Fatal(err)
		}
		changes = append(changes, board.Change{ID: idOf(name), Revision: b.store[idOf(name)].Revision})
	}
	junk := strings.Repeat("x", bundle.MaxBytes+1)
	if err := b.redis.Client().HSet(t.Context(), "tollgate:eu:vc:huge", "revision", 1000, "data", junk).Err(); err != nil {
		t.Fatal(err)
	}
	if err := b.publisher.Announce(t.Context(), changes...); err != nil {
		t.Fatal(err)
	}
	for _, name := range names[:3] {
		n.applies(t, name, b.store[idOf(name)].Revision)
	}
	until(t, "it is refused", func() bool {
		return n.Health().Refused[bundle.TooLarge] > 0 && strings.Contains(fmt.Sprint(n.Problem()), "VirtualCluster huge")
	})
	n.gateway.unload("huge")
	n.find(t, "huge", "huge", 4) // of disk
	if h := n.Health(); !h.Connected {
		t.Errorf("Health = %+v", h)
	}
	n.gateway.unload("large")
	n.find(t, "large", "large", b.store[idOf("large")].Revision)
}
