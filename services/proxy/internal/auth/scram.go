package auth

import (
	"context"
	"crypto/hmac"
	"crypto/pbkdf2"
	"crypto/rand"
	"crypto/sha256"
	"crypto/sha512"
	"crypto/subtle"
	"encoding/base64"
	"errors"
	"hash"
	"strconv"
	"strings"
	"unicode/utf8"

	"tollgate.internal/services/proxy/internal/refusal"
)

// scramMechanism is the name of a SCRAM mechanism.
type scramMechanism string

const (
	scramSHA256 scramMechanism = "SCRAM-SHA-256"
	scramSHA512 scramMechanism = "SCRAM-SHA-512"
)

func (m scramMechanism) hash() func() hash.Hash {
	if m == scramSHA512 {
		return sha512.New
	}
	return sha256.New
}

func (m scramMechanism) size() int {
	if m == scramSHA512 {
		return sha512.Size
	}
	return sha256.Size
}

// scramKeys is what a server keeps of a password.
type scramKeys struct {
	salt           []byte
	iterations     int
	stored, server []byte
}

// derive hashes as Kafka does: the password's UTF-8, without SASLprep.
func (m scramMechanism) derive(password string, salt []byte, iterations int) scramKeys {
	salted, err := pbkdf2.Key(m.hash(), password, salt, iterations, m.size())
	if err != nil {
		panic(err) // only for sizes that no caller can ask for
	}
	h := m.hash()()
	h.Write(m.hmac(salted, "Client Key"))
	return scramKeys{salt: salt, iterations: iterations, stored: h.Sum(nil), server: m.hmac(salted, "Server Key")}
}

func (m scramMechanism) hmac(key []byte, text string) []byte {
	h := hmac.New(m.hash(), key)
	h.Write([]byte(text))
	return h.Sum(nil)
}

// maxCredentialBytes bounds the messages of PLAIN and SCRAM.
const maxCredentialBytes = 16 << 10

// scramExchange is the server's side of RFC 5802 without channel binding:
//
//	first --client-first--> final --client-final--> over
//
// A message in any other state is refused, and so is everything after it.
type scramExchange struct {
	realm *Realm
	mech  scramMechanism
	state scramState

	gs2         string // the header of client-first, repeated in client-final
	firstBare   string
	server      string // server-first
	nonce       string // of both
	clientNonce string
	user        string
	account     *account // nil when there is none
	keys        []*verifier
	id          Identity
}

type scramState uint8

const (
	scramFirst scramState = iota
	scramFinal
	scramOver
)

func (x *scramExchange) Identity() Identity { return x.id }
func (x *scramExchange) Claimed() string    { return x.user }

func (x *scramExchange) Claims(client []byte) string {
	if x.state != scramFirst {
		return x.user
	}
	m, _ := parseClientFirst(client)
	return m.user
}

func (x *scramExchange) Step(_ context.Context, client []byte) ([]byte, bool, error) {
	state := x.state
	x.state = scramOver // whatever goes wrong, there is no second try
	switch state {
	case scramFirst:
		out, err := x.first(client)
		if err != nil {
			return nil, false, err
		}
		x.state = scramFinal
		return out, false, nil
	case scramFinal:
		out, err := x.final(client)
		return out, err == nil, err
	}
	return nil, false, refusal.SASLMalformed.Errorf("%s: a message after the last", x.mech)
}

func (x *scramExchange) first(client []byte) ([]byte, error) {
	m, err := parseClientFirst(client)
	if err != nil {
		return nil, refusal.SASLMalformed.Errorf("%s: %w", x.mech, err)
	}
	x.user, x.gs2, x.firstBare = m.user, m.gs2, m.bare
	if m.authzid != "" && m.authzid != m.user {
		return nil, refusal.AuthorizationID.Errorf("%s: %q asks to act as %q", x.mech, m.user, m.authzid)
	}
	if m.tokenAuth {
		return nil, refusal.DelegationTokenLogin.Errorf("%s: delegation tokens are not served", x.mech)
	}
	now := x.realm.deps.now()
	salt, iterations := x.realm.fakeSCRAM(x.user, x.mech)
	if a := x.realm.accounts[x.user]; a != nil && a.live(now) {
		for _, v := range a.scram[x.mech] {
			if v.live(now) {
				x.account = a
				x.keys = append(x.keys, v)
				salt, iterations = v.keys.salt, v.iterations // the same for all of them
			}
		}
	}
	x.clientNonce = m.nonce
	x.nonce = m.nonce + rand.Text()
	x.server = "r=" + x.nonce + ",s=" + base64.StdEncoding.EncodeToString(salt) + ",i=" + strconv.Itoa(iterations)
	return []byte(x.server), nil
}

func (x *scramExchange) final(client []byte) ([]byte, error) {
	m, err := parseClientFinal(client, x.mech.size())
	if err != nil {
		return nil, refusal.SASLMalformed.Errorf("%s: %w", x.mech, err)
	}
	if m.binding != x.gs2 {
		return nil, refusal.SASLMalformed.Errorf("%s: channel binding differs from the first message", x.mech)
	}
	// librdkafka before 2.6.1 sends its own nonce twice (its issue 4895); brokers
	// up to 3.9 took that, and the proof covers whatever was sent.
	if m.nonce != x.nonce && m.nonce != x.clientNonce+x.nonce {
		return nil, refusal.SASLMalformed.Errorf("%s: nonce differs from the one sent", x.mech)
	}
	authMessage := x.firstBare + "," + x.server + "," + m.withoutProof
	checked := 0
	for _, v := range x.keys {
		checked++
		if !x.proves(v.keys.stored, authMessage, m.proof) {
			continue
		}
		now := x.realm.deps.now()
		if !v.live(now) || !x.account.live(now) {
			return nil, refusal.BadCredentials.Errorf("%s: secret of %q expired during the exchange", x.mech, x.user)
		}
		x.id = x.realm.local(x.account, v, string(x.mech))
		return []byte("v=" + base64.StdEncoding.EncodeToString(x.mech.hmac(v.keys.server, authMessage))), nil
	}
	for ; checked < x.realm.scramWork[x.mech]; checked++ {
		x.proves(make([]byte, x.mech.size()), authMessage, m.proof) // as many as for whoever has most secrets
	}
	if x.account == nil {
		return nil, refusal.BadCredentials.Errorf("%s: no account %q with a live secret for this mechanism", x.mech, x.user)
	}
	return nil, refusal.BadCredentials.Errorf("%s: wrong secret for %q", x.mech, x.user)
}

// proves reports whether proof was made by who knows the secret of stored.
func (x *scramExchange) proves(stored []byte, authMessage string, proof []byte) bool {
	x.realm.deps.proofs.Add(1)
	key := x.mech.hmac(stored, authMessage) // the client signature
	subtle.XORBytes(key, key, proof)        // now the client key, if the proof is good
	h := x.mech.hash()()
	h.Write(key)
	return subtle.ConstantTimeCompare(h.Sum(nil), stored) == 1
}

type clientFirst struct {
	gs2, bare     string
	authzid, user string
	nonce         string
	tokenAuth     bool
}

var (
	errScramSyntax   = errors.New("malformed message")
	errScramBinding  = errors.New("channel binding is not offered")
	errScramReserved = errors.New("mandatory extension m= is not known")
	errScramName     = errors.New("bad user name")
)

// parseClientFirst reads "n,[a=authzid],n=user,r=nonce[,extension…]". A header
// of "y" comes from clients that could bind and saw that the server cannot.
func parseClientFirst(b []byte) (m clientFirst, err error) {
	if len(b) > maxCredentialBytes || !utf8.Valid(b) {
		return m, errScramSyntax
	}
	flag, rest, ok1 := strings.Cut(string(b), ",")
	authzid, bare, ok2 := strings.Cut(rest, ",")
	if !ok1 || !ok2 {
		return m, errScramSyntax
	}
	if strings.HasPrefix(flag, "p=") {
		return m, errScramBinding
	}
	if flag != "n" && flag != "y" {
		return m, errScramSyntax
	}
	m.gs2, m.bare = flag+","+authzid+",", bare
	if authzid != "" {
		name, ok := strings.CutPrefix(authzid, "a=")
		if !ok {
			return m, errScramSyntax
		}
		if m.authzid, err = unescapeName(name); err != nil {
			return m, err
		}
	}
	attrs := strings.Split(bare, ",")
	if strings.HasPrefix(attrs[0], "m=") {
		return m, errScramReserved
	}
	if len(attrs) < 2 {
		return m, errScramSyntax
	}
	name, ok1 := strings.CutPrefix(attrs[0], "n=")
	nonce, ok2 := strings.CutPrefix(attrs[1], "r=")
	if !ok1 || !ok2 || !printable(nonce) {
		return m, errScramSyntax
	}
	if m.user, err = unescapeName(name); err != nil {
		return m, err
	}
	m.nonce = nonce
	for _, ext := range attrs[2:] {
		key, value, ok := strings.Cut(ext, "=")
		if !ok || key == "" || value == "" {
			return m, errScramSyntax
		}
		if key == "m" {
			return m, errScramReserved
		}
		// KIP-48 puts it among the extensions; Java compares without case.
		if key == "tokenauth" && strings.EqualFold(value, "true") {
			m.tokenAuth = true
		}
	}
	return m, nil
}

type clientFinal struct {
	binding, nonce, withoutProof string
	proof                        []byte
}

// parseClientFinal reads "c=binding,r=nonce[,extension…],p=proof".
func parseClientFinal(b []byte, proofSize int) (m clientFinal, err error) {
	if len(b) > maxCredentialBytes || !utf8.Valid(b) {
		return m, errScramSyntax
	}
	s := string(b)
	at := strings.LastIndex(s, ",p=")
	if at < 0 {
		return m, errScramSyntax
	}
	m.withoutProof = s[:at]
	if m.proof, err = base64.StdEncoding.DecodeString(s[at+3:]); err != nil || len(m.proof) != proofSize {
		return m, errScramSyntax
	}
	attrs := strings.Split(m.withoutProof, ",")
	if len(attrs) < 2 {
		return m, errScramSyntax
	}
	c, ok1 := strings.CutPrefix(attrs[0], "c=")
	nonce, ok2 := strings.CutPrefix(attrs[1], "r=")
	binding, err := base64.StdEncoding.DecodeString(c)
	if !ok1 || !ok2 || err != nil {
		return m, errScramSyntax
	}
	for _, ext := range attrs[2:] {
		key, value, ok := strings.Cut(ext, "=")
		if !ok || key == "" || value == "" {
			return m, errScramSyntax
		}
		if key == "m" {
			return m, errScramReserved
		}
	}
	m.binding, m.nonce = string(binding), nonce
	return m, nil
}

// unescapeName turns =2C into a comma and =3D into an equals sign; "=" stands
// for nothing else.
func unescapeName(s string) (string, error) {
	if s == "" || strings.ContainsRune(s, 0) {
		return "", errScramName
	}
	var out strings.Builder
	for {
		plain, rest, escaped := strings.Cut(s, "=")
		out.WriteString(plain)
		if !escaped {
			return out.String(), nil
		}
		switch {
		case strings.HasPrefix(rest, "2C"):
			out.WriteByte(',')
		case strings.HasPrefix(rest, "3D"):
			out.WriteByte('=')
		default:
			return "", errScramName
		}
		s = rest[2:]
	}
}

// printable is RFC 5802's: ASCII without blanks, controls and the comma.
func printable(s string) bool {
	for i := range len(s) {
		if s[i] <= ' ' || s[i] >= 0x7f || s[i] == ',' {
			return false
		}
	}
	return s != ""
}
