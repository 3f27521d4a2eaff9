package auth

import (
	"crypto/sha256"
	"crypto/x509"
	"encoding/hex"
	"errors"
	"os"
	"time"

	"tollgate.internal/pkg/resource"
	"tollgate.internal/services/proxy/internal/refusal"
)

// certificates is how a realm reads client certificates.
type certificates struct {
	pool  *x509.CertPool
	roots map[string]bool // fingerprints of what is in pool
	rules principalRules
}

func loadCertificates(vc *resource.VirtualCluster) (*certificates, error) {
	m := vc.Spec.Authentication.MTLS
	if m == nil {
		return nil, nil
	}
	rules, ruleErr := parsePrincipalRules(m.PrincipalRules)
	if ruleErr != nil {
		ruleErr = vc.Metadata.Problem("spec.authentication.mtls.principalRules", "%v", ruleErr)
	}
	c := &certificates{pool: x509.NewCertPool(), roots: make(map[string]bool), rules: rules}
	certs, err := authorities(vc)
	if err != nil {
		return nil, errors.Join(ruleErr, err)
	}
	for _, cert := range certs {
		c.pool.AddCert(cert)
		c.roots[rootID(cert)] = true
	}
	return c, ruleErr
}

// authorities are the CAs of a virtual cluster's clients.
func authorities(vc *resource.VirtualCluster) ([]*x509.Certificate, error) {
	m := vc.Spec.Authentication.MTLS
	field, in, text := "spec.authentication.mtls.ca", "", []byte(m.CA)
	if m.CA == "" {
		file := vc.Metadata.Path(m.CAFile)
		field, in = "spec.authentication.mtls.caFile", file+" "
		var err error
		if text, err = os.ReadFile(file); err != nil {
			return nil, vc.Metadata.Problem(field, "%v", err)
		}
	}
	certs, err := resource.Certificates(text)
	if err != nil {
		return nil, vc.Metadata.Problem(field, "%s%v", in, err)
	}
	return certs, nil
}

func rootID(c *x509.Certificate) string {
	sum := sha256.Sum256(c.Raw)
	return hex.EncodeToString(sum[:])
}

// ClientCAs are the roots that client certificates must come from, nil when the
// virtual cluster takes none.
func (r *Realm) ClientCAs() *x509.CertPool {
	if r.certs == nil {
		return nil
	}
	return r.certs.pool
}

// FromCertificate is who a client is by its certificate: chain as the client
// sent it, its own first. The chain is verified here again, against the roots of
// this virtual cluster: a TLS listener serves several, and a resumed session
// was perhaps verified for another.
//
// The name that the principal rules make of the certificate must be an external
// name of an account, or name an external account; else the full name must be
// an external name.
func (r *Realm) FromCertificate(chain []*x509.Certificate) (Identity, error) {
	if r.certs == nil {
		return Identity{}, refusal.ClientCertificateRefused.Errorf("client certificates are not taken here")
	}
	if len(chain) == 0 {
		return Identity{}, refusal.CertificateMissing.Errorf("the client sent no certificate")
	}
	now := r.deps.now()
	o := x509.VerifyOptions{
		Roots: r.certs.pool, Intermediates: x509.NewCertPool(), CurrentTime: now,
		KeyUsages: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth},
	}
	for _, c := range chain[1:] {
		o.Intermediates.AddCert(c)
	}
	verified, err := chain[0].Verify(o)
	if err != nil {
		return Identity{}, refusal.ClientCertificateRefused.Errorf("verify client certificate: %w", err)
	}
	dn, err := distinguishedName(chain[0].RawSubject)
	if err != nil {
		return Identity{}, refusal.ClientCertificateRefused.Errorf("client certificate: %w", err)
	}
	name, external, a := r.byDN(dn)
	if name == "" {
		return Identity{}, refusal.CertificateNotMapped.Errorf("no principal rule makes a name of %q", dn)
	}
	if a == nil {
		return Identity{}, refusal.AccountUnknown.Errorf("%q, by certificate %q, is no external name of an account and names no external account", name, dn)
	}
	if !a.live(now) {
		return Identity{}, refusal.AccountUnknown.Errorf("account %q expired", a.name)
	}
	path := verified[0]
	ends := []time.Time{a.expires}
	for _, c := range path {
		ends = append(ends, c.NotAfter)
	}
	return Identity{
		Principal: "User:" + a.name, Account: a.name, Mechanism: MTLS,
		ExternalName: external, Issuer: rootID(path[len(path)-1]), Expires: earliest(ends...), dn: dn,
	}, nil
}

// byDN finds the account of a name: what the rules made of it, by which
// external name it was found, and whose it is.
func (r *Realm) byDN(dn string) (name, external string, a *account) {
	name, _ = r.certs.rules.apply(dn)
	if name == "" {
		return "", "", nil
	}
	if a := r.external[name]; a != nil {
		return name, name, a
	}
	if a := r.accounts[name]; a != nil && a.external {
		return name, name, a
	}
	return name, dn, r.external[dn]
}

// certificateStillValid says whether id would be admitted as a again.
func (r *Realm) certificateStillValid(id Identity, a *account) error {
	if r.certs == nil {
		return refusal.CredentialRevoked.Errorf("client certificates are no longer taken")
	}
	if !r.certs.roots[id.Issuer] {
		return refusal.CredentialRevoked.Errorf("the root of the certificate is no longer trusted")
	}
	if _, _, now := r.byDN(id.dn); now != a {
		return refusal.CredentialRevoked.Errorf("certificate %q is no longer that of account %q", id.dn, a.name)
	}
	return nil
}
