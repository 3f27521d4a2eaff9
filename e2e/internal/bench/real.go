package bench

import (
	"context"
	"fmt"
	"os"
	"path/filepath"

	"github.com/twmb/franz-go/pkg/kadm"

	"tollgate.internal/e2e/internal/kafkatest"
)

// startKafka runs a cluster of one real broker, as fast as it is in production.
func (b *run) startKafka(ctx context.Context, name string, properties map[string]string) (*kafkatest.Cluster, error) {
	dir := filepath.Join(b.dir, name)
	if err := os.Mkdir(dir, 0o700); err != nil {
		return nil, err
	}
	own := map[string]string{
		"ssl.enabled.protocols": "TLSv1.3", "ssl.cipher.suites": "TLS_AES_128_GCM_SHA256",
		// A broker that had to wait for a core is not dead: its leader epochs would rise,
		// and answers must be the same all the time.
		"broker.session.timeout.ms": "60000",
	}
	for k, v := range properties {
		own[k] = v
	}
	kafka, err := kafkatest.StartCluster(ctx, dir, kafkatest.Options{
		Version: kafkatest.V4, SASL: true, Users: map[string]string{userName: userPassword}, Properties: own,
		// The harness's JVM is made to start soon, and slow at TLS.
		JVM: []string{"-Xmx1g", "-XX:TieredStopAtLevel=4"},
	})
	if err == nil {
		b.onClose(kafka.Close)
	}
	return kafka, err
}

// createTopics makes topics, not too many at a time for a controller's taste, and
// returns when the broker has them.
func createTopics(ctx context.Context, kafka *kafkatest.Cluster, partitions int, names ...string) error {
	client, err := kafka.NewClient()
	if err != nil {
		return err
	}
	defer client.Close()
	adm := kadm.NewClient(client)
	adm.SetTimeoutMillis(60_000)
	for len(names) > 0 {
		some := names[:min(len(names), 100)]
		names = names[len(some):]
		made, err := adm.CreateTopics(ctx, int32(partitions), 1, nil, some...)
		if err == nil {
			err = made.Error()
		}
		if err != nil {
			return fmt.Errorf("create %s and %d others: %w", some[0], len(some)-1, err)
		}
		// A broker makes two hundred partitions a second, or fewer.
		err = awaited(ctx, func() error {
			topics, err := adm.ListTopics(ctx, some...)
			if err == nil {
				err = topics.Error()
			}
			return err
		})
		if err != nil {
			return fmt.Errorf("await %s and %d others: %w", some[0], len(some)-1, err)
		}
	}
	return nil
}

// direct are targets that have no proxy before the broker, without TLS and with.
func direct(kafka *kafkatest.Cluster) (plaintext, encrypted Target) {
	broker := kafka.Brokers()[0]
	return Target{Name: "no proxy, plaintext", Addr: broker.Addr(kafkatest.PLAINTEXT)},
		Target{
			Name: "no proxy, SASL_SSL", Addr: broker.Addr(kafkatest.SASL), Host: "localhost", CA: kafka.PKI.PEM,
			Mechanism: "SCRAM-SHA-512", User: userName, Password: userPassword,
		}
}

// to is how clients reach a virtual cluster of the gateway.
func (s *server) to(cluster, name string) Target {
	t := s.target
	t.Name, t.Host = name, cluster+"."+domain
	return t
}
