package clients

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"

	"tollgate.internal/e2e/internal/kafkatest"
)

// hostname resolves only where the hosts file of the test is.
const hostname = "broker.kafka.test"

func TestEveryClientMakesARoundTripWithABareBroker(t *testing.T) {
	hosts := filepath.Join(t.TempDir(), "hosts")
	if err := os.WriteFile(hosts, []byte("127.0.0.1 localhost "+hostname+"\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	for _, version := range kafkatest.Versions() {
		t.Run("Kafka "+version, func(t *testing.T) {
			c := kafkatest.Start(t, kafkatest.Options{Version: version, SASL: true, MTLS: true, Host: hostname})
			login := func(mechanism string) Target {
				return Target{
					Bootstrap: c.BootstrapOn(kafkatest.SASL), CAFile: c.CAFile, HostsFile: hosts,
					Mechanism: mechanism, User: "alice", Password: c.Password("alice"),
				}
			}
			targets := map[string]Target{
				"PLAINTEXT":     {Bootstrap: c.Bootstrap()},
				"PLAIN":         login("PLAIN"),
				"SCRAM-SHA-512": login("SCRAM-SHA-512"),
				"mTLS": {
					Bootstrap: c.BootstrapOn(kafkatest.MTLS), CAFile: c.CAFile, HostsFile: hosts,
					CertFile: c.ClientCertFile, KeyFile: c.ClientKeyFile,
				},
			}
			if version != kafkatest.V4 {
				// What differs between brokers is the protocol, not how one logs in.
				targets = map[string]Target{"SCRAM-SHA-512": targets["SCRAM-SHA-512"]}
			}
			admin := kadm.NewClient(c.Client(t))
			for _, client := range All() {
				for name, target := range targets {
					if version == kafkatest.V4 && client.Name == "kcat" && strings.HasPrefix(name, "SCRAM") {
						// librdkafka before 2.6.1, which Debian's kcat has, says its nonce
						// twice, and a 4.x broker refuses that (librdkafka #4895).
						continue
					}
					t.Run(client.Name+" over "+name, func(t *testing.T) {
						ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
						defer cancel()
						job := Job{Topic: client.Name + "-" + name, Records: 50}
						job.Group = job.Topic + "-group"
						if _, err := admin.CreateTopic(ctx, 2, -1, nil, job.Topic); err != nil {
							t.Fatalf("create topic %s: %v", job.Topic, err)
						}
						got, err := client.RoundTrip(ctx, target, job)
						if err != nil {
							t.Fatal(err)
						}
						if want := (Result{Produced: 50, Consumed: 50}); got != want {
							t.Errorf("RoundTrip = %+v, want %+v", got, want)
						}
						if err := hasCommitted(ctx, admin, job); err != nil {
							t.Error(err)
						}
					})
				}
			}
		})
	}
}

func hasCommitted(ctx context.Context, admin *kadm.Client, job Job) error {
	offsets, err := admin.FetchOffsets(ctx, job.Group)
	if err != nil {
		return fmt.Errorf("fetch offsets of %s: %w", job.Group, err)
	}
	sum := int64(0)
	offsets.Each(func(o kadm.OffsetResponse) { sum += o.At })
	if sum != int64(job.Records) {
		return fmt.Errorf("group %s has committed %d records, want %d", job.Group, sum, job.Records)
	}
	return nil
}
