package upstream

import (
	"bytes"
	"crypto/hmac"
	"crypto/pbkdf2"
	"crypto/sha256"
	"encoding/base64"
	"encoding/binary"
	"net"
	"strings"
	"time"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kmsg"
)

// stubSASL is how the stub lets clients in, and what it saw of them. It keeps the
// rules of a broker: a login has an end, after which only another is taken; one is
// renewed by the same mechanism and not more than once a second. Guarded by stub.mu.
type stubSASL struct {
	mechanism string
	password  string // or token
	lifetime  time.Duration
	latency   time.Duration                           // of each step
	refuse    func(addr string, renewal bool) *string // says why, nil: let in
	tooOften  bool                                    // says so to the next renewal, once

	logins, renewals int
	expired, tooSoon int // requests after the end, renewals within a second
	disorder         int // requests amid a login
}

// stubLogin is one connection's.
type stubLogin struct {
	of      *stubSASL
	in      bool
	amid    bool
	expires time.Time
	renewed time.Time
	scram   *stubSCRAM
}

// admits reports whether a request may be served. stub.mu is held.
func (l *stubLogin) admits() bool {
	switch {
	case l.amid || !l.in:
		l.of.disorder++
		return false
	case !l.expires.IsZero() && time.Now().After(l.expires):
		l.of.expired++
		return false
	}
	return true
}

// step answers SaslHandshake or SaslAuthenticate; false: hang up.
func (l *stubLogin) step(c net.Conn, s *stub, addr string, frame []byte) bool {
	s.mu.Lock()
	latency := l.of.latency
	s.mu.Unlock()
	time.Sleep(latency)
	version := int16(binary.BigEndian.Uint16(frame[6:]))
	var resp kmsg.Response
	s.mu.Lock()
	switch kmsg.Key(binary.BigEndian.Uint16(frame[4:])) {
	case kmsg.SASLHandshake:
		resp = l.handshake(frame)
	case kmsg.SASLAuthenticate:
		req := kmsg.NewPtrSASLAuthenticateRequest()
		req.Version = version
		body := frame[14+len("tollgate"):]
		if version >= 2 {
			body = body[1:]
		}
		if err := req.ReadFrom(body); err != nil {
			panic(err)
		}
		resp = l.authenticate(addr, req.SASLAuthBytes)
	}
	s.mu.Unlock()
	resp.SetVersion(version)
	_, err := c.Write(answerTo(frame, resp))
	return err == nil
}

func (l *stubLogin) handshake(frame []byte) *kmsg.SASLHandshakeResponse {
	resp := kmsg.NewPtrSASLHandshakeResponse()
	now := time.Now()
	switch {
	case !bytes.HasSuffix(frame, []byte(l.of.mechanism)):
		resp.ErrorCode = kerr.UnsupportedSaslMechanism.Code
		resp.SupportedMechanisms = []string{l.of.mechanism}
	case l.in && now.Sub(l.renewed) < time.Second:
		l.of.tooSoon++
		resp.ErrorCode = kerr.IllegalSaslState.Code
	case l.in && l.of.tooOften:
		l.of.tooOften = false
		resp.ErrorCode = kerr.IllegalSaslState.Code
	default:
		if l.in {
			l.renewed = now
		}
		l.amid, l.scram = true, nil
	}
	return resp
}

func (l *stubLogin) authenticate(addr string, msg []byte) *kmsg.SASLAuthenticateResponse {
	resp := kmsg.NewPtrSASLAuthenticateResponse()
	fail := func(text string) *kmsg.SASLAuthenticateResponse {
		resp.ErrorCode, resp.ErrorMessage = kerr.SaslAuthenticationFailed.Code, &text
		return resp
	}
	if l.of.refuse != nil {
		if why := l.of.refuse(addr, l.in); why != nil {
			return fail(*why)
		}
	}
	done, ok := true, false
	switch l.of.mechanism {
	case "PLAIN":
		ok = string(msg) == "\x00gateway\x00"+l.of.password
	case "OAUTHBEARER":
		ok = bytes.Contains(msg, []byte("auth=Bearer "+l.of.password+"\x01"))
	case "SCRAM-SHA-256":
		if l.scram == nil {
			l.scram = new(stubSCRAM)
			resp.SASLAuthBytes, done, ok = l.scram.first(msg), false, true
		} else {
			resp.SASLAuthBytes, ok = l.scram.final(msg, l.of.password)
		}
	}
	switch {
	case !ok:
		return fail("Authentication failed: wrong credentials")
	case done:
		if l.in {
			l.of.renewals++
		} else {
			l.of.logins++
		}
		l.in, l.amid = true, false
		if l.of.lifetime > 0 {
			l.expires = time.Now().Add(l.of.lifetime)
			resp.SessionLifetimeMillis = l.of.lifetime.Milliseconds()
		}
	}
	return resp
}

// stubSCRAM is the server's side of SCRAM-SHA-256 for one user.
type stubSCRAM struct{ clientFirst, serverFirst string }

const stubSalt, stubIterations = "saltsaltsaltsalt", 4096

func (x *stubSCRAM) first(msg []byte) []byte {
	x.clientFirst = strings.TrimPrefix(string(msg), "n,,")
	_, nonce, _ := strings.Cut(x.clientFirst, ",r=")
	x.serverFirst = "r=" + nonce + "stub,s=" + base64.StdEncoding.EncodeToString([]byte(stubSalt)) + ",i=4096"
	return []byte(x.serverFirst)
}

func (x *stubSCRAM) final(msg []byte, password string) ([]byte, bool) {
	without, proof, _ := strings.Cut(string(msg), ",p=")
	mac := func(key []byte, text string) []byte {
		h := hmac.New(sha256.New, key)
		h.Write([]byte(text))
		return h.Sum(nil)
	}
	salted, err := pbkdf2.Key(sha256.New, password, []byte(stubSalt), stubIterations, sha256.Size)
	if err != nil {
		return nil, false
	}
	clientKey := mac(salted, "Client Key")
	stored := sha256.Sum256(clientKey)
	signed := x.clientFirst + "," + x.serverFirst + "," + without
	want := mac(stored[:], signed)
	for i := range want {
		want[i] ^= clientKey[i]
	}
	if proof != base64.StdEncoding.EncodeToString(want) {
		return nil, false
	}
	return []byte("v=" + base64.StdEncoding.EncodeToString(mac(mac(salted, "Server Key"), signed))), true
}
