package export

import (
	"context"
	"crypto/tls"
	"encoding/json"
	"encoding/pem"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"net/http/httptest"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kfake"
	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"

	"tollgate.internal/pkg/bundle"
	"tollgate.internal/pkg/resource"
	"tollgate.internal/pkg/secret"
	"tollgate.internal/services/portal/internal/control"
	"tollgate.internal/services/portal/internal/store"
)

const (
	topic = "tollgate.audit"
	// patient is for something that is going to happen.
	patient = 2 * time.Minute
)

// bed is a store and a cluster, and portals that export from the one to the other.
type bed struct {
	*control.Control

	t     *testing.T
	kafka *kfake.Cluster
	u     *resource.UpstreamCluster
}

func newBed(t *testing.T, opts ...kfake.Opt) *bed {
	t.Helper()
	s, err := store.Open(t.Context(), "sqlite:"+filepath.Join(t.TempDir(), "tollgate.db"))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { s.Close() })
	b := &bed{t: t, Control: control.New(s, nil)}
	if b.kafka, err = kfake.NewCluster(append([]kfake.Opt{kfake.NumBrokers(1)}, opts...)...); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(b.kafka.Close)
	b.u = &resource.UpstreamCluster{Metadata: resource.Metadata{Name: "main"}, Spec: resource.UpstreamClusterSpec{Bootstrap: b.kafka.ListenAddrs()}}
	return b
}

func withTopic() kfake.Opt { return kfake.SeedTopics(3, topic) }

var alice = control.Actor{Name: "alice", Kind: "user", Address: "192.0.2.1", Request: "r1"}

// change changes a tenant, n times.
func (b *bed) change(name string, n int) {
	b.t.Helper()
	for i := range n {
		b.apply(fmt.Sprintf("{apiVersion: tollgate/v1, kind: Tenant, metadata: {name: %s}, spec: {displayName: \"<%s> & %d %d\"}}", name, name, i, time.Now().UnixNano()))
	}
}

func (b *bed) apply(documents string) {
	b.t.Helper()
	problems := new(resource.Problems)
	objects := resource.Parse([]byte(documents), problems)
	if len(*problems) > 0 {
		b.t.Fatal(*problems)
	}
	if _, err := b.Apply(b.t.Context(), alice, objects, control.Options{}); err != nil {
		b.t.Fatal(err)
	}
}

// running is a portal that exports.
type running struct {
	*Loop
	stop func()
}

// start starts a portal; it ends with the test.
func (b *bed) start(holder string, from Store, change func(*Options)) *running {
	b.t.Helper()
	o := Options{
		Topic: topic, Deployment: "test", Holder: holder, Log: slog.New(slog.DiscardHandler), lease: 3 * time.Second,
		Cluster: func(context.Context) (*resource.UpstreamCluster, error) { return b.u, nil },
	}
	if change != nil {
		change(&o)
	}
	l := New(from, o)
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan struct{})
	go func() { defer close(done); l.Run(ctx) }()
	r := &running{Loop: l, stop: func() { cancel(); <-done }}
	b.t.Cleanup(r.stop)
	return r
}

// eventually waits for something.
func (b *bed) eventually(what string, look func() error) {
	b.t.Helper()
	deadline := time.Now().Add(patient)
	for {
		err := look()
		if err == nil {
			return
		}
		if time.Now().After(deadline) {
			b.t.Fatalf("%s: not in %v: %v", what, patient, err)
		}
		time.Sleep(20 * time.Millisecond)
	}
}

// arrived is an event as it is in the topic.
type arrived struct {
	record *kgo.Record
	event  map[string]any
	entry  control.Entry
}

// exported is what the topic holds once everything in the log has arrived, by partition.
// The first occurrences of what is about one object have to be in order.
func (b *bed) exported() (all []arrived) {
	b.t.Helper()
	var log []control.Entry
	for q := (control.AuditQuery{Oldest: true}); ; {
		page, err := b.Audit(b.t.Context(), q)
		if err != nil {
			b.t.Fatal(err)
		}
		log = append(log, page.Entries...)
		if q.After = page.Next; q.After == "" {
			break
		}
	}
	c, err := kgo.NewClient(kgo.SeedBrokers(b.kafka.ListenAddrs()...), kgo.ConsumeTopics(topic), kgo.ConsumeResetOffset(kgo.NewOffset().AtStart()))
	if err != nil {
		b.t.Fatal(err)
	}
	defer c.Close()
	ctx, cancel := context.WithTimeout(b.t.Context(), patient)
	defer cancel()
	missing := make(map[control.Position]bool)
	for _, e := range log {
		missing[e.Position()] = true
	}
	highest := make(map[resource.Key]control.Position)
	for len(missing) > 0 {
		fetches := c.PollFetches(ctx)
		if ctx.Err() != nil {
			b.t.Fatalf("%d of %d entries have not arrived", len(missing), len(log))
		}
		fetches.EachRecord(func(r *kgo.Record) {
			a := arrived{record: r}
			if err := errors.Join(json.Unmarshal(r.Value, &a.event), json.Unmarshal(r.Value, &struct{ Data *control.Entry }{&a.entry})); err != nil {
				b.t.Fatalf("%v: %s", err, r.Value)
			}
			at, key := a.entry.Position(), a.entry.Key()
			if missing[at] {
				if h := highest[key]; h.Revision > at.Revision || h.Revision == at.Revision && h.Seq > at.Seq {
					b.t.Errorf("%v arrived for the first time behind %v, both of %v", at, h, key)
				}
				highest[key] = at
			}
			delete(missing, at)
			all = append(all, a)
		})
	}
	return all
}

// twice counts what came more than once.
func twice(all []arrived) (n int) {
	seen := make(map[any]bool)
	for _, a := range all {
		if seen[a.event["id"]] {
			n++
		}
		seen[a.event["id"]] = true
	}
	return n
}

const documents = `
{apiVersion: tollgate/v1, kind: UpstreamCluster, metadata: {name: main}, spec: {bootstrap: ["main:9092"]}}
---
{apiVersion: tollgate/v1, kind: Tenant, metadata: {name: acme}, spec: {displayName: ACME}}
---
{apiVersion: tollgate/v1, kind: VirtualCluster, metadata: {name: prod, tenant: acme}, spec: {type: partner, host: acme, home: main, clusters: [main], authentication: {plain: {}, scram: {}}}}
---
{apiVersion: tollgate/v1, kind: TopicGrant, metadata: {name: orders, tenant: acme}, spec: {cluster: main, topic: {name: shop.orders}, access: read-write}}
---
{apiVersion: tollgate/v1, kind: ServiceAccount, metadata: {name: shipping, virtualCluster: prod}, spec: {type: local}}
`

func TestEntriesBecomeEvents(t *testing.T) {
	b := newBed(t, withTopic())
	b.apply(documents)
	b.start("a", b, nil)
	b.change("acme", 3)
	all := b.exported()
	if n := twice(all); n > 0 {
		t.Errorf("%d came twice though nothing went wrong", n)
	}
	partitions := make(map[string]int32)
	for _, a := range all {
		e := a.entry
		want := map[string]any{
			"specversion": "1.0", "id": fmt.Sprintf("%s/%d.%d", b.Identity(), e.Revision, e.Seq), "source": "/tollgate/test",
			"type": "tollgate." + e.Kind + "." + string(e.Action), "time": e.Time.Format(time.RFC3339Nano), "datacontenttype": "application/json",
		}
		switch e.Key() {
		case resource.Key{Kind: "ServiceAccount", Scope: "prod", Name: "shipping"}:
			want["subject"], want["partitionkey"] = "ServiceAccount/prod/shipping", "VirtualCluster/prod"
		case resource.Key{Kind: "VirtualCluster", Name: "prod"}:
			want["subject"], want["partitionkey"] = "VirtualCluster/prod", "VirtualCluster/prod"
		case resource.Key{Kind: "TopicGrant", Scope: "acme", Name: "orders"}:
			want["subject"], want["partitionkey"] = "TopicGrant/acme/orders", "Tenant/acme"
		case resource.Key{Kind: "Tenant", Name: "acme"}:
			want["subject"], want["partitionkey"] = "Tenant/acme", "Tenant/acme"
		case resource.Key{Kind: "UpstreamCluster", Name: "main"}:
			want["subject"], want["partitionkey"] = "UpstreamCluster/main", "UpstreamCluster/main"
		default:
			t.Errorf("an event about %v", e.Key())
		}
		got := maps.Clone(a.event)
		delete(got, "data")
		if !maps.Equal(got, want) {
			t.Errorf("attributes %v\nwant       %v", got, want)
		}
		r := a.record
		if len(r.Headers) != 1 || r.Headers[0].Key != "content-type" || string(r.Headers[0].Value) != "application/cloudevents+json; charset=UTF-8" {
			t.Errorf("headers %v", r.Headers)
		}
		if string(r.Key) != want["partitionkey"] {
			t.Errorf("record key %s of %v", r.Key, want["subject"])
		}
		if p, known := partitions[string(r.Key)]; known && p != r.Partition {
			t.Errorf("events of %s are in partitions %d and %d", r.Key, p, r.Partition)
		}
		partitions[string(r.Key)] = r.Partition
		page, err := b.Audit(t.Context(), control.AuditQuery{Kind: e.Kind, Scope: e.Scope, Name: e.Name})
		if err != nil {
			t.Fatal(err)
		}
		i := slices.IndexFunc(page.Entries, func(o control.Entry) bool { return o.Position() == e.Position() })
		if i < 0 {
			t.Fatalf("%v is not in the log", e.Position())
		}
		same, err := encode(page.Entries[i])
		if err != nil {
			t.Fatal(err)
		}
		if !strings.Contains(string(r.Value), `"data":`+string(same)) {
			t.Errorf("event %s\nentry %s", r.Value, same)
		}
	}
}

// What the log says of secrets and tokens tells nobody how to log in.
func TestNoSecretIsExported(t *testing.T) {
	ctx := t.Context()
	b := newBed(t, withTopic())
	b.apply(documents)
	account := resource.Key{Kind: "ServiceAccount", Scope: "prod", Name: "shipping"}
	var secrets []string
	issued, err := b.IssueSecret(ctx, alice, account, time.Time{}, control.Options{})
	if err != nil {
		t.Fatal(err)
	}
	const brought = "brought-along-4711"
	if _, _, _, err := b.ImportSecret(ctx, alice, account, control.Import{Password: secret.New(brought)}, control.Options{}); err != nil {
		t.Fatal(err)
	}
	secrets = append(secrets, brought)
	secrets = append(secrets, issued.Password.Reveal())
	_, token, err := b.CreateToken(ctx, alice, control.TokenRequest{Name: "a token", Role: control.RoleOps})
	if err != nil {
		t.Fatal(err)
	}
	_, random, _ := strings.Cut(strings.TrimPrefix(token.Reveal(), "tg_"), "_")
	secrets = append(secrets, random)
	compiled, err := b.Compile(ctx, bundle.ID{Kind: bundle.VirtualCluster, Name: "prod"})
	if err != nil {
		t.Fatal(err)
	}
	for _, o := range compiled.Objects {
		if a, ok := o.(*resource.ServiceAccount); ok {
			for _, v := range a.Spec.Verifiers {
				for _, text := range []string{v.Salt, v.StoredKey, v.ServerKey, v.Hash} {
					if text != "" {
						secrets = append(secrets, text)
					}
				}
			}
		}
	}
	if len(secrets) < 5 {
		t.Fatalf("only %d secrets to look for", len(secrets))
	}
	b.start("a", b, nil)
	actions := make(map[string]bool)
	for _, a := range b.exported() {
		actions[string(a.entry.Action)] = true
		for _, s := range secrets {
			if strings.Contains(string(a.record.Value), s) {
				t.Errorf("%q is in %s", s, a.record.Value)
			}
		}
	}
	if !actions["issue-secret"] || !actions["import-secret"] || !actions["create-token"] {
		t.Errorf("exported actions: %v", actions)
	}
}

// Whatever the brokers say, nothing is lost, nothing changes places, and changes go on.
func TestBrokersThatFail(t *testing.T) {
	for _, tt := range []struct {
		name  string
		code  int16
		cause Cause
		text  string
	}{
		{"it may not write", kerr.TopicAuthorizationFailed.Code, CauseForbidden, "allow it WRITE and DESCRIBE"},
		{"too few replicas", kerr.NotEnoughReplicas.Code, CauseUnreachable, "cannot keep what they are sent"},
		{"a disk that fails", kerr.KafkaStorageError.Code, CauseUnreachable, "cannot keep what they are sent"},
		{"no answer", -2, CauseUnreachable, "the brokers do not answer"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			b := newBed(t, withTopic())
			var failing atomic.Bool
			failing.Store(true)
			var asked atomic.Int64
			b.kafka.ControlKey(int16(kmsg.Produce), func(req kmsg.Request) (kmsg.Response, error, bool) {
				b.kafka.KeepControl()
				if asked.Add(1); !failing.Load() {
					return nil, nil, false
				}
				if tt.code == -2 {
					return nil, errors.New("hang up"), true
				}
				return refuse(req.(*kmsg.ProduceRequest), tt.code), nil, true
			})
			p := b.start("a", b, func(o *Options) { o.patient = 2 * time.Second })
			b.change("acme", 5)
			b.eventually("the cause is told", func() error {
				if s := p.Status(); s.Failures[tt.cause] == 0 || !strings.Contains(s.Problem, tt.text) || s.Lag.Entries == 0 {
					return fmt.Errorf("%+v", s)
				}
				return nil
			})
			b.change("beta", 5)
			failing.Store(false)
			b.exported()
			b.eventually("all is well", func() error {
				if s := p.Status(); s.Problem != "" || s.Lag.Entries != 0 || !s.Mine {
					return fmt.Errorf("%+v", s)
				}
				return nil
			})
		})
	}
}

// refuse answers with one error for all that was sent.
func refuse(req *kmsg.ProduceRequest, code int16) kmsg.Response {
	resp := req.ResponseKind().(*kmsg.ProduceResponse)
	for _, t := range req.Topics {
		rt := kmsg.NewProduceResponseTopic()
		rt.Topic, rt.TopicID = t.Topic, t.TopicID
		for _, p := range t.Partitions {
			rp := kmsg.NewProduceResponseTopicPartition()
			rp.Partition, rp.ErrorCode = p.Partition, code
			rt.Partitions = append(rt.Partitions, rp)
		}
		resp.Topics = append(resp.Topics, rt)
	}
	return resp
}

func TestWithoutATopic(t *testing.T) {
	b := newBed(t)
	b.change("acme", 3)
	p := b.start("a", b, nil)
	b.eventually("it is told", func() error {
		if s := p.Status(); !strings.Contains(s.Problem, "there is no topic tollgate.audit: create it, or set TOLLGATE_PORTAL_AUDIT_CREATE=true") {
			return fmt.Errorf("%+v", s)
		}
		return nil
	})
	p.stop()
	b.start("b", b, func(o *Options) { o.Create = true })
	b.exported()
}

func TestClustersThatCannotBeUsed(t *testing.T) {
	b := newBed(t, withTopic())
	b.change("acme", 3)
	var mu sync.Mutex
	cluster := func() (*resource.UpstreamCluster, error) { return nil, &NoClusterError{"main"} }
	set := func(u *resource.UpstreamCluster) {
		mu.Lock()
		defer mu.Unlock()
		cluster = func() (*resource.UpstreamCluster, error) { return u, nil }
	}
	p := b.start("a", b, func(o *Options) {
		o.Cluster = func(context.Context) (*resource.UpstreamCluster, error) {
			mu.Lock()
			defer mu.Unlock()
			return cluster()
		}
	})
	told := func(cause Cause, text string) {
		t.Helper()
		b.eventually(text, func() error {
			if s := p.Status(); s.Failures[cause] == 0 || !strings.Contains(s.Problem, text) {
				return fmt.Errorf("%+v", s)
			}
			return nil
		})
	}
	told(CauseCluster, "there is no UpstreamCluster main: create it")
	locked := *b.u
	locked.Spec.SASL = &resource.UpstreamSASL{Mechanism: resource.SASLPlain, Username: "u", Password: "file:/no/such/file"}
	set(&locked)
	told(CauseCluster, "/no/such/file")
	secretFile := filepath.Join(t.TempDir(), "secret")
	if err := os.WriteFile(secretFile, []byte("wrong"), 0o600); err != nil {
		t.Fatal(err)
	}
	unknown := *b.u
	unknown.Spec.SASL = &resource.UpstreamSASL{Mechanism: resource.SASLOAuthBearer, TokenURL: "https://127.0.0.1:1/token", ClientID: "portal", ClientSecret: resource.Reference("file:" + secretFile)}
	set(&unknown)
	told(CauseLogin, "the portal cannot log in to the cluster: UNSUPPORTED_SASL_MECHANISM")
	strict := httptest.NewUnstartedServer(nil) // it never gets to a request
	strict.TLS = &tls.Config{ClientAuth: tls.RequireAnyClientCert}
	strict.Config.ErrorLog = slog.NewLogLogger(slog.DiscardHandler, slog.LevelError)
	strict.StartTLS()
	defer strict.Close()
	stranger := *b.u
	stranger.Spec.Bootstrap = []string{strict.Listener.Addr().String()}
	stranger.Spec.TLS = &resource.UpstreamTLS{CA: string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: strict.Certificate().Raw})), ServerName: "example.com"}
	set(&stranger)
	told(CauseLogin, "the broker ended TLS")
	nowhere := *b.u
	nowhere.Spec.Bootstrap = []string{"127.0.0.1:1"}
	set(&nowhere)
	told(CauseUnreachable, "connection refused")
	set(b.u)
	b.exported()
	// A cluster that is reached in another way from now on.
	set(&nowhere)
	b.change("acme", 3)
	told(CauseUnreachable, "connection refused")
	set(b.u)
	b.exported()
}

// An entry that the topic does not take is exported without what the object was and is.
func TestLargeEntries(t *testing.T) {
	for _, tt := range []struct {
		name  string
		takes int // bytes of a batch
		large int // bytes of the entry in the middle
	}{
		{"larger than a batch may be", 1 << 30, 1 << 20},
		{"a topic that takes little", 3000, 20_000},
	} {
		t.Run(tt.name, func(t *testing.T) {
			b := newBed(t, withTopic())
			limits := control.DefaultLimits()
			limits.ObjectBytes = 2 << 20 // as an operator may set it
			b.Limit(limits)
			b.kafka.ControlKey(int16(kmsg.Produce), func(req kmsg.Request) (kmsg.Response, error, bool) {
				b.kafka.KeepControl()
				for _, topic := range req.(*kmsg.ProduceRequest).Topics {
					for _, p := range topic.Partitions {
						if len(p.Records) > tt.takes {
							return refuse(req.(*kmsg.ProduceRequest), kerr.MessageTooLarge.Code), nil, true
						}
					}
				}
				return nil, nil, false
			})
			b.change("acme", 20)
			b.apply("{apiVersion: tollgate/v1, kind: Tenant, metadata: {name: acme}, spec: {displayName: \"" + incompressible(tt.large) + "\"}}")
			b.change("acme", 20)
			b.start("a", b, func(o *Options) { o.kafka = []kgo.Opt{kgo.ProducerBatchCompression(kgo.NoCompression())} })
			short := 0
			for _, a := range b.exported() {
				data := a.event["data"].(map[string]any)
				if data["omitted"] != nil {
					short++
					if data["after"] != nil || data["before"] != nil || data["revision"] == nil {
						t.Errorf("shortened: %v", data)
					}
				}
			}
			if short != 2 { // it is the one before of the next entry, too
				t.Errorf("%d entries are shortened, want 2", short)
			}
		})
	}
}

func incompressible(n int) string {
	var s strings.Builder
	for i := 0; s.Len() < n; i++ {
		fmt.Fprintf(&s, "%x", i*2654435761)
	}
	return s.String()
}

// cutOff is a store that a portal cannot reach for a while.
type cutOff struct {
	Store
	off atomic.Bool
}

var errCutOff = errors.New("the database is unavailable")

func (c *cutOff) TakeExport(ctx context.Context, holder string, ttl time.Duration, problem string) (control.Lease, error) {
	if c.off.Load() {
		return control.Lease{}, errCutOff
	}
	return c.Store.TakeExport(ctx, holder, ttl, problem)
}

func (c *cutOff) Exported(ctx context.Context, holder string, at control.Position) (bool, error) {
	if c.off.Load() {
		return false, errCutOff
	}
	return c.Store.Exported(ctx, holder, at)
}

func (c *cutOff) LeaveExport(ctx context.Context, holder string) error {
	if c.off.Load() {
		return errCutOff
	}
	return c.Store.LeaveExport(ctx, holder)
}

// Portals that lose the store, while changes go on, are followed by others, which begin
// where everything before was acknowledged.
func TestPortalsThatAreCutOff(t *testing.T) {
	b := newBed(t, withTopic())
	stores := []*cutOff{{Store: b}, {Store: b}, {Store: b}}
	portals := make([]*running, len(stores))
	for i, s := range stores {
		portals[i] = b.start(fmt.Sprint("portal ", i), s, func(o *Options) { o.lease = time.Second })
	}
	holder := func() (at int) {
		b.eventually("somebody exports", func() error {
			for i, p := range portals {
				if p.Status().Mine && !stores[i].off.Load() {
					at = i
					return nil
				}
			}
			return errors.New("nobody does")
		})
		return at
	}
	for range 4 {
		b.change("acme", 10)
		at := holder()
		stores[at].off.Store(true)
		b.change("acme", 10)
		b.change("beta", 10)
		if next := holder(); next == at {
			t.Errorf("portal %d exports without the store", at)
		}
		stores[at].off.Store(false)
	}
	b.exported()
	// One that stops gives way at once.
	at := holder()
	portals[at].stop()
	stores[at].off.Store(true)
	b.change("acme", 3)
	holder()
	b.exported()
}

// What one portal cannot do, the others tell as well.
func TestOthersTellTheProblem(t *testing.T) {
	b := newBed(t)
	b.change("acme", 3)
	portals := []*running{b.start("a", b, nil), b.start("b", b, nil)}
	b.eventually("the one that does not export tells it", func() error {
		var all []Status
		for _, p := range portals {
			s := p.Status()
			if !s.Mine && strings.Contains(s.Problem, "there is no topic") && s.Lag.Entries == 3 {
				return nil
			}
			all = append(all, s)
		}
		return fmt.Errorf("%+v", all)
	})
}
