package proxy

import (
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"maps"
	"os"
	"slices"

	"github.com/twmb/franz-go/pkg/sasl"
	"github.com/twmb/franz-go/pkg/sasl/plain"
	"github.com/twmb/franz-go/pkg/sasl/scram"

	"tollgate.internal/pkg/resource"
	"tollgate.internal/pkg/secret"
	"tollgate.internal/services/proxy/internal/upstream"
)

// runningCluster is an upstream cluster as it was configured last.
type runningCluster struct {
	sum       [sha256.Size]byte // of its configuration, see upstreamConfig
	bootstrap []string
	cluster   *upstream.Cluster
}

// reached are the upstream clusters of a set of resources, not yet in service.
type reached struct {
	clusters map[string]*runningCluster
	changes  []func()            // to clusters that are in service
	fresh    []*upstream.Cluster // started for this
}

// reach finds or starts the clusters of a set. One that has a bootstrap address in
// common with before is the same cluster, reached in another way: by another
// password, or over one broker more. Its sessions go on.
func (g *gateway) reach(set *resource.Set) (*reached, error) {
	r := &reached{clusters: make(map[string]*runningCluster)}
	var errs []error
	for _, name := range slices.Sorted(maps.Keys(set.UpstreamClusters)) {
		cfg, sum, err := upstreamConfig(set.UpstreamClusters[name])
		if err != nil {
			errs = append(errs, err)
			continue
		}
		next := &runningCluster{sum: sum, bootstrap: cfg.Bootstrap}
		old := g.clusters[name]
		switch {
		case old != nil && old.sum == sum:
			next = old
		case old != nil && slices.ContainsFunc(cfg.Bootstrap, func(a string) bool { return slices.Contains(old.bootstrap, a) }):
			next.cluster = old.cluster
			r.changes = append(r.changes, func() { old.cluster.Reconfigure(cfg.Bootstrap, cfg.TLS, cfg.SASL) })
		default:
			cfg.Log, cfg.Dial = g.cfg.Log, g.cfg.Dial
			next.cluster = upstream.New(cfg)
			r.fresh = append(r.fresh, next.cluster)
		}
		r.clusters[name] = next
	}
	return r, errors.Join(errs...)
}

// abandon ends what was started.
func (r *reached) abandon() {
	for _, c := range r.fresh {
		c.Close()
	}
}

// commit puts the clusters into service, and returns those that are no longer.
func (r *reached) commit(g *gateway) (unused []*upstream.Cluster) {
	for _, change := range r.changes {
		change()
	}
	for name, old := range g.clusters {
		if now := r.clusters[name]; now == nil || now.cluster != old.cluster {
			unused = append(unused, old.cluster)
		}
	}
	g.clusters = r.clusters
	return unused
}

// upstreamConfig resolves the files and secrets a cluster refers to. The sum is of
// all of them: it differs when one of them does.
func upstreamConfig(u *resource.UpstreamCluster) (cfg upstream.Config, sum [sha256.Size]byte, err error) {
	cfg = upstream.Config{Name: u.Metadata.Name, Bootstrap: u.Spec.Bootstrap}
	dir := u.Metadata.BaseDir()
	parts := slices.Clone(u.Spec.Bootstrap)
	if t := u.Spec.TLS; t != nil {
		cfg.TLS = &tls.Config{MinVersion: tls.VersionTLS12, ServerName: t.ServerName, DynamicRecordSizingDisabled: true}
		parts = append(parts, "tls", t.ServerName)
		if t.CAFile != "" {
			pem, err := os.ReadFile(u.Metadata.Path(t.CAFile))
			if err != nil {
				return cfg, sum, u.Metadata.Problem("spec.tls.caFile", "%v", err)
			}
			parts = append(parts, "ca", string(pem))
			cfg.TLS.RootCAs = x509.NewCertPool()
			if !cfg.TLS.RootCAs.AppendCertsFromPEM(pem) {
				return cfg, sum, u.Metadata.Problem("spec.tls.caFile", "no certificate in %s", t.CAFile)
			}
		}
		if t.CertFile != "" {
			cert, err := os.ReadFile(u.Metadata.Path(t.CertFile))
			if err != nil {
				return cfg, sum, u.Metadata.Problem("spec.tls.certFile", "%v", err)
			}
			key, err := secret.Resolve(string(t.KeyFile), dir)
			if err != nil {
				return cfg, sum, u.Metadata.Problem("spec.tls.keyFile", "%v", err)
			}
			pair, err := tls.X509KeyPair(cert, []byte(key.Reveal()))
			if err != nil {
				return cfg, sum, u.Metadata.Problem("spec.tls.certFile", "%v", err)
			}
			parts = append(parts, "certificate", string(cert), key.Reveal())
			cfg.TLS.Certificates = []tls.Certificate{pair}
		}
	}
	if s := u.Spec.SASL; s != nil {
		password, err := secret.Resolve(string(s.Password), dir)
		if err != nil {
			return cfg, sum, u.Metadata.Problem("spec.sasl.password", "%v", err)
		}
		parts = append(parts, "sasl", s.Mechanism, s.Username, password.Reveal())
		if cfg.SASL = mechanism(s, password); cfg.SASL == nil {
			return cfg, sum, u.Metadata.Problem("spec.sasl.mechanism", "%s is not supported", s.Mechanism)
		}
	}
	h := sha256.New()
	for _, part := range parts {
		fmt.Fprintf(h, "%d:%s", len(part), part)
	}
	return cfg, [sha256.Size]byte(h.Sum(nil)), nil
}

// mechanism is nil for one that is not supported.
func mechanism(s *resource.UpstreamSASL, password secret.Secret) sasl.Mechanism {
	switch s.Mechanism {
	case "PLAIN":
		return plain.Auth{User: s.Username, Pass: password.Reveal()}.AsMechanism()
	case "SCRAM-SHA-256":
		return scram.Auth{User: s.Username, Pass: password.Reveal()}.AsSha256Mechanism()
	case "SCRAM-SHA-512":
		return scram.Auth{User: s.Username, Pass: password.Reveal()}.AsSha512Mechanism()
	}
	return nil
}
