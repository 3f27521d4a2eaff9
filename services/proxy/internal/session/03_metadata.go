package session

import (
	"context"
	"errors"
	"time"

	"github.com/twmb/franz-go/pkg/kmsg"

	"tollgate.internal/services/proxy/internal/refusal"
	"tollgate.internal/services/proxy/internal/view"
)

// Metadata (PROTOCOL.md §B2): versions 0 to 13; answered from the cache; ids in
// answers from 10, in requests from 12.

// metadataAge is how old the metadata may be that a client's Metadata request is
// answered from, while the cluster answers.
const metadataAge = time.Second

// errForeign is an answer that names what was not asked for. It must not reach
// the client.
var errForeign = errors.New("answer names something that was not asked for")

// table is the view of now; the error says that the cluster was never reached.
func (s *Session) table(ctx context.Context) (*view.Table, error) {
	if t := s.vc.Table(); t != nil {
		return t, nil
	}
	return s.vc.Fresh(ctx, time.Minute)
}

// lookAgainAge is how old the metadata may be by which a topic is refused as unknown
// to those who read and write. It is less than what clients wait before they try again,
// and bounds what one costs that never stops asking for what there is not.
const lookAgainAge = 200 * time.Millisecond

// having is t, or the view of now if t has not all topics of a request: one that was
// made a moment ago may have been shown to the client by another node.
func (s *Session) having(ctx context.Context, t *view.Table, all func(t *view.Table) bool) *view.Table {
	if all(t) {
		return t
	}
	if fresh, err := s.vc.Fresh(ctx, lookAgainAge); err == nil {
		return fresh
	}
	return t
}

// has reports whether there is a topic of this name or, if byID, of this id.
func has(t *view.Table, byID bool, name string, id [16]byte) bool {
	if byID {
		return t.TopicByID(id) != nil
	}
	return t.Topic(name) != nil
}

func metadata(s *Session, ctx context.Context, r kmsg.Request) (kmsg.Response, error) {
	req := r.(*kmsg.MetadataRequest)
	resp := req.ResponseKind().(*kmsg.MetadataResponse)
	t, err := s.vc.Fresh(ctx, metadataAge)
	if err != nil {
		return nil, err
	}
	all := req.Topics == nil || (req.Version == 0 && len(req.Topics) == 0)
	if !all && s.missing(t, req) {
		// A topic that is not there may have been made a moment ago.
		t.MarkStale()
		if t, err = s.vc.Fresh(ctx, metadataAge); err != nil {
			return nil, err
		}
	}
	for _, b := range t.Brokers {
		out := kmsg.NewMetadataResponseBroker()
		out.NodeID = b.Node
		out.Host, out.Port = s.client.Advertise(out.NodeID)
		out.Rack = b.Rack
		resp.Brokers = append(resp.Brokers, out)
	}
	resp.ClusterID = kmsg.StringPtr(t.View.ClusterID)
	resp.ControllerID = t.Controller()
	resp.AuthorizedOperations = s.operations(t, req.IncludeClusterAuthorizedOperations, kmsg.ACLResourceTypeCluster, clusterName)
	return s.metadataTopics(ctx, t, req, resp, all), nil
}

// metadataTopics adds the topics to an answer that has all the rest.
func (s *Session) metadataTopics(ctx context.Context, t *view.Table, req *kmsg.MetadataRequest, resp *kmsg.MetadataResponse, all bool) *metadataAnswer {
	describe := kmsg.ACLOperationDescribe
	m := &metadataAnswer{MetadataResponse: resp}
	var kept *encodedTopics
	if asked := len(req.Topics); !req.IncludeTopicAuthorizedOperations && (all || asked >= fewTopics && asked >= len(t.Topics)/fewTopics) {
		kept = s.node.encoded.of(s.vc.Name, t, req.Version)
	}
	add := func(topic *view.Topic) {
		if kept != nil {
			m.add(kept, topic.Index)
			return
		}
		out := metadataOf(topic)
		out.operations = s.operations(t, req.IncludeTopicAuthorizedOperations, kmsg.ACLResourceTypeTopic, topic.Name)
		m.encode(&out, req.Version)
	}
	if all {
		for _, topic := range t.Topics {
			if s.mayTopic(t, describe, topic.Name) {
				add(topic)
			}
		}
		return m
	}
	var asked alreadyAsked
	for i := range req.Topics {
		rt := &req.Topics[i]
		if len(req.Topics) > 1 && asked.seen(t, rt) {
			continue
		}
		none := topicMetadata{name: rt.Topic, id: rt.TopicID, operations: noOperations}
		if byID(rt) {
			topic, code := s.topicByID(t, describe, rt.TopicID)
			if code == 0 {
				add(topic)
				continue
			}
			none.name, none.code = nil, code
			m.encode(&none, req.Version)
			continue
		}
		name := *rt.Topic
		topic, why := s.lookUp(t, describe, name)
		switch {
		case why == refusal.TopicUnknown && !legalTopic(name):
			none.code = s.refused(refusal.TopicNameInvalid, "topic", name)
		case why == refusal.TopicUnknown && (req.AllowAutoTopicCreation || req.Version < 4) && s.mayAutoCreate(t, name):
			none.code = s.autoCreate(ctx, name)
		case why != nil:
			none.code = s.refusedTopic(why, describe, name)
		default:
			add(topic)
			continue
		}
		m.encode(&none, req.Version)
	}
	return m
}

// fewTopics are encoded one by one, as are those that are few among many.
const fewTopics = 16

// byID reports whether a topic is asked for by its id. The name beside it counts
// for nothing, as on a broker: the Java consumer sends an empty one.
func byID(rt *kmsg.MetadataRequestTopic) bool {
	return rt.Topic == nil || rt.TopicID != [16]byte{}
}

// alreadyAsked tells what a request asks for a second time: a broker answers it once.
// Topics that there are, which may be thousands, are told apart by their places.
type alreadyAsked struct {
	byName, byID []bool // by Topic.Index
	unknown      map[unknownTopic]bool
}

type unknownTopic struct {
	byID bool
	name string
	id   [16]byte
}

func (a *alreadyAsked) seen(t *view.Table, rt *kmsg.MetadataRequestTopic) bool {
	var topic *view.Topic
	places := &a.byName
	unknown := unknownTopic{byID: byID(rt)}
	if unknown.byID {
		topic, places, unknown.id = t.TopicByID(rt.TopicID), &a.byID, rt.TopicID
	} else {
		topic, unknown.name = t.Topic(*rt.Topic), *rt.Topic
	}
	if topic == nil {
		again := a.unknown[unknown]
		if a.unknown == nil {
			a.unknown = make(map[unknownTopic]bool)
		}
		a.unknown[unknown] = true
		return again
	}
	if *places == nil {
		*places = make([]bool, len(t.Topics))
	}
	again := (*places)[topic.Index]
	(*places)[topic.Index] = true
	return again
}

// missing reports whether the request asks for a topic that is not in t.
func (s *Session) missing(t *view.Table, req *kmsg.MetadataRequest) bool {
	for i := range req.Topics {
		rt := &req.Topics[i]
		switch {
		case byID(rt):
			if t.TopicByID(rt.TopicID) == nil {
				return true
			}
		case t.Topic(*rt.Topic) == nil:
			return true
		}
	}
	return false
}

// legalTopic is what Kafka's Topic.validate allows.
func legalTopic(name string) bool {
	if name == "" || name == "." || name == ".." || len(name) > 249 {
		return false
	}
	for i := range len(name) {
		switch b := name[i]; {
		case b >= 'a' && b <= 'z', b >= 'A' && b <= 'Z', b >= '0' && b <= '9', b == '.', b == '_', b == '-':
		default:
			return false
		}
	}
	return true
}
