package e2e

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kgo"

	"tollgate.internal/e2e/internal/drivers"
	"tollgate.internal/e2e/internal/gateway"
	"tollgate.internal/e2e/internal/kafkatest"
	"tollgate.internal/e2e/internal/load"
	"tollgate.internal/e2e/internal/rawkafka"
	"tollgate.internal/pkg/testbed/postgres"
	"tollgate.internal/pkg/testbed/redistest"
)

// Of the nodes of tollgate dev one after the other is killed under clients, until one
// is left: no client sees more than a disconnect, nothing that was acknowledged is
// lost, and what is changed arrives at the nodes that live, without a wait for the dead.
func TestNodesOfDevAreKilledUnderClients(t *testing.T) {
	t.Run("of everything embedded", func(t *testing.T) {
		nodesAreKilled(t, gateway.Seeded(t, "--nodes", "3"), load.LibrdkafkaProducer, load.LibrdkafkaConsumer)
	})
	t.Run("over a real cluster, Redis and database", func(t *testing.T) {
		java := func(ctx context.Context, target drivers.Target, topic string) (*load.Verifiable, error) {
			return load.VerifiableProducer(ctx, kafkatest.V4, target, topic)
		}
		reader := func(ctx context.Context, target drivers.Target, topic, group string) (*load.Verifiable, error) {
			return load.VerifiableConsumer(ctx, kafkatest.V4, target, topic, group)
		}
		p := gateway.Seeded(t, "--nodes", "3", "--upstream", "main="+three.Get(t).Bootstrap(),
			"--redis", redistest.Start(t).URL, "--database", postgres.Start(t).Database(t))
		nodesAreKilled(t, p, java, reader)
	})
}

func nodesAreKilled(t *testing.T, p *gateway.Process,
	writes func(context.Context, drivers.Target, string) (*load.Verifiable, error),
	reads func(ctx context.Context, target drivers.Target, topic, group string) (*load.Verifiable, error),
) {
	const vc, partitions = "globex", 6
	brokers := []kgo.Opt{kgo.SeedBrokers(strings.Split(p.Upstreams[0].Bootstrap, ",")...)}
	direct, err := kgo.NewClient(brokers...)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(direct.Close)
	admin := kadm.NewClient(direct)
	topics := []string{vc + ".numbers", vc + ".others"}
	if _, err := admin.CreateTopics(t.Context(), partitions, -1, nil, topics...); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if _, err := admin.DeleteTopics(context.Background(), topics...); err != nil {
			t.Error(err)
		}
	})
	account := p.Account(t, vc, "app")
	target := p.Target(t, vc, "SCRAM-SHA-512", account.Username, account.Password)
	ctx, cancel := context.WithTimeout(t.Context(), 5*time.Minute)
	defer cancel()
	crew, err := load.NewCrew(target, "numbers", "readers", partitions, brokers, topics[0])
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(crew.Close)
	other := load.Other{Name: "the other", Topic: topics[1]}
	if other.Writer, err = writes(ctx, target, "others"); err != nil {
		t.Fatal(err)
	}
	if other.Reader, err = reads(ctx, target, "others", "other-readers"); err != nil {
		t.Fatal(err)
	}
	crew.Others = []load.Other{other}
	goesOn := func(when string) {
		t.Helper()
		began := time.Now()
		ctx, cancel := context.WithTimeout(ctx, load.Patience)
		defer cancel()
		if err := crew.GoOn(ctx); err != nil {
			t.Fatalf("%s: %v", when, err)
		}
		t.Logf("%s all went on within %v", when, time.Since(began).Round(time.Millisecond))
	}
	goesOn("at the beginning")

	alive := slices.Clone(p.Nodes)
	if len(alive) != 3 {
		t.Fatalf("dev.json has the nodes %+v, want 3", alive)
	}
	for len(alive) > 1 {
		dead := alive[0]
		alive = alive[1:]
		if p.MetricOf(t, dead, "tollgate_proxy_node_sessions") == 0 {
			t.Errorf("%s has no clients", dead.ID)
		}
		if err := syscall.Kill(dead.PID, syscall.SIGKILL); err != nil {
			t.Fatal(err)
		}
		changeArrives(ctx, t, p, vc, "after-"+dead.ID, alive)
		goesOn("without " + dead.ID)
		within, cancel := context.WithTimeout(ctx, load.Patience)
		err := load.Wait(within, func() error {
			out, err := p.Run(within, "node", "list", "-o", "name")
			if err != nil {
				return err
			}
			p.Refresh(t)
			listed := strings.Fields(out)
			slices.Sort(listed)
			if want := ids(alive); !slices.Equal(listed, want) || !slices.Equal(ids(p.Nodes), want) {
				return fmt.Errorf("node list has %v and dev.json %v, and %v are alive", listed, ids(p.Nodes), want)
			}
			return nil
		})
		cancel()
		if err != nil {
			t.Fatal(err)
		}
		goesOn("with a fleet of " + fmt.Sprint(len(alive)))
	}
	// Who comes now finds the node, by a hosts file without the others.
	target = p.Target(t, vc, "SCRAM-SHA-512", account.Username, account.Password)
	for name, addresses := range target.Hosts {
		if len(addresses) != 1 || !strings.HasPrefix(alive[0].Listen, addresses[0]+":") {
			t.Fatalf("the hosts file has %v for %s, and of %+v only that is alive", addresses, name, alive[0])
		}
	}
	opts, err := target.KgoOpts()
	if err != nil {
		t.Fatal(err)
	}
	newcomer, err := kgo.NewClient(append(opts, kgo.ConsumeTopics("numbers"), kgo.ConsumeResetOffset(kgo.NewOffset().AtStart()))...)
	if err != nil {
		t.Fatal(err)
	}
	defer newcomer.Close()
	if fetched := newcomer.PollFetches(ctx); fetched.Err() != nil || fetched.NumRecords() == 0 {
		t.Errorf("a client that comes to the last node read %d records: %v", fetched.NumRecords(), fetched.Err())
	}
	if _, err := crew.End(ctx); err != nil {
		t.Error(err)
	}
}

func ids(nodes []gateway.Node) (all []string) {
	for _, n := range nodes {
		all = append(all, n.ID)
	}
	slices.Sort(all)
	return all
}

// changeArrives gives a virtual cluster an account, which can log in at every node that
// lives as soon as that is said to be applied.
func changeArrives(ctx context.Context, t *testing.T, p *gateway.Process, vc, name string, alive []gateway.Node) {
	t.Helper()
	dir := t.TempDir()
	document := fmt.Sprintf("{apiVersion: tollgate/v1, kind: ServiceAccount, metadata: {name: %s, virtualCluster: %s}, spec: {type: local, password: \"file:password\"}}\n", name, vc)
	for file, content := range map[string]string{"account.yaml": document, "password": "secret-of-" + name} {
		if err := os.WriteFile(filepath.Join(dir, file), []byte(content), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	began := time.Now()
	if _, err := p.Run(ctx, "apply", "-f", dir, "--wait"); err != nil {
		t.Fatal(err)
	}
	t.Logf("%s was applied after %v", name, time.Since(began).Round(time.Millisecond))
	for _, n := range alive {
		at := p.Target(t, vc, "PLAIN", name, "secret-of-"+name)
		host, _, _ := strings.Cut(at.Bootstrap, ":")
		address, _, _ := strings.Cut(n.Listen, ":")
		at.Hosts = drivers.Hosts{host: {address}}
		conn, err := rawkafka.Dial(ctx, at)
		if err != nil {
			t.Errorf("%s does not know of %s: %v", n.ID, name, err)
			continue
		}
		conn.Close()
	}
}
