package session

import (
	"context"
	"log/slog"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"testing"
	"testing/synctest"
	"time"

	"tollgate.internal/pkg/resource"
	"tollgate.internal/services/proxy/internal/auth"
	"tollgate.internal/services/proxy/internal/netio"
	"tollgate.internal/services/proxy/internal/refusal"
	"tollgate.internal/services/proxy/internal/view"
)

// loginBed is a virtual cluster with one account, alice, and the clock of its
// realm.
type loginBed struct {
	deps *auth.Deps
	node *Node
	vc   *view.VirtualCluster
	now  time.Time
}

func newLoginBed(t *testing.T, expires time.Time) *loginBed {
	t.Helper()
	b := &loginBed{now: time.Now()}
	b.deps = auth.NewDeps(auth.Options{Now: func() time.Time { return b.now }})
	b.vc = view.NewVirtualCluster(b.view(t, "secret", expires), nil, nil, slog.New(slog.DiscardHandler))
	log := slog.New(slog.DiscardHandler)
	b.node = &Node{Log: log, Refusals: refusal.NewNotes(log), Backoff: auth.NewBackoff(nil)}
	return b
}

func (b *loginBed) view(t *testing.T, password string, expires time.Time) *view.View {
	t.Helper()
	dir := t.TempDir()
	if err := os.WriteFile(filepath.Join(dir, "secret"), []byte(password), 0o600); err != nil {
		t.Fatal(err)
	}
	set := &resource.Set{VirtualClusters: map[string]*resource.VirtualCluster{"acme": {
		Metadata: resource.Metadata{Name: "acme", Tenant: "acme"},
		Spec:     resource.VirtualClusterSpec{Authentication: resource.Authentication{Plain: &struct{}{}}},
	}}}
	account := &resource.ServiceAccount{
		Metadata: resource.Metadata{Name: "alice", VirtualCluster: "acme", Source: resource.Source{File: filepath.Join(dir, "a.yaml")}},
		Spec:     resource.ServiceAccountSpec{Type: resource.Local, Password: "file:secret", Expires: expires},
	}
	set.ServiceAccounts = append(set.ServiceAccounts, account)
	v, err := view.Compile(set, "acme", b.now, b.deps, nil)
	if err != nil {
		t.Fatal(err)
	}
	return v
}

// connect is a client that has said which mechanism it will use.
func (b *loginBed) connect(t *testing.T, addr string) *Session {
	t.Helper()
	ours, theirs := net.Pipe()
	t.Cleanup(func() { ours.Close(); theirs.Close() })
	sock := netio.New(ours)
	s := New(b.node, &Client{Net: sock, Sock: sock, SASL: true, Remote: netip.MustParseAddr(addr), Node: -1}, b.vc)
	exchange, err := b.vc.View().Realm.Begin("PLAIN")
	if err != nil {
		t.Fatal(err)
	}
	s.exchange, s.mechanism, s.phase = exchange, "PLAIN", handshaken
	return s
}

// Hanging up before the refusal does not save a guesser the delay: the next
// attempt waits for it before its proof is looked at.
func TestAGuesserWhoHangsUpWaitsTheNextTime(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newLoginBed(t, time.Time{})
		for range 3 {
			ctx, hangUp := context.WithCancel(context.Background())
			s := b.connect(t, "192.0.2.1")
			s.began = true // as if there were no delay before the first message
			go s.saslStep(ctx, []byte("\x00alice\x00guess"))
			synctest.Wait() // until its refusal is held back
			hangUp()
		}
		for _, c := range []struct {
			name, addr, message string
			want                time.Duration
			admitted            bool
		}{
			{"somebody else", "192.0.2.2", "\x00alice\x00secret", 0, true},
			{"the same guesser", "192.0.2.1", "\x00alice\x00guess", 800 * time.Millisecond, false},
			{"the guesser under another name", "192.0.2.1", "\x00bob\x00guess", 1600 * time.Millisecond, false},
			{"even with the right password", "192.0.2.1", "\x00alice\x00secret", 1600 * time.Millisecond, true},
		} {
			s := b.connect(t, c.addr)
			judged, began := b.deps.Derivations(), time.Now()
			done := make(chan error, 1)
			go func() {
				_, err := s.saslStep(context.Background(), []byte(c.message))
				done <- err
			}()
			if synctest.Wait(); c.want > 0 && b.deps.Derivations() != judged {
				t.Errorf("%s: the proof was looked at before the wait", c.name)
			}
			err := <-done
			if took := time.Since(began); took != c.want || (err == nil) != c.admitted {
				t.Errorf("%s: %v after %v, want %v and admitted %t", c.name, err, took, c.want, c.admitted)
			}
		}
	})
}

func TestAnExpiredAccountLosesItsSessionsWithoutAChange(t *testing.T) {
	expires := time.Now().Add(time.Hour)
	b := newLoginBed(t, time.Time{})
	s := b.connect(t, "192.0.2.1")
	if _, err := s.saslStep(t.Context(), []byte("\x00alice\x00secret")); err != nil {
		t.Fatal(err)
	}
	b.vc.Swap(b.view(t, "secret", expires), nil) // the end comes into the files later
	s.Revalidate()
	b.now = expires.Add(-time.Nanosecond)
	s.Sweep(b.now)
	if s.ended.Load() != nil {
		t.Fatalf("ended before the account expired: %v", s.ended.Load().err)
	}
	b.now = expires
	s.Sweep(b.now)
	if end := s.ended.Load(); end == nil || refusal.Of(end.err) != refusal.CredentialRevoked {
		t.Errorf("the session of an expired account: %+v, want it ended with %s", end, refusal.CredentialRevoked.ID)
	}
}

// A login that was under way when the account changed was judged by what is no
// longer true.
func TestALoginIsJudgedAgainByTheFilesOfItsEnd(t *testing.T) {
	b := newLoginBed(t, time.Time{})
	s := b.connect(t, "192.0.2.1")
	b.vc.Swap(b.view(t, "another", time.Time{}), nil)
	s.Revalidate() // finds nobody to judge yet
	s.saslStep(t.Context(), []byte("\x00alice\x00secret"))
	if end := s.ended.Load(); end == nil || refusal.Of(end.err) != refusal.CredentialRevoked {
		t.Errorf("a login with a password that was changed meanwhile: %+v, want it ended with %s", end, refusal.CredentialRevoked.ID)
	}
}
