package main

import (
	"context"
	"errors"
	"net"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kgo"

	"tollgate.internal/cmd/tollgate/internal/dev"
	"tollgate.internal/pkg/testbed/postgres"
)

// eventually waits until a condition holds.
func eventually(t *testing.T, what string, cond func() bool) {
	t.Helper()
	for end := time.Now().Add(time.Minute); !cond(); {
		if time.Now().After(end) {
			t.Fatalf("not within a minute: %s", what)
		}
		time.Sleep(20 * time.Millisecond) // between two looks at the condition
	}
}

// passwordOf is what dev.json says of an account.
func passwordOf(t *testing.T, state, vc, account string) string {
	t.Helper()
	info, err := dev.Read(state)
	if err != nil {
		t.Fatal(err)
	}
	for _, v := range info.VirtualClusters {
		for _, a := range v.ServiceAccounts {
			if v.Name == vc && a.Name == account {
				return a.Password
			}
		}
	}
	return ""
}

// What files say is applied when they say something new; what was changed by the API
// meanwhile stays, over a restart too, and what they never named is not theirs to delete.
func TestFilesAndTheAPIBesideEachOther(t *testing.T) {
	base := freePorts(t)
	at := []string{"--listen", net.JoinHostPort("127.0.0.1", strconv.Itoa(base)), "--port-base", strconv.Itoa(base)}
	for name, database := range map[string]func(t *testing.T) string{
		"its own database": func(*testing.T) string { return "" },
		"PostgreSQL": func(t *testing.T) string {
			s, err := postgres.New()
			if err != nil {
				t.Fatal(err)
			}
			t.Cleanup(func() {
				if err := s.Close(); err != nil {
					t.Error(err)
				}
			})
			return s.Database(t)
		},
	} {
		t.Run(name, func(t *testing.T) {
			state := filepath.Join(t.TempDir(), "state")
			args := append([]string{"--state", state}, at...)
			if url := database(t); url != "" {
				args = append(args, "--database", url)
			}
			stop := startDev(t, args...)
			must(t, "", "apply", "-f", "../../examples", "--state", state)
			must(t, "{apiVersion: tollgate/v1, kind: Tenant, metadata: {name: globex}, spec: {displayName: Globex Ltd}}", "apply", "-f", "-", "--state", state, "--wait")
			eventually(t, "the tenant of the examples is served", func() bool {
				info, err := dev.Read(state)
				return err == nil && strings.Contains(strings.Join(virtualClusters(info), " "), "initech-prod")
			})
			stop()
			startDev(t, args...)
			if out := must(t, "", "get", "tenants", "-o", "wide", "--state", state); !strings.Contains(out, "Globex Ltd") || !strings.Contains(out, "Initech") {
				t.Errorf("after a restart there are\n%s", out)
			}
			must(t, "one\n", "produce", "orders", "--state", state, "--vc", "initech-prod", "--user", "warehouse", "--password", secretOf(t, "warehouse"))

			// A file says something new: what files say is as they say again.
			file := filepath.Join(state, "resources", "globex.yaml")
			text, err := os.ReadFile(file)
			if err != nil {
				t.Fatal(err)
			}
			if err := os.WriteFile(file, []byte(strings.Replace(string(text), "Globex Corporation", "Globex Inc", 1)), 0o600); err != nil {
				t.Fatal(err)
			}
			eventually(t, "the file is applied", func() bool {
				return strings.Contains(must(t, "", "get", "tenants", "-o", "wide", "--state", state), "Globex Inc")
			})
			if out := must(t, "", "get", "tenants", "-o", "wide", "--state", state); !strings.Contains(out, "Initech") {
				t.Errorf("a tenant that no file names is gone:\n%s", out)
			}
		})
	}
}

func virtualClusters(info *dev.Info) (names []string) {
	for _, vc := range info.VirtualClusters {
		names = append(names, vc.Name)
	}
	return names
}

// secretOf is the password of an account of the examples.
func secretOf(t *testing.T, account string) string {
	t.Helper()
	text, err := os.ReadFile(filepath.Join("../../examples/secrets", account))
	if err != nil {
		t.Fatal(err)
	}
	return strings.TrimSpace(string(text))
}

// A password in a file that is replaced is the account's only one.
func TestAPasswordInAFileIsReplaced(t *testing.T) {
	state := filepath.Join(t.TempDir(), "state")
	base := freePorts(t)
	startDev(t, "--state", state, "--listen", net.JoinHostPort("127.0.0.1", strconv.Itoa(base)), "--port-base", strconv.Itoa(base))
	old := passwordOf(t, state, "globex", "app")
	for _, next := range []string{"another-password", "a-third-password", "another-password"} {
		if err := os.WriteFile(filepath.Join(state, "resources", "secrets", "globex-app"), []byte(next+"\n"), 0o600); err != nil {
			t.Fatal(err)
		}
		eventually(t, "dev.json has the password "+next, func() bool { return passwordOf(t, state, "globex", "app") == next })
		must(t, "one\n", "produce", "things", "--state", state, "--vc", "globex")
		if _, err := tollgate(t, "one\n", "produce", "things", "--state", state, "--vc", "globex", "--user", "app", "--password", old); !errors.Is(err, kerr.SaslAuthenticationFailed) {
			t.Errorf("with the password %q: %v, want SASL_AUTHENTICATION_FAILED", old, err)
		}
		old = next
	}
}

// Every change is in a topic of the main cluster, which no tenant sees or can be lent.
func TestTheAuditLogIsInATopic(t *testing.T) {
	state := filepath.Join(t.TempDir(), "state")
	base := freePorts(t)
	startDev(t, "--state", state, "--listen", net.JoinHostPort("127.0.0.1", strconv.Itoa(base)), "--port-base", strconv.Itoa(base))
	info, err := dev.Read(state)
	if err != nil {
		t.Fatal(err)
	}
	reader, err := kgo.NewClient(kgo.SeedBrokers(strings.Split(info.Upstreams[0].Bootstrap, ",")...), kgo.ConsumeTopics("tollgate.audit"))
	if err != nil {
		t.Fatal(err)
	}
	defer reader.Close()
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	for seen := 0; seen < 10; {
		fetches := reader.PollFetches(ctx)
		if ctx.Err() != nil {
			t.Fatalf("%d events after a minute, want 10", seen)
		}
		fetches.EachRecord(func(r *kgo.Record) {
			if strings.Contains(string(r.Value), `"specversion":"1.0"`) {
				seen++
			}
		})
	}
	for _, vc := range info.VirtualClusters {
		if out := must(t, "", "topics", "list", "--state", state, "--vc", vc.Name); strings.Contains(out, "audit") {
			t.Errorf("%s sees\n%s", vc.Name, out)
		}
	}
	grant := "{apiVersion: tollgate/v1, kind: TopicGrant, metadata: {name: all, tenant: globex}, spec: {cluster: main, topic: {name: t, pattern: prefixed}, access: read}}"
	if out, err := tollgate(t, grant, "apply", "-f", "-", "--state", state); err == nil || !strings.Contains(out+err.Error(), "kept for the audit log") {
		t.Errorf("a grant of it: %v\n%s", err, out)
	}
}
