package session

import (
	"context"
	"slices"
	"strings"
	"time"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kmsg"

	"tollgate.internal/services/proxy/internal/refusal"
	"tollgate.internal/services/proxy/internal/view"
)

// CreateTopics: versions 2 to 7. A standard virtual cluster's tenant creates
// topics below its prefix on home, within the policy of the virtual cluster; a
// partner's cannot create any.

// room is what a virtual cluster may still create.
type room struct {
	topics, partitions       int // that there are, and are about to be
	maxTopics, maxPartitions int // 0: as many as they like
}

func roomOf(t *view.Table) *room {
	r := &room{maxTopics: t.View.Spec.Topics.MaxTopics, maxPartitions: t.View.Spec.Quotas.Partitions}
	for _, topic := range t.Topics {
		if !topic.Alias {
			r.topics++
			r.partitions += len(topic.Physical.Partitions)
		}
	}
	return r
}

func limited(v *view.View) bool { return v.Spec.Topics.MaxTopics > 0 || v.Spec.Quotas.Partitions > 0 }

// take counts what is about to be created, or refuses it.
func (r *room) take(topics, partitions int) error {
	switch {
	case r.maxTopics > 0 && topics > 0 && r.topics+topics > r.maxTopics:
		return refusal.TooManyTopics.Tell("the virtual cluster has its %d topics: delete one, or ask for more", r.maxTopics)
	case r.maxPartitions > 0 && r.partitions+partitions > r.maxPartitions:
		return refusal.TooManyPartitions.Tell("%d partitions more: the virtual cluster has %d of at most %d", partitions, r.partitions, r.maxPartitions)
	}
	r.topics += topics
	r.partitions += partitions
	return nil
}

// creating is the table to judge by what may be created. Where there is a limit, one
// session after the other creates and waits until all can see what it made, on all nodes
// that can ask one another; done ends its turn.
func (s *Session) creating(ctx context.Context) (t *view.Table, done func(), err error) {
	if t, err = s.vc.Fresh(ctx, metadataAge); err != nil || !limited(t.View) {
		return t, func() {}, err
	}
	if done, err = s.vc.Creating.Take(ctx); err != nil {
		return nil, func() {}, err
	}
	if s.node.Creating != nil {
		here := done
		there, err := s.node.Creating(ctx, s.vc.Name)
		if err != nil {
			here()
			return nil, func() {}, err
		}
		done = func() { there(); here() }
	}
	// Twice: the first may join a look that began before the turn.
	_, _ = s.vc.Fresh(ctx, 0)
	if t, err = s.vc.Fresh(ctx, 0); err != nil {
		done()
		return nil, func() {}, err
	}
	return t, done, nil
}

// countPartitions asks home for how many partitions topics would get by its own default,
// where somebody has to know.
func (s *Session) countPartitions(ctx context.Context, t *view.Table, req *kmsg.CreateTopicsRequest) (map[string]int, error) {
	if t.View.Spec.Quotas.Partitions == 0 || t.View.Spec.Topics.DefaultPartitions > 0 {
		return nil, nil
	}
	ask := *req
	ask.Topics, ask.ValidateOnly = nil, true
	for _, rt := range req.Topics {
		if rt.NumPartitions == -1 && s.checkCreate(t, &rt, new(room)) == nil {
			rt.Topic = t.View.Prefix + rt.Topic
			ask.Topics = append(ask.Topics, rt)
		}
	}
	if len(ask.Topics) == 0 {
		return nil, nil
	}
	up, err := s.admin(ctx, adminLimit(req.TimeoutMillis), &ask)
	if err != nil {
		return nil, err
	}
	counts := make(map[string]int)
	for _, rt := range up.(*kmsg.CreateTopicsResponse).Topics {
		if name, ok := strings.CutPrefix(rt.Topic, t.View.Prefix); ok {
			counts[name] = int(rt.NumPartitions)
		}
	}
	return counts, nil
}

// checkCreate judges one topic to be created and fills in the policy's defaults.
func (s *Session) checkCreate(t *view.Table, rt *kmsg.CreateTopicsRequestTopic, r *room) error {
	p := t.View.Spec.Topics
	switch {
	case !s.mayCluster(t, kmsg.ACLOperationCreate) && !s.mayTopic(t, kmsg.ACLOperationCreate, rt.Topic):
		return refusal.TopicNotAuthorized
	case !t.View.Standard():
		return refusal.TopicCreationOff.Tell("topics cannot be created in this virtual cluster: it has alias topics only, which are managed in the portal")
	case !legalTopic(rt.Topic):
		return refusal.TopicNameInvalid.Tell("topic name must be 1 to 249 characters of a-z, A-Z, 0-9, '.', '_' and '-', and not '.' or '..'")
	case len(t.View.Prefix)+len(rt.Topic) > 249:
		return refusal.NameTooLong.Tell("topic name is too long: at most %d characters in this virtual cluster", 249-len(t.View.Prefix))
	case len(rt.Topic) >= 2 && rt.Topic[:2] == "__":
		return refusal.TopicNameInvalid.Tell("topic names that begin with '__' are reserved")
	case t.View.IsAlias(rt.Topic) || t.Topic(rt.Topic) != nil:
		return refusal.TopicExists.Tell("topic '%s' already exists", rt.Topic)
	case len(rt.ReplicaAssignment) > 0:
		return refusal.ReplicaAssignment.Tell("replica assignments are the provider's choice: give a partition count and a replication factor, or -1")
	}
	if rt.NumPartitions == -1 && p.DefaultPartitions > 0 {
		rt.NumPartitions = p.DefaultPartitions
	}
	if rt.ReplicationFactor == -1 && p.DefaultReplicationFactor > 0 {
		rt.ReplicationFactor = p.DefaultReplicationFactor
	}
	if most := s.maxPartitions(t); rt.NumPartitions > most {
		return refusal.PartitionsOverLimit.Tell("%d partitions: at most %d are allowed for a topic", rt.NumPartitions, most)
	}
	low, high := max(p.MinReplicationFactor, 1), p.MaxReplicationFactor
	if high == 0 {
		high = 3
	}
	if rt.ReplicationFactor > 0 && (rt.ReplicationFactor < low || rt.ReplicationFactor > high) { // others a broker refuses itself
		return refusal.ReplicationFactor.Tell("replication factor %d: %d to %d are allowed", rt.ReplicationFactor, low, high)
	}
	for _, c := range rt.Configs {
		if !slices.Contains(configKeys(t), c.Name) {
			return refusal.ConfigKey.Tell("config '%s' cannot be set; these can: %v", c.Name, configKeys(t))
		}
	}
	return r.take(1, max(int(rt.NumPartitions), 1))
}

func (s *Session) maxPartitions(t *view.Table) int32 {
	if n := t.View.Spec.Topics.MaxPartitions; n > 0 {
		return n
	}
	return 100
}

func createTopics(s *Session, ctx context.Context, r kmsg.Request) (kmsg.Response, error) {
	req := r.(*kmsg.CreateTopicsRequest)
	resp := req.ResponseKind().(*kmsg.CreateTopicsResponse)
	refuse := func(name string, why error) {
		out := kmsg.NewCreateTopicsResponseTopic()
		out.Topic = name
		out.ErrorCode, out.ErrorMessage = s.refusedText(why, "topic", name)
		out.NumPartitions, out.ReplicationFactor = -1, -1
		out.Configs = []kmsg.CreateTopicsResponseTopicConfig{}
		resp.Topics = append(resp.Topics, out)
	}
	t, done, err := s.creating(ctx)
	defer done()
	var left *room
	var counts map[string]int
	if err == nil {
		left = roomOf(t)
		counts, err = s.countPartitions(ctx, t, req)
	}
	forward := *req
	forward.Topics = nil
	seen := make(map[string]int)
	for _, rt := range req.Topics {
		seen[rt.Topic]++
	}
	judged := make(map[string]bool)
	for _, rt := range req.Topics {
		if judged[rt.Topic] {
			continue
		}
		judged[rt.Topic] = true
		switch {
		case err != nil:
			refuse(rt.Topic, refusal.TimedOut.With(err))
		case seen[rt.Topic] > 1:
			refuse(rt.Topic, refusal.Invalid.Tell("Duplicate topic name."))
		default:
			if n := counts[rt.Topic]; n > 0 && rt.NumPartitions == -1 {
				rt.NumPartitions = int32(n)
			}
			if why := s.checkCreate(t, &rt, left); why != nil {
				refuse(rt.Topic, why)
				continue
			}
			rt.Topic = t.View.Prefix + rt.Topic
			forward.Topics = append(forward.Topics, rt)
		}
	}
	if len(forward.Topics) == 0 {
		return resp, nil
	}
	up, err := s.admin(ctx, adminLimit(req.TimeoutMillis), &forward)
	if err != nil {
		for _, rt := range forward.Topics {
			refuse(rt.Topic[len(t.View.Prefix):], refusal.TimedOut.With(err))
		}
		return resp, nil
	}
	answer := up.(*kmsg.CreateTopicsResponse)
	if !req.ValidateOnly {
		t = s.awaitTopics(ctx, answer.Topics)
	}
	for i := range answer.Topics {
		rt := &answer.Topics[i]
		if len(rt.Topic) < len(t.View.Prefix) {
			return nil, errForeign
		}
		physical := rt.Topic
		rt.Topic = rt.Topic[len(t.View.Prefix):]
		rt.TopicID = [16]byte{}
		if topic := t.Home.Topic(physical); topic != nil {
			rt.TopicID = topic.ID
		}
		if rt.ErrorCode != 0 {
			rt.ErrorMessage = ownText(rt.ErrorCode, rt.ErrorMessage)
			continue
		}
		if !s.mayTopic(t, kmsg.ACLOperationDescribeConfigs, rt.Topic) {
			rt.Configs, rt.NumPartitions, rt.ReplicationFactor = []kmsg.CreateTopicsResponseTopicConfig{}, -1, -1
			rt.ConfigErrorCode = s.refusedTopic(refusal.TopicNotAuthorized, kmsg.ACLOperationDescribeConfigs, rt.Topic)
		}
	}
	answer.Topics = append(resp.Topics, answer.Topics...)
	return answer, nil
}

// adminLimit is how long a broker may take over an admin request.
func adminLimit(timeoutMillis int32) time.Duration {
	return time.Duration(max(timeoutMillis, 0))*time.Millisecond + grace
}

// awaitTopics refreshes metadata until the created topics are in it, so that the
// answer can carry their ids and the client's next request finds them.
func (s *Session) awaitTopics(ctx context.Context, created []kmsg.CreateTopicsResponseTopic) *view.Table {
	ctx, cancel := context.WithTimeout(ctx, 3*time.Second)
	defer cancel()
	for wait := 5 * time.Millisecond; ; wait = min(2*wait, 100*time.Millisecond) {
		s.vc.Home.MarkStale()
		t, err := s.vc.Fresh(ctx, 0)
		all := err == nil
		if all {
			for _, rt := range created {
				if rt.ErrorCode == 0 && t.Home.Topic(rt.Topic) == nil {
					all = false
				}
			}
		}
		if all || s.pause(ctx, wait) != nil {
			return s.vc.Table()
		}
	}
}

// mayAutoCreate reports whether asking for a topic may make it (auto.create.topics).
func (s *Session) mayAutoCreate(t *view.Table, name string) bool {
	rt := kmsg.NewCreateTopicsRequestTopic()
	rt.Topic, rt.NumPartitions, rt.ReplicationFactor = name, -1, -1
	return t.View.Spec.AutoCreateTopics && s.checkCreate(t, &rt, roomOf(t)) == nil
}

// autoCreate creates a topic as a broker does for a Metadata request that allows
// it, through the same policy as CreateTopics; the client asks again.
func (s *Session) autoCreate(ctx context.Context, name string) int16 {
	t, done, err := s.creating(ctx)
	defer done()
	if err != nil {
		return s.refused(refusal.LeaderUnavailable.With(err), "topic", name)
	}
	req := kmsg.NewPtrCreateTopicsRequest()
	req.Version = 4
	req.TimeoutMillis = 5000
	rt := kmsg.NewCreateTopicsRequestTopic()
	rt.Topic, rt.NumPartitions, rt.ReplicationFactor = name, -1, -1
	req.Topics = append(req.Topics, rt)
	counts, err := s.countPartitions(ctx, t, req)
	if err != nil {
		return s.refused(refusal.LeaderUnavailable.With(err), "topic", name)
	}
	made := &req.Topics[0]
	if n := counts[name]; n > 0 {
		made.NumPartitions = int32(n)
	}
	if why := s.checkCreate(t, made, roomOf(t)); why != nil {
		return s.refused(why, "topic", name)
	}
	made.Topic = t.View.Prefix + name
	up, err := s.admin(ctx, adminLimit(req.TimeoutMillis), req)
	if err != nil {
		return s.refused(refusal.LeaderUnavailable.With(err), "topic", name)
	}
	answer := up.(*kmsg.CreateTopicsResponse)
	s.awaitTopics(ctx, answer.Topics)
	for _, rt := range answer.Topics {
		if rt.ErrorCode != 0 && rt.ErrorCode != kerr.TopicAlreadyExists.Code {
			return rt.ErrorCode
		}
	}
	return kerr.LeaderNotAvailable.Code // it is being created: the client asks again
}
