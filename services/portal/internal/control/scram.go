package control

import (
	"crypto/hmac"
	"crypto/pbkdf2"
	"crypto/rand"
	"crypto/sha256"
	"crypto/sha512"
	"crypto/subtle"
	"encoding/base64"
	"hash"
	"time"

	"tollgate.internal/pkg/resource"
)

const (
	// iterations are Kafka's least. A secret that is issued has 256 bits: no number of
	// iterations adds to that, and every login pays for them.
	iterations = 4096
	saltBytes  = 16
)

// mechanisms are what a secret gets a verifier for each of.
var mechanisms = []struct {
	name string
	hash func() hash.Hash
	size int
}{
	{resource.SASLSCRAM256, sha256.New, sha256.Size},
	{resource.SASLSCRAM512, sha512.New, sha512.Size},
}

// verifiers are those of a password. They take salt and iterations from like, the
// account's verifiers of another secret: a SCRAM server names one salt before it
// knows which secret the client has.
func verifiers(password string, like []resource.Verifier) ([]resource.Verifier, error) {
	var all []resource.Verifier
	for _, m := range mechanisms {
		v := resource.Verifier{Mechanism: m.name, Iterations: iterations}
		if l := ofMechanism(like, m.name); l != nil {
			v.Salt, v.Iterations = l.Salt, l.Iterations
		} else {
			salt := make([]byte, saltBytes)
			_, _ = rand.Read(salt) // never fails
			v.Salt = base64.StdEncoding.EncodeToString(salt)
		}
		if err := derive(&v, password); err != nil {
			return nil, err
		}
		all = append(all, v)
	}
	return all, nil
}

func ofMechanism(all []resource.Verifier, mechanism string) *resource.Verifier {
	for i := range all {
		if all[i].Mechanism == mechanism {
			return &all[i]
		}
	}
	return nil
}

// derive fills in the keys of a password (RFC 5802 §3), of its UTF-8 without
// SASLprep, as Kafka does.
func derive(v *resource.Verifier, password string) error {
	for _, m := range mechanisms {
		if m.name != v.Mechanism {
			continue
		}
		salt, err := base64.StdEncoding.DecodeString(v.Salt)
		if err != nil {
			return err
		}
		salted, err := pbkdf2.Key(m.hash, password, salt, v.Iterations, m.size)
		if err != nil {
			return err
		}
		mac := func(text string) []byte {
			h := hmac.New(m.hash, salted)
			h.Write([]byte(text))
			return h.Sum(nil)
		}
		stored := m.hash()
		stored.Write(mac("Client Key"))
		v.StoredKey = base64.StdEncoding.EncodeToString(stored.Sum(nil))
		v.ServerKey = base64.StdEncoding.EncodeToString(mac("Server Key"))
	}
	return nil
}

// verifies reports whether a password is the one of a secret. Of argon2id nothing
// is known here: such a secret is never taken for another.
func verifies(all []resource.Verifier, password string) bool {
	for _, m := range mechanisms {
		v := ofMechanism(all, m.name)
		if v == nil {
			continue
		}
		again := *v
		if err := derive(&again, password); err != nil {
			return false
		}
		return subtle.ConstantTimeCompare([]byte(again.StoredKey), []byte(v.StoredKey)) == 1
	}
	return false
}

// micro is a time as it can be stored.
func micro(t time.Time) time.Time { return t.UTC().Truncate(time.Microsecond) }
