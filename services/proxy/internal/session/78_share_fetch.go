package session

import (
	"context"
	"errors"
	"slices"
	"time"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kmsg"

	"tollgate.internal/services/proxy/internal/refusal"
	"tollgate.internal/services/proxy/internal/view"
	"tollgate.internal/services/proxy/internal/wire"
)

// ShareFetch (KIP-932, PROTOCOL.md §B7): versions 1 to 2; topics by id. Epoch 0 opens
// the share session, -1 closes it; in between a request names only what changes,
// so the session remembers its topics: their rights are judged at each fetch, as a
// broker does. READ on the group, READ on each topic.
func shareFetch(s *Session, ctx context.Context, r kmsg.Request) (kmsg.Response, error) {
	req := r.(*kmsg.ShareFetchRequest)
	resp := req.ResponseKind().(*kmsg.ShareFetchResponse)
	refuse := func(why error, args ...any) (kmsg.Response, error) {
		resp.ErrorCode, resp.ErrorMessage = s.refusedText(why, args...)
		return resp, nil
	}
	if req.GroupID == nil || req.MemberID == nil {
		return refuse(refusal.ShareRequestInvalid)
	}
	t, err := s.shareTable(ctx, req.Topics)
	if err != nil {
		return nil, err
	}
	if why := s.refuseGroup(t, kmsg.ACLOperationRead, *req.GroupID); why != nil {
		return refuse(why, "group", *req.GroupID)
	}
	ss := &s.share
	key := shareKey(*req.GroupID, *req.MemberID)
	last := req.ShareSessionEpoch == -1
	if req.ShareSessionEpoch == 0 {
		ss.open(key)
	} else if ss.key != key {
		return refuse(refusal.ShareSessionUnknown, "group", *req.GroupID)
	}

	forward := *req
	forward.GroupID = kmsg.StringPtr(group(t, *req.GroupID))
	forward.MaxBytes = s.fetchAtOnce(min(req.MaxBytes, maxShareBytes))
	forward.MaxWaitMillis = min(req.MaxWaitMillis, int32(maxShareWait/time.Millisecond))
	forward.MinBytes = min(req.MinBytes, forward.MaxBytes)
	forward.Topics, forward.ForgottenTopicsData = nil, nil
	if !last {
		for _, rt := range req.ForgottenTopicsData {
			for _, p := range rt.Partitions {
				if physical, held := ss.remove(rt.TopicID, p); held {
					forward.ForgottenTopicsData = forgetShare(forward.ForgottenTopicsData, physical, p)
				}
			}
		}
		for _, rt := range req.Topics {
			for _, p := range rt.Partitions {
				if !ss.add(rt.TopicID, p.Partition) {
					ss.forget()
					return refuse(refusal.ShareRequestInvalid)
				}
			}
		}
	}
	var join, leave []*shareTopic
	fetches := !last && !req.IsRenewAck // else it only acknowledges, and may bring nothing else
	if fetches {
		join, leave = ss.judge(s, t)
	}
	for _, st := range leave {
		for p := range st.partitions {
			forward.ForgottenTopicsData = forgetShare(forward.ForgottenTopicsData, st.physical, p)
		}
	}
	refused := make(map[[16]byte]*kmsg.ShareFetchResponseTopic)
	for _, rt := range req.Topics {
		topic, code := s.topicByID(t, kmsg.ACLOperationRead, rt.TopicID)
		if code == 0 {
			ft := rt
			ft.TopicID = topic.Physical.ID
			forward.Topics = append(forward.Topics, ft)
			continue
		}
		for _, p := range rt.Partitions {
			rp := refusedShare(refused, rt.TopicID, p.Partition)
			if len(p.AcknowledgementBatches) > 0 {
				rp.AcknowledgeErrorCode, rp.AcknowledgeErrorMessage = code, stockText(code)
			}
		}
	}
	for _, st := range join {
		forward.Topics = joinShare(forward.Topics, st)
	}
	if ss.refused > 0 && fetches {
		for id, st := range ss.topics {
			for p := range st.partitions {
				if st.code != 0 {
					rp := refusedShare(refused, id, p)
					rp.ErrorCode, rp.ErrorMessage = st.code, stockText(st.code)
				}
			}
		}
	}

	select {
	case <-s.quit:
		forward.MaxWaitMillis = 0 // what there is, and what is acknowledged
	default:
	}
	waiting, stop := ctx, func() {}
	if fetches && forward.MaxWaitMillis > 0 && !acknowledges(forward.Topics) {
		waiting, stop = s.untilLeaving(ctx)
	}
	up, err := s.shareRequest(waiting, t, time.Duration(max(forward.MaxWaitMillis, 0))*time.Millisecond+grace, &forward)
	stop()
	if err != nil && errors.Is(context.Cause(waiting), errParked) {
		up, err = ss.empty(req.ShareSessionEpoch), nil
	}
	if err != nil {
		return nil, err
	}
	answer := up.(*kmsg.ShareFetchResponse)
	answer.ErrorMessage = ownText(answer.ErrorCode, answer.ErrorMessage)
	if err := s.mapShareFetch(t, answer); err != nil {
		return nil, err
	}
	for _, rt := range refused {
		answer.Topics = append(answer.Topics, *rt)
	}
	if last || shareSessionLost(answer.ErrorCode) {
		ss.forget()
	}
	return answer, nil
}

// acknowledges reports whether a request says what became of records. It is answered by
// the broker alone, however long that takes: a client that is told of no mistake takes
// its acknowledgements for kept.
func acknowledges(topics []kmsg.ShareFetchRequestTopic) bool {
	for _, rt := range topics {
		for _, p := range rt.Partitions {
			if len(p.AcknowledgementBatches) > 0 {
				return true
			}
		}
	}
	return false
}

// empty is the answer without records to a session that drains (as for Fetch,
// answerParked): what the broker acquires for it all the same is released with its
// connection, which has ended. The first answer of a share session has every partition,
// and another those with news.
func (ss *shareSession) empty(epoch int32) *kmsg.ShareFetchResponse {
	resp := kmsg.NewPtrShareFetchResponse()
	if epoch != 0 {
		return resp
	}
	all := make(map[[16]byte]*kmsg.ShareFetchResponseTopic)
	for _, st := range ss.topics {
		if st.held {
			for p := range st.partitions {
				refusedShare(all, st.physical, p)
			}
		}
	}
	for _, rt := range all {
		resp.Topics = append(resp.Topics, *rt)
	}
	return resp
}

// shareSessionLost reports whether an answer means that the broker has the session
// no more. One with a wrong epoch goes on.
func shareSessionLost(code int16) bool {
	return code != 0 && code != kerr.InvalidShareSessionEpoch.Code
}

// mapShareFetch turns ids, nodes and texts of the broker into the client's, and
// counts what the client is sent.
func (s *Session) mapShareFetch(t *view.Table, answer *kmsg.ShareFetchResponse) error {
	for i := range answer.Topics {
		rt := &answer.Topics[i]
		id, topic, ok := s.share.virtualID(t, rt.TopicID)
		if !ok {
			return errForeign
		}
		rt.TopicID = id
		var bytes, records int64
		for j := range rt.Partitions {
			p := &rt.Partitions[j]
			p.ErrorMessage = ownText(p.ErrorCode, p.ErrorMessage)
			p.AcknowledgeErrorMessage = ownText(p.AcknowledgeErrorCode, p.AcknowledgeErrorMessage)
			p.CurrentLeader.LeaderID = t.Home.VirtualNode(p.CurrentLeader.LeaderID)
			s.noteError(p.ErrorCode)
			bytes += int64(len(p.Records))
			records += wire.Batches(p.Records)
		}
		if topic != nil && bytes > 0 {
			s.chargeFetched(bytes)
			access := s.topicAccess(t, topic)
			s.countFetched(t, access)
			access.fetched.Add(uint64(bytes), uint64(records))
			access.fetched.Request()
		}
	}
	for i := range answer.NodeEndpoints {
		n := &answer.NodeEndpoints[i]
		n.NodeID = t.Home.VirtualNode(n.NodeID)
		n.Host, n.Port = s.client.Advertise(n.NodeID)
	}
	return nil
}

// refusedShare is the partition among those that are answered here. A topic comes
// once: clients keep one answer for each id.
func refusedShare(refused map[[16]byte]*kmsg.ShareFetchResponseTopic, id [16]byte, partition int32) *kmsg.ShareFetchResponseTopicPartition {
	rt := refused[id]
	if rt == nil {
		rt = &kmsg.ShareFetchResponseTopic{TopicID: id}
		refused[id] = rt
	}
	i := slices.IndexFunc(rt.Partitions, func(p kmsg.ShareFetchResponseTopicPartition) bool { return p.Partition == partition })
	if i < 0 {
		rp := kmsg.NewShareFetchResponseTopicPartition()
		rp.Partition = partition
		rp.CurrentLeader.LeaderID, rp.CurrentLeader.LeaderEpoch = -1, -1
		i = len(rt.Partitions)
		rt.Partitions = append(rt.Partitions, rp)
	}
	return &rt.Partitions[i]
}

func forgetShare(topics []kmsg.ShareFetchRequestForgottenTopicsData, id [16]byte, partition int32) []kmsg.ShareFetchRequestForgottenTopicsData {
	i := slices.IndexFunc(topics, func(rt kmsg.ShareFetchRequestForgottenTopicsData) bool { return rt.TopicID == id })
	if i < 0 {
		i = len(topics)
		topics = append(topics, kmsg.ShareFetchRequestForgottenTopicsData{TopicID: id})
	}
	topics[i].Partitions = append(topics[i].Partitions, partition)
	return topics
}

// joinShare adds what the request does not name itself.
func joinShare(topics []kmsg.ShareFetchRequestTopic, st *shareTopic) []kmsg.ShareFetchRequestTopic {
	i := slices.IndexFunc(topics, func(rt kmsg.ShareFetchRequestTopic) bool { return rt.TopicID == st.physical })
	if i < 0 {
		i = len(topics)
		topics = append(topics, kmsg.ShareFetchRequestTopic{TopicID: st.physical})
	}
	rt := &topics[i]
	for p := range st.partitions {
		if !slices.ContainsFunc(rt.Partitions, func(rp kmsg.ShareFetchRequestTopicPartition) bool { return rp.Partition == p }) {
			fp := kmsg.NewShareFetchRequestTopicPartition()
			fp.Partition = p
			rt.Partitions = append(rt.Partitions, fp)
		}
	}
	return topics
}
