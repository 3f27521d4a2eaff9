package drivers

import (
	"context"
	"fmt"
	"os"
	"slices"
	"testing"
	"time"

	"tollgate.internal/e2e/internal/kafkatest"
)

func TestMain(m *testing.M) { os.Exit(kafkatest.Main(m)) }

// The secure listeners are advertised by a name that only a hosts file knows,
// under a wildcard certificate, as virtual clusters are.
const host = "b1.gw.localhost"

var clusters = map[string]*kafkatest.Shared{}

func init() {
	for _, version := range []string{kafkatest.V3, kafkatest.V4} {
		clusters[version] = kafkatest.Share(kafkatest.Options{
			Version: version, Host: host, ServerNames: []string{"*.gw.localhost"},
			SASL: true, MTLS: true,
		})
	}
}

func target(c *kafkatest.Cluster, security string) Target {
	t := Target{Hosts: Hosts{host: {"127.0.0.1"}}}
	switch security {
	case "PLAINTEXT":
		return Target{Bootstrap: c.BootstrapOn(kafkatest.PLAINTEXT)}
	case "mTLS":
		t.Bootstrap, t.CertFile, t.KeyFile = c.BootstrapOn(kafkatest.MTLS), c.ClientCertFile, c.ClientKeyFile
	default:
		t.Bootstrap, t.Mechanism = c.BootstrapOn(kafkatest.SASL), security
		t.User, t.Password = "alice", c.Password("alice")
	}
	t.CAFile = c.CAFile
	return t
}

func TestEveryClientWorksOnABareBroker(t *testing.T) {
	securities := []string{"SCRAM-SHA-512", "mTLS", "PLAIN", "PLAINTEXT"}
	for i, d := range Drivers() {
		// Every client meets both versions and every way to log in meets several
		// clients; all by all would take four times as long and show no more.
		for j, version := range []string{kafkatest.V3, kafkatest.V4} {
			security := securities[(i+j)%len(securities)]
			t.Run(fmt.Sprintf("%s on %s by %s", d.Name(), version, security), func(t *testing.T) {
				scenario(t, d, target(clusters[version].Get(t), security), fmt.Sprint(d.Name(), "-", security))
			})
		}
	}
}

// scenario walks through all that a driver supports in one run of it.
func scenario(t *testing.T, d Driver, target Target, name string) {
	from, to, group := "from-"+name, "to-"+name, "group-"+name
	both := []Step{{Do: CreateTopic, Topic: from, Partitions: 2}, {Do: CreateTopic, Topic: to}}
	if !d.Supports(CreateTopic) {
		if _, err := Do(t.Context(), FranzGo(), target, both...); err != nil {
			t.Fatal(err)
		}
	}
	wanted := append(both,
		Step{Do: DescribeTopic, Topic: from},
		Step{Do: Produce, Topic: from, Count: 5, Prefix: "p-", Compression: "gzip"},
		Step{Do: Produce, Topic: from, Count: 5, Prefix: "i-", Idempotent: true},
		Step{Do: Consume, Topic: from, Group: group, Count: 10},
		Step{Do: Transaction, Topic: from, TransactionalID: "t-" + name, Count: 3, Prefix: "a-", Abort: true},
		Step{Do: Transaction, Topic: from, TransactionalID: "t-" + name, Count: 4, Prefix: "c-"},
		Step{Do: Transform, Topic: from, To: to, Group: group, TransactionalID: "t-" + name, Count: 4},
		Step{Do: Consume, Topic: to, Group: group + "-to", Count: 4},
		Step{Do: ListTopics},
		Step{Do: ListGroups},
		Step{Do: DescribeTopic, Topic: "no-such-topic"},
		Step{Do: DeleteTopic, Topic: to},
	)
	var steps []Step
	for _, s := range wanted {
		switch {
		case !d.Supports(s.Do):
		case s.Abort && !d.Supports(Transform): // kcat only commits
		case s.Topic == to && s.Do == Consume && !d.Supports(Transform):
		default:
			steps = append(steps, s)
		}
	}
	ctx, cancel := context.WithTimeout(t.Context(), 100*time.Second)
	defer cancel()
	outcomes, err := d.Run(ctx, target, steps...)
	if err != nil {
		t.Fatal(err)
	}
	for i, o := range outcomes {
		s := steps[i]
		if s.Topic == "no-such-topic" {
			if o.Err == nil {
				t.Errorf("%s of a topic that does not exist: done, events %+v", s.Do, o.Events)
			} else {
				t.Logf("unknown topic: %v", o.Err)
			}
			continue
		}
		if o.Err != nil {
			t.Errorf("%+v: %v", s, o.Err)
			continue
		}
		switch s.Do {
		case Consume, Transform:
			got := o.Values()
			slices.Sort(got)
			want := map[bool][]string{
				true:  {"i-v0", "i-v1", "i-v2", "i-v3", "i-v4", "p-v0", "p-v1", "p-v2", "p-v3", "p-v4"},
				false: {"c-v0", "c-v1", "c-v2", "c-v3"},
			}[s.Count == 10]
			if !slices.Equal(got, want) {
				t.Errorf("%s of %s: read %v, want %v", s.Do, s.Topic, got, want)
			}
		case DescribeTopic:
			if n := o.Of("topic")[0].Count; n != 2 {
				t.Errorf("described %s with %d partitions, want 2", s.Topic, n)
			}
		case ListTopics:
			if !slices.Contains(o.Names(), from) {
				t.Errorf("listed topics %v without %s", o.Names(), from)
			}
		case ListGroups:
			if !slices.Contains(o.Names(), group) {
				t.Errorf("listed groups %v without %s", o.Names(), group)
			}
		}
	}
}

func TestAWrongPasswordIsReported(t *testing.T) {
	for _, d := range Drivers() {
		t.Run(d.Name(), func(t *testing.T) {
			wrong := target(clusters[kafkatest.V4].Get(t), "SCRAM-SHA-512")
			wrong.Password = "wrong"
			outcomes, err := d.Run(t.Context(), wrong, Step{Do: ListTopics, Seconds: 6})
			if err != nil {
				t.Fatal(err)
			}
			if outcomes[0].Err == nil {
				t.Fatalf("listed topics with a wrong password: %+v", outcomes[0].Events)
			}
			t.Log(outcomes[0].Err)
		})
	}
}
