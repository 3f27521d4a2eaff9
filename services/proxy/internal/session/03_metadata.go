package session

import (
	"context"
	"errors"
	"slices"
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
	describe := kmsg.ACLOperationDescribe
	if all {
		for _, topic := range t.Topics {
			if s.mayTopic(t, describe, topic.Name) {
				resp.Topics = append(resp.Topics, s.metadataTopic(t, topic, req))
			}
		}
		return resp, nil
	}
	for _, rt := range once(req.Topics) {
		if byID(rt) {
			out := kmsg.NewMetadataResponseTopic()
			out.TopicID, out.AuthorizedOperations = rt.TopicID, -2147483648
			topic, code := s.topicByID(t, describe, rt.TopicID)
			if code != 0 {
				out.ErrorCode = code
				resp.Topics = append(resp.Topics, out)
				continue
			}
			resp.Topics = append(resp.Topics, s.metadataTopic(t, topic, req))
			continue
		}
		name := *rt.Topic
		out := kmsg.NewMetadataResponseTopic()
		out.Topic, out.AuthorizedOperations = rt.Topic, -2147483648
		topic, why := s.lookUp(t, describe, name)
		switch {
		case why == refusal.TopicUnknown && !legalTopic(name):
			out.ErrorCode = s.refused(refusal.TopicNameInvalid, "topic", name)
		case why == refusal.TopicUnknown && (req.AllowAutoTopicCreation || req.Version < 4) && s.mayAutoCreate(t, name):
			out.ErrorCode = s.autoCreate(ctx, t, name)
		case why != nil:
			out.ErrorCode = s.refusedTopic(why, describe, name)
		default:
			out = s.metadataTopic(t, topic, req)
		}
		resp.Topics = append(resp.Topics, out)
	}
	return resp, nil
}

// byID reports whether a topic is asked for by its id. The name beside it counts
// for nothing, as on a broker: the Java consumer sends an empty one.
func byID(rt kmsg.MetadataRequestTopic) bool {
	return rt.Topic == nil || rt.TopicID != [16]byte{}
}

// once leaves out what is asked for a second time: a broker answers it once.
func once(asked []kmsg.MetadataRequestTopic) []kmsg.MetadataRequestTopic {
	type identity struct {
		named bool
		name  string
		id    [16]byte
	}
	seen := make(map[identity]bool, len(asked))
	return slices.DeleteFunc(asked, func(rt kmsg.MetadataRequestTopic) bool {
		i := identity{id: rt.TopicID}
		if !byID(rt) {
			i = identity{named: true, name: *rt.Topic}
		}
		again := seen[i]
		seen[i] = true
		return again
	})
}

// missing reports whether the request asks for a topic that is not in t.
func (s *Session) missing(t *view.Table, req *kmsg.MetadataRequest) bool {
	for _, rt := range req.Topics {
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

func (s *Session) metadataTopic(t *view.Table, topic *view.Topic, req *kmsg.MetadataRequest) kmsg.MetadataResponseTopic {
	out := kmsg.NewMetadataResponseTopic()
	out.Topic, out.TopicID = kmsg.StringPtr(topic.Name), topic.ID
	out.ErrorCode = topic.Physical.ErrorCode
	out.AuthorizedOperations = s.operations(t, req.IncludeTopicAuthorizedOperations, kmsg.ACLResourceTypeTopic, topic.Name)
	m := topic.Member
	for i, p := range topic.Partitions {
		rp := kmsg.NewMetadataResponseTopicPartition()
		rp.Partition, rp.ErrorCode, rp.LeaderEpoch = int32(i), p.ErrorCode, p.LeaderEpoch
		rp.Leader = m.VirtualNode(p.Leader)
		rp.Replicas, rp.ISR = m.VirtualNodes(p.Replicas), m.VirtualNodes(p.ISR)
		rp.OfflineReplicas = m.VirtualNodes(p.Offline)
		out.Partitions = append(out.Partitions, rp)
	}
	return out
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
