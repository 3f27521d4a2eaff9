package failures

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kgo"

	"tollgate.internal/e2e/internal/kafkatest"
	"tollgate.internal/e2e/internal/site"
	"tollgate.internal/pkg/testbed/postgres"
)

const auditTopic = "platform.audit"

// auditLog is what is exported while the test kills.
type auditLog struct {
	*site.Site
	kafka *kafkatest.Cluster
	admin *kadm.Client

	stop  context.CancelFunc
	wg    sync.WaitGroup
	count atomic.Int64

	mu    sync.Mutex // guards acked
	acked map[int64]string
}

// changes are made to a few objects, all the time.
const auditedObjects = 4

func (l *auditLog) change(t *testing.T) {
	t.Helper()
	ctx, stop := context.WithCancel(context.Background())
	l.stop = stop
	for object := range auditedObjects {
		l.wg.Go(func() {
			name := fmt.Sprintf("tenant%d", object)
			for n := 0; ctx.Err() == nil; n++ {
				a, err := l.Do(ctx, http.MethodPut, "/v1/tenants/"+name, fmt.Sprintf(`{"apiVersion": "tollgate/v1", "kind": "Tenant", "metadata": {"name": %q}, "spec": {"displayName": "number %d"}}`, name, n))
				if err != nil {
					return // the end of the test
				}
				var made struct{ Metadata struct{ Revision int64 } }
				if a.Status >= 300 || json.Unmarshal([]byte(a.Body), &made) != nil {
					t.Errorf("change of %s: %d %s", name, a.Status, a.Body)
					return
				}
				l.mu.Lock()
				l.acked[made.Metadata.Revision] = name
				l.mu.Unlock()
				l.count.Add(1)
				wait(ctx)
			}
		})
	}
	t.Cleanup(func() { stop(); l.wg.Wait() })
}

// goOn waits until more changes are made, whatever else is the matter.
func (l *auditLog) goOn(t *testing.T) {
	t.Helper()
	from := l.count.Load()
	site.Eventually(t, "changes go on", func(context.Context) error {
		if n := l.count.Load(); n < from+10 {
			return fmt.Errorf("%d, and %d before", n, from)
		}
		return nil
	})
}

// exports waits until events come to the topic that were not there before.
func (l *auditLog) exports(t *testing.T, after string) {
	t.Helper()
	l.goOn(t)
	size := func(ctx context.Context) (n int64, err error) {
		offsets, err := l.admin.ListEndOffsets(ctx, auditTopic)
		if err == nil {
			err = offsets.Error()
		}
		offsets.Each(func(o kadm.ListedOffset) { n += o.Offset })
		return n, err
	}
	before := int64(-1)
	site.Eventually(t, "events come after "+after, func(ctx context.Context) error {
		n, err := size(ctx)
		if err != nil {
			return err
		}
		if before < 0 {
			before = n
		}
		if n < before+10 {
			return fmt.Errorf("%d events, and %d before", n, before)
		}
		return nil
	})
	t.Logf("after %s: %d changes", after, l.count.Load())
}

// who is the portal that exports.
func (l *auditLog) who(t *testing.T) (holder, other *site.Portal) {
	t.Helper()
	site.Eventually(t, "one portal exports", func(context.Context) error {
		holder = nil
		for _, p := range l.Portals {
			if p.Metric(t, "tollgate_portal_audit_exporting") == 1 {
				if holder != nil {
					return errors.New("two do")
				}
				holder = p
			} else {
				other = p
			}
		}
		if holder == nil {
			return errors.New("none does")
		}
		return nil
	})
	return holder, other
}

// health is what a portal tells operators.
func (l *auditLog) health(t *testing.T, want string) {
	t.Helper()
	site.Eventually(t, "health says "+want, func(ctx context.Context) error {
		for _, p := range l.Portals {
			if _, body, err := p.Get(ctx, "/readyz"); err != nil || !strings.Contains(body, want) {
				return fmt.Errorf("%s: %v %s", p.Name, err, body)
			}
		}
		return nil
	})
}

// Portals, brokers and PostgreSQL are killed while changes are made: the event of every
// acknowledged change is in the topic, and those about one object are in order.
func TestTheAuditLogIsExported(t *testing.T) {
	l := &auditLog{acked: make(map[int64]string)}
	l.kafka = kafkatest.Start(t, kafkatest.Options{Nodes: 3, SASL: true, Authorizer: true})
	l.admin = kadm.NewClient(l.kafka.Client(t))
	password := filepath.Join(t.TempDir(), "password")
	if err := os.WriteFile(password, []byte("wrong"), 0o600); err != nil {
		t.Fatal(err)
	}
	database := postgres.Start(t)
	l.Site = site.Start(t, site.Options{
		Database: database.Database(t), Portals: 2,
		Env: []string{"TOLLGATE_PORTAL_AUDIT_TOPIC=" + auditTopic, "TOLLGATE_PORTAL_AUDIT_CLUSTER=main"},
	})
	l.change(t)
	l.health(t, "there is no UpstreamCluster main")
	l.Must(t, http.MethodPut, "/v1/upstream-clusters/main", fmt.Sprintf(
		`{"apiVersion": "tollgate/v1", "kind": "UpstreamCluster", "metadata": {"name": "main"}, "spec": {"bootstrap": ["%s"], "tls": {"caFile": %q}, "sasl": {"mechanism": "SCRAM-SHA-512", "username": "gateway", "password": "file:%s"}}}`,
		strings.Join(l.kafka.Seeds(kafkatest.SASL), `", "`), l.kafka.CAFile, password))
	l.health(t, "cannot log in")
	if err := os.WriteFile(password, []byte(l.kafka.Password("gateway")), 0o600); err != nil {
		t.Fatal(err)
	}
	l.health(t, "may not write topic")
	allowed := kadm.NewACLs().Topics(auditTopic).ResourcePatternType(kadm.ACLPatternLiteral).Operations(kadm.OpWrite, kadm.OpDescribe).Allow("User:gateway").AllowHosts("*")
	if _, err := l.admin.CreateACLs(t.Context(), allowed); err != nil {
		t.Fatal(err)
	}
	l.health(t, "there is no topic "+auditTopic)
	least := "2"
	if _, err := l.admin.CreateTopic(t.Context(), 3, 3, map[string]*string{"min.insync.replicas": &least}, auditTopic); err != nil {
		t.Fatal(err)
	}
	l.exports(t, "what was wrong at first")
	l.health(t, `"audit":"ok"`)

	holder, other := l.who(t)
	holder.Kill(t)
	killed := time.Now()
	site.Eventually(t, "the other portal takes over", func(context.Context) error {
		if other.Metric(t, "tollgate_portal_audit_exporting") != 1 {
			return errors.New("it does not")
		}
		return nil
	})
	if took := time.Since(killed); took > 30*time.Second {
		t.Errorf("the other portal exports %v after the first was killed", took)
	}
	l.exports(t, "the portal that exports")
	holder.Launch(t)

	for _, b := range l.kafka.Brokers()[:2] {
		if err := b.Kill(); err != nil {
			t.Fatal(err)
		}
		l.exports(t, fmt.Sprintf("broker %d", b.ID))
		ctx, cancel := context.WithTimeout(t.Context(), patience)
		if err := errors.Join(b.Restart(ctx), l.kafka.WaitInSync(ctx)); err != nil {
			t.Fatal(err)
		}
		cancel()
	}

	for _, b := range l.kafka.Brokers() {
		if err := b.Pause(); err != nil {
			t.Fatal(err)
		}
	}
	l.health(t, `"audit":"unavailable"`)
	l.goOn(t) // changes do not wait
	holder, _ = l.who(t)
	holder.Kill(t) // with what it sent under way
	for _, b := range l.kafka.Brokers() {
		if err := b.Resume(); err != nil {
			t.Fatal(err)
		}
	}
	holder.Launch(t)
	l.exports(t, "brokers that hang")

	database.Kill()
	if err := database.Launch(); err != nil {
		t.Fatal(err)
	}
	l.exports(t, "PostgreSQL")

	for _, p := range l.Portals {
		p.Kill(t)
	}
	for _, p := range l.Portals {
		p.Launch(t)
	}
	l.exports(t, "both portals")
	l.stop()
	l.wg.Wait()
	l.check(t)
}

// place is where an entry stands in the log.
type place struct{ Revision, Seq int64 }

func (p place) before(other place) bool {
	return p.Revision < other.Revision || p.Revision == other.Revision && p.Seq < other.Seq
}

// check compares what was acknowledged with the log, and the log with the topic.
func (l *auditLog) check(t *testing.T) {
	t.Helper()
	a := l.Must(t, http.MethodGet, "/v1/audit?order=oldest", "", "Accept: application/x-ndjson")
	missing, entries := make(map[place]string), 0
	for line := range strings.Lines(a.Body) {
		var e struct {
			place
			Name string
		}
		if err := json.Unmarshal([]byte(line), &e); err != nil {
			t.Fatalf("%v: %s", err, line)
		}
		missing[e.place] = strings.TrimSuffix(line, "\n")
		entries++
		delete(l.acked, e.Revision)
	}
	for revision, name := range l.acked {
		t.Errorf("change %d of %s is acknowledged, and not in the log", revision, name)
	}
	reader := l.kafka.Client(t, kgo.ConsumeTopics(auditTopic), kgo.ConsumeResetOffset(kgo.NewOffset().AtStart()))
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	highest, ids := make(map[string]place), make(map[place]string)
	records := 0
	for len(missing) > 0 {
		fetches := reader.PollFetches(ctx)
		if ctx.Err() != nil {
			t.Fatalf("%d of %d entries are not in the topic", len(missing), entries)
		}
		fetches.EachRecord(func(r *kgo.Record) {
			var event struct {
				ID, Subject string
				Data        json.RawMessage
			}
			var at place
			if err := errors.Join(json.Unmarshal(r.Value, &event), json.Unmarshal(event.Data, &at)); err != nil {
				t.Fatalf("%v: %s", err, r.Value)
			}
			records++
			if id, known := ids[at]; known && id != event.ID {
				t.Errorf("%v came as %s and as %s", at, id, event.ID)
			}
			ids[at] = event.ID
			line, first := missing[at]
			if !first {
				return
			}
			delete(missing, at)
			if line != string(event.Data) {
				t.Errorf("in the topic: %s\nin the log:   %s", event.Data, line)
			}
			if at.before(highest[event.Subject]) {
				t.Errorf("%v came behind %v, both of %s", at, highest[event.Subject], event.Subject)
			}
			highest[event.Subject] = at
		})
	}
	t.Logf("%d entries, %d events", entries, records)
}
