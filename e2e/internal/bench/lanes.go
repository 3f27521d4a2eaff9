package bench

import (
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kmsg"
)

// askingLanes carry Metadata, to the bootstrap, for any broker answers it.
func askingLanes(t *Target, w workload, n int) ([]*lane, error) {
	req := kmsg.NewPtrMetadataRequest()
	req.Version = w.Version
	if w.Named {
		for _, name := range t.Topics {
			rt := kmsg.NewMetadataRequestTopic()
			rt.Topic = &name
			req.Topics = append(req.Topics, rt)
		}
	}
	lanes := make([]*lane, n)
	for i := range lanes {
		l, err := t.lane(t.Host)
		if err != nil {
			return nil, err
		}
		lanes[i] = l
		if i > 0 { // one answer is checked, and every other must be the same
			l.request, l.want = slices.Clone(lanes[0].request), lanes[0].want
			continue
		}
		if err := l.learn(req, func(r kmsg.Response) error { return w.checkMetadata(t, r.(*kmsg.MetadataResponse)) }); err != nil {
			return nil, fmt.Errorf("%s: %w", t.Name, err)
		}
	}
	return lanes, nil
}

// checkMetadata wants every topic once, whole, and no other.
func (w workload) checkMetadata(t *Target, resp *kmsg.MetadataResponse) error {
	live := make(map[int32]bool)
	for _, b := range resp.Brokers {
		live[b.NodeID] = true
	}
	var names []string
	for _, rt := range resp.Topics {
		if rt.IsInternal {
			continue // the broker's own, which everybody sees
		}
		if rt.Topic == nil || rt.ErrorCode != 0 || len(rt.Partitions) != w.Partitions {
			return fmt.Errorf("metadata of a topic: %+v", rt)
		}
		for _, p := range rt.Partitions {
			if p.ErrorCode != 0 || !live[p.Leader] {
				return fmt.Errorf("metadata of a partition of %s: %+v", *rt.Topic, p)
			}
		}
		names = append(names, *rt.Topic)
	}
	slices.Sort(names)
	if want := slices.Sorted(slices.Values(t.Topics)); !slices.Equal(names, want) {
		return fmt.Errorf("metadata of %d topics: want %d, from %s to %s", len(names), len(want), want[0], want[len(want)-1])
	}
	return nil
}

// committingLanes carry OffsetCommit, each for a group of its own, to the group's
// coordinator.
func committingLanes(t *Target, w workload, n int) ([]*lane, error) {
	lanes := make([]*lane, n)
	for i := range lanes {
		// As consumers that assign partitions themselves commit: nobody has joined.
		req := kmsg.NewPtrOffsetCommitRequest()
		req.Version, req.Group, req.Generation = w.Version, fmt.Sprintf("%s%d", groupPrefix, i), -1
		for _, name := range t.Topics {
			rt := kmsg.NewOffsetCommitRequestTopic()
			rt.Topic = name
			for p := range w.Partitions {
				rp := kmsg.NewOffsetCommitRequestTopicPartition()
				rp.Partition, rp.Offset, rp.LeaderEpoch = int32(p), 4711, 0
				rt.Partitions = append(rt.Partitions, rp)
			}
			req.Topics = append(req.Topics, rt)
		}
		host, err := t.toCoordinator(req.Group)
		if err != nil {
			return nil, err
		}
		if lanes[i], err = t.lane(host); err != nil {
			return nil, err
		}
		if err := lanes[i].learn(req, func(r kmsg.Response) error { return checkCommitted(req, r.(*kmsg.OffsetCommitResponse)) }); err != nil {
			return nil, fmt.Errorf("%s: %w", t.Name, err)
		}
	}
	return lanes, nil
}

func checkCommitted(req *kmsg.OffsetCommitRequest, resp *kmsg.OffsetCommitResponse) error {
	done := make(map[string]int)
	for _, rt := range resp.Topics {
		for _, p := range rt.Partitions {
			if err := kerr.ErrorForCode(p.ErrorCode); err != nil {
				return fmt.Errorf("commit of %s partition %d: %w", rt.Topic, p.Partition, err)
			}
		}
		done[rt.Topic] += len(rt.Partitions)
	}
	for _, rt := range req.Topics {
		if done[rt.Topic] != len(rt.Partitions) {
			return fmt.Errorf("%d partitions of %s are committed: want %d", done[rt.Topic], rt.Topic, len(rt.Partitions))
		}
	}
	if len(done) != len(req.Topics) {
		return errors.New("more topics are committed than were asked for")
	}
	return nil
}

// toCoordinator asks who coordinates a group.
func (t *Target) toCoordinator(group string) (host string, err error) {
	c, err := t.connect(t.Host, nil)
	if err != nil {
		return "", err
	}
	defer c.Close()
	c.SetDeadline(time.Now().Add(timeLimit))
	req := kmsg.NewPtrFindCoordinatorRequest()
	req.Version, req.CoordinatorKeys = 4, []string{group}
	resp, err := roundTrip[*kmsg.FindCoordinatorResponse](c, req)
	if err != nil {
		return "", err
	}
	if len(resp.Coordinators) != 1 {
		return "", fmt.Errorf("%s: %d coordinators", t.Name, len(resp.Coordinators))
	}
	if err := kerr.ErrorForCode(resp.Coordinators[0].ErrorCode); err != nil {
		return "", fmt.Errorf("%s: coordinator of %s: %w", t.Name, group, err)
	}
	return t.server(resp.Coordinators[0].Host), nil
}

// learn sends the request once and checks the answer; from then on that is the
// one answer there is.
func (l *lane) learn(req kmsg.Request, check func(kmsg.Response) error) error {
	l.SetDeadline(time.Now().Add(timeLimit))
	l.request = formatter.AppendRequest(nil, req, 0)
	if err := l.send(); err != nil {
		return err
	}
	if err := l.receive(); err != nil {
		return err
	}
	l.next++
	resp := req.ResponseKind()
	body := slices.Clone(l.frame[8:])
	if req.IsFlexible() {
		body = body[1:] // no tags
	}
	if err := resp.ReadFrom(body); err != nil {
		return err
	}
	l.want = &expectation{frame: slices.Clone(l.frame)}
	return check(resp)
}
