package auth

import (
	"net/netip"
	"sync"
	"time"
)

const (
	backoffFirst = 100 * time.Millisecond
	// backoffMost is half of what the least patient clients wait for an answer when they
	// log in (kgo and kafkajs, 10 s): whoever is good gets in though somebody at the same
	// address, or with the same name, goes on failing.
	backoffMost  = 5 * time.Second
	backoffLevel = 7 // 100 ms doubled so often passes 5 s
	// backoffDecay takes one failure off a count. It is longer than backoffMost,
	// so who goes on failing at full delay stays there.
	backoffDecay   = 15 * time.Second
	backoffTrusted = time.Hour // how long a good login speaks for its address
	backoffEntries = 1 << 14   // of each count; the oldest is forgotten first
)

// Backoff slows down who fails to authenticate. It keeps three counts:
//
//   - of a principal at an address,
//   - of an address, whatever it claimed to be,
//   - of a principal, wherever it failed.
//
// A delay doubles with each failure from 100 ms to 5 s and loses a step every
// 15 s. The first count always speaks. The second speaks unless this principal
// logged in from this address within the hour: one bad client behind a NAT does
// not slow its neighbours that are known there. The third speaks only to an
// address that has failed as this principal itself: guesses spread over many
// addresses start at the full delay from their second try on, and nobody can
// lock a principal out from elsewhere.
//
// A good login is delayed for others' failures, and never refused for them.
//
// A success clears only the first count: were it to clear the others, an
// attacker with one account of his own could reset them at will. IPv6 addresses
// count by /64, which one host can have to itself.
//
// Memory is bounded. The zero value is not usable; see [NewBackoff].
type Backoff struct {
	now func() time.Time

	mu        sync.Mutex
	pair      *lru[backoffKey, failures]
	address   *lru[netip.Addr, failures]
	principal *lru[backoffKey, failures]
	trusted   *lru[backoffKey, time.Time]
}

// backoffKey has no address in the count of a principal.
type backoffKey struct {
	addr          netip.Addr
	vc, principal string
}

type failures struct {
	level int
	last  time.Time
}

// decayed is f as it stands at now.
func (f failures) decayed(now time.Time) failures {
	if steps := int(now.Sub(f.last) / backoffDecay); steps > 0 {
		f.level = max(0, f.level-steps)
		f.last = f.last.Add(time.Duration(steps) * backoffDecay)
	}
	return f
}

func (f failures) delay() time.Duration {
	if f.level == 0 {
		return 0
	}
	return min(backoffFirst<<(f.level-1), backoffMost)
}

// NewBackoff returns an empty Backoff; now is time.Now when nil.
func NewBackoff(now func() time.Time) *Backoff {
	if now == nil {
		now = time.Now
	}
	return &Backoff{
		now:       now,
		pair:      newLRU[backoffKey, failures](backoffEntries),
		address:   newLRU[netip.Addr, failures](backoffEntries),
		principal: newLRU[backoffKey, failures](backoffEntries),
		trusted:   newLRU[backoffKey, time.Time](backoffEntries),
	}
}

// Delay is how long an attempt of principal from addr is to wait: before its
// proof is looked at, or before its refusal is sent, or both. principal is as
// claimed ([Exchange].Claimed), "" for tokens and certificates.
func (b *Backoff) Delay(addr netip.Addr, vc, principal string) time.Duration {
	addr, who := countedAs(addr), boundedName(principal)
	b.mu.Lock()
	defer b.mu.Unlock()
	now := b.now()
	own := look(b.pair, backoffKey{addr, vc, who}, now).delay()
	d := own
	if since, ok := b.trusted.get(backoffKey{addr, vc, who}); !ok || now.Sub(since) > backoffTrusted {
		d = max(d, look(b.address, addr, now).delay())
	}
	if own > 0 {
		d = max(d, look(b.principal, backoffKey{vc: vc, principal: who}, now).delay())
	}
	return d
}

// Failed counts a refusal. An error that is no [Verdict] is not to be counted:
// the client is not to blame for an issuer that is down.
func (b *Backoff) Failed(addr netip.Addr, vc, principal string) {
	addr, who := countedAs(addr), boundedName(principal)
	b.mu.Lock()
	defer b.mu.Unlock()
	now := b.now()
	count(b.pair, backoffKey{addr, vc, who}, now)
	count(b.address, addr, now)
	count(b.principal, backoffKey{vc: vc, principal: who}, now)
}

// Succeeded forgives the principal at this address.
func (b *Backoff) Succeeded(addr netip.Addr, vc, principal string) {
	k := backoffKey{countedAs(addr), vc, boundedName(principal)}
	b.mu.Lock()
	defer b.mu.Unlock()
	b.pair.remove(k)
	b.trusted.put(k, b.now())
}

func look[K comparable](l *lru[K, failures], k K, now time.Time) failures {
	f, _ := l.get(k)
	return f.decayed(now)
}

func count[K comparable](l *lru[K, failures], k K, now time.Time) {
	f := look(l, k, now)
	l.put(k, failures{min(f.level+1, backoffLevel), now})
}

func countedAs(a netip.Addr) netip.Addr {
	a = a.Unmap().WithZone("")
	if a.Is6() {
		if p, err := a.Prefix(64); err == nil {
			return p.Addr()
		}
	}
	return a
}

// boundedName keeps long made-up names from filling memory.
func boundedName(s string) string {
	if len(s) <= 256 {
		return s
	}
	sum := mac(nil, s)
	return string(sum[:])
}
