package soak

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"
	"golang.org/x/sync/errgroup"

	"tollgate.internal/e2e/internal/kafkatest"
	"tollgate.internal/e2e/internal/load"
)

// check holds the writers, waits for the readers and compares everything.
func (s *soak) check(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	s.event("check begins")
	hold, holdCtx := errgroup.WithContext(ctx)
	for name, p := range s.producers {
		hold.Go(func() error {
			if err := p.Hold(holdCtx); err != nil {
				return fmt.Errorf("producer %s: %w", name, err)
			}
			return p.Err()
		})
		defer p.Resume()
	}
	for _, p := range s.txs {
		hold.Go(func() error { return p.hold(holdCtx) })
	}
	if err := hold.Wait(); err != nil {
		return err
	}
	for _, p := range s.txs {
		defer p.gate.Unlock()
	}
	for name, j := range s.javas {
		if err := j.Err(); err != nil {
			return fmt.Errorf("Java producer of %s: %w", name, err)
		}
	}
	s.drainJavas()
	for _, t := range allTopics() {
		if t.name != movedTo.name { // movers may be at work still
			if err := s.extend(ctx, t, s.logs); err != nil {
				return err
			}
		}
	}
	s.mu.Lock()
	news := s.acks
	s.acks = nil
	s.mu.Unlock()
	s.checked = append(s.checked, news...)
	if err := s.compareWriters(news, s.logs); err != nil {
		return err
	}
	if err := s.awaitMovers(ctx); err != nil {
		return err
	}
	if err := s.awaitReaders(ctx); err != nil {
		return err
	}
	if err := s.checkLosses(); err != nil {
		return err
	}
	if err := s.awaitSamples(ctx); err != nil {
		return err
	}
	if err := s.readCommits(ctx); err != nil {
		return err
	}
	for _, n := range s.nodes {
		if err := n.check(); err != nil {
			return err
		}
	}
	s.event("check is done: %s", s.sum())
	return errors.Join(s.failed(), s.watch.err())
}

// drainJavas takes what Kafka's own tools have printed.
func (s *soak) drainJavas() {
	for name, j := range s.javas {
		for _, a := range j.Acks() {
			s.acknowledge(ack{entry{a.Offset, javaWriter(name), a.Value}, place{name, a.Partition}})
		}
		s.watch.search("the Java producer of "+name, nil, []byte(strings.Join(j.Printed(), "\n")))
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	for name, j := range s.readers {
		for _, r := range j.Ranges() {
			reader := s.reader("java-"+name, place{name, r.Partition})
			for offset := r.From; offset <= r.To; offset++ {
				reader.pending = append(reader.pending, entry{offset, "", -1})
			}
		}
		s.watch.search("the Java consumer of "+name, nil, []byte(strings.Join(j.Printed(), "\n")))
	}
}

// extend reads on in a topic, directly from its brokers.
func (s *soak) extend(ctx context.Context, t topic, logs map[place]*partitionLog, isolation ...kgo.Opt) error {
	if t.transactional && len(isolation) == 0 {
		if err := s.stable(ctx, t); err != nil {
			return err
		}
		isolation = append(isolation, kgo.FetchIsolationLevel(kgo.ReadCommitted()))
	}
	from := make(map[int32]int64)
	for _, at := range t.places() {
		from[at.partition] = logs[at].end
	}
	var first error
	opts := append(isolation, kgo.SeedBrokers(s.kafka(t.cluster).Seeds("PLAINTEXT")...))
	ends, err := load.EachFrom(ctx, opts, t.physical(), from, func(r *kgo.Record) {
		e, err := read(r)
		if err == nil {
			err = logs[place{t.name, r.Partition}].take(e)
		} else {
			err = broken(place{t.name, r.Partition}, r.Offset, "%v", err)
		}
		if first == nil {
			first = err
		}
	})
	if err = errors.Join(first, err); err != nil {
		return err
	}
	for _, at := range t.places() {
		if err := logs[at].reach(ends[at.partition]); err != nil {
			return err
		}
		if err := logs[at].strangers(func(name string) bool { return s.belongs(name, at) }); err != nil {
			return err
		}
	}
	return nil
}

// belongs says whether a writer writes to this place.
func (s *soak) belongs(name string, at place) bool {
	if !s.writers[at.topic][name] {
		return false
	}
	_, there, _ := strings.Cut(name, " ")
	switch {
	case at.topic == movedTo.name:
		return strings.HasSuffix(there, fmt.Sprintf("/%d", at.partition)) // each to its like
	case name == javaWriter(at.topic):
		return true
	}
	return there == at.String()
}

// stable waits until no transaction is open in a topic. One that hangs is a
// failure of those who should have ended it.
func (s *soak) stable(ctx context.Context, t topic) error {
	admin := s.admin(t.cluster)
	return load.Wait(ctx, func() error {
		ends, err := admin.ListEndOffsets(ctx, t.physical())
		if err != nil {
			return err
		}
		stable, err := admin.ListCommittedOffsets(ctx, t.physical())
		if err != nil {
			return err
		}
		var open error
		ends.Each(func(end kadm.ListedOffset) {
			if o, ok := stable.Lookup(end.Topic, end.Partition); !ok || o.Offset != end.Offset || end.Err != nil || o.Err != nil {
				open = fmt.Errorf("a transaction is open in %s/%d: last stable offset %d, end %d", t.name, end.Partition, o.Offset, end.Offset)
			}
		})
		return open
	})
}

// compareWriters checks that what was acknowledged is there, and transactions are whole.
func (s *soak) compareWriters(news []ack, logs map[place]*partitionLog) error {
	for _, a := range news {
		if err := logs[a.at].acknowledged(a); err != nil {
			return err
		}
	}
	for _, p := range s.txs {
		p.mu.Lock()
		all := p.all
		p.mu.Unlock()
		for _, t := range all {
			if err := t.atomic(logs); err != nil {
				return err
			}
		}
	}
	return nil
}

// awaitMovers waits until all numbers were moved, and checks that each was once.
func (s *soak) awaitMovers(ctx context.Context) error {
	return s.await(ctx, func() error {
		if err := s.extend(ctx, movedTo, s.logs); err != nil {
			return err
		}
		return s.compareMoved(s.logs)
	})
}

func (s *soak) compareMoved(logs map[place]*partitionLog) error {
	for _, t := range numbers {
		for _, at := range t.places() {
			if err := moved(logs[at], logs[place{movedTo.name, at.partition}]); err != nil {
				return err
			}
		}
	}
	return nil
}

// awaitReaders waits until every group has read every record.
func (s *soak) awaitReaders(ctx context.Context) error {
	return s.await(ctx, func() error {
		for topic, j := range s.readers {
			if err := j.Err(); err != nil {
				return fmt.Errorf("Java consumer of %s: %w", topic, err)
			}
		}
		s.drainJavas()
		s.mu.Lock()
		defer s.mu.Unlock()
		var missing error
		for name, topics := range s.audience() {
			for _, t := range topics {
				for _, at := range t.places() {
					if err := s.reader(name, at).compare(name, s.logs[at]); err != nil {
						return err
					}
					if err := s.reader(name, at).complete(name, s.logs[at]); err != nil {
						missing = fmt.Errorf("%w: %w", errIncomplete, err)
					}
				}
			}
		}
		return missing
	})
}

// checkLosses looks at what clients took for a loss.
func (s *soak) checkLosses() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, loss := range s.losses {
		if err := s.logs[place{loss.Topic, loss.Partition}].replaced(loss.ResetTo, loss.ConsumedTo); err != nil {
			return fmt.Errorf("%w: %w", err, loss)
		}
	}
	s.losses = nil
	return nil
}

// audience are the topics that each group reads.
func (s *soak) audience() map[string][]topic {
	all := map[string][]topic{static: numbers}
	for _, g := range groups {
		all[g.name] = g.topics
	}
	for _, t := range javas {
		if s.readers[t.name] != nil {
			all["java-"+t.name] = []topic{t}
		}
	}
	return all
}

// committing are the groups that commit offsets: the readers, and the movers.
func (s *soak) committing() []string {
	return append(slices.Sorted(maps.Keys(s.audience())), movers)
}

// await tries until nothing is incomplete any more.
func (s *soak) await(ctx context.Context, try func() error) error {
	var end error
	err := load.Wait(ctx, func() error {
		err := errors.Join(s.failed(), try())
		if errors.Is(err, errIncomplete) && s.failed() == nil {
			return err
		}
		end = err
		return nil
	})
	return errors.Join(err, end)
}

// stopWriters ends what writes, all of it at once: who shares a client waits for
// the others' records too.
func (s *soak) stopWriters(ctx context.Context) error {
	stops, ctx := errgroup.WithContext(ctx)
	for name, p := range s.producers {
		stops.Go(func() error {
			if _, err := p.Stop(ctx); err != nil {
				return fmt.Errorf("producer %s: %w", name, err)
			}
			return nil
		})
	}
	for _, p := range s.txs {
		stops.Go(func() error {
			p.stop()
			select {
			case <-p.done:
				return nil
			case <-ctx.Done():
				return fmt.Errorf("transactional producer %s does not end: %w", p.id, context.Cause(ctx))
			}
		})
	}
	return stops.Wait()
}

// finish reads everything again from the beginning.
func (s *soak) finish(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	if err := s.stopWriters(ctx); err != nil {
		return err
	}
	for name, j := range s.javas {
		if err := j.Stop(ctx); err != nil {
			return fmt.Errorf("Java producer of %s: %w", name, err)
		}
	}
	s.drainJavas()
	s.mu.Lock()
	s.checked = append(s.checked, s.acks...)
	s.mu.Unlock()
	before, logs := s.logs, make(map[place]*partitionLog)
	for at := range before {
		logs[at] = newPartitionLog(at)
	}
	err := s.await(ctx, func() error {
		for _, t := range allTopics() {
			if err := s.extend(ctx, t, logs); err != nil {
				return err
			}
		}
		return s.compareMoved(logs)
	})
	s.logs = logs
	if err != nil {
		return err
	}
	for at, l := range before {
		if err := l.begins(logs[at]); err != nil {
			return err
		}
	}
	if err := s.awaitReaders(ctx); err != nil {
		return err
	}
	if err := s.compareWriters(s.checked, logs); err != nil {
		return err
	}
	// Those of aborted transactions too, which nobody sees who reads what is committed.
	all := make(map[place]*partitionLog)
	for _, t := range allTopics() {
		if !t.transactional || t.name == movedTo.name { // whoever moves tries again with the same numbers
			continue
		}
		for _, at := range t.places() {
			all[at] = newPartitionLog(at)
		}
		if err := s.extend(ctx, t, all, kgo.FetchIsolationLevel(kgo.ReadUncommitted())); err != nil {
			return fmt.Errorf("read uncommitted: %w", err)
		}
	}
	return errors.Join(s.failed(), s.watch.err())
}

const betweenSamples = 200 * time.Millisecond

// sample keeps asking for the committed offsets of all groups: home's brokers
// themselves, and the gateway.
func (s *soak) sample(ctx context.Context) {
	opts, err := s.opts("sampler")
	if err != nil {
		s.fail(err)
		return
	}
	client, err := kgo.NewClient(opts...)
	if err != nil {
		s.fail(err)
		return
	}
	defer client.Close()
	through := kadm.NewClient(client)
	for ctx.Err() == nil {
		groups := s.committing()
		var called []string
		for _, g := range groups {
			called = append(called, cluster+"."+g)
		}
		s.sampleOnce(ctx, "the gateway", through, groups)
		s.sampleOnce(ctx, "home", s.admins[home], called)
		pause(ctx, betweenSamples)
	}
}

// sampleOnce asks once. Who does not answer is asked again with the next sample.
// A coordinator that has just been elected answers what it knows to be on enough
// replicas, which may be less than another one did, unless it is to wait for what
// is stable, as consumers ask it to.
func (s *soak) sampleOnce(ctx context.Context, asked string, admin *kadm.Client, called []string) {
	ctx, cancel := context.WithTimeout(kadm.RequireStable(ctx), 5*time.Second)
	defer cancel()
	for _, answer := range admin.FetchManyOffsets(ctx, called...) {
		if answer.Err != nil {
			continue
		}
		group := strings.TrimPrefix(answer.Group, cluster+".")
		s.mu.Lock()
		s.samples[asked+" "+group]++
		answer.Fetched.Each(func(o kadm.OffsetResponse) {
			if o.Err != nil {
				return
			}
			if err := s.offsets.sample(commit{asked, group, place{o.Topic, o.Partition}}, o.At); err != nil {
				s.staleLocked(err)
			}
		})
		s.mu.Unlock()
	}
}

// thaw is how long after its end a broker that was stopped may answer as what it
// was before: it is a coordinator until it hears that another one is.
const thaw = 10 * time.Second

// staleLocked judges an offset that was answered and is lower than one before. What
// was committed is read from the brokers' log of it; only a broker that was stopped
// may know less for a while.
func (s *soak) staleLocked(err error) {
	if time.Since(s.thawed) < thaw {
		s.reportLocked("an answer of a broker that was stopped: %v", err)
		return
	}
	s.failLocked(err)
}

// offsetsTopic is where brokers keep what groups have committed.
const offsetsTopic = "__consumer_offsets"

// readCommits reads on in what home's brokers have kept of commits: the truth
// about offsets that went back.
func (s *soak) readCommits(ctx context.Context) error {
	var first error
	opts := []kgo.Opt{kgo.SeedBrokers(s.clusters[home].Seeds(kafkatest.PLAINTEXT)...), kgo.FetchIsolationLevel(kgo.ReadCommitted())}
	ends, err := load.EachFrom(ctx, opts, offsetsTopic, s.commitsRead, func(r *kgo.Record) {
		at, offset, err := kept(r)
		if err == nil && at.group != "" {
			err = s.kept.sample(at, offset)
		}
		if first == nil && err != nil {
			first = fmt.Errorf("%w, committed %s at offset %d of partition %d", err, r.Timestamp.Format("15:04:05.000"), r.Offset, r.Partition)
		}
	})
	s.commitsRead = ends
	return errors.Join(first, err)
}

// kept understands a record of the topic of offsets. Those that are no commit of
// this tenant have no group.
func kept(r *kgo.Record) (commit, int64, error) {
	if len(r.Key) < 2 || binary.BigEndian.Uint16(r.Key) > 1 { // 0 and 1 are commits
		return commit{}, 0, nil
	}
	var key kmsg.OffsetCommitKey
	if err := key.ReadFrom(r.Key); err != nil {
		return commit{}, 0, fmt.Errorf("read a commit: %w", err)
	}
	group, ours := strings.CutPrefix(key.Group, cluster+".")
	if !ours {
		return commit{}, 0, nil
	}
	at := commit{"the topic of offsets", group, place{key.Topic, key.Partition}}
	if r.Value == nil {
		return at, -1, nil // removed
	}
	var value kmsg.OffsetCommitValue
	if err := value.ReadFrom(r.Value); err != nil {
		return commit{}, 0, fmt.Errorf("read a commit of group %s: %w", group, err)
	}
	return at, value.Offset, nil
}

// awaitSamples waits until the offsets of every group were seen twice after
// everything was read: the first may have been asked for before.
func (s *soak) awaitSamples(ctx context.Context) error {
	s.mu.Lock()
	before := maps.Clone(s.samples)
	s.mu.Unlock()
	return s.await(ctx, func() error {
		s.mu.Lock()
		defer s.mu.Unlock()
		for _, group := range s.committing() {
			for _, asked := range []string{"the gateway", "home"} {
				if name := asked + " " + group; s.samples[name] < before[name]+2 {
					return fmt.Errorf("%w: no offsets of group %s from %s", errIncomplete, group, asked)
				}
			}
		}
		return nil
	})
}

// batches prints the headers of the record batches around an offset.
func batches(ctx context.Context, brokers *kgo.Client, physical string, partition int32, around int64) (string, error) {
	const before = 20 // records
	found, err := kadm.NewClient(brokers).ListTopics(ctx, physical)
	if err != nil {
		return "", err
	}
	p := kmsg.NewFetchRequestTopicPartition()
	p.Partition, p.FetchOffset, p.PartitionMaxBytes = partition, max(0, around-before), 1<<20
	t := kmsg.NewFetchRequestTopic()
	t.Topic, t.TopicID, t.Partitions = physical, found[physical].ID, append(t.Partitions, p)
	req := kmsg.NewPtrFetchRequest()
	req.MaxWaitMillis, req.MaxBytes, req.SessionEpoch = 100, 1<<20, -1
	req.Topics = append(req.Topics, t)
	resp, err := brokers.Broker(int(found[physical].Partitions[partition].Leader)).RetriableRequest(ctx, req)
	if err != nil {
		return "", err
	}
	var b strings.Builder
	for _, t := range resp.(*kmsg.FetchResponse).Topics {
		for _, p := range t.Partitions {
			if err := kerr.ErrorForCode(p.ErrorCode); err != nil {
				return "", err
			}
			raw := p.RecordBatches
			for len(raw) > 0 {
				var batch kmsg.RecordBatch
				if err := batch.ReadFrom(raw); err != nil {
					break // the last one may be cut off
				}
				raw = raw[12+batch.Length:]
				if batch.FirstOffset > around+before {
					break
				}
				fmt.Fprintf(&b, "offsets %d to %d: producer id %d epoch %d sequence %d, attributes %#x, leader epoch %d, written %s\n",
					batch.FirstOffset, batch.FirstOffset+int64(batch.LastOffsetDelta), batch.ProducerID, batch.ProducerEpoch, batch.FirstSequence,
					batch.Attributes, batch.PartitionLeaderEpoch, time.UnixMilli(batch.FirstTimestamp).Format("15:04:05.000"))
			}
		}
	}
	return b.String(), nil
}
