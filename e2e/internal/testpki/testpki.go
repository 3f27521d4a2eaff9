// Package testpki is a throw-away certificate authority for tests.
//
// Keys are ECDSA P-256 and every file is PEM with PKCS#8 keys, which brokers,
// OpenSSL, Java 17, Python and Node read without conversion. Certificates are
// valid from an hour ago for a day, unless a test asks for something else.
package testpki

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"fmt"
	"math/big"
	"net"
	"os"
	"path/filepath"
	"time"
)

// A CA signs certificates.
type CA struct {
	Certificate *x509.Certificate
	PEM         []byte
	key         *ecdsa.PrivateKey
}

// A Request says what to sign.
type Request struct {
	Subject pkix.Name
	// Hosts are DNS names, wildcards among them, and IP addresses. A certificate
	// without any is for a client only.
	Hosts []string
	// NotBefore and NotAfter; zero is an hour ago and a day from now.
	NotBefore, NotAfter time.Time
}

// A Pair is a certificate and its private key.
type Pair struct {
	Certificate *x509.Certificate
	CertPEM     []byte
	KeyPEM      []byte
	key         *ecdsa.PrivateKey
}

// New makes a certificate authority with a key of its own.
func New(commonName string) (*CA, error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, err
	}
	template := &x509.Certificate{
		Subject:               pkix.Name{CommonName: commonName},
		IsCA:                  true,
		BasicConstraintsValid: true,
		KeyUsage:              x509.KeyUsageCertSign | x509.KeyUsageCRLSign,
	}
	cert, certPEM, err := sign(template, nil, key, key)
	if err != nil {
		return nil, fmt.Errorf("sign authority %s: %w", commonName, err)
	}
	return &CA{Certificate: cert, PEM: certPEM, key: key}, nil
}

// Issue signs a certificate with a new key.
func (ca *CA) Issue(r Request) (*Pair, error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, err
	}
	template := &x509.Certificate{
		Subject:     r.Subject,
		NotBefore:   r.NotBefore,
		NotAfter:    r.NotAfter,
		KeyUsage:    x509.KeyUsageDigitalSignature,
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth},
	}
	for _, h := range r.Hosts {
		if ip := net.ParseIP(h); ip != nil {
			template.IPAddresses = append(template.IPAddresses, ip)
		} else {
			template.DNSNames = append(template.DNSNames, h)
		}
	}
	if len(r.Hosts) > 0 {
		template.ExtKeyUsage = append(template.ExtKeyUsage, x509.ExtKeyUsageServerAuth)
	}
	cert, certPEM, err := sign(template, ca.Certificate, key, ca.key)
	if err != nil {
		return nil, fmt.Errorf("sign certificate of %s: %w", r.Subject, err)
	}
	der, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		return nil, err
	}
	keyPEM := pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: der})
	return &Pair{Certificate: cert, CertPEM: certPEM, KeyPEM: keyPEM, key: key}, nil
}

// Server signs a certificate for a server of these host names and addresses.
func (ca *CA) Server(hosts ...string) (*Pair, error) {
	return ca.Issue(Request{Subject: pkix.Name{CommonName: hosts[0]}, Hosts: hosts})
}

// Client signs a certificate for a client. Kafka prints the subject last part
// first: {CommonName: carol, Organization: Acme} is User:CN=carol,O=Acme.
func (ca *CA) Client(subject pkix.Name) (*Pair, error) {
	return ca.Issue(Request{Subject: subject})
}

// Pool holds the authority alone.
func (ca *CA) Pool() *x509.CertPool {
	pool := x509.NewCertPool()
	pool.AddCert(ca.Certificate)
	return pool
}

// Write writes NAME.pem into dir and returns its path.
func (ca *CA) Write(dir, name string) (string, error) {
	file := filepath.Join(dir, name+".pem")
	return file, os.WriteFile(file, ca.PEM, 0o644)
}

// TLS is the pair as crypto/tls wants it.
func (p *Pair) TLS() tls.Certificate {
	return tls.Certificate{Certificate: [][]byte{p.Certificate.Raw}, PrivateKey: p.key, Leaf: p.Certificate}
}

// Write writes NAME.pem and NAME.key into dir and returns their paths.
func (p *Pair) Write(dir, name string) (certFile, keyFile string, err error) {
	certFile, keyFile = filepath.Join(dir, name+".pem"), filepath.Join(dir, name+".key")
	if err := os.WriteFile(certFile, p.CertPEM, 0o644); err != nil {
		return "", "", err
	}
	return certFile, keyFile, os.WriteFile(keyFile, p.KeyPEM, 0o600)
}

func sign(template, parent *x509.Certificate, key, parentKey *ecdsa.PrivateKey) (*x509.Certificate, []byte, error) {
	serial, err := rand.Int(rand.Reader, new(big.Int).Lsh(big.NewInt(1), 120))
	if err != nil {
		return nil, nil, err
	}
	template.SerialNumber = serial
	if template.NotBefore.IsZero() {
		template.NotBefore = time.Now().Add(-time.Hour)
	}
	if template.NotAfter.IsZero() {
		template.NotAfter = time.Now().Add(24 * time.Hour)
	}
	if parent == nil {
		parent = template
	}
	der, err := x509.CreateCertificate(rand.Reader, template, parent, &key.PublicKey, parentKey)
	if err != nil {
		return nil, nil, err
	}
	cert, err := x509.ParseCertificate(der)
	if err != nil {
		return nil, nil, err
	}
	return cert, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}), nil
}
