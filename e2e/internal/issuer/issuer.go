// Package issuer is an OAuth 2.0 authorisation server for tests: it publishes its
// keys (RFC 7517) and hands tokens to clients that show their secret (RFC 6749
// §4.4), over HTTP on loopback.
package issuer

import (
	"crypto"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha256"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"math/big"
	"net/http"
	"net/http/httptest"
	"net/url"
	"sync"
	"testing"
	"time"
)

const keyID = "key-1"

// Issuer is a running server.
type Issuer struct {
	URL      string // what tokens name as their issuer
	Audience string
	Lifetime time.Duration
	Secrets  map[string]string // of clients, by id; the id becomes the subject

	key    *rsa.PrivateKey
	mu     sync.Mutex
	issued map[string]int
}

// Start serves tokens for an audience until t ends.
func Start(t testing.TB, audience string, lifetime time.Duration, secrets map[string]string) *Issuer {
	t.Helper()
	key, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		t.Fatal(err)
	}
	i := &Issuer{Audience: audience, Lifetime: lifetime, Secrets: secrets, key: key, issued: make(map[string]int)}
	mux := http.NewServeMux()
	mux.HandleFunc("GET /jwks.json", i.keys)
	mux.HandleFunc("POST /token", i.token)
	server := httptest.NewServer(mux)
	t.Cleanup(server.Close)
	i.URL = server.URL
	return i
}

// JWKSURL is where the keys are.
func (i *Issuer) JWKSURL() string { return i.URL + "/jwks.json" }

// TokenURL is where clients get their tokens.
func (i *Issuer) TokenURL() string { return i.URL + "/token" }

// Issued is how many tokens a client was given.
func (i *Issuer) Issued(client string) int {
	i.mu.Lock()
	defer i.mu.Unlock()
	return i.issued[client]
}

func (i *Issuer) keys(w http.ResponseWriter, _ *http.Request) {
	public := map[string]string{
		"kty": "RSA", "use": "sig", "alg": "RS256", "kid": keyID,
		"n": base64.RawURLEncoding.EncodeToString(i.key.N.Bytes()),
		"e": base64.RawURLEncoding.EncodeToString(big.NewInt(int64(i.key.E)).Bytes()),
	}
	answer(w, http.StatusOK, map[string]any{"keys": []any{public}})
}

func (i *Issuer) token(w http.ResponseWriter, r *http.Request) {
	client, secret, _ := r.BasicAuth()
	// RFC 6749 §2.3.1: both are form-encoded first.
	if decoded, err := url.QueryUnescape(secret); err == nil {
		secret = decoded
	}
	if want, known := i.Secrets[client]; !known || secret != want || r.FormValue("grant_type") != "client_credentials" {
		answer(w, http.StatusUnauthorized, map[string]string{"error": "invalid_client"})
		return
	}
	token, err := i.sign(client)
	if err != nil {
		http.Error(w, err.Error(), http.StatusInternalServerError)
		return
	}
	i.mu.Lock()
	i.issued[client]++
	i.mu.Unlock()
	answer(w, http.StatusOK, map[string]any{
		"access_token": token, "token_type": "Bearer", "expires_in": int(i.Lifetime.Seconds()),
	})
}

// sign makes a token of RFC 7519, signed with RS256.
func (i *Issuer) sign(subject string) (string, error) {
	now := time.Now()
	var parts [2]string
	for n, part := range []any{
		map[string]string{"alg": "RS256", "typ": "JWT", "kid": keyID},
		map[string]any{
			"iss": i.URL, "aud": i.Audience, "sub": subject, "jti": rand.Text(),
			"iat": now.Unix(), "exp": now.Add(i.Lifetime).Unix(),
		},
	} {
		text, err := json.Marshal(part)
		if err != nil {
			return "", err
		}
		parts[n] = base64.RawURLEncoding.EncodeToString(text)
	}
	signed := parts[0] + "." + parts[1]
	sum := sha256.Sum256([]byte(signed))
	signature, err := rsa.SignPKCS1v15(rand.Reader, i.key, crypto.SHA256, sum[:])
	if err != nil {
		return "", fmt.Errorf("sign token of %s: %w", subject, err)
	}
	return signed + "." + base64.RawURLEncoding.EncodeToString(signature), nil
}

func answer(w http.ResponseWriter, status int, body any) {
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(status)
	json.NewEncoder(w).Encode(body)
}
