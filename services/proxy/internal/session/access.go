package session

import (
	"github.com/twmb/franz-go/pkg/kmsg"

	"tollgate.internal/services/proxy/internal/meter"
	"tollgate.internal/services/proxy/internal/policy"
	"tollgate.internal/services/proxy/internal/refusal"
	"tollgate.internal/services/proxy/internal/view"
)

// accessCache remembers, for one table, what the session may do with each topic,
// so that a forwarded frame costs a map look-up. A new view or new metadata is a
// new table and empties it.
type accessCache struct {
	table  *view.Table
	topics map[*view.Topic]*topicAccess
}

type topicAccess struct {
	topic       *view.Topic
	read, write bool
	policy      *policy.Produce // what records go through; nil: nothing

	produced, fetched *meter.Counter // nil before the first use
}

func (s *Session) topicAccess(t *view.Table, topic *view.Topic) *topicAccess {
	if s.access.table != t {
		s.access.table = t
		s.access.topics = make(map[*view.Topic]*topicAccess)
	}
	a := s.access.topics[topic]
	if a == nil {
		a = &topicAccess{
			topic: topic,
			read:  s.may(t, kmsg.ACLOperationRead, kmsg.ACLResourceTypeTopic, topic.Name),
			write: topic.Writable && s.may(t, kmsg.ACLOperationWrite, kmsg.ACLResourceTypeTopic, topic.Name),
		}
		a.policy = t.View.Policies.Produce(s.principal, topic.Name)
		s.access.topics[topic] = a
	}
	return a
}

// countProduced sees to it that a has its counter.
func (s *Session) countProduced(t *view.Table, a *topicAccess) {
	if a.produced == nil {
		a.produced = s.counter(t, a.topic, meter.Produced)
	}
}

// countFetched sees to it that a has its counter.
func (s *Session) countFetched(t *view.Table, a *topicAccess) {
	if a.fetched == nil {
		a.fetched = s.counter(t, a.topic, meter.Fetched)
	}
}

func (s *Session) counter(t *view.Table, topic *view.Topic, d meter.Direction) *meter.Counter {
	return s.node.Meter.Counter(meter.Key{
		VirtualCluster: s.vc.Name, Principal: s.principal, Topic: topic.Name, Cluster: topic.Member.Name, Direction: d,
	})
}

// clusterName is the one name of the cluster resource.
const clusterName = "kafka-cluster"

// may decides as StandardAuthorizer does, on virtual names (PROTOCOL.md §G).
func (s *Session) may(t *view.Table, op kmsg.ACLOperation, rt kmsg.ACLResourceType, name string) bool {
	return t.View.ACL.Allowed(s.principal, s.host, op, rt, name)
}

func (s *Session) mayTopic(t *view.Table, op kmsg.ACLOperation, name string) bool {
	return s.may(t, op, kmsg.ACLResourceTypeTopic, name)
}

func (s *Session) mayGroup(t *view.Table, op kmsg.ACLOperation, name string) bool {
	return s.may(t, op, kmsg.ACLResourceTypeGroup, name)
}

func (s *Session) mayTxn(t *view.Table, op kmsg.ACLOperation, name string) bool {
	return s.may(t, op, kmsg.ACLResourceTypeTransactionalId, name)
}

// maxString is the longest string of Kafka's protocol: what the prefix makes longer
// cannot be sent on.
const maxString = 1<<15 - 1

// refuseGroup is why the client may not do op with a group; nil: it may.
func (s *Session) refuseGroup(t *view.Table, op kmsg.ACLOperation, name string) error {
	switch {
	case !s.mayGroup(t, op, name):
		return refusal.GroupNotAuthorized.Errorf("operation %s", op)
	case len(t.View.Prefix)+len(name) > maxString:
		return refusal.GroupInvalid.Errorf("%d bytes", len(name))
	}
	return nil
}

// refuseMember is refuseGroup for members, whose group must have a name. Others may
// mean the group without one, as simple consumers of old do.
func (s *Session) refuseMember(t *view.Table, op kmsg.ACLOperation, name string) error {
	if why := s.refuseGroup(t, op, name); why != nil || name != "" {
		return why
	}
	return refusal.GroupInvalid.Errorf("it is empty")
}

// refuseTxn is why the client may not do op with a transactional id; nil: it may.
func (s *Session) refuseTxn(t *view.Table, op kmsg.ACLOperation, id string) error {
	switch {
	case !s.mayTxn(t, op, id):
		return refusal.TransactionalIDNotAuthorized.Errorf("operation %s", op)
	case id == "" || len(t.View.Prefix)+len(id) > maxString:
		return refusal.Invalid.Errorf("a transactional id of %d bytes", len(id))
	}
	return nil
}

func (s *Session) mayCluster(t *view.Table, op kmsg.ACLOperation) bool {
	return s.may(t, op, kmsg.ACLResourceTypeCluster, clusterName)
}

// topic resolves a virtual name for op: the topic, or the code a broker answers.
func (s *Session) topic(t *view.Table, op kmsg.ACLOperation, name string) (*view.Topic, int16) {
	topic, why := s.lookUp(t, op, name)
	if why != nil {
		return nil, s.refusedTopic(why, op, name)
	}
	return topic, 0
}

// lookUp is topic for those who may yet do without it: nothing is logged. The
// refusal comes first: a name that may not be seen looks the same whether it
// exists or not.
func (s *Session) lookUp(t *view.Table, op kmsg.ACLOperation, name string) (*view.Topic, *refusal.Refusal) {
	if !s.mayTopic(t, op, name) {
		return nil, refusal.TopicNotAuthorized
	}
	topic := t.Topic(name)
	switch {
	case topic == nil && t.View.Ungranted(name):
		return nil, refusal.GrantMissing
	case topic == nil:
		return nil, refusal.TopicUnknown
	case topic.Alias && !topic.Writable && op == kmsg.ACLOperationWrite:
		return nil, refusal.GrantReadOnly
	}
	return topic, nil
}

func (s *Session) refusedTopic(why *refusal.Refusal, op kmsg.ACLOperation, name string) int16 {
	return s.refused(why, "topic", name, "operation", op.String())
}

// topicByID is topic for a virtual id; an unknown id has no name to judge.
func (s *Session) topicByID(t *view.Table, op kmsg.ACLOperation, id [16]byte) (*view.Topic, int16) {
	topic := t.TopicByID(id)
	if topic == nil {
		return nil, s.refused(refusal.TopicIDUnknown)
	}
	_, code := s.topic(t, op, topic.Name)
	return topic, code
}

// nameOrID resolves whichever the version of the request carries.
func (s *Session) nameOrID(t *view.Table, op kmsg.ACLOperation, byID bool, name string, id [16]byte) (*view.Topic, int16) {
	if byID {
		return s.topicByID(t, op, id)
	}
	return s.topic(t, op, name)
}

// operations is the bitmap of what the client may do with a resource; INT_MIN
// when it did not ask.
func (s *Session) operations(t *view.Table, asked bool, rt kmsg.ACLResourceType, name string) int32 {
	if !asked {
		return -2147483648
	}
	return t.View.ACL.AuthorizedOperations(s.principal, s.host, rt, name)
}
