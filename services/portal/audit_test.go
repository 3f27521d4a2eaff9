package portal_test

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kfake"
	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"

	"tollgate.internal/services/portal"
)

const auditTopic = "platform.audit"

func brokers(t *testing.T, opts ...kfake.Opt) []string {
	t.Helper()
	c, err := kfake.NewCluster(append([]kfake.Opt{kfake.NumBrokers(1)}, opts...)...)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(c.Close)
	return c.ListenAddrs()
}

func upstreamDocument(name string, addresses []string) string {
	text, _ := json.Marshal(addresses)
	return fmt.Sprintf(`{"apiVersion": "tollgate/v1", "kind": "UpstreamCluster", "metadata": {"name": %q}, "spec": {"bootstrap": %s}}`, name, text)
}

// lines is the audit log as the API gives it, a line each.
func (c *client) lines() []string {
	c.t.Helper()
	return strings.Split(strings.TrimSpace(c.want(200, "GET", "/v1/audit?order=oldest", "", "Accept: application/x-ndjson").body), "\n")
}

// admin asks the listener of operators.
func (c *client) admin(path string) string {
	c.t.Helper()
	resp, err := http.Get("http://" + c.addresses[portal.AdminAddress] + path)
	if err != nil {
		c.t.Fatal(err)
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	if err != nil {
		c.t.Fatal(err)
	}
	return string(body)
}

func eventually(t *testing.T, what string, look func() error) {
	t.Helper()
	for deadline := time.Now().Add(2 * time.Minute); ; {
		err := look()
		if err == nil {
			return
		}
		if time.Now().After(deadline) {
			t.Fatalf("%s: %v", what, err)
		}
		time.Sleep(20 * time.Millisecond)
	}
}

// The topic has what GET /v1/audit answers, to the letter.
func TestTheAuditLogIsExported(t *testing.T) {
	addresses := brokers(t, kfake.SeedTopics(3, auditTopic))
	c := run(t, portal.Config{Database: sqlite(t), Admin: "127.0.0.1:0", Audit: portal.Audit{Topic: auditTopic, Cluster: "main"}})
	eventually(t, "the cause is told to operators", func() error {
		if h := c.admin("/readyz"); !strings.Contains(h, "there is no UpstreamCluster main: create it") {
			return errors.New(h)
		}
		return nil
	})
	// Anybody may ask the API how it is, and is told nothing of clusters and topics.
	if open := c.as("").want(200, "GET", "/readyz", "").body; !strings.Contains(open, `"audit":"unavailable"`) || strings.Contains(open, "main") {
		t.Errorf("health for everybody: %s", open)
	}
	for _, metric := range []string{"tollgate_portal_audit_healthy 0", `tollgate_portal_audit_failures_total{cause="cluster"}`, "tollgate_portal_audit_lag_entries 1"} {
		eventually(t, metric, func() error {
			if m := c.admin("/metrics"); !strings.Contains(m, metric) {
				return errors.New("it is not there")
			}
			return nil
		})
	}
	c.want(201, "PUT", "/v1/upstream-clusters/main", upstreamDocument("main", addresses))
	for i := range 5 {
		c.want(map[bool]int{true: 201, false: 200}[i == 0], "PUT", "/v1/tenants/acme", fmt.Sprintf(`{"apiVersion": "tollgate/v1", "kind": "Tenant", "metadata": {"name": "acme"}, "spec": {"displayName": "<ACME> & %d"}}`, i))
	}
	missing := make(map[string]bool)
	for _, line := range c.lines() {
		missing[line] = true
	}
	if len(missing) != 7 { // the first token, too
		t.Fatalf("%d entries in the log, want 7", len(missing))
	}
	reader, err := kgo.NewClient(kgo.SeedBrokers(addresses...), kgo.ConsumeTopics(auditTopic))
	if err != nil {
		t.Fatal(err)
	}
	defer reader.Close()
	ctx, cancel := context.WithTimeout(t.Context(), 2*time.Minute)
	defer cancel()
	for len(missing) > 0 {
		fetches := reader.PollFetches(ctx)
		if err := ctx.Err(); err != nil {
			t.Fatalf("not exported: %v", missing)
		}
		fetches.EachRecord(func(r *kgo.Record) {
			var event struct{ Data json.RawMessage }
			if err := json.Unmarshal(r.Value, &event); err != nil {
				t.Fatal(err)
			}
			if !missing[string(event.Data)] {
				t.Errorf("exported, and not in the log: %s", r.Value)
			}
			delete(missing, string(event.Data))
		})
	}
	eventually(t, "all is well", func() error {
		if h := c.admin("/readyz"); !strings.Contains(h, `"status":"ok"`) || !strings.Contains(h, `"audit":"ok"`) {
			return errors.New(h)
		}
		return nil
	})
	// Nobody is lent the topic of everybody's changes.
	grant := `{"apiVersion": "tollgate/v1", "kind": "TopicGrant", "metadata": {"name": "g", "tenant": "acme"}, "spec": {"cluster": "main", "topic": {"name": "platform.", "pattern": "prefixed"}, "access": "read"}}`
	if a := c.want(422, "PUT", "/v1/tenants/acme/topic-grants/g", grant); !strings.Contains(a.body, "kept for the audit log") {
		t.Errorf("a grant of the topic: %s", a.body)
	}
}

// A topic that a tenant has a way to is sent nothing, and the portal that says so is the
// one to end it with.
func TestATopicThatIsLent(t *testing.T) {
	database, addresses := sqlite(t), brokers(t, kfake.SeedTopics(3, auditTopic))
	token := filepath.Join(t.TempDir(), "token")
	before := run(t, portal.Config{Database: database, FirstToken: token})
	before.want(201, "PUT", "/v1/upstream-clusters/main", upstreamDocument("main", addresses))
	before.want(201, "PUT", "/v1/tenants/acme", `{"apiVersion": "tollgate/v1", "kind": "Tenant", "metadata": {"name": "acme"}, "spec": {"displayName": "x"}}`)
	before.want(201, "PUT", "/v1/tenants/acme/topic-grants/g",
		`{"apiVersion": "tollgate/v1", "kind": "TopicGrant", "metadata": {"name": "g", "tenant": "acme"}, "spec": {"cluster": "main", "topic": {"name": "platform.", "pattern": "prefixed"}, "access": "read"}}`)
	before.stop()
	log := new(bytes.Buffer)
	written := &lockedWriter{w: log}
	c := run(t, portal.Config{
		Database: database, FirstToken: token, Admin: "127.0.0.1:0", Audit: portal.Audit{Topic: auditTopic, Cluster: "main"},
		Log: slog.New(slog.NewTextHandler(written, nil)),
	})
	const cause = "TopicGrant g of acme puts it within a tenant's reach: delete that"
	eventually(t, "operators are told", func() error {
		if h := c.admin("/readyz"); !strings.Contains(h, `"status":"degraded"`) || !strings.Contains(h, cause) {
			return errors.New(h)
		}
		if m := c.admin("/metrics"); !strings.Contains(m, "tollgate_portal_audit_healthy 0") || strings.Contains(m, `tollgate_portal_audit_failures_total{cause="reached"} 0`) {
			return errors.New(m)
		}
		written.mu.Lock()
		defer written.mu.Unlock()
		if !strings.Contains(log.String(), "cause=reached") || !strings.Contains(log.String(), cause) {
			return errors.New(log.String())
		}
		return nil
	})
	reader, err := kgo.NewClient(kgo.SeedBrokers(addresses...), kgo.ConsumeTopics(auditTopic))
	if err != nil {
		t.Fatal(err)
	}
	defer reader.Close()
	ends := kmsg.NewPtrListOffsetsRequest()
	asked := kmsg.NewListOffsetsRequestTopic()
	asked.Topic = auditTopic
	for i := range int32(3) {
		p := kmsg.NewListOffsetsRequestTopicPartition()
		p.Partition, p.Timestamp = i, -1
		asked.Partitions = append(asked.Partitions, p)
	}
	ends.Topics = append(ends.Topics, asked)
	answered, err := ends.RequestWith(t.Context(), reader)
	if err != nil {
		t.Fatal(err)
	}
	for _, p := range answered.Topics[0].Partitions {
		if p.ErrorCode != 0 || p.Offset != 0 {
			t.Errorf("partition %d has %d records (error %d), want none", p.Partition, p.Offset, p.ErrorCode)
		}
	}
	c.want(200, "DELETE", "/v1/tenants/acme/topic-grants/g", "")
	ctx, cancel := context.WithTimeout(t.Context(), 2*time.Minute)
	defer cancel()
	for got := 0; got < 5; { // the token and three objects, and one of them deleted
		fetches := reader.PollFetches(ctx)
		if ctx.Err() != nil {
			t.Fatalf("%d events of 5", got)
		}
		got += fetches.NumRecords()
	}
	eventually(t, "all is well", func() error {
		if h := c.admin("/readyz"); !strings.Contains(h, `"status":"ok"`) {
			return errors.New(h)
		}
		return nil
	})
}

// What is old goes, what is young stays, and what is to be exported stays in any case.
func TestOldEntriesAreRemoved(t *testing.T) {
	database := sqlite(t)
	put := func(c *client, name string) {
		c.want(201, "PUT", "/v1/tenants/"+name, fmt.Sprintf(`{"apiVersion": "tollgate/v1", "kind": "Tenant", "metadata": {"name": %q}, "spec": {"displayName": "x"}}`, name))
	}
	c := run(t, portal.Config{Database: database, Admin: "127.0.0.1:0", Audit: portal.Audit{Retention: time.Second}})
	put(c, "first")
	eventually(t, "it is removed", func() error {
		if lines := c.lines(); len(lines) > 1 || lines[0] != "" {
			return fmt.Errorf("%d entries are left", len(lines))
		}
		return nil
	})
	eventually(t, "removed entries are counted", func() error {
		if m := c.admin("/metrics"); !strings.Contains(m, "tollgate_portal_audit_removed_total 2") {
			return errors.New("they are not")
		}
		return nil
	})
	c.want(200, "GET", "/v1/tenants/first", "")
	put(c, "second") // changes go on where the log was
	other := filepath.Join(t.TempDir(), "cluster.yaml")
	addresses := brokers(t, kfake.AllowAutoTopicCreation()) // which the portal does not ask for
	if err := os.WriteFile(other, []byte(upstreamDocument("elsewhere", addresses)), 0o600); err != nil {
		t.Fatal(err)
	}
	kept := run(t, portal.Config{Database: sqlite(t), Admin: "127.0.0.1:0", Audit: portal.Audit{Retention: time.Second, Topic: auditTopic, ClusterFile: other}})
	put(kept, "third")
	eventually(t, "it waits for the topic", func() error {
		if h := kept.admin("/readyz"); !strings.Contains(h, "there is no topic "+auditTopic) {
			return errors.New(h)
		}
		return nil
	})
	eventually(t, "it is old", func() error {
		for line := range strings.Lines(kept.admin("/metrics")) {
			var age float64
			if n, _ := fmt.Sscanf(line, "tollgate_portal_audit_lag_seconds %g", &age); n == 1 && age > 3 {
				return nil
			}
		}
		return errors.New("not yet")
	})
	if lines := kept.lines(); len(lines) != 2 {
		t.Errorf("%d entries are left of 2 that were never exported", len(lines))
	}
	made, err := kgo.NewClient(kgo.SeedBrokers(addresses...), kgo.AllowAutoTopicCreation())
	if err != nil {
		t.Fatal(err)
	}
	defer made.Close()
	if err := made.ProduceSync(t.Context(), &kgo.Record{Topic: auditTopic, Value: []byte("{}")}).FirstErr(); err != nil {
		t.Fatal(err)
	}
	eventually(t, "exported, it is removed", func() error {
		if lines := kept.lines(); len(lines) > 1 || lines[0] != "" {
			return fmt.Errorf("%d entries are left", len(lines))
		}
		return nil
	})
}

func TestMistakesAboutTheAuditLog(t *testing.T) {
	file := func(text string) string {
		path := filepath.Join(t.TempDir(), "c.yaml")
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		return path
	}
	for _, tt := range []struct {
		name, want string
		env        map[string]string
	}{
		{"no cluster", "a topic without a cluster", map[string]string{"TOPIC": "a"}},
		{"no topic", "a cluster without a topic", map[string]string{"CLUSTER": "main"}},
		{"both", "give one of them", map[string]string{"TOPIC": "a", "CLUSTER": "main", "CLUSTER_FILE": file(upstreamDocument("x", []string{"x:1"}))}},
		{"a name that is none", "topic name", map[string]string{"TOPIC": "a b", "CLUSTER": "main"}},
		{"the brokers' own", "the brokers' own topic", map[string]string{"TOPIC": "__consumer_offsets", "CLUSTER": "main"}},
		{"no such file", "no such file", map[string]string{"TOPIC": "a", "CLUSTER_FILE": "/nowhere.yaml"}},
		{"another kind", "write one UpstreamCluster", map[string]string{"TOPIC": "a", "CLUSTER_FILE": file("{apiVersion: tollgate/v1, kind: Tenant, metadata: {name: x}, spec: {displayName: x}}")}},
		{"a broken one", "bootstrap", map[string]string{"TOPIC": "a", "CLUSTER_FILE": file("{apiVersion: tollgate/v1, kind: UpstreamCluster, metadata: {name: x}, spec: {}}")}},
		{"no word", "neither true nor false", map[string]string{"CREATE": "maybe"}},
		{"no duration", "no duration with its unit", map[string]string{"RETENTION": "90d"}},
		{"a duration below nothing", "no duration with its unit", map[string]string{"RETENTION": "-1h"}},
	} {
		_, err := portal.FromEnv(func(name string) string { return tt.env[strings.TrimPrefix(name, "TOLLGATE_PORTAL_AUDIT_")] })
		if err == nil || !strings.Contains(err.Error(), tt.want) {
			t.Errorf("%s: %v, want %q", tt.name, err, tt.want)
		}
	}
	cfg, err := portal.FromEnv(func(name string) string {
		return map[string]string{"TOPIC": "a", "CLUSTER": "main", "CREATE": "true", "RETENTION": "8760h"}[strings.TrimPrefix(name, "TOLLGATE_PORTAL_AUDIT_")]
	})
	if want := (portal.Audit{Topic: "a", Cluster: "main", Create: true, Retention: 8760 * time.Hour}); err != nil || cfg.Audit != want {
		t.Errorf("%+v, %v, want %+v", cfg.Audit, err, want)
	}
}
