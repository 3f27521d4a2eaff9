package auth

import (
	"context"
	"crypto/rsa"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"os"
	"strings"
	"sync/atomic"
	"time"

	"github.com/go-jose/go-jose/v4"

	"tollgate.internal/pkg/resource"
	"tollgate.internal/services/proxy/internal/refusal"
)

const (
	maxKeySets      = 1 << 10
	maxJWKSBytes    = 1 << 20
	maxSigningKeys  = 100
	keysMaxAge      = 5 * time.Minute  // a withdrawn key is believed no longer than this, while the issuer answers
	keysMinInterval = 10 * time.Second // tokens with made-up key ids must not become load on the issuer
	fetchTimeout    = 10 * time.Second
	minRSABits      = 2048
)

// keySet holds an issuer's signing keys. While the issuer is down it serves on
// with what it last knew.
type keySet struct {
	deps   *Deps
	issuer string
	file   string // or
	url    string // or, when both are empty, by discovery

	known atomic.Pointer[knownKeys] // what the last good fetch brought

	// fetching is held by who fetches, and guards what follows.
	fetching chan struct{}
	tried    time.Time
	err      error // of the last try
}

type knownKeys struct {
	keys []jose.JSONWebKey
	at   time.Time
	file fileState // when they came from one
}

// fileState tells one version of a file from the next.
type fileState struct {
	modified time.Time
	size     int64
}

func stateOf(path string) (fileState, error) {
	info, err := os.Stat(path)
	if err != nil {
		return fileState{}, err
	}
	return fileState{info.ModTime(), info.Size()}, nil
}

// replaced reports whether the file is another one than was read. A file that is
// gone is not: its keys serve on, as those of an issuer that is down.
func (k *keySet) replaced() bool {
	known := k.known.Load()
	if k.file == "" || known == nil {
		return false
	}
	now, err := stateOf(k.file)
	return err == nil && now != known.file
}

// keySetOf finds or makes the keys of an issuer. A file must be readable now; a
// URL is asked when the first token comes.
func (d *Deps) keySetOf(issuer, jwksURL string, m *resource.Metadata) (*keySet, error) {
	k := &keySet{deps: d, issuer: issuer, fetching: make(chan struct{}, 1)}
	if path, ok := strings.CutPrefix(jwksURL, "file:"); ok {
		if strings.HasPrefix(path, "///") {
			path = path[2:] // file:///absolute
		}
		k.file = m.Path(path)
		if _, err := k.load(context.Background()); err != nil {
			return nil, err
		}
	} else {
		k.url = jwksURL
		at := jwksURL
		if at == "" {
			at = issuer
		}
		if !isHTTP(at) {
			return nil, fmt.Errorf("signing keys at %q: want http:, https: or, for jwksURL, file:", at)
		}
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	id := strings.Join([]string{issuer, k.url, k.file}, "\x00")
	if known, ok := d.keySets.get(id); ok {
		return known, nil
	}
	d.keySets.put(id, k)
	return k, nil
}

func isHTTP(s string) bool {
	u, err := url.Parse(s)
	return err == nil && (u.Scheme == "http" || u.Scheme == "https") && u.Host != ""
}

// find returns the keys that may have made a signature. A key id nobody knows
// makes it ask the issuer again, for keys rotate; not too often.
func (k *keySet) find(ctx context.Context, kid, alg string) ([]jose.JSONWebKey, error) {
	now := k.deps.now()
	found, fresh := k.pick(kid, alg, now)
	if len(found) > 0 && !k.replaced() { // a key taken out of a file is out at once
		if fresh {
			return found, nil
		}
		// One login looks for newer keys; the others do not wait for it.
		select {
		case k.fetching <- struct{}{}:
		default:
			return found, nil
		}
	} else {
		select {
		case k.fetching <- struct{}{}:
		case <-ctx.Done():
			return nil, ctx.Err()
		}
	}
	defer func() { <-k.fetching }()
	if k.tried.IsZero() || now.Sub(k.tried) >= keysMinInterval || k.replaced() {
		k.fetch(ctx, now)
	}
	found, _ = k.pick(kid, alg, now) // somebody else's fetch counts as well
	if len(found) == 0 && k.err != nil {
		// Perhaps the key is new and the issuer down: that is no bad token.
		return nil, refusal.TokenKeysUnavailable.With(k.err)
	}
	return found, nil
}

// fetch does not stop with the one client it happens to run for: others wait
// for the same answer.
func (k *keySet) fetch(ctx context.Context, now time.Time) {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), fetchTimeout)
	defer cancel()
	var state fileState
	if k.file != "" {
		state, _ = stateOf(k.file) // before reading: a change meanwhile is seen next time
	}
	keys, err := k.load(ctx)
	k.tried, k.err = now, err
	if err == nil {
		k.known.Store(&knownKeys{keys, now, state})
	}
}

func (k *keySet) load(ctx context.Context) ([]jose.JSONWebKey, error) {
	switch {
	case k.file != "":
		f, err := os.Open(k.file)
		if err != nil {
			return nil, fmt.Errorf("read signing keys: %w", err)
		}
		defer f.Close()
		return parseJWKS(f)
	case k.url != "":
		return k.get(ctx, k.url)
	}
	var doc struct {
		Issuer  string `json:"issuer"`
		JWKSURI string `json:"jwks_uri"`
	}
	at := strings.TrimSuffix(k.issuer, "/") + "/.well-known/openid-configuration"
	body, err := k.open(ctx, at)
	if err != nil {
		return nil, err
	}
	defer body.Close()
	if err := json.NewDecoder(io.LimitReader(body, maxJWKSBytes)).Decode(&doc); err != nil {
		return nil, fmt.Errorf("read %s: %w", at, err)
	}
	if doc.Issuer != k.issuer {
		return nil, fmt.Errorf("read %s: it is of issuer %q", at, doc.Issuer)
	}
	if !isHTTP(doc.JWKSURI) || strings.HasPrefix(k.issuer, "https:") && !strings.HasPrefix(doc.JWKSURI, "https:") {
		return nil, fmt.Errorf("read %s: jwks_uri %q is no URL to trust", at, doc.JWKSURI)
	}
	return k.get(ctx, doc.JWKSURI)
}

func (k *keySet) get(ctx context.Context, at string) ([]jose.JSONWebKey, error) {
	body, err := k.open(ctx, at)
	if err != nil {
		return nil, err
	}
	defer body.Close()
	keys, err := parseJWKS(body)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", at, err)
	}
	return keys, nil
}

func (k *keySet) open(ctx context.Context, at string) (io.ReadCloser, error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, at, nil)
	if err != nil {
		return nil, err
	}
	req.Header.Set("Accept", "application/json")
	resp, err := k.deps.http.Do(req)
	if err != nil {
		return nil, err // names method and address
	}
	if resp.StatusCode != http.StatusOK {
		resp.Body.Close()
		return nil, fmt.Errorf("get %s: %s", at, resp.Status)
	}
	return resp.Body, nil
}

var errNoKeys = errors.New("read JWKS: no public signing key in it")

// parseJWKS keeps public keys for signatures. One key it cannot read, as of a
// curve from the future, does not cost the others.
func parseJWKS(r io.Reader) ([]jose.JSONWebKey, error) {
	var set struct {
		Keys []json.RawMessage `json:"keys"`
	}
	if err := json.NewDecoder(io.LimitReader(r, maxJWKSBytes)).Decode(&set); err != nil {
		return nil, fmt.Errorf("read JWKS: %w", err)
	}
	var keys []jose.JSONWebKey
	for _, raw := range set.Keys {
		var k jose.JSONWebKey
		if k.UnmarshalJSON(raw) != nil || !k.Valid() || !k.IsPublic() || k.Use != "" && k.Use != "sig" {
			continue
		}
		if pub, ok := k.Key.(*rsa.PublicKey); ok && pub.N.BitLen() < minRSABits {
			continue
		}
		if keys = append(keys, k); len(keys) == maxSigningKeys {
			break
		}
	}
	if len(keys) == 0 {
		return nil, errNoKeys
	}
	return keys, nil
}

// pick returns the keys of a kid; without a kid, all of them.
func (k *keySet) pick(kid, alg string, now time.Time) (out []jose.JSONWebKey, fresh bool) {
	known := k.known.Load()
	if known == nil {
		return nil, false
	}
	for _, k := range known.keys {
		if (kid == "" || k.KeyID == kid) && (k.Algorithm == "" || k.Algorithm == alg) {
			out = append(out, k)
		}
	}
	return out, now.Sub(known.at) < keysMaxAge
}
