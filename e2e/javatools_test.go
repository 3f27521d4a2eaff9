package e2e

import (
	"context"
	"strings"
	"testing"
	"time"

	"tollgate.internal/e2e/internal/drivers"
	"tollgate.internal/e2e/internal/gateway"
	"tollgate.internal/e2e/internal/kafkatest"
)

const toolResources = `
{apiVersion: tollgate/v1, kind: Tenant, metadata: {name: tooling}, spec: {displayName: Tooling}}
---
apiVersion: tollgate/v1
kind: VirtualCluster
metadata: {name: tools, tenant: tooling}
spec: {type: standard, host: tools, home: main, authentication: {scram: {}}}
---
{apiVersion: tollgate/v1, kind: ServiceAccount, metadata: {name: dev, virtualCluster: tools}, spec: {type: local, password: "file:dev.secret"}}
---
apiVersion: tollgate/v1
kind: VirtualCluster
metadata: {name: tools-partner, tenant: tooling}
spec: {type: partner, host: tools-partner, home: main, authentication: {plain: {}}, acls: {superUsers: ["User:admin"]}}
---
{apiVersion: tollgate/v1, kind: ServiceAccount, metadata: {name: admin, virtualCluster: tools-partner}, spec: {type: local, password: "file:dev.secret"}}
---
{apiVersion: tollgate/v1, kind: ServiceAccount, metadata: {name: shipping, virtualCluster: tools-partner}, spec: {type: local, password: "file:dev.secret"}}
---
{apiVersion: tollgate/v1, kind: Acl, metadata: {name: reads, virtualCluster: tools-partner}, spec: {principal: "User:shipping", resource: {type: topic, name: lent}, operation: READ, permission: ALLOW}}
---
{apiVersion: tollgate/v1, kind: Acl, metadata: {name: groups, virtualCluster: tools-partner}, spec: {principal: "User:shipping", resource: {type: group, name: lent, pattern: prefixed}, operation: ALL, permission: ALLOW}}
---
{apiVersion: tollgate/v1, kind: TopicGrant, metadata: {name: lent, tenant: tooling}, spec: {cluster: main, topic: {name: shop.tools}, access: read-write}}
---
{apiVersion: tollgate/v1, kind: AliasTopic, metadata: {name: lent, virtualCluster: tools-partner}, spec: {cluster: main, topic: shop.tools}}
`

// A toolRun is one call of a tool and what it must print.
type toolRun struct {
	tool  string
	args  string // by fields
	stdin string
	says  []string // on standard output, or in all it prints when it fails
	not   []string
	fails bool
}

// toolRuns are what an administrator and a developer do with a cluster of their own.
var toolRuns = []toolRun{
	{tool: "broker-api-versions", says: []string{"Produce(0)", "Fetch(1)"}, not: []string{"WriteTxnMarkers(27): 1"}},
	{tool: "topics", args: "--create --topic tools --partitions 2 --config retention.ms=86400000", says: []string{"Created topic tools."}},
	{tool: "topics", args: "--list", says: []string{"tools\n"}, not: []string{"shop", "tools.", "__"}},
	{tool: "topics", args: "--describe", says: []string{"Topic: tools", "PartitionCount: 2", "retention.ms=86400000"}, not: []string{"shop", "tools.tools"}},
	{tool: "topics", args: "--alter --topic tools --partitions 3"},
	{tool: "configs", args: "--alter --entity-type topics --entity-name tools --add-config retention.ms=3600000", says: []string{"Completed updating config for topic tools"}},
	{tool: "configs", args: "--describe --entity-type topics --entity-name tools", says: []string{"retention.ms=3600000"}},
	{tool: "console-producer", args: "--topic tools --property parse.key=true --property key.separator=:", stdin: "k1:v1\nk2:v2\nk3:v3\n"},
	{tool: "console-consumer", args: "--topic tools --group console --from-beginning --max-messages 3 --timeout-ms 30000 --property print.key=true", says: []string{"k1\tv1\n", "k2\tv2\n", "k3\tv3\n"}},
	{tool: "log-dirs", args: "--describe", says: []string{`"partition":"tools-0"`, "dir-0"}, not: []string{"/data", "shop", "tools.tools"}},
	{tool: "configs", args: "--describe --entity-type users", says: []string{"user-principal 'dev'", "SCRAM-SHA-512=iterations="}},
	{tool: "configs", args: "--alter --entity-type users --entity-name dev --add-config producer_byte_rate=1", fails: true, says: []string{"PolicyViolationException"}},
	{tool: "get-offsets", args: "--topic tools", says: []string{"tools:0:", "tools:1:", "tools:2:"}},
	{tool: "consumer-groups", args: "--list", says: []string{"console"}, not: []string{"tools"}},
	{tool: "consumer-groups", args: "--describe --group console", says: []string{"console", "tools"}, not: []string{"tools."}},
	{tool: "consumer-groups", args: "--reset-offsets --to-earliest --group console --topic tools --execute", says: []string{"console", "tools"}},
	{tool: "console-consumer", args: "--topic tools --group console --max-messages 3 --timeout-ms 30000", says: []string{"v1\n", "v2\n", "v3\n"}},
	{tool: "consumer-groups", args: "--delete --group console", says: []string{"was successful"}},
	{tool: "consumer-groups", args: "--list", not: []string{"console"}},
	{tool: "verifiable-producer", args: "--topic tools --max-messages 50", says: []string{`"sent":50`, `"acked":50`}},
	{tool: "verifiable-consumer", args: "--topic tools --group-id verified --max-messages 53 --reset-policy earliest", says: []string{`"success":true`, "shutdown_complete"}},
	{tool: "producer-perf-test", args: "--topic tools --num-records 2000 --record-size 500 --throughput -1", says: []string{"2000 records sent"}},
	{tool: "consumer-perf-test", args: "--topic tools --messages 2000 --group perf --timeout 30000", says: []string{"MB.sec"}},
	{tool: "transactions", args: "list", says: []string{"tool-txn", "CompleteCommit"}, not: []string{"tools."}},
	{tool: "transactions", args: "describe --transactional-id tool-txn", says: []string{"CompleteCommit"}},
	{tool: "transactions", args: "describe-producers --topic in-transaction --partition 0", says: []string{"ProducerId"}},
	{tool: "acls", args: "--list", fails: true, says: []string{"SecurityDisabledException"}},
	{tool: "configs", args: "--describe --entity-type brokers --entity-name 1", fails: true, says: []string{"ClusterAuthorizationException"}},
	{tool: "topics", args: "--delete --topic tools"},
	{tool: "topics", args: "--list", not: []string{"tools"}},
}

// partnerRuns are those of someone with the rights of a super user on aliases.
var partnerRuns = []toolRun{
	{tool: "topics", args: "--list", says: []string{"lent"}, not: []string{"shop"}},
	{tool: "topics", args: "--describe", says: []string{"Topic: lent"}, not: []string{"shop"}},
	{tool: "acls", args: "--list", says: []string{"principal=User:shipping", "name=lent"}, not: []string{"shop"}},
	// A super user changes ACLs as on a broker; the control plane keeps them.
	{tool: "acls", args: "--add --allow-principal User:x --operation READ --topic lent", says: []string{"Adding ACLs", "principal=User:x"}},
	{tool: "acls", args: "--add --allow-principal User:x --operation READ --topic lent"}, // again
	{tool: "acls", args: "--add --allow-principal User:shipping --operation WRITE --topic lent"},
	{tool: "acls", args: "--list --principal User:x", says: []string{"principal=User:x", "operation=READ"}, not: []string{"shipping"}},
	{tool: "acls", args: "--remove --force --allow-principal User:x --operation READ --topic lent", not: []string{"principal=User:x"}},
	{tool: "acls", args: "--list --principal User:x", not: []string{"principal=User:x"}},
	{tool: "acls", args: "--add --allow-principal User:x --allow-host nowhere --operation READ --topic lent", fails: true, says: []string{"InvalidRequestException", "nowhere"}},
	{tool: "topics", args: "--create --topic mine", fails: true, says: []string{"PolicyViolationException"}},
	{tool: "topics", args: "--delete --topic lent", fails: true, says: []string{"TopicAuthorizationException"}, not: []string{"shop"}},
	{tool: "configs", args: "--describe --entity-type topics --entity-name lent --all", says: []string{"retention.ms="}},
	{tool: "configs", args: "--alter --entity-type topics --entity-name lent --add-config retention.ms=1", fails: true, says: []string{"TopicAuthorizationException"}, not: []string{"shop"}},
	{tool: "console-producer", args: "--topic lent", stdin: "one\ntwo\n"},
}

// readerRuns are those of someone who may only read.
var readerRuns = []toolRun{
	{tool: "console-consumer", args: "--topic lent --group lent-1 --from-beginning --max-messages 2 --timeout-ms 30000", says: []string{"one\n", "two\n"}},
	{tool: "consumer-groups", args: "--describe --group lent-1", says: []string{"lent"}, not: []string{"shop"}},
	{tool: "acls", args: "--list", fails: true, says: []string{"ClusterAuthorizationException"}},
	{tool: "acls", args: "--add --allow-principal User:x --operation READ --topic lent", fails: true, says: []string{"ClusterAuthorizationException"}},
	{tool: "console-producer", args: "--topic lent", stdin: "three\n"}, // the super user let it
	{tool: "console-consumer", args: "--topic lent --from-beginning --max-messages 3 --timeout-ms 30000 --group lent-2", says: []string{"three\n"}},
}

func TestToolsOfKafkaThroughTheGateway(t *testing.T) {
	t.Parallel()
	for _, version := range kafkatest.Versions() {
		t.Run("Kafka "+version, func(t *testing.T) {
			kafka := upstreams[version].Get(t)
			create(t, kafka, []string{"tools"})
			p := gateway.Start(t, map[string]string{"main": kafka.Bootstrap()}, map[string]string{"all.yaml": toolResources, "dev.secret": "dev-secret\n"})
			standard := p.Target(t, "tools", "SCRAM-SHA-512", "dev", "dev-secret")
			before := []drivers.Step{
				{Do: drivers.CreateTopic, Topic: "in-transaction"},
				{Do: drivers.Transaction, Topic: "in-transaction", TransactionalID: "tool-txn", Count: 3, Prefix: "t-"},
			}
			if _, err := drivers.Do(t.Context(), drivers.FranzGo(), standard, before...); err != nil {
				t.Fatal(err)
			}
			runTools(t, version, standard, toolRuns...)
			runTools(t, version, p.Target(t, "tools-partner", "PLAIN", "admin", "dev-secret"), partnerRuns...)
			runTools(t, version, p.Target(t, "tools-partner", "PLAIN", "shipping", "dev-secret"), readerRuns...)
		})
	}
}

// runTools runs tools one after another and checks what each of them says.
func runTools(t *testing.T, version string, target drivers.Target, runs ...toolRun) {
	t.Helper()
	var lines []drivers.ToolRun
	for _, r := range runs {
		lines = append(lines, drivers.ToolRun{Tool: r.tool, Target: target, Args: strings.Fields(r.args), Stdin: r.stdin})
	}
	ctx, cancel := context.WithTimeout(t.Context(), 5*time.Minute)
	defer cancel()
	results, err := drivers.JavaTools(ctx, version, lines...)
	if err != nil {
		t.Error(err)
	}
	for i, result := range results {
		runs[i].check(t, result)
	}
}

func (r toolRun) check(t *testing.T, result drivers.Result) {
	t.Helper()
	said := result.Stdout
	if r.fails {
		said += result.Stderr
	}
	if failed := result.ExitCode != 0; failed != r.fails {
		t.Errorf("%s %s: exit code %d\n%s%s", r.tool, r.args, result.ExitCode, result.Stdout, result.Stderr)
		return
	}
	for _, want := range r.says {
		if !strings.Contains(said, want) {
			t.Errorf("%s %s: says no %q:\n%s", r.tool, r.args, want, said)
		}
	}
	for _, never := range r.not {
		if strings.Contains(said, never) {
			t.Errorf("%s %s: says %q:\n%s", r.tool, r.args, never, said)
		}
	}
}
