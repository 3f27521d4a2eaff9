package bundle

import (
	"bytes"
	"crypto/ed25519"
	"crypto/rand"
	"crypto/sha256"
	"crypto/x509"
	"encoding/hex"
	"encoding/pem"
	"errors"
	"fmt"
	"slices"
	"strings"
)

// A KeyID names a key pair: the first bytes of SHA-256 of the public key.
type KeyID [8]byte

// String is the id in hexadecimal.
func (id KeyID) String() string { return hex.EncodeToString(id[:]) }

func idOf(public ed25519.PublicKey) KeyID {
	sum := sha256.Sum256(public)
	return KeyID(sum[:8])
}

// The PEM blocks that keys are kept in.
const (
	privateBlock = "PRIVATE KEY" // PKCS#8
	publicBlock  = "PUBLIC KEY"  // PKIX
)

// maxKeys bounds a keyring: one key signs, and a rotation adds another.
const maxKeys = 64

// A Signer holds the private key of a deployment. It prints as its id.
type Signer struct {
	id      KeyID
	private *ed25519.PrivateKey // a pointer: fmt does not follow it
}

// NewSigner makes a key pair.
func NewSigner() (*Signer, error) {
	_, private, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		return nil, fmt.Errorf("make a signing key: %w", err)
	}
	return signer(private), nil
}

func signer(private ed25519.PrivateKey) *Signer {
	return &Signer{idOf(private.Public().(ed25519.PublicKey)), &private}
}

// ParseSigner reads a private key as openssl genpkey -algorithm ed25519 writes it:
// one PEM block, PKCS#8, not encrypted.
func ParseSigner(text []byte) (*Signer, error) {
	block, rest := pem.Decode(text)
	switch {
	case block == nil:
		return nil, errors.New("signing key: not PEM: openssl genpkey -algorithm ed25519 makes one")
	case block.Type != privateBlock:
		return nil, fmt.Errorf("signing key: PEM block is a %s, not a %s", block.Type, privateBlock)
	case len(bytes.TrimSpace(rest)) > 0:
		return nil, errors.New("signing key: there is more behind the first PEM block: one key signs")
	}
	parsed, err := x509.ParsePKCS8PrivateKey(block.Bytes)
	if err != nil {
		return nil, errors.New("signing key: not a private key of PKCS#8") // err may tell of the key
	}
	private, ok := parsed.(ed25519.PrivateKey)
	if !ok {
		return nil, errors.New("signing key: not an Ed25519 key: openssl genpkey -algorithm ed25519 makes one")
	}
	return signer(private), nil
}

// ID is the key id that signatures carry.
func (s *Signer) ID() KeyID { return s.id }

// String is the key id.
func (s *Signer) String() string { return s.id.String() }

// Private is the private key in PEM. Whoever calls it answers for where it goes.
func (s *Signer) Private() ([]byte, error) {
	der, err := x509.MarshalPKCS8PrivateKey(*s.private)
	if err != nil {
		return nil, fmt.Errorf("encode signing key: %w", err)
	}
	return pem.EncodeToMemory(&pem.Block{Type: privateBlock, Bytes: der}), nil
}

// Public is the public key in PEM, as proxies are given it.
func (s *Signer) Public() ([]byte, error) {
	der, err := x509.MarshalPKIXPublicKey(s.private.Public())
	if err != nil {
		return nil, fmt.Errorf("encode public key: %w", err)
	}
	return pem.EncodeToMemory(&pem.Block{Type: publicBlock, Bytes: der}), nil
}

// Keyring is the keyring that trusts this key alone.
func (s *Signer) Keyring() Keyring {
	return Keyring{s.id: s.private.Public().(ed25519.PublicKey)}
}

// A Keyring holds the public keys whose signatures are trusted. While a key is
// replaced it holds the old one and the new one.
type Keyring map[KeyID]ed25519.PublicKey

// ParseKeyring reads public keys in PEM, one behind the other.
func ParseKeyring(text []byte) (Keyring, error) {
	keys := make(Keyring)
	for {
		block, rest := pem.Decode(text)
		if block == nil {
			break
		}
		text = rest
		if block.Type == privateBlock {
			return nil, errors.New("public keys: there is a private key among them: it belongs to the portal alone")
		}
		if block.Type != publicBlock {
			return nil, fmt.Errorf("public keys: PEM block is a %s, not a %s", block.Type, publicBlock)
		}
		parsed, err := x509.ParsePKIXPublicKey(block.Bytes)
		if err != nil {
			return nil, fmt.Errorf("public keys: %w", err)
		}
		public, ok := parsed.(ed25519.PublicKey)
		if !ok {
			return nil, errors.New("public keys: there is one that is not an Ed25519 key")
		}
		if keys[idOf(public)] = public; len(keys) > maxKeys {
			return nil, fmt.Errorf("public keys: more than %d", maxKeys)
		}
	}
	switch {
	case len(bytes.TrimSpace(text)) > 0:
		return nil, errors.New("public keys: there is something that is not PEM")
	case len(keys) == 0:
		return nil, errors.New("public keys: none: without one nothing that the portal says is believed")
	}
	return keys, nil
}

// String lists the key ids.
func (k Keyring) String() string {
	ids := make([]string, 0, len(k))
	for id := range k {
		ids = append(ids, id.String())
	}
	slices.Sort(ids)
	return strings.Join(ids, ", ")
}
