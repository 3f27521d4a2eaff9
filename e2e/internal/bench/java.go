package bench

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"

	"tollgate.internal/e2e/internal/drivers"
	"tollgate.internal/e2e/internal/kafkajars"
	"tollgate.internal/e2e/internal/kafkatest"
)

// recordSize is that of the records of the Java tools.
const recordSize = 1024

// stream is a way for Java clients to a real broker.
type stream struct {
	name             string
	bootstrap, topic string
	config           string        // file of client properties
	hosts            drivers.Hosts // names the client has to know
	gateway          *server
	produced         []float64 // MB/s, of 2^20 bytes, as the tools count
	consumed         []float64
	produceCPU       []float64 // microseconds of the gateway per MB
	consumeCPU       []float64
}

func (b *run) java(ctx context.Context) (err error) {
	kafka, err := b.startKafka(ctx, "kafka", map[string]string{"log.segment.bytes": "16777216"})
	if err != nil {
		return err
	}
	client, err := kafka.NewClient()
	if err != nil {
		return err
	}
	defer client.Close()
	adm := kadm.NewClient(client)
	if _, err := adm.CreateTopic(ctx, 1, 1, nil, physicalName); err != nil {
		return err
	}
	streams, err := b.streams(ctx, kafka)
	if err != nil {
		return err
	}
	jars, err := kafkajars.Get(ctx, kafkatest.V4)
	if err != nil {
		return err
	}
	rounds := (b.Rounds + 1) / 2 // a round takes a JVM's start and more
	for range rounds {
		for _, s := range streams {
			if err := b.perf(ctx, jars, s); err != nil {
				return fmt.Errorf("%s: %w", s.name, err)
			}
			// The disk is not what is measured: let go of what was stored.
			ends, err := adm.ListEndOffsets(ctx, physicalName)
			if err != nil {
				return err
			}
			if _, err := adm.DeleteRecords(ctx, ends.Offsets()); err != nil {
				return err
			}
		}
	}
	b.report.addStreams(streams, b.Records)
	return nil
}

func (b *run) streams(ctx context.Context, kafka *kafkatest.Cluster) ([]*stream, error) {
	plaintext, encrypted := kafka.Bootstrap(), kafka.BootstrapOn(kafkatest.SASL)
	streams := []*stream{
		{name: "no proxy, plaintext", bootstrap: plaintext, topic: physicalName},
		{name: "no proxy, SASL_SSL", bootstrap: encrypted, topic: physicalName, config: kafka.CAFile},
	}
	for _, bin := range b.binaries() {
		g, err := b.startGateway(ctx, bin[0]+"-kafka", bin[1], partnerResources(plaintext))
		if err != nil {
			return nil, err
		}
		var leader string
		err = g.await(ctx, func() (err error) {
			leader, _, err = g.target.toLeader()
			return err
		})
		if err != nil {
			return nil, err
		}
		_, port, _ := strings.Cut(g.target.Addr, ":")
		streams = append(streams, &stream{
			name: bin[0] + ", SASL_SSL", bootstrap: bootstrapHost + ":" + port, topic: aliasName, config: b.pki.caFile,
			hosts: drivers.Hosts{bootstrapHost: {"127.0.0.1"}, leader: {"127.0.0.1"}}, gateway: g,
		})
	}
	for i, s := range streams {
		text := "security.protocol=PLAINTEXT\n"
		if s.config != "" {
			text = fmt.Sprintf("security.protocol=SASL_SSL\nsasl.mechanism=SCRAM-SHA-512\nssl.truststore.type=PEM\nssl.truststore.location=%s\n"+
				"sasl.jaas.config=org.apache.kafka.common.security.scram.ScramLoginModule required username=%q password=%q;\n", s.config, userName, userPassword)
		}
		s.config = filepath.Join(b.dir, fmt.Sprintf("client-%d.properties", i))
		if err := os.WriteFile(s.config, []byte(text), 0o600); err != nil {
			return nil, err
		}
	}
	return streams, nil
}

// perf produces and then consumes what was produced.
func (b *run) perf(ctx context.Context, jars *kafkajars.Jars, s *stream) error {
	tool := func(class string, args ...string) (out string, cpu time.Duration, err error) {
		java, err := kafkajars.Java()
		if err != nil {
			return "", 0, err
		}
		var before time.Duration
		if s.gateway != nil {
			if before, err = cpuTime(s.gateway.process.PID()); err != nil {
				return "", 0, err
			}
		}
		jvm := slices.Concat([]string{"-Xms64m", "-Xmx256m", "-XX:+UseSerialGC", "-cp", jars.Classpath()}, kafkajars.Quiet(), []string{"org.apache.kafka.tools." + class})
		ctx, cancel := context.WithTimeout(ctx, 5*time.Minute)
		defer cancel()
		r, err := drivers.Command{Path: java, Args: append(jvm, args...), Hosts: s.hosts}.Run(ctx)
		if err == nil {
			err = r.Err()
		}
		if err == nil && s.gateway != nil {
			cpu, err = cpuTime(s.gateway.process.PID())
		}
		return r.Stdout + r.Stderr, cpu - before, err
	}
	mb := float64(b.Records) * recordSize / (1 << 20)
	count := strconv.Itoa(b.Records)

	out, cpu, err := tool("ProducerPerformance", "--topic", s.topic, "--num-records", count, "--record-size", strconv.Itoa(recordSize),
		"--throughput", "-1", "--command-config", s.config, "--bootstrap-server", s.bootstrap,
		"--command-property", "acks=1", "batch.size=65536", "linger.ms=5", "client.id=bench")
	if err != nil {
		return err
	}
	rate, err := produceRate(out, b.Records)
	if err != nil {
		return err
	}
	s.produced = append(s.produced, rate)
	s.produceCPU = append(s.produceCPU, float64(cpu.Microseconds())/mb)

	out, cpu, err = tool("ConsumerPerformance", "--topic", s.topic, "--num-records", count, "--timeout", "60000",
		"--command-config", s.config, "--bootstrap-server", s.bootstrap, "--group", fmt.Sprintf("perf-%d-%s", len(s.consumed), filepath.Base(s.config)))
	if err != nil {
		return err
	}
	if rate, err = consumeRate(out, mb); err != nil {
		return err
	}
	s.consumed = append(s.consumed, rate)
	s.consumeCPU = append(s.consumeCPU, float64(cpu.Microseconds())/mb)
	return nil
}

var producedLine = regexp.MustCompile(`(?m)^(\d+) records sent, [\d.,]+ records/sec \(([\d.,]+) MB/sec\).*\d+ ms 99\.9th\.`)

// produceRate reads the last line of ProducerPerformance.
func produceRate(out string, records int) (float64, error) {
	m := producedLine.FindStringSubmatch(out)
	if m == nil {
		return 0, fmt.Errorf("ProducerPerformance gave no summary:\n%s", out)
	}
	if m[1] != strconv.Itoa(records) {
		return 0, fmt.Errorf("ProducerPerformance sent %s records of %d", m[1], records)
	}
	return strconv.ParseFloat(m[2], 64)
}

// consumeRate reads the table of ConsumerPerformance: the rate of fetching, which
// leaves out the time it took to join the group.
func consumeRate(out string, mb float64) (float64, error) {
	var header []string
	for line := range strings.Lines(out) {
		fields := strings.Split(strings.TrimSpace(line), ", ")
		switch {
		case slices.Contains(fields, "fetch.MB.sec"):
			header = fields
		case header != nil && len(fields) == len(header):
			got, err := strconv.ParseFloat(fields[slices.Index(header, "data.consumed.in.MB")], 64)
			if err != nil {
				return 0, err
			}
			if got < mb*0.999 {
				return 0, fmt.Errorf("ConsumerPerformance read %.1f MB of %.1f:\n%s", got, mb, out)
			}
			return strconv.ParseFloat(fields[slices.Index(header, "fetch.MB.sec")], 64)
		}
	}
	return 0, fmt.Errorf("ConsumerPerformance gave no table:\n%s", out)
}
