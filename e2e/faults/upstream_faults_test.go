package faults

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"

	"tollgate.internal/e2e/internal/kafkatest"
)

// leadingController is the node that leads the quorum of controllers.
func leadingController(t *testing.T, kafka *kafkatest.Cluster) *kafkatest.Broker {
	t.Helper()
	req := kmsg.NewPtrDescribeQuorumRequest()
	topic := kmsg.NewDescribeQuorumRequestTopic()
	topic.Topic = "__cluster_metadata"
	topic.Partitions = append(topic.Partitions, kmsg.NewDescribeQuorumRequestTopicPartition())
	req.Topics = append(req.Topics, topic)
	resp, err := req.RequestWith(t.Context(), kafka.Client(t))
	if err != nil {
		t.Fatal(err)
	}
	p := resp.Topics[0].Partitions[0]
	if err := kerr.ErrorForCode(p.ErrorCode); err != nil {
		t.Fatal(err)
	}
	return kafka.Broker(p.LeaderID)
}

// bootstrapResource is an upstream cluster that is where its brokers are now.
func bootstrapResource(kafka *kafkatest.Cluster, name string) string {
	return fmt.Sprintf("{apiVersion: tollgate/v1, kind: UpstreamCluster, metadata: {name: %s}, spec: {bootstrap: [%s]}}\n", name, kafka.Bootstrap())
}

// A cluster whose leading controller is killed, and one that is moved to other
// addresses as a whole: clients, which know the gateway alone, go on when the
// resource says where the brokers are.
func TestClientsLiveThroughTheMoveOfAWholeCluster(t *testing.T) {
	t.Parallel()
	kafka := kafkatest.Start(t, kafkatest.Options{Nodes: 3})
	l := startLoadOver(t, kafka, 3, map[string]string{
		"all.yaml": strings.ReplaceAll(faultResources, "home: main", "home: moving"), "dev.secret": "dev-secret\n",
		"moving.yaml": bootstrapResource(kafka, "moving"),
	})
	t.Run("the controller is killed and started again", func(t *testing.T) {
		controller := leadingController(t, kafka)
		if err := controller.Kill(); err != nil {
			t.Fatal(err)
		}
		l.goesOn(t)
		if now := leadingController(t, kafka); now == controller {
			t.Errorf("node %d, which was killed, is still the controller", now.ID)
		}
		if err := controller.Restart(t.Context()); err != nil {
			t.Fatal(err)
		}
		if err := kafka.WaitInSync(t.Context()); err != nil {
			t.Fatal(err)
		}
		l.goesOn(t)
	})
	for _, times := range []string{"once", "again"} {
		t.Run("the cluster moves "+times, func(t *testing.T) {
			if err := kafka.Move(t.Context()); err != nil {
				t.Fatal(err)
			}
			l.gateway.Write(t, "moving.yaml", bootstrapResource(kafka, "moving"))
			right := time.Now()
			if err := l.Producer.WaitMore(t.Context(), 1); err != nil {
				t.Fatal(err)
			}
			t.Logf("records of all partitions are acknowledged again %v after the resource was right", time.Since(right))
			if err := l.Reach([]kgo.Opt{kgo.SeedBrokers(kafka.Seeds(kafkatest.PLAINTEXT)...)}); err != nil {
				t.Fatal(err)
			}
			l.goesOn(t)
		})
	}
	l.end(t)
}
