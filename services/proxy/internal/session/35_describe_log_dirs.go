package session

import (
	"context"
	"fmt"
	"slices"
	"strings"

	"github.com/twmb/franz-go/pkg/kmsg"

	"tollgate.internal/services/proxy/internal/refusal"
	"tollgate.internal/services/proxy/internal/upstream"
)

// DescribeLogDirs: versions 1 to 4. DESCRIBE on the cluster, as on a broker. A
// tenant learns what its own topics take up on the broker it asks, which is what
// kafka-log-dirs is for; where the broker keeps them and how full its disks are is
// the provider's, and so are the topics behind aliases.
func describeLogDirs(s *Session, ctx context.Context, r kmsg.Request) (kmsg.Response, error) {
	req := r.(*kmsg.DescribeLogDirsRequest)
	resp := req.ResponseKind().(*kmsg.DescribeLogDirsResponse)
	t, err := s.table(ctx)
	if err != nil {
		return nil, err
	}
	if !s.mayCluster(t, kmsg.ACLOperationDescribe) {
		// Before version 3 there is no place for the code: clients take an answer
		// without directories for it.
		resp.ErrorCode = s.refused(refusal.ClusterNotAuthorized)
		return resp, nil
	}
	m, _ := s.dialled(t)
	forward := *req
	forward.Topics = []kmsg.DescribeLogDirsRequestTopic{} // null would be everybody's
	if req.Topics == nil {
		for _, topic := range t.Topics {
			if !topic.Alias && topic.Member == m {
				rt := kmsg.DescribeLogDirsRequestTopic{Topic: topic.Physical.Name}
				for p := range topic.Physical.Partitions {
					rt.Partitions = append(rt.Partitions, int32(p))
				}
				forward.Topics = append(forward.Topics, rt)
			}
		}
	}
	for _, rt := range req.Topics {
		// A broker leaves out what it does not have.
		if topic := t.Topic(rt.Topic); topic != nil && !topic.Alias && topic.Member == m {
			rt.Topic = topic.Physical.Name
			forward.Topics = append(forward.Topics, rt)
		}
	}
	up, err := s.request(ctx, t, upstream.Control, 0, &forward)
	if err != nil {
		return nil, err // the client asked this broker and no other
	}
	answer := up.(*kmsg.DescribeLogDirsResponse)
	slices.SortFunc(answer.Dirs, func(a, b kmsg.DescribeLogDirsResponseDir) int { return strings.Compare(a.Dir, b.Dir) })
	for i := range answer.Dirs {
		d := &answer.Dirs[i]
		d.Dir, d.TotalBytes, d.UsableBytes = fmt.Sprintf("dir-%d", i), -1, -1
		for j := range d.Topics {
			topic := m.Topic(d.Topics[j].Topic)
			if topic == nil {
				return nil, errForeign
			}
			d.Topics[j].Topic = topic.Name
		}
	}
	return answer, nil
}
