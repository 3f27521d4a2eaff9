package kafkatest

import (
	"context"
	"errors"
	"fmt"
	"net"
	"slices"
	"strconv"
	"time"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"
)

const (
	// startTimeout is generous: on a busy machine with two cores three brokers took 9 s.
	startTimeout = 2 * time.Minute
	pollInterval = 20 * time.Millisecond
)

// WaitReady waits until every broker lists every broker at its present address, and the coordinators
// of groups, transactions and share groups answer for all their partitions.
// Without the second part the first clients would see errors 15 and 14 for a second.
func (c *Cluster) WaitReady(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, startTimeout)
	defer cancel()
	for _, b := range c.brokers {
		if err := b.waitListed(ctx, c.brokers...); err != nil {
			return err
		}
	}
	if err := c.warm(ctx); err != nil {
		return err
	}
	return c.WaitInSync(ctx)
}

// WaitInSync waits until every partition has its leader where it is preferred
// and all replicas in sync, as every broker's Metadata shows it.
//
// After the restart of a broker the preferred leader comes back by an election
// every five minutes only, so WaitInSync asks for it.
func (c *Cluster) WaitInSync(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, startTimeout)
	defer cancel()
	elected := time.Now()
	for _, b := range c.brokers {
		err := b.poll(ctx, func(ctx context.Context, ask asker) error {
			meta, err := metadata(ctx, ask)
			if err != nil {
				return err
			}
			led := true
			for _, t := range meta.Topics {
				for _, p := range t.Partitions {
					switch {
					case p.ErrorCode != 0:
						return fmt.Errorf("partition %s/%d: %w", *t.Topic, p.Partition, kerr.ErrorForCode(p.ErrorCode))
					case len(p.ISR) < len(p.Replicas):
						return fmt.Errorf("partition %s/%d has %d of %d replicas in sync", *t.Topic, p.Partition, len(p.ISR), len(p.Replicas))
					case p.Leader != p.Replicas[0]:
						led = false
					}
				}
			}
			if led {
				return nil
			}
			if time.Since(elected) > time.Second {
				elected = time.Now()
				elect := kmsg.NewPtrElectLeadersRequest()
				elect.TimeoutMillis = 5000
				if _, err := ask(ctx, elect); err != nil {
					return err
				}
			}
			return errors.New("partitions are not led by their preferred leaders")
		})
		if err != nil {
			return err
		}
	}
	return nil
}

type asker func(context.Context, kmsg.Request) (kmsg.Response, error)

// poll calls try, with a way to ask this very broker, until it returns nil. It
// ends early when the broker's process does, and reports what try said last.
func (b *Broker) poll(ctx context.Context, try func(context.Context, asker) error) error {
	client, err := kgo.NewClient(
		kgo.SeedBrokers(b.Addr(PLAINTEXT)),
		kgo.DialTimeout(2*time.Second),
	)
	if err != nil {
		return err
	}
	defer client.Close()
	ask := client.SeedBrokers()[0].Request
	process := b.current()
	for {
		attempt, cancel := context.WithTimeout(ctx, 5*time.Second)
		last := try(attempt, ask)
		cancel()
		if last == nil {
			return nil
		}
		select {
		case <-process.Done():
			return fmt.Errorf("broker %d ended: %v", b.ID, process.Wait())
		case <-ctx.Done():
			return fmt.Errorf("broker %d: %w: %w", b.ID, context.Cause(ctx), last)
		case <-time.After(pollInterval):
		}
	}
}

// waitListed waits until the broker's Metadata lists these brokers where they are now: a
// broker that has come back at another port is known by its old one until its
// registration is.
func (b *Broker) waitListed(ctx context.Context, brokers ...*Broker) error {
	return b.poll(ctx, func(ctx context.Context, ask asker) error {
		meta, err := metadata(ctx, ask)
		if err != nil {
			return err
		}
		for _, other := range brokers {
			if err := other.listedIn(meta); err != nil {
				return err
			}
		}
		return nil
	})
}

// listedIn looks for the broker in an answer of the PLAINTEXT listener.
func (b *Broker) listedIn(meta *kmsg.MetadataResponse) error {
	i := slices.IndexFunc(meta.Brokers, func(l kmsg.MetadataResponseBroker) bool { return l.NodeID == b.ID })
	if i < 0 {
		return fmt.Errorf("broker %d is not listed yet", b.ID)
	}
	listed := meta.Brokers[i]
	if addr := net.JoinHostPort(listed.Host, strconv.Itoa(int(listed.Port))); addr != b.Addr(PLAINTEXT) {
		return fmt.Errorf("broker %d is still listed at %s, and is at %s", b.ID, addr, b.Addr(PLAINTEXT))
	}
	return nil
}

// waitServing waits until the broker is unfenced, and leads or follows what it should.
func (b *Broker) waitServing(ctx context.Context) error { return b.waitListed(ctx, b) }

func metadata(ctx context.Context, ask asker) (*kmsg.MetadataResponse, error) {
	resp, err := ask(ctx, kmsg.NewPtrMetadataRequest()) // nil topics: all of them
	if err != nil {
		return nil, err
	}
	return resp.(*kmsg.MetadataResponse), nil
}

// coordinators are the three kinds, the internal topic of each, and a request
// that reads from one of its partitions and changes nothing.
var coordinators = []struct {
	kind  int8
	topic string
	key   func(i int) string
	read  func(key string) kmsg.Request
	code  func(kmsg.Response) int16
}{
	{
		kind: 0, topic: "__consumer_offsets",
		key: func(i int) string { return fmt.Sprintf("warm-%d", i) },
		read: func(key string) kmsg.Request {
			req := kmsg.NewPtrDescribeGroupsRequest()
			req.Groups = []string{key}
			return req
		},
		code: func(r kmsg.Response) int16 { return r.(*kmsg.DescribeGroupsResponse).Groups[0].ErrorCode },
	},
	{
		kind: 1, topic: "__transaction_state",
		key: func(i int) string { return fmt.Sprintf("warm-%d", i) },
		read: func(key string) kmsg.Request {
			req := kmsg.NewPtrDescribeTransactionsRequest()
			req.TransactionalIDs = []string{key}
			return req
		},
		code: func(r kmsg.Response) int16 {
			return r.(*kmsg.DescribeTransactionsResponse).TransactionStates[0].ErrorCode
		},
	},
	{
		kind: 2, topic: "__share_group_state",
		key: func(i int) string { return fmt.Sprintf("warm:AAAAAAAAAAAAAAAAAAAAAQ:%d", i) },
	},
}

// warm makes the brokers create their internal topics and load their coordinators.
func (c *Cluster) warm(ctx context.Context) error {
	share, err := c.sharing(ctx)
	if err != nil {
		return err
	}
	for _, kind := range coordinators {
		if kind.kind == 2 && !share {
			continue
		}
		find := func(key string) (node int32, err error) {
			err = c.brokers[0].poll(ctx, func(ctx context.Context, ask asker) error {
				req := kmsg.NewPtrFindCoordinatorRequest()
				req.CoordinatorType, req.CoordinatorKey, req.CoordinatorKeys = kind.kind, key, []string{key}
				resp, err := ask(ctx, req)
				if err != nil {
					return err
				}
				found := resp.(*kmsg.FindCoordinatorResponse).Coordinators[0]
				node = found.NodeID
				if err := kerr.ErrorForCode(found.ErrorCode); err != nil {
					return fmt.Errorf("find coordinator of type %d: %w", kind.kind, err)
				}
				return nil
			})
			return node, err
		}
		if _, err := find(kind.key(0)); err != nil {
			return err
		}
		if kind.read == nil {
			continue
		}
		partitions, err := c.partitions(ctx, kind.topic)
		if err != nil {
			return err
		}
		seen := map[int]bool{}
		for i := 0; len(seen) < partitions; i++ {
			key := kind.key(i)
			if p := int(javaHash(key)&0x7fffffff) % partitions; seen[p] {
				continue
			} else {
				seen[p] = true
			}
			node, err := find(key)
			if err != nil {
				return err
			}
			err = c.Broker(node).poll(ctx, func(ctx context.Context, ask asker) error {
				resp, err := ask(ctx, kind.read(key))
				if err != nil {
					return err
				}
				// Unknown groups and transactions are what is asked for; only "not yet" counts.
				if err := kerr.ErrorForCode(kind.code(resp)); kerr.IsRetriable(err) {
					return fmt.Errorf("partition of %s in %s: %w", key, kind.topic, err)
				}
				return nil
			})
			if err != nil {
				return err
			}
		}
	}
	return nil
}

// sharing reports whether the cluster has share groups switched on.
func (c *Cluster) sharing(ctx context.Context) (on bool, err error) {
	err = c.brokers[0].poll(ctx, func(ctx context.Context, ask asker) error {
		resp, err := ask(ctx, kmsg.NewPtrApiVersionsRequest())
		if err != nil {
			return err
		}
		for _, f := range resp.(*kmsg.ApiVersionsResponse).FinalizedFeatures {
			on = on || f.Name == "share.version" && f.MaxVersionLevel > 0
		}
		return nil
	})
	return on, err
}

func (c *Cluster) partitions(ctx context.Context, topic string) (n int, err error) {
	err = c.brokers[0].poll(ctx, func(ctx context.Context, ask asker) error {
		meta, err := metadata(ctx, ask)
		if err != nil {
			return err
		}
		for _, t := range meta.Topics {
			if *t.Topic == topic && len(t.Partitions) > 0 {
				n = len(t.Partitions)
				return nil
			}
		}
		return fmt.Errorf("topic %s is not listed yet", topic)
	})
	return n, err
}

// javaHash is String.hashCode, by which Kafka chooses a coordinator's partition.
func javaHash(s string) (h int32) {
	for _, r := range []byte(s) {
		h = 31*h + int32(r)
	}
	return h
}
