package auth

import (
	"context"
	"crypto/subtle"
	"encoding/base64"
	"encoding/hex"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"time"

	"golang.org/x/crypto/argon2"

	"tollgate.internal/pkg/resource"
)

const (
	minIterations     = 4096 // also what passwords given by reference are derived with
	maxIterations     = 1 << 20
	maxArgonMemoryKiB = 256 << 10
	maxArgonTime      = 16
	saltBytes         = 16

	argon2id = "argon2id"
)

// work is one kind of key derivation; equal values cost the same.
type work struct {
	scram      scramMechanism // "" for argon2id
	iterations int
	memory     uint32
	time       uint32
	threads    uint8
}

// defaultWork is what an attempt costs in a realm without passwords.
var defaultWork = work{scram: scramSHA256, iterations: minIterations}

// spend does the work and throws the result away.
func (w work) spend(password string) {
	salt := make([]byte, saltBytes)
	if w.scram != "" {
		w.scram.derive(password, salt, w.iterations)
		return
	}
	argon2.IDKey([]byte(password), salt, w.time, w.memory, w.threads, 32)
}

// verifier proves knowledge of one secret by one algorithm.
type verifier struct {
	work
	id         string // of the secret; verifiers of one secret share it
	credential string // fingerprint, see Identity.Credential
	expires    time.Time
	keys       scramKeys // when scram != ""
	salt, hash []byte    // when argon2id
}

func (v *verifier) live(now time.Time) bool { return v.expires.IsZero() || now.Before(v.expires) }

// matches does the work of v once.
func (v *verifier) matches(password string) bool {
	if v.scram != "" {
		stored := v.scram.derive(password, v.keys.salt, v.iterations).stored
		return subtle.ConstantTimeCompare(stored, v.keys.stored) == 1
	}
	h := argon2.IDKey([]byte(password), v.salt, v.time, v.memory, v.threads, uint32(len(v.hash)))
	return subtle.ConstantTimeCompare(h, v.hash) == 1
}

func newVerifier(d *Deps, vc, account string, r resource.Verifier) (*verifier, error) {
	v := &verifier{id: r.ID, expires: r.Expires}
	if r.Mechanism == argon2id {
		if err := v.parsePHC(r.Hash); err != nil {
			return nil, err
		}
		v.credential = fingerprint(d, vc, account, r.Mechanism, r.Hash)
		return v, nil
	}
	m := scramMechanism(r.Mechanism)
	if m != scramSHA256 && m != scramSHA512 {
		return nil, fmt.Errorf("mechanism %q: want SCRAM-SHA-256, SCRAM-SHA-512 or argon2id", r.Mechanism)
	}
	if r.Iterations < minIterations || r.Iterations > maxIterations {
		return nil, fmt.Errorf("iterations %d: want %d to %d", r.Iterations, minIterations, maxIterations)
	}
	v.scram, v.iterations = m, r.Iterations
	v.keys.iterations = r.Iterations
	for _, f := range []struct {
		name, text string
		to         *[]byte
		size       int
	}{
		{"salt", r.Salt, &v.keys.salt, 0},
		{"storedKey", r.StoredKey, &v.keys.stored, m.size()},
		{"serverKey", r.ServerKey, &v.keys.server, m.size()},
	} {
		b, err := base64.StdEncoding.DecodeString(f.text)
		switch {
		case err != nil:
			return nil, fmt.Errorf("%s: not base64", f.name)
		case f.size == 0 && len(b) < 8:
			return nil, fmt.Errorf("%s: %d bytes: want at least 8", f.name, len(b))
		case f.size > 0 && len(b) != f.size:
			return nil, fmt.Errorf("%s: %d bytes: want %d", f.name, len(b), f.size)
		}
		*f.to = b
	}
	v.credential = fingerprint(d, vc, account, r.Mechanism, r.Salt, strconv.Itoa(r.Iterations), r.StoredKey, r.ServerKey)
	return v, nil
}

// passwordVerifier derives the keys of a password given by reference. They take
// salt and iterations from like, the account's other verifier of the mechanism,
// because a SCRAM server names one salt before it knows the client's secret.
func passwordVerifier(d *Deps, vc, account string, m scramMechanism, password string, like *verifier) *verifier {
	v := &verifier{work: work{scram: m, iterations: minIterations}}
	salt := d.salt(vc, account, m, saltBytes)
	if like != nil {
		salt, v.iterations = like.keys.salt, like.iterations
	}
	v.keys = d.deriveOnce(m, password, salt, v.iterations)
	// Not of the keys: one password is one credential, whatever the mechanism.
	v.credential = fingerprint(d, vc, account, "password", password)
	return v
}

// salt is stable, so that a user who does not exist has one as well.
func (d *Deps) salt(vc, user string, m scramMechanism, size int) []byte {
	var out []byte
	for i := 0; len(out) < size; i++ {
		sum := mac(d.saltKey, "salt", vc, user, string(m), strconv.Itoa(i))
		out = append(out, sum[:]...)
	}
	return out[:size]
}

func fingerprint(d *Deps, parts ...string) string {
	sum := mac(d.secret, append([]string{"credential"}, parts...)...)
	return hex.EncodeToString(sum[:16])
}

var errPHC = errors.New("hash: want $argon2id$v=19$m=…,t=…,p=…$salt$hash")

// parsePHC reads a PHC string: https://github.com/P-H-C/phc-string-format
func (v *verifier) parsePHC(s string) error {
	f := strings.Split(s, "$")
	if len(f) != 6 || f[0] != "" || f[1] != argon2id || f[2] != "v=19" {
		return errPHC
	}
	p := strings.Split(f[3], ",")
	if len(p) != 3 {
		return errPHC
	}
	var n [3]uint64
	for i, name := range []string{"m=", "t=", "p="} {
		text, ok := strings.CutPrefix(p[i], name)
		if !ok {
			return errPHC
		}
		var err error
		if n[i], err = strconv.ParseUint(text, 10, 32); err != nil {
			return errPHC
		}
	}
	if n[0] < 8*n[2] || n[0] > maxArgonMemoryKiB || n[1] < 1 || n[1] > maxArgonTime || n[2] < 1 || n[2] > 255 {
		return fmt.Errorf("hash: %s: want 8·p ≤ m ≤ %d, 1 ≤ t ≤ %d, 1 ≤ p ≤ 255", f[3], maxArgonMemoryKiB, maxArgonTime)
	}
	v.memory, v.time, v.threads = uint32(n[0]), uint32(n[1]), uint8(n[2])
	var err error
	if v.salt, err = base64.RawStdEncoding.DecodeString(f[4]); err != nil || len(v.salt) < 8 {
		return errPHC
	}
	if v.hash, err = base64.RawStdEncoding.DecodeString(f[5]); err != nil || len(v.hash) < 16 || len(v.hash) > 64 {
		return errPHC
	}
	return nil
}

// account is a service account as logins see it.
type account struct {
	name     string
	external bool
	expires  time.Time
	plain    []*verifier                    // one for each secret, the cheapest to check
	scram    map[scramMechanism][]*verifier // all of one mechanism share salt and iterations
	all      []*verifier
}

func (a *account) live(now time.Time) bool { return a.expires.IsZero() || now.Before(a.expires) }

// plainOf picks one verifier for each secret: checking two would double the
// work of every wrong password.
func plainOf(all []*verifier) []*verifier {
	rank := func(v *verifier) int {
		switch v.scram {
		case scramSHA256:
			return 0
		case scramSHA512:
			return 1
		}
		return 2
	}
	var out []*verifier
next:
	for _, v := range all {
		for i, o := range out {
			if o.credential == v.credential || v.id != "" && o.id == v.id {
				if rank(v) < rank(o) {
					out[i] = v
				}
				continue next
			}
		}
		out = append(out, v)
	}
	return out
}

// checkPassword finds the live verifier that password satisfies. A failure
// costs exactly total, whichever account it was, or none.
func (a *account) checkPassword(ctx context.Context, d *Deps, password string, total map[work]int) (*verifier, error) {
	now := d.now()
	var live []*verifier
	if a != nil && a.live(now) {
		for _, v := range a.plain {
			if v.live(now) {
				live = append(live, v)
			}
		}
	}
	for _, v := range live {
		if d.wasProven(v.credential, password) {
			return v, nil
		}
	}
	done := make(map[work]int, len(total))
	for _, v := range live {
		var ok bool
		if err := d.heavy(ctx, func() { ok = v.matches(password) }); err != nil {
			return nil, err
		}
		if ok {
			d.setProven(v.credential, password)
			return v, nil
		}
		done[v.work]++
	}
	for w, n := range total {
		for range n - done[w] {
			if err := d.heavy(ctx, func() { w.spend(password) }); err != nil {
				return nil, err
			}
		}
	}
	return nil, nil
}
