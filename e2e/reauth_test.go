package e2e

import (
	"context"
	"fmt"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kgo"

	"tollgate.internal/e2e/internal/gateway"
	"tollgate.internal/e2e/internal/kafkatest"
	"tollgate.internal/e2e/internal/load"
)

// pulse measures, as hooks of clients, how evenly records flow.
type pulse struct {
	mu    sync.Mutex
	on    bool
	acks  int
	slow  time.Duration // the longest from Produce to the acknowledgement
	took  time.Time     // when the last record was taken
	gap   time.Duration // the longest between two that were
	taken int
}

func (p *pulse) OnProduceRecordUnbuffered(r *kgo.Record, err error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.on && err == nil {
		p.acks++
		p.slow = max(p.slow, time.Since(r.Timestamp))
	}
}

func (p *pulse) OnFetchRecordUnbuffered(_ *kgo.Record, polled bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	now := time.Now()
	if p.on && polled {
		p.taken++
		p.gap = max(p.gap, now.Sub(p.took))
	}
	p.took = now
}

// begin measures from now on.
func (p *pulse) begin() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.on, p.took = true, time.Now()
}

// end is what was measured.
func (p *pulse) end() (acks, taken int, slow, gap time.Duration) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.on = false
	return p.acks, p.taken, p.slow, p.gap
}

// Brokers that end every login after five seconds: clients behind the gateway, which
// never see these logins, write and read without an error and without a pause, and
// every connection to the brokers lives on (KIP-368).
func TestLoginsUpstreamAreRenewedUnderLoad(t *testing.T) {
	const lifetime, lifetimes, partitions = 5 * time.Second, 5, 3
	// The first has no logins: what it waits for, all wait for on this machine.
	mechanisms := []string{"none", "PLAIN", "SCRAM-SHA-512"}
	for _, version := range kafkatest.Versions() {
		t.Run(version, func(t *testing.T) {
			t.Parallel()
			kafka := kafkatest.Start(t, kafkatest.Options{
				Version: version, SASL: true,
				Properties: map[string]string{"connections.max.reauth.ms": fmt.Sprint(lifetime.Milliseconds())},
			})
			var text strings.Builder
			text.WriteString("{apiVersion: tollgate/v1, kind: Tenant, metadata: {name: acme}, spec: {displayName: ACME}}\n")
			var names []string
			for _, mechanism := range mechanisms {
				name := strings.ToLower(strings.ReplaceAll(mechanism, "-", ""))
				names = append(names, name)
				spec := fmt.Sprintf(`{bootstrap: [%q]}`, kafka.Bootstrap())
				if mechanism != "none" {
					spec = fmt.Sprintf(`{bootstrap: [%q], tls: {caFile: %q}, sasl: {mechanism: %s, username: gateway, password: "file:gateway.secret"}}`,
						kafka.BootstrapOn(kafkatest.SASL), kafka.CAFile, mechanism)
				}
				fmt.Fprintf(&text, `---
{apiVersion: tollgate/v1, kind: UpstreamCluster, metadata: {name: by-%[1]s}, spec: %[2]s}
---
{apiVersion: tollgate/v1, kind: VirtualCluster, metadata: {name: %[1]s, tenant: acme}, spec: {type: standard, host: %[1]s, home: by-%[1]s, authentication: {anonymous: {}}}}
`, name, spec)
			}
			proxy := gateway.StartProxy(t, map[string]string{"all.yaml": text.String(), "gateway.secret": kafka.Password("gateway")}, names)
			ctx, cancel := context.WithTimeout(t.Context(), load.Patience)
			defer cancel()
			admin := kadm.NewClient(kafka.Client(t))

			type flow struct {
				pulse
				*load.Producer
				*load.Consumer
				cluster, topic string
			}
			var flows []*flow
			for _, name := range names {
				if _, err := admin.CreateTopics(ctx, partitions, 1, nil, name+".numbers"); err != nil {
					t.Fatal(err)
				}
				f := &flow{cluster: "by-" + name, topic: name + ".numbers"}
				client := func(opts ...kgo.Opt) *kgo.Client {
					base, err := proxy.Target(name).KgoOpts()
					if err != nil {
						t.Fatal(err)
					}
					c, err := kgo.NewClient(append(append(base, kgo.WithHooks(&f.pulse)), opts...)...)
					if err != nil {
						t.Fatal(err)
					}
					t.Cleanup(c.CloseAllowingRebalance)
					return c
				}
				f.Consumer = load.Consume(client(append(load.ConsumerOpts(), kgo.ConsumerGroup("readers"), kgo.ConsumeTopics("numbers"))...))
				f.Producer = load.Produce(client(load.ProducerOpts()...), "numbers", partitions)
				flows = append(flows, f)
			}
			for _, f := range flows {
				if err := f.WaitMore(ctx, 100); err != nil {
					t.Fatal(err)
				}
				if err := f.WaitFor(ctx, f.Counts()); err != nil {
					t.Fatal(err)
				}
			}
			metric := func(f *flow, name string) float64 {
				return proxy.Metric(t, fmt.Sprintf("tollgate_proxy_upstream_%s{cluster=%q}", name, f.cluster))
			}
			ended := func(f *flow) float64 { return metric(f, "dials_total") - metric(f, "connections") }
			before, renewed := make(map[*flow]float64), make(map[*flow]float64)
			for _, f := range flows {
				f.begin()
				before[f], renewed[f] = ended(f), metric(f, "reauthentications_total")
			}
			select {
			case <-time.After(lifetimes * lifetime):
			case <-ctx.Done():
				t.Fatal(ctx.Err())
			}
			const pause = 500 * time.Millisecond // nobody would notice
			var usual time.Duration
			for _, f := range flows {
				acks, taken, slow, gap := f.pulse.end()
				open, lost, again := metric(f, "connections"), ended(f)-before[f], metric(f, "reauthentications_total")-renewed[f]
				t.Logf("%s: %v connections, %v ended in %d lifetimes, %v logins renewed; %d acknowledged, the slowest after %v; %d read, %v apart at most",
					f.cluster, open, lost, lifetimes, again, acks, slow, taken, gap)
				if f.cluster == "by-none" {
					usual = max(slow, gap)
				} else if open < 3 || again < open*(lifetimes-2) { // one more may be rather new
					t.Errorf("%s: %v logins renewed on %v connections", f.cluster, again, open)
				}
				if lost > 0 {
					t.Errorf("%s: %v connections ended", f.cluster, lost)
				}
				if slow > usual+pause || gap > usual+pause || acks < 1000 || taken < 1000 {
					t.Errorf("%s: records do not flow", f.cluster)
				}
				acked, err := f.Producer.Stop(ctx)
				if err != nil {
					t.Errorf("%s: producer: %v", f.cluster, err)
				}
				if err := f.WaitFor(ctx, acked); err != nil {
					t.Errorf("%s: consumer: %v", f.cluster, err)
				}
				if err := f.Consumer.Stop(); err != nil {
					t.Errorf("%s: consumer: %v", f.cluster, err)
				}
				if err := load.Check(ctx, []kgo.Opt{kgo.SeedBrokers(kafka.Seeds(kafkatest.PLAINTEXT)...)}, f.topic, acked); err != nil {
					t.Errorf("%s: %v", f.cluster, err)
				}
			}
		})
	}
}
