package bench

import (
	"context"
	"fmt"
	"strings"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kmsg"

	"tollgate.internal/e2e/internal/kafkatest"
)

// A broker waits some milliseconds to gather commits into one write: there are as
// many groups as make that worth it.
const committers = 32

var commitWorkload = workload{Key: int16(kmsg.OffsetCommit), Version: 9, Topics: 2, Partitions: 5}

// commits measures how fast groups commit offsets: of two topics, on a real broker
// and through the gateway; of one on home and one elsewhere, which has a stub topic
// on home.
func (b *run) commits(ctx context.Context) error {
	home, err := b.startKafka(ctx, "commits-home", nil)
	if err != nil {
		return err
	}
	other, err := b.startKafka(ctx, "commits-other", nil)
	if err != nil {
		return err
	}
	if err := createTopics(ctx, home, commitWorkload.Partitions, physicalName, secondName); err != nil {
		return err
	}
	if err := createTopics(ctx, other, commitWorkload.Partitions, secondName); err != nil {
		return err
	}
	plaintext, encrypted := direct(home)
	haproxy, _, err := b.startHAProxy(ctx, "haproxy-commits", plaintext.Addr)
	if err != nil {
		return err
	}
	haproxy.target.Name = "haproxy"
	sides := []*usage{{target: plaintext}, {target: encrypted}, {target: haproxy.target, server: haproxy}}
	for _, s := range sides {
		s.target.Topics = []string{physicalName, secondName}
	}
	for _, binary := range b.binaries() {
		s, err := b.startGateway(ctx, binary[0]+"-commits", binary[1], spanningResources(home.Bootstrap(), other.Bootstrap(), withStubs))
		if err != nil {
			return err
		}
		for _, vc := range virtualClusters {
			u := &usage{target: s.to(vc[0], binary[0]+vc[1]), server: s}
			u.target.Topics = []string{aliasName, secondAlias}
			sides = append(sides, u)
		}
	}
	if _, err := b.compare(ctx, commitWorkload, sides, committers, 1); err != nil {
		return err
	}
	b.report.addCommits(sides)
	return hasStub(ctx, home)
}

// hasStub wants to see on home what the figures are about.
func hasStub(ctx context.Context, home *kafkatest.Cluster) error {
	client, err := home.NewClient()
	if err != nil {
		return err
	}
	defer client.Close()
	topics, err := kadm.NewClient(client).ListTopics(ctx)
	if err != nil {
		return err
	}
	for name := range topics {
		if strings.HasPrefix(name, spanning+".__tg.stub."+secondAlias) {
			return nil
		}
	}
	return fmt.Errorf("home has no stub topic for %s: %v", secondAlias, topics.Names())
}
