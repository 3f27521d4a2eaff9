package listener

import (
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"os"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"tollgate.internal/services/proxy/internal/refusal"
)

// unrecognizedName is the fatal alert of RFC 6066 §3. crypto/tls would send
// internal_error, which tells the people behind a client nothing.
var unrecognizedName = []byte{21, 3, 3, 0, 2, 2, 112}

// knownHosts is how many names the log line about an unknown host lists.
const knownHosts = 10

// unknownHost refuses a host name, in words that name those that would work.
func (l *Listener) unknownHost(name string) error {
	hosts, all := l.cfg.Router.Hosts(knownHosts)
	known := strings.Join(hosts, ", ")
	if more := all - len(hosts); more > 0 {
		known += fmt.Sprintf(" and %d more", more)
	}
	if known == "" {
		known = "none: no virtual cluster is loaded"
	}
	if name == "" {
		return refusal.ServerNameMissing.Errorf("known hosts: %s", known)
	}
	return refusal.ServerNameUnknown.Errorf("host %q; known hosts: %s", name, known)
}

// serverConfig is the TLS side of a socket. It lives as long as the socket, so
// that session tickets stay good while certificates change under it. What is made for
// a virtual cluster that asks for client certificates is in withCAs.
func (l *Listener) serverConfig(s *Spec, certs *certificates, withCAs *sync.Map) *tls.Config {
	base := &tls.Config{
		MinVersion:                  tls.VersionTLS12,
		GetCertificate:              certs.forClient,
		DynamicRecordSizingDisabled: true, // frames leave in full records from the first
	}
	base.GetConfigForClient = func(hello *tls.ClientHelloInfo) (*tls.Config, error) {
		vc := s.VirtualCluster
		if s.Routing == BySNI {
			var route Route
			var ok bool
			var err error
			if name := normaliseHost(hello.ServerName); name != "" {
				route, ok, err = l.cfg.Router.Host(hello.Context(), name)
			}
			if err != nil {
				// No alert: clients take one for the last word, and this is to be tried again.
				hello.Conn.Close()
				return nil, refusal.VirtualClusterNotLoaded.Errorf("host %q: %w", hello.ServerName, err)
			}
			if !ok {
				err := l.unknownHost(hello.ServerName)
				if _, werr := hello.Conn.Write(unrecognizedName); werr == nil {
					hello.Conn.Close()
				}
				return nil, err
			}
			if !certs.covers(hello.ServerName) {
				return nil, refusal.NoCertificate.Errorf("host %q", hello.ServerName)
			}
			vc = route.VirtualCluster
			if err := pace(hello.Context(), l.cfg.Router.Quotas(vc)); err != nil {
				hello.Conn.Close() // no alert: the client is to come again
				return nil, err
			}
		}
		pool := l.cfg.Router.ClientCAs(vc)
		if pool == nil || s.Protocol == SASLSSL {
			return nil, nil
		}
		auth := tls.VerifyClientCertIfGiven
		if s.Protocol == SSL || l.cfg.Router.ClientCertificateRequired(vc) {
			auth = tls.RequireAndVerifyClientCert
		}
		if v, ok := withCAs.Load(vc); ok {
			if c := v.(*tls.Config); c.ClientCAs == pool && c.ClientAuth == auth {
				return c, nil
			}
		}
		c := base.Clone()
		c.GetConfigForClient = nil
		c.ClientCAs = pool
		c.ClientAuth = auth
		// A resumed session brings the certificate of the full handshake along,
		// which other CAs may have vouched for: another virtual cluster's, or
		// those before a reload.
		c.SessionTicketsDisabled = true
		withCAs.Store(vc, c)
		return c, nil
	}
	return base
}

// certificates are the key pairs of a spec. A reload swaps them for handshakes
// to come; connections keep what they were made with.
type certificates struct {
	files []KeyPair
	now   atomic.Pointer[certificateSet]
	bad   string // last problem that was logged, so that it is logged once

	failures atomic.Uint64 // problems that were logged
}

type certificateSet struct {
	content [][]byte // of the files, in order: what the set was made from
	all     []*tls.Certificate
	byName  map[string][]*tls.Certificate // exact names, and wildcards as "*.rest"
}

func loadCertificates(files []KeyPair) (*certificates, error) {
	c := &certificates{files: files}
	_, err := c.load()
	return c, err
}

// load reads the files and, if they changed and are good, swaps the set. The
// content decides, not the time stamp: mounted secrets are swapped by symbolic
// link, and a coarse clock hides a quick second write.
func (c *certificates) load() (changed bool, err error) {
	var content [][]byte
	for _, pair := range c.files {
		for _, name := range []string{pair.CertFile, pair.KeyFile} {
			b, err := os.ReadFile(name)
			if err != nil {
				return false, fmt.Errorf("read certificate: %w", err)
			}
			content = append(content, b)
		}
	}
	if old := c.now.Load(); old != nil && equal(old.content, content) {
		return false, nil
	}
	set := &certificateSet{content: content, byName: make(map[string][]*tls.Certificate)}
	for i, pair := range c.files {
		cert, err := tls.X509KeyPair(content[2*i], content[2*i+1])
		if err != nil {
			return false, fmt.Errorf("certificate %s with key %s: %w", pair.CertFile, pair.KeyFile, err)
		}
		set.all = append(set.all, &cert)
		for _, name := range namesOf(cert.Leaf) {
			set.byName[name] = append(set.byName[name], &cert)
		}
	}
	c.now.Store(set)
	return true, nil
}

// CertificateState is what metrics say of a listener's certificates.
type CertificateState struct {
	Expiry         time.Time // of the one that expires first
	ReloadFailures uint64
}

// Certificates are the states of those listeners that have any, by name.
func (l *Listener) Certificates() map[string]CertificateState {
	states := make(map[string]CertificateState)
	l.mu.Lock()
	defer l.mu.Unlock()
	for i, c := range l.certs {
		if c == nil {
			continue
		}
		st := CertificateState{ReloadFailures: c.failures.Load()}
		for _, cert := range c.now.Load().all {
			if st.Expiry.IsZero() || cert.Leaf.NotAfter.Before(st.Expiry) {
				st.Expiry = cert.Leaf.NotAfter
			}
		}
		states[l.specs[i].Name] = st
	}
	return states
}

func equal(a, b [][]byte) bool {
	for i := range a {
		if !bytes.Equal(a[i], b[i]) {
			return false
		}
	}
	return true
}

func namesOf(leaf *x509.Certificate) []string {
	names := leaf.DNSNames // clients have long ignored the common name
	lower := make([]string, len(names))
	for i, n := range names {
		lower[i] = normaliseHost(n)
	}
	return lower
}

// named are the certificates for a host: an exact name comes before a wildcard.
func (set *certificateSet) named(host string) []*tls.Certificate {
	host = normaliseHost(host)
	if exact := set.byName[host]; len(exact) > 0 {
		return exact
	}
	if _, rest, ok := strings.Cut(host, "."); ok {
		return set.byName["*."+rest]
	}
	return nil
}

func (c *certificates) covers(host string) bool { return len(c.now.Load().named(host)) > 0 }

// forClient prefers, among the certificates of the host, one whose algorithm the
// client supports.
func (c *certificates) forClient(hello *tls.ClientHelloInfo) (*tls.Certificate, error) {
	set := c.now.Load()
	candidates := set.named(hello.ServerName)
	for _, cert := range candidates {
		if hello.SupportsCertificate(cert) == nil {
			return cert, nil
		}
	}
	if len(candidates) > 0 {
		return candidates[0], nil
	}
	return set.all[0], nil
}

func (l *Listener) reloadCertificates(ctx context.Context) {
	tick := time.NewTicker(l.cfg.CertificatePoll)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
		l.mu.Lock()
		names, certs := make([]string, len(l.specs)), slices.Clone(l.certs)
		for i, s := range l.specs {
			if s != nil {
				names[i] = s.Name
			}
		}
		l.mu.Unlock()
		for i, c := range certs {
			if c == nil {
				continue
			}
			name := names[i]
			switch changed, err := c.load(); {
			case err != nil && err.Error() != c.bad:
				// Possibly half-written: the old ones serve until it is whole.
				c.bad = err.Error()
				c.failures.Add(1)
				l.cfg.Log.ErrorContext(ctx, "certificates not reloaded", "listener", name, "err", err)
			case err != nil:
			case changed:
				c.bad = ""
				l.cfg.Log.InfoContext(ctx, "certificates reloaded", "listener", name)
			default:
				c.bad = ""
			}
		}
	}
}
