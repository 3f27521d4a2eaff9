package api

import (
	"crypto/aes"
	"crypto/cipher"
	"crypto/hmac"
	"crypto/sha256"
	"encoding/binary"

	"tollgate.internal/services/portal/internal/control"
)

// Revision is a revision as the caller reads and writes it. A number of the store is
// made one by [revisions], and by nothing else.
type Revision int64

// revisions are numbers of the store, as a caller may know them. They count the
// changes of everybody, so a tenant could tell from its own how busy the others are:
// to a tenant they are a permutation of themselves. It depends on the tenant, too, so
// that two tenants who compare what they read learn nothing; and what somebody makes
// up, or has from elsewhere, is one that there has never been. Equal revisions stay
// equal; which of two is newer does not show.
type revisions struct {
	block cipher.Block // nil: as they are
}

// revisionsFor are those of a tenant; "": of those who run the gateway.
func revisionsFor(tenant string, key []byte) revisions {
	if tenant == "" {
		return revisions{}
	}
	mac := hmac.New(sha256.New, key)
	mac.Write([]byte("tollgate revisions of a tenant\x00" + tenant))
	block, err := aes.NewCipher(mac.Sum(nil))
	if err != nil {
		panic(err) // the sum is a key
	}
	return revisions{block}
}

// shown is a revision of the store as the caller may know it. 0 is none, to everybody.
func (r revisions) shown(revision int64) Revision {
	if r.block == nil || revision <= 0 || revision > maxShown {
		return Revision(revision)
	}
	n := r.permute(0, uint64(revision))
	for n == 0 { // which would be none
		n = r.permute(0, n)
	}
	return Revision(n)
}

// meant is the revision of the store that was shown. For what never was, it is one
// that will not be for as long as the store lives.
func (r revisions) meant(revision Revision) int64 {
	if r.block == nil || revision <= 0 || revision > maxShown {
		return int64(revision)
	}
	n := r.undo(0, uint64(revision))
	for n == 0 {
		n = r.undo(0, n)
	}
	return int64(n)
}

// shownAt is a place in the log. The number of an entry within its change counts what
// the change did to others, and so it is not shown either.
func (r revisions) shownAt(p control.Position) (Revision, int64) {
	if r.block == nil || p.Seq < 0 || p.Seq > maxShown {
		return r.shown(p.Revision), p.Seq
	}
	return r.shown(p.Revision), int64(r.permute(uint64(p.Revision), uint64(p.Seq)))
}

// meantAt is the place that was shown.
func (r revisions) meantAt(revision Revision, seq int64) control.Position {
	p := control.Position{Revision: r.meant(revision), Seq: seq}
	if r.block != nil && seq >= 0 && seq <= maxShown {
		p.Seq = int64(r.undo(uint64(p.Revision), uint64(seq)))
	}
	return p
}

// What is shown has 52 bits, for JSON's numbers are exact up to 53.
const (
	halfBits = 26
	halfMask = 1<<halfBits - 1
	maxShown = 1<<(2*halfBits) - 1
	rounds   = 10 // as NIST SP 800-38G has for such numbers
)

// permute is a Feistel network: whatever its rounds do, it can be undone.
func (r revisions) permute(tweak, n uint64) uint64 {
	left, right := n>>halfBits, n&halfMask
	for round := range uint32(rounds) {
		left, right = right, left^r.round(tweak, round, right)
	}
	return left<<halfBits | right
}

func (r revisions) undo(tweak, n uint64) uint64 {
	left, right := n>>halfBits, n&halfMask
	for round := uint32(rounds); round > 0; round-- {
		left, right = right^r.round(tweak, round-1, left), left
	}
	return left<<halfBits | right
}

func (r revisions) round(tweak uint64, round uint32, half uint64) uint64 {
	var b [aes.BlockSize]byte
	binary.BigEndian.PutUint64(b[:], tweak)
	binary.BigEndian.PutUint32(b[8:], round)
	binary.BigEndian.PutUint32(b[12:], uint32(half))
	r.block.Encrypt(b[:], b[:])
	return uint64(binary.BigEndian.Uint32(b[:])) & halfMask
}
