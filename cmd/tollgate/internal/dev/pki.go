package dev

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"errors"
	"io/fs"
	"math/big"
	"net"
	"os"
	"path/filepath"
	"time"

	"tollgate.internal/services/proxy"
)

func caFile(state string) string { return filepath.Join(state, "ca.pem") }

func keyPair(state string) proxy.KeyPair {
	return proxy.KeyPair{CertFile: filepath.Join(state, "server.pem"), KeyFile: filepath.Join(state, "server.key")}
}

// certificates makes the gateway's certificate for names. The CA is made once, so
// that clients who trust it stay served; the certificate is made anew by each run,
// because the names may have changed.
func certificates(state string, names []string) error {
	caFile := caFile(state)
	caKeyFile := filepath.Join(state, "ca.key")
	ca, err := tls.LoadX509KeyPair(caFile, caKeyFile)
	if errors.Is(err, fs.ErrNotExist) {
		if err := issue(caFile, caKeyFile, &x509.Certificate{
			Subject: pkix.Name{CommonName: "Tollgate dev CA"}, IsCA: true,
			KeyUsage: x509.KeyUsageCertSign | x509.KeyUsageCRLSign, NotAfter: time.Now().AddDate(10, 0, 0),
		}, nil); err != nil {
			return err
		}
		ca, err = tls.LoadX509KeyPair(caFile, caKeyFile)
	}
	if err != nil {
		return err
	}
	pair := keyPair(state)
	return issue(pair.CertFile, pair.KeyFile, &x509.Certificate{
		Subject: pkix.Name{CommonName: names[0]}, DNSNames: names, IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)},
		KeyUsage: x509.KeyUsageDigitalSignature, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth},
		NotAfter: time.Now().AddDate(1, 0, 0),
	}, &ca)
}

// issue makes a key and a certificate signed by ca, or by itself.
func issue(certFile, keyFile string, c *x509.Certificate, ca *tls.Certificate) error {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return err
	}
	if c.SerialNumber, err = rand.Int(rand.Reader, new(big.Int).Lsh(big.NewInt(1), 120)); err != nil {
		return err
	}
	c.NotBefore = time.Now().Add(-time.Hour)
	c.BasicConstraintsValid = true
	parent, signer := c, any(key)
	if ca != nil {
		parent, signer = ca.Leaf, ca.PrivateKey
	}
	der, err := x509.CreateCertificate(rand.Reader, c, parent, &key.PublicKey, signer)
	if err != nil {
		return err
	}
	keyDER, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		return err
	}
	if err := WriteFile(keyFile, pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: keyDER}), 0o600); err != nil {
		return err
	}
	return WriteFile(certFile, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}), 0o644)
}

// Roots trusts the CA of caFile.
func Roots(caFile string) (*x509.CertPool, error) {
	data, err := os.ReadFile(caFile)
	if err != nil {
		return nil, err
	}
	pool := x509.NewCertPool()
	if !pool.AppendCertsFromPEM(data) {
		return nil, errors.New("no certificate in " + caFile)
	}
	return pool, nil
}
