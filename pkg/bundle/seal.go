package bundle

import (
	"crypto/ed25519"
	"encoding/binary"
	"errors"
	"fmt"
)

// A Reason is why something was refused. It is an error, to be compared with
// errors.Is, and a label of metrics.
type Reason string

// The reasons.
const (
	NotSealed  Reason = "not_sealed"  // something else altogether
	Truncated  Reason = "truncated"   // the end is missing, or there is more behind it
	TooLarge   Reason = "too_large"   // more than anybody signs
	UnknownKey Reason = "unknown_key" // signed by a key that is not held
	Forged     Reason = "forged"      // the signature does not fit
	Newer      Reason = "newer"       // of a format that this reader does not know
	Foreign    Reason = "foreign"     // of another deployment
	Misplaced  Reason = "misplaced"   // of another kind or name than asked for
	Malformed  Reason = "malformed"   // signed, and makes no sense
)

// Reasons are all of them.
func Reasons() []Reason {
	return []Reason{NotSealed, Truncated, TooLarge, UnknownKey, Forged, Newer, Foreign, Misplaced, Malformed}
}

func (r Reason) Error() string { return string(r) }

// A Refusal is an error that tells its Reason, and what to do.
type Refusal struct {
	Reason Reason
	Text   string
}

func (r *Refusal) Error() string { return r.Text }
func (r *Refusal) Unwrap() error { return r.Reason }

func refuse(reason Reason, format string, args ...any) error {
	return &Refusal{reason, fmt.Sprintf(format, args...)}
}

// A Purpose keeps what was signed for one end from being used for another.
type Purpose string

// The purposes.
const (
	ForBundle  Purpose = "bundle"
	ForHead    Purpose = "head"
	ForCommand Purpose = "command"
)

// The newest formats of what is no bundle.
const (
	headFormat    uint16 = 1
	commandFormat uint16 = 1
)

// format is the newest one of a purpose that this package reads, and the one it writes.
func (p Purpose) format() uint16 {
	switch p {
	case ForBundle:
		return Format
	case ForHead:
		return headFormat
	case ForCommand:
		return commandFormat
	}
	return 0 // which nobody reads
}

// What is sealed has the form
//
//	magic | format | key id | signature | length of body | body
//
// which is the same for all formats, so that a newer one is known to come from the
// portal before it is refused for what it is. Each purpose counts its formats by itself. The signature is over purpose, format,
// key id and body; a length that was tampered with does not fit the body.
const (
	magic       = "TGSL"
	headerBytes = len(magic) + 2 + len(KeyID{}) + ed25519.SignatureSize + 4

	// MaxBytes bounds what is sealed, header included. It has room for every bundle of
	// MaxPlainBytes, however little compression makes of it.
	MaxBytes = MaxPlainBytes + 64<<10
)

// Seal signs body for a purpose.
func (s *Signer) Seal(purpose Purpose, body []byte) ([]byte, error) {
	if purpose.format() == 0 {
		return nil, refuse(Malformed, "nothing is sealed as a %q", purpose)
	}
	return s.seal(purpose, purpose.format(), body)
}

func (s *Signer) seal(purpose Purpose, format uint16, body []byte) ([]byte, error) {
	if len(body)+headerBytes > MaxBytes {
		return nil, refuse(TooLarge, "%d bytes are to be signed, and %d is the most that proxies read", len(body)+headerBytes, MaxBytes)
	}
	out := make([]byte, 0, headerBytes+len(body))
	out = append(out, magic...)
	out = binary.BigEndian.AppendUint16(out, format)
	out = append(out, s.id[:]...)
	out = append(out, ed25519.Sign(*s.private, signed(purpose, format, s.id, body))...)
	out = binary.BigEndian.AppendUint32(out, uint32(len(body)))
	return append(out, body...), nil
}

func signed(purpose Purpose, format uint16, id KeyID, body []byte) []byte {
	out := make([]byte, 0, 32+len(body))
	out = append(out, "tollgate sealed "...)
	out = append(out, purpose...)
	out = append(out, 0)
	out = binary.BigEndian.AppendUint16(out, format)
	out = append(out, id[:]...)
	return append(out, body...)
}

// Unseal returns the body of what a trusted key sealed for a purpose. The body is
// part of data.
func (k Keyring) Unseal(purpose Purpose, data []byte) ([]byte, error) {
	if len(data) > MaxBytes {
		return nil, refuse(TooLarge, "%d bytes, and %d is the most that is read", len(data), MaxBytes)
	}
	if len(data) < len(magic) || string(data[:len(magic)]) != magic {
		if len(data) < len(magic) && string(data) == magic[:len(data)] {
			return nil, refuse(Truncated, "%d bytes are left of it", len(data))
		}
		return nil, refuse(NotSealed, "not what the portal writes: it does not begin with %s", magic)
	}
	if len(data) < headerBytes {
		return nil, refuse(Truncated, "%d bytes are left of it", len(data))
	}
	at := data[len(magic):]
	format := binary.BigEndian.Uint16(at)
	id := KeyID(at[2:])
	signature := at[2+len(id):][:ed25519.SignatureSize]
	body := data[headerBytes:]
	if n := binary.BigEndian.Uint32(data[headerBytes-4:]); int64(n) != int64(len(body)) {
		return nil, refuse(Truncated, "%d bytes where it says %d", len(body), n)
	}
	public, ok := k[id]
	if !ok {
		return nil, refuse(UnknownKey, "signed by key %v, and those trusted are %v: while keys are replaced, proxies are given the new public key before the portal signs with it", id, k)
	}
	if !ed25519.Verify(public, signed(purpose, format, id, body), signature) {
		return nil, refuse(Forged, "the signature of key %v is not one of this %s: somebody else wrote or changed it", id, purpose)
	}
	if newest := purpose.format(); format > newest {
		return nil, refuse(Newer, "a %s of format %d, and this version reads formats up to %d: update the proxy, or take the portal back", purpose, format, newest)
	}
	if format == 0 {
		return nil, refuse(Malformed, "of format 0, which there is not")
	}
	return body, nil
}

// ReasonOf is the reason of a refusal, and whether err is one.
func ReasonOf(err error) (Reason, bool) {
	if r, ok := errors.AsType[*Refusal](err); ok {
		return r.Reason, true
	}
	return "", false
}
