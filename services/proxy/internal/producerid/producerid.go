// Package producerid gives idempotent producers their ids, in place of the
// brokers: one id is then good on every cluster that a virtual cluster spans
// (PROTOCOL.md §C1).
//
// The same id twice is lost data: a broker takes the second producer's batch for a
// repetition of the first one's, acknowledges it and drops it. So an id comes from
// a [Lease] that a [Source] has recorded, durably, as taken, before the first id
// of it is given; what cannot be recorded is not used, and [Issuer.Issue] says so
// rather than guess. No id follows from a clock, a host name or an address.
//
// A source may still lose its record: a file is deleted or restored from a backup,
// a Redis is flushed or fails over to a replica that lags. Therefore leases are
// drawn at random, not in a row, and the ids of a lease begin at a random place:
// what is forgotten is met again with the odds of docs/decisions/006-producer-ids.md
// and not with certainty.
//
//	bit 52   51 … 42      41 … 20   19 … 0
//	     1   deployment   lease     counter
//
// The values lie above everything that a controller allocates and are exact in an
// IEEE double.
package producerid

import (
	"context"
	"crypto/rand"
	"encoding/binary"
	"errors"
	"fmt"
)

const (
	counterBits    = 20
	leaseBits      = 22
	deploymentBits = 10

	// First is the lowest id that there can be.
	First = int64(1) << (counterBits + leaseBits + deploymentBits)

	// Deployments is how many deployments of the product may share a cluster.
	Deployments = 1 << deploymentBits
	// Leases is how many leases a deployment has, for all time.
	Leases = 1 << leaseBits
	// PerLease is how many ids one lease is good for.
	PerLease = 1 << counterBits
)

// A Lease is the right of one process to give PerLease ids. It is never given
// back, and never to anybody else.
type Lease uint32

// ErrExhausted is what Take returns when every lease was taken.
var ErrExhausted = errors.New("all 4194304 leases of the deployment are taken: choose a deployment number that was never used")

// A Source records which leases of a deployment are taken. It is safe for several
// processes at once.
type Source interface {
	// Take returns a lease that nobody had before, and that is recorded as taken
	// when it returns. A lease may get lost with an error; none is given twice.
	Take(ctx context.Context) (Lease, error)
	// Confirm records leases of the caller as taken again, and returns how many
	// of them the source had forgotten.
	Confirm(ctx context.Context, leases []Lease) (forgotten int, err error)
	// String names the source without its secrets.
	String() string
	Close() error
}

// block is what is left of a lease.
type block struct {
	first int64  // id of counter 0
	next  uint32 // counter of the next id, modulo PerLease
	left  int
}

func newBlock(deployment int, l Lease) *block {
	return &block{
		first: First | int64(deployment)<<(leaseBits+counterBits) | int64(l)<<counterBits,
		next:  random(PerLease), left: PerLease,
	}
}

func (b *block) take() int64 {
	id := b.first | int64(b.next)
	b.next = (b.next + 1) % PerLease
	b.left--
	return id
}

// random is a number below n, a power of two. It comes from the kernel each time: a
// copy of this process, of a machine that was cloned, does not draw the same.
func random(n uint32) uint32 {
	var b [4]byte
	rand.Read(b[:])
	return binary.BigEndian.Uint32(b[:]) % n
}

// leaseSet is a set of leases, one bit for each, in the order of Redis: lease 0 is
// the highest bit of the first byte. Bytes that are not there are zero.
type leaseSet []byte

const leaseSetBytes = Leases / 8

func (s leaseSet) has(l Lease) bool {
	return int(l/8) < len(s) && s[l/8]&(0x80>>(l%8)) != 0
}

func (s leaseSet) add(l Lease) { s[l/8] |= 0x80 >> (l % 8) }

// draw is a lease that is not in the set. While the set is sparse each lease is as
// likely as any other.
func (s leaseSet) draw() (Lease, error) {
	for range 16 {
		if l := Lease(random(Leases)); !s.has(l) {
			return l, nil
		}
	}
	from := random(Leases)
	for i := range uint32(Leases) {
		if l := Lease((from + i) % Leases); !s.has(l) {
			return l, nil
		}
	}
	return 0, ErrExhausted
}

// checkDeployment says what is wrong with a deployment's number.
func checkDeployment(n int) error {
	if n < 0 || n >= Deployments {
		return fmt.Errorf("deployment %d is not a number from 0 to %d", n, Deployments-1)
	}
	return nil
}
