// Package credential makes what the gateway shows to upstream clusters from what an
// UpstreamCluster says: the TLS configuration and the SASL mechanism that new
// connections use.
//
// A [Credential] is made from the files and variables as they are when it is opened.
// [Credential.Changed] tells whether one of the files is another by now; whoever asks
// opens the next one then, and goes on with this one if that fails.
//
// Tokens of OAUTHBEARER and AWS_MSK_IAM and the tickets of GSSAPI are had when they are
// needed, kept while they are good, and renewed before they end. Errors name the cluster's
// mechanism and who was asked, never a secret.
package credential

import (
	"context"
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"hash"
	"log/slog"
	"net/http"
	"os"
	"sync"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/twmb/franz-go/pkg/sasl"
	"github.com/twmb/franz-go/pkg/sasl/plain"
	"github.com/twmb/franz-go/pkg/sasl/scram"

	"tollgate.internal/pkg/resource"
	"tollgate.internal/pkg/secret"
)

// Keeper opens credentials, and holds what several of them share.
type Keeper struct {
	log    *slog.Logger
	ctx    context.Context // of renewals; ends with Close
	cancel context.CancelFunc
	wg     sync.WaitGroup

	transport func(*tls.Config) http.RoundTripper // to token endpoints
	aws       aws.HTTPClient                      // nil: the SDK's own

	mu  sync.Mutex
	iam map[iamIdentity]*sharedIAM
}

// NewKeeper returns a keeper that tells log of renewals that failed. Close it.
func NewKeeper(log *slog.Logger) *Keeper {
	if log == nil {
		log = slog.New(slog.DiscardHandler)
	}
	ctx, cancel := context.WithCancel(context.Background())
	return &Keeper{log: log, ctx: ctx, cancel: cancel, iam: make(map[iamIdentity]*sharedIAM), transport: transport}
}

// Close ends the renewals that are under way. Credentials are of no use afterwards.
func (k *Keeper) Close() {
	k.cancel()
	k.wg.Wait()
}

// Credential is what new connections to one cluster use. Its fields are not to be changed.
type Credential struct {
	TLS  *tls.Config    // nil: plaintext
	SASL sasl.Mechanism // nil: none

	// Warnings are about what works, and is not safe.
	Warnings []string

	sum    [sha256.Size]byte // of everything it was made of
	files  map[string]fingerprint
	broken bool // it was opened with an error
	close  func()
}

// Open makes a credential. The error is of type [resource.Problem], or joins several.
// What is returned beside an error lets no connection succeed; it knows the files it
// wants.
func (k *Keeper) Open(u *resource.UpstreamCluster) (*Credential, error) {
	m := &material{u: u, files: make(map[string]fingerprint), sum: sha256.New()}
	c := &Credential{files: m.files, close: func() {}}
	c.TLS = m.tls()
	if s := u.Spec.SASL; s != nil {
		mech := k.mechanism(m, s)
		if mech != nil {
			c.SASL, c.close = mech, mech.close
		}
		c.Warnings = m.warnings(s)
	}
	m.sum.Sum(c.sum[:0])
	if len(m.errs) > 0 {
		err := errors.Join(m.errs...)
		c.close()
		broken := &Credential{files: m.files, broken: true, close: func() {}}
		if u.Spec.TLS != nil {
			broken.TLS = refusingTLS(err)
		}
		if s := u.Spec.SASL; s != nil {
			broken.SASL = refusing{s.Mechanism, err}
		}
		return broken, err
	}
	return c, nil
}

// Changed reports whether a file is another than the one that was read, or could not be.
func (c *Credential) Changed() bool {
	for path, then := range c.files {
		if !then.same(fingerprintOf(path)) {
			return true
		}
	}
	return false
}

// Same reports whether c was made of the same as other.
func (c *Credential) Same(other *Credential) bool {
	return !c.broken && !other.broken && c.sum == other.sum
}

// Usable reports whether c was opened without an error.
func (c *Credential) Usable() bool { return !c.broken }

// Follow takes over which files other has seen: c serves on though they changed.
func (c *Credential) Follow(other *Credential) { c.files = other.files }

// Close gives back what c holds. A login that is under way may fail.
func (c *Credential) Close() { c.close() }

// fingerprint is what tells one content of a file from the next without reading it.
type fingerprint struct {
	info os.FileInfo
	err  string
}

func fingerprintOf(path string) fingerprint {
	info, err := os.Stat(path)
	if err != nil {
		return fingerprint{err: err.Error()}
	}
	return fingerprint{info: info}
}

func (f fingerprint) same(now fingerprint) bool {
	if f.info == nil || now.info == nil {
		return f.info == nil && now.info == nil && f.err == now.err
	}
	return f.info.ModTime().Equal(now.info.ModTime()) && f.info.Size() == now.info.Size() && os.SameFile(f.info, now.info)
}

// material reads what a credential is made of, and notes it.
type material struct {
	u     *resource.UpstreamCluster
	files map[string]fingerprint
	sum   hash.Hash
	errs  []error
}

func (m *material) problem(field, format string, args ...any) {
	m.errs = append(m.errs, m.u.Metadata.Problem(field, format, args...))
}

// note puts what was read into the sum.
func (m *material) note(field, value string) {
	fmt.Fprintf(m.sum, "%s:%d:%s", field, len(value), value)
}

// look notes a file before it is read: a change after that is seen as one.
func (m *material) look(path string) { m.files[path] = fingerprintOf(path) }

func (m *material) file(field, path string) []byte {
	path = m.u.Metadata.Path(path)
	m.look(path)
	content, err := os.ReadFile(path)
	if err != nil {
		m.problem(field, "%v", err)
		return nil
	}
	m.note(field, string(content))
	return content
}

func (m *material) secret(field string, r resource.Reference) secret.Secret {
	return m.resolve(field, r, secret.Resolve)
}

func (m *material) resolve(field string, r resource.Reference, how func(ref, baseDir string) (secret.Secret, error)) secret.Secret {
	if path, ok := secret.File(string(r), m.u.Metadata.BaseDir()); ok {
		m.look(path)
	}
	s, err := how(string(r), m.u.Metadata.BaseDir())
	if err != nil {
		m.problem(field, "%v", err)
	}
	m.note(field, s.Reveal())
	return s
}

func (m *material) pool(field, path string) *x509.CertPool {
	pem := m.file(field, path)
	if pem == nil {
		return nil
	}
	pool := x509.NewCertPool()
	if !pool.AppendCertsFromPEM(pem) {
		m.problem(field, "no certificate in %s", path)
	}
	return pool
}

func (m *material) tls() *tls.Config {
	t := m.u.Spec.TLS
	if t == nil {
		return nil
	}
	cfg := &tls.Config{MinVersion: tls.VersionTLS12, ServerName: t.ServerName, DynamicRecordSizingDisabled: true}
	if t.CA != "" {
		m.note("spec.tls.ca", t.CA)
		cfg.RootCAs = x509.NewCertPool()
		cfg.RootCAs.AppendCertsFromPEM([]byte(t.CA))
	}
	if t.CAFile != "" {
		cfg.RootCAs = m.pool("spec.tls.caFile", t.CAFile)
	}
	if t.CertFile != "" {
		cert := m.file("spec.tls.certFile", t.CertFile)
		key := m.secret("spec.tls.keyFile", t.KeyFile)
		if cert == nil || key.Reveal() == "" {
			return cfg
		}
		pair, err := tls.X509KeyPair(cert, []byte(key.Reveal()))
		if err != nil {
			m.problem("spec.tls.certFile", "%v", err)
		}
		cfg.Certificates = []tls.Certificate{pair}
	}
	return cfg
}

// warnings are about secrets that others on the network can read.
func (m *material) warnings(s *resource.UpstreamSASL) (w []string) {
	if m.u.Spec.TLS == nil {
		switch s.Mechanism {
		case resource.SASLPlain:
			w = append(w, "spec.sasl: PLAIN without spec.tls: whoever is on the network reads the password")
		case resource.SASLOAuthBearer:
			w = append(w, "spec.sasl: OAUTHBEARER without spec.tls: whoever is on the network reads the token and may use it until it expires")
		}
	}
	if s.Mechanism == resource.SASLOAuthBearer && !hasTLS(s.TokenURL) {
		w = append(w, "spec.sasl.tokenURL: without https whoever is on the network reads the client secret")
	}
	return w
}

// mechanism is a franz-go mechanism with what the gateway knows of it besides.
type mechanism struct {
	sasl.Mechanism
	text    string
	refused func()
	close   func()
}

// String says who the gateway claims to be, in logs.
func (m *mechanism) String() string { return m.text }

// Refused tells that a broker did not take what Authenticate made: what it was made of
// may be good no longer, though it has not ended.
func (m *mechanism) Refused() {
	if m.refused != nil {
		m.refused()
	}
}

func (k *Keeper) mechanism(m *material, s *resource.UpstreamSASL) *mechanism {
	mech := &mechanism{close: func() {}}
	switch s.Mechanism {
	case resource.SASLPlain, resource.SASLSCRAM256, resource.SASLSCRAM512:
		password := m.secret("spec.sasl.password", s.Password).Reveal()
		mech.text = fmt.Sprintf("%s as %s", s.Mechanism, s.Username)
		switch s.Mechanism {
		case resource.SASLPlain:
			mech.Mechanism = plain.Auth{User: s.Username, Pass: password}.AsMechanism()
		case resource.SASLSCRAM256:
			mech.Mechanism = scram.Auth{User: s.Username, Pass: password}.AsSha256Mechanism()
		case resource.SASLSCRAM512:
			mech.Mechanism = scram.Auth{User: s.Username, Pass: password}.AsSha512Mechanism()
		}
	case resource.SASLOAuthBearer:
		k.tokens(m, s, mech)
	case resource.SASLGSSAPI:
		k.kerberos(m, s, mech)
	case resource.SASLMSKIAM:
		k.msk(m, s, mech)
	default:
		m.problem("spec.sasl.mechanism", "%s is not supported", s.Mechanism)
		return nil
	}
	return mech
}

// refusing is the mechanism of a credential that could not be read.
type refusing struct {
	mechanism string
	err       error
}

func (r refusing) Name() string {
	if r.mechanism == resource.SASLMSKIAM {
		return resource.SASLOAuthBearer
	}
	return r.mechanism
}

func (r refusing) String() string { return r.mechanism + " without a credential" }

func (r refusing) Authenticate(context.Context, string) (sasl.Session, []byte, error) {
	return nil, nil, r.err
}

// refusingTLS lets nothing be said to a broker: not even TLS is sure to be meant.
func refusingTLS(err error) *tls.Config {
	return &tls.Config{
		MinVersion: tls.VersionTLS12,
		// Every certificate is refused below.
		InsecureSkipVerify: true,
		VerifyConnection:   func(tls.ConnectionState) error { return &tls.CertificateVerificationError{Err: err} },
	}
}

// transport reaches token endpoints: by the environment's proxy if there is one.
func transport(t *tls.Config) http.RoundTripper {
	return &http.Transport{
		Proxy: http.ProxyFromEnvironment, TLSClientConfig: t, ForceAttemptHTTP2: true,
		TLSHandshakeTimeout: 5 * time.Second, ResponseHeaderTimeout: 10 * time.Second,
		DisableKeepAlives: true, // it is asked a few times an hour
	}
}
