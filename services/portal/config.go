package portal

import (
	"cmp"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"net/netip"
	"os"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"

	"tollgate.internal/pkg/fleet"
	"tollgate.internal/pkg/resource"
	"tollgate.internal/pkg/secret"
	"tollgate.internal/pkg/version"
	"tollgate.internal/services/portal/internal/control"
)

// Config is everything a portal needs. Zero values get the defaults beside them.
type Config struct {
	Listen   string // address of the API
	CertFile string // PEM chain of the API's listener, read again when it changes; empty: plain HTTP
	KeyFile  string
	Admin    string // address of metrics and health; empty: none
	Database string // sqlite:PATH or postgres://…

	// TrustedProxies are the networks of load balancers before the API, which say in
	// X-Forwarded-For where a request comes from: for the audit log, and for who has too
	// many failures. Of anybody else that header says nothing.
	TrustedProxies []netip.Prefix

	// Redis is where proxies learn of changes; empty: nowhere. SigningKey is a file
	// with the private key that they believe (PEM); TrustedKeys one with the public
	// keys of other portals, while a key is replaced.
	Redis         string
	RedisPassword secret.Secret // empty: the URL's
	SigningKey    string
	TrustedKeys   string
	Deployment    string // of the fleet, among those that share a Redis; default

	// RestoredAt is the revision that the fleet was told of when the database was restored
	// from an older copy: the portal goes on above it, with what the copy has. Once it
	// has passed it, this means nothing. 0: the database is no such copy.
	RestoredAt int64

	Audit Audit

	// Limits bound what one tenant may make every node load; its zero fields are the
	// default ones.
	Limits control.Limits

	// FirstToken is a file. A token of scope ops is made and written there as long as
	// there is no such token that is good. Empty: none is made.
	FirstToken string

	Version      string
	Log          *slog.Logger  // nil: nothing is logged
	DrainTimeout time.Duration // for requests to finish when ctx ends; 20 s

	// Ready is called once, when every listener accepts, with the address of each by
	// name. Optional.
	Ready func(addresses map[string]string)
}

// Audit says what becomes of the log of changes besides being kept.
type Audit struct {
	// Topic of Kafka that every entry is passed on to; empty: none. It is on the
	// UpstreamCluster of the name Cluster, or on one that is in ClusterFile and no resource.
	Topic       string
	Cluster     string
	ClusterFile string
	Create      bool // make the topic if it is not there

	Retention time.Duration // of entries, in the log; 0: for ever
}

func (a *Audit) check() (problems []error) {
	problem := func(format string, args ...any) { problems = append(problems, fmt.Errorf("audit: "+format, args...)) }
	switch {
	case a.Topic == "" && (a.Cluster != "" || a.ClusterFile != "" || a.Create):
		problem("a cluster without a topic: name the topic that the log is exported to")
	case a.Topic == "":
	case a.Cluster == "" && a.ClusterFile == "":
		problem("a topic without a cluster: name the UpstreamCluster that it is on, or a file with one")
	case a.Cluster != "" && a.ClusterFile != "":
		problem("the name of an UpstreamCluster and a file with one: give one of them")
	}
	if a.Topic != "" {
		if err := resource.CheckTopicName(a.Topic); err != nil {
			problem("%w", err)
		} else if resource.IsInternalTopic(a.Topic) {
			problem("%s is the brokers' own topic", a.Topic)
		}
	}
	if a.ClusterFile != "" {
		if _, err := readCluster(a.ClusterFile); err != nil {
			problem("%w", err)
		}
	}
	if a.Retention < 0 {
		problem("entries cannot be kept for %v", a.Retention)
	}
	return problems
}

// FromEnv reads TOLLGATE_PORTAL_… variables, and reports every problem at once.
func FromEnv(getenv func(string) string) (Config, error) {
	get := func(name, missing string) string {
		if value := getenv("TOLLGATE_PORTAL_" + name); value != "" {
			return value
		}
		return missing
	}
	cfg := Config{
		Listen: get("LISTEN", "127.0.0.1:9401"), CertFile: get("TLS_CERT", ""), KeyFile: get("TLS_KEY", ""), Admin: get("ADMIN", ""),
		Database: get("DATABASE", "sqlite:tollgate.db"),
		Redis:    get("REDIS", ""), RedisPassword: secret.New(get("REDIS_PASSWORD", "")),
		SigningKey: get("SIGNING_KEY", ""), TrustedKeys: get("TRUSTED_KEYS", ""), Deployment: get("DEPLOYMENT", ""),
		FirstToken: get("FIRST_TOKEN", ""),
		Audit:      Audit{Topic: get("AUDIT_TOPIC", ""), Cluster: get("AUDIT_CLUSTER", ""), ClusterFile: get("AUDIT_CLUSTER_FILE", "")},
	}
	var problems []error
	switch text := get("AUDIT_CREATE", "false"); text {
	case "true", "false":
		cfg.Audit.Create = text == "true"
	default:
		problems = append(problems, fmt.Errorf("TOLLGATE_PORTAL_AUDIT_CREATE: %q is neither true nor false", text))
	}
	if text := get("AUDIT_RETENTION", ""); text != "" {
		var err error
		if cfg.Audit.Retention, err = time.ParseDuration(text); err != nil || cfg.Audit.Retention <= 0 {
			problems = append(problems, fmt.Errorf("TOLLGATE_PORTAL_AUDIT_RETENTION: %q is no duration with its unit, such as 8760h for a year", text))
		}
	}
	if text := get("DRAIN_TIMEOUT", ""); text != "" {
		var err error
		if cfg.DrainTimeout, err = time.ParseDuration(text); err != nil || cfg.DrainTimeout <= 0 {
			problems = append(problems, fmt.Errorf("TOLLGATE_PORTAL_DRAIN_TIMEOUT: %q is no duration with its unit, such as 20s", text))
		}
	}
	for text := range strings.SplitSeq(get("TRUSTED_PROXIES", ""), ",") {
		if text = strings.TrimSpace(text); text == "" {
			continue
		}
		network, err := netip.ParsePrefix(text)
		if err != nil || network != network.Masked() {
			problems = append(problems, fmt.Errorf("TOLLGATE_PORTAL_TRUSTED_PROXIES: %q is no network, such as 10.1.0.0/16 or 192.0.2.7/32; several are parted by commas", text))
			continue
		}
		cfg.TrustedProxies = append(cfg.TrustedProxies, network)
	}
	if text := get("RESTORED_AT", ""); text != "" {
		var err error
		if cfg.RestoredAt, err = strconv.ParseInt(text, 10, 64); err != nil || cfg.RestoredAt <= 0 || cfg.RestoredAt > maxRestoredAt {
			problems = append(problems, fmt.Errorf("TOLLGATE_PORTAL_RESTORED_AT: %q is no revision: write the one that the portal says the fleet was told of", text))
		}
	}
	for _, l := range []struct {
		text string
		into *int
	}{
		{get("MAX_ALIASES", ""), &cfg.Limits.Aliases},
		{get("MAX_ACCOUNTS", ""), &cfg.Limits.Accounts},
		{get("MAX_ACLS", ""), &cfg.Limits.ACLs},
		{get("MAX_POLICIES", ""), &cfg.Limits.Policies},
		{get("MAX_GRANTS", ""), &cfg.Limits.Grants},
		{get("MAX_GRANT_REQUESTS", ""), &cfg.Limits.Requests},
		{get("MAX_OBJECT_BYTES", ""), &cfg.Limits.ObjectBytes},
		{get("MAX_BUNDLE_BYTES", ""), &cfg.Limits.BundleBytes},
	} {
		if l.text == "" {
			continue
		}
		var err error
		if *l.into, err = strconv.Atoi(l.text); err != nil || *l.into <= 0 {
			problems = append(problems, fmt.Errorf("TOLLGATE_PORTAL_MAX_…: %q is no positive number", l.text))
		}
	}
	level := slog.LevelInfo
	if text := get("LOG_LEVEL", ""); text != "" {
		if err := level.UnmarshalText([]byte(text)); err != nil {
			problems = append(problems, fmt.Errorf("TOLLGATE_PORTAL_LOG_LEVEL: %q is none of debug, info, warn, error", text))
		}
	}
	switch format := get("LOG_FORMAT", "json"); format {
	case "json":
		cfg.Log = slog.New(slog.NewJSONHandler(os.Stderr, &slog.HandlerOptions{Level: level}))
	case "text":
		cfg.Log = slog.New(slog.NewTextHandler(os.Stderr, &slog.HandlerOptions{Level: level}))
	default:
		problems = append(problems, fmt.Errorf("TOLLGATE_PORTAL_LOG_FORMAT: %q is neither json nor text", format))
	}
	if _, err := cfg.check(); err != nil {
		problems = append(problems, err)
	}
	return cfg, errors.Join(problems...)
}

// maxRestoredAt is far above any revision, and far below what Redis can count.
const maxRestoredAt = 1 << 50

// check fills in defaults and says everything that is wrong.
func (c *Config) check() (certificate *keyPair, err error) {
	if c.Log == nil {
		c.Log = slog.New(slog.DiscardHandler)
	}
	if c.DrainTimeout == 0 {
		c.DrainTimeout = 20 * time.Second
	}
	if c.Deployment == "" {
		c.Deployment = string(fleet.DefaultDeployment)
	}
	if c.Version == "" {
		c.Version = version.String()
	}
	var problems []error
	limits := control.DefaultLimits()
	for _, l := range []struct{ value, missing *int }{
		{&c.Limits.Aliases, &limits.Aliases},
		{&c.Limits.Accounts, &limits.Accounts},
		{&c.Limits.ACLs, &limits.ACLs},
		{&c.Limits.Policies, &limits.Policies},
		{&c.Limits.Grants, &limits.Grants},
		{&c.Limits.Requests, &limits.Requests},
		{&c.Limits.ObjectBytes, &limits.ObjectBytes},
		{&c.Limits.BundleBytes, &limits.BundleBytes},
	} {
		*l.value = cmp.Or(*l.value, *l.missing)
	}
	if err := c.Limits.Check(); err != nil {
		problems = append(problems, err)
	}
	if c.Listen == "" {
		problems = append(problems, errors.New("no address to listen on"))
	}
	if c.Database == "" {
		problems = append(problems, errors.New("no database: write sqlite:PATH or postgres://USER@HOST:PORT/DATABASE"))
	}
	switch {
	case (c.CertFile == "") != (c.KeyFile == ""):
		problems = append(problems, errors.New("a certificate and its key belong together: give both files"))
	case c.CertFile != "":
		certificate = &keyPair{cert: c.CertFile, key: c.KeyFile, log: c.Log}
		if err := certificate.load(); err != nil {
			problems = append(problems, err)
		}
	}
	if c.Redis == "" && c.SigningKey != "" {
		problems = append(problems, errors.New("a signing key without a Redis signs for nobody: give the Redis that the proxies read"))
	}
	if c.Redis != "" && c.SigningKey == "" {
		problems = append(problems, errors.New("a Redis without a signing key: proxies believe only what is signed; openssl genpkey -algorithm ed25519 makes one"))
	}
	return certificate, errors.Join(append(problems, c.Audit.check()...)...)
}

// keyPair is a certificate that may be replaced.
type keyPair struct {
	cert, key string
	log       *slog.Logger

	mu     sync.Mutex // guards what follows
	loaded *tls.Certificate
	of     [2]time.Time // when the files were written
	looked time.Time
}

func (k *keyPair) load() error {
	var of [2]time.Time
	for i, path := range []string{k.cert, k.key} {
		info, err := os.Stat(path)
		if err != nil {
			return fmt.Errorf("certificate of the API: %w", err)
		}
		of[i] = info.ModTime()
	}
	if k.loaded != nil && of == k.of {
		return nil
	}
	loaded, err := tls.LoadX509KeyPair(k.cert, k.key)
	if err != nil {
		return fmt.Errorf("certificate of the API: %w", err)
	}
	k.loaded, k.of = &loaded, of
	return nil
}

// get is the certificate as it is in the files, or was when they were last right.
func (k *keyPair) get(*tls.ClientHelloInfo) (*tls.Certificate, error) {
	k.mu.Lock()
	defer k.mu.Unlock()
	if now := time.Now(); now.Sub(k.looked) > time.Second {
		k.looked = now
		if err := k.load(); err != nil {
			k.log.Warn("certificate not replaced: the old one serves on", "err", err)
		}
	}
	return k.loaded, nil
}

func newRegistry(version string) *prometheus.Registry {
	registry := prometheus.NewRegistry()
	build := prometheus.NewGauge(prometheus.GaugeOpts{
		Name: "tollgate_build_info", Help: "What is running; always 1.",
		ConstLabels: prometheus.Labels{"version": version, "goversion": runtime.Version()},
	})
	build.Set(1)
	registry.MustRegister(collectors.NewGoCollector(), collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}), build)
	return registry
}

// firstToken makes a token of scope ops where there is none that is good: somebody
// has to make the others. What stands in the file from an earlier run stays as long
// as it is good.
func firstToken(ctx context.Context, c *control.Control, path string, log *slog.Logger) error {
	shown, err := os.ReadFile(path)
	if err == nil {
		if _, err := c.Authenticate(ctx, strings.TrimSpace(string(shown))); err == nil {
			return nil
		}
	} else if !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("first token: %w", err)
	}
	tokens, err := c.ListTokens(ctx, "")
	if err != nil {
		return fmt.Errorf("first token: %w", err)
	}
	for _, t := range tokens {
		if t.Role == control.RoleOps && !t.ReadOnly && t.Revoked.IsZero() && (t.Expires.IsZero() || time.Now().Before(t.Expires)) {
			return nil
		}
	}
	made, text, err := c.CreateToken(ctx, control.Actor{Name: "portal", Kind: "system"}, control.TokenRequest{Name: "first token", Role: control.RoleOps})
	if err != nil {
		return fmt.Errorf("first token: %w", err)
	}
	if err := writeSecret(path, text.Reveal()+"\n"); err != nil {
		return errors.Join(fmt.Errorf("first token: %w", err), c.RevokeToken(ctx, control.Actor{Name: "portal", Kind: "system"}, made.ID))
	}
	log.InfoContext(ctx, "first token written: make others with it, and revoke it", "file", path, "token", made.ID)
	return nil
}

// writeSecret writes a file for its owner's eyes, as a whole or not at all.
func writeSecret(path, text string) error {
	f, err := os.CreateTemp(filepath.Dir(path), ".token-*") // with mode 0600
	if err != nil {
		return err
	}
	defer os.Remove(f.Name())
	if _, err := f.WriteString(text); err != nil {
		return errors.Join(err, f.Close())
	}
	if err := errors.Join(f.Sync(), f.Close()); err != nil {
		return err
	}
	return os.Rename(f.Name(), path)
}
