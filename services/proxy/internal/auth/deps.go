package auth

import (
	"context"
	"crypto/hmac"
	"crypto/rand"
	"crypto/sha256"
	"encoding/binary"
	"net/http"
	"runtime"
	"sync"
	"sync/atomic"
	"time"
)

const (
	maxDerived = 1 << 16 // passwords whose keys are remembered between reloads
	maxProven  = 1 << 14 // accounts whose last good PLAIN password is recognised without deriving
)

// Options are what the realms of a node need from outside.
type Options struct {
	Now  func() time.Time // time.Now when nil
	HTTP *http.Client     // fetches signing keys; one with a 10 s limit when nil
	// SaltKey makes the salts of passwords given by reference, and of users that
	// do not exist. Nodes with the same SaltKey show the same salts, so that
	// asking two nodes, or one before and after a restart, does not tell which
	// users exist. Random when empty.
	SaltKey []byte
}

// Deps is what the realms of a node share. It is safe for concurrent use.
type Deps struct {
	now     func() time.Time
	http    *http.Client
	secret  []byte // of this process: fingerprints and caches are of no use without it
	saltKey []byte
	work    chan struct{} // a slot for each key derivation under way

	derivations, proofs atomic.Int64

	mu      sync.Mutex
	derived *lru[[sha256.Size]byte, scramKeys] // by password, salt and all: see deriveOnce
	proven  *lru[string, [sha256.Size]byte]    // by verifier fingerprint
	keySets *lru[string, *keySet]              // by issuer and place
}

// NewDeps returns what realms share.
func NewDeps(o Options) *Deps {
	d := &Deps{
		now: o.Now, http: o.HTTP, saltKey: o.SaltKey,
		secret:  make([]byte, 32),
		work:    make(chan struct{}, max(1, runtime.GOMAXPROCS(0))),
		derived: newLRU[[sha256.Size]byte, scramKeys](maxDerived),
		proven:  newLRU[string, [sha256.Size]byte](maxProven),
		keySets: newLRU[string, *keySet](maxKeySets),
	}
	if d.now == nil {
		d.now = time.Now
	}
	if d.http == nil {
		d.http = &http.Client{Timeout: 10 * time.Second}
	}
	rand.Read(d.secret)
	if len(d.saltKey) == 0 {
		d.saltKey = make([]byte, 32)
		rand.Read(d.saltKey)
	}
	return d
}

// Derivations counts the password hashes computed so far.
func (d *Deps) Derivations() int64 { return d.derivations.Load() }

// Proofs counts the SCRAM proofs checked so far.
func (d *Deps) Proofs() int64 { return d.proofs.Load() }

// heavy runs one expensive computation when a slot is free.
func (d *Deps) heavy(ctx context.Context, f func()) error {
	select {
	case d.work <- struct{}{}:
	case <-ctx.Done():
		return ctx.Err()
	}
	defer func() { <-d.work }()
	d.derivations.Add(1)
	f()
	return nil
}

// deriveOnce is derive with a memory: a reload finds the keys of a password
// that did not change.
func (d *Deps) deriveOnce(mech scramMechanism, password string, salt []byte, iterations int) scramKeys {
	id := mac(d.secret, "derived", string(mech), password, string(salt), string(binary.BigEndian.AppendUint32(nil, uint32(iterations))))
	d.mu.Lock()
	keys, ok := d.derived.get(id)
	d.mu.Unlock()
	if ok {
		return keys
	}
	// Loading is bounded by its caller and must not wait behind logins.
	d.derivations.Add(1)
	keys = mech.derive(password, salt, iterations)
	d.mu.Lock()
	defer d.mu.Unlock()
	d.derived.put(id, keys)
	return keys
}

// provenMAC is what is kept of a password that was right for a verifier.
func (d *Deps) provenMAC(credential, password string) [sha256.Size]byte {
	return mac(d.secret, "proven", credential, password)
}

func (d *Deps) wasProven(credential, password string) bool {
	d.mu.Lock()
	known, ok := d.proven.get(credential)
	d.mu.Unlock()
	m := d.provenMAC(credential, password)
	return hmac.Equal(known[:], m[:]) && ok
}

func (d *Deps) setProven(credential, password string) {
	m := d.provenMAC(credential, password)
	d.mu.Lock()
	defer d.mu.Unlock()
	d.proven.put(credential, m)
}

// mac is a keyed hash of the parts; no two lists of parts collide.
func mac(key []byte, parts ...string) (sum [sha256.Size]byte) {
	h := hmac.New(sha256.New, key)
	var n [8]byte
	for _, p := range parts {
		binary.BigEndian.PutUint64(n[:], uint64(len(p)))
		h.Write(n[:])
		h.Write([]byte(p))
	}
	h.Sum(sum[:0])
	return sum
}
