package session

import (
	"context"
	"slices"
	"strings"

	"github.com/twmb/franz-go/pkg/kmsg"
)

// DescribeConfigs: versions 1 to 4.
func describeConfigs(s *Session, ctx context.Context, r kmsg.Request) (kmsg.Response, error) {
	req := r.(*kmsg.DescribeConfigsRequest)
	return askOwner(s, ctx, req, &req.Resources,
		func(r *kmsg.DescribeConfigsResponse) *[]kmsg.DescribeConfigsResponseResource { return &r.Resources },
		byResource[kmsg.DescribeConfigsRequestResource, kmsg.DescribeConfigsResponseResource]{
			asked: func(q *kmsg.DescribeConfigsRequestResource) configResource {
				return configResource{kind: q.ResourceType, name: &q.ResourceName}
			},
			answered: func(a *kmsg.DescribeConfigsResponseResource) configResource {
				return configResource{a.ResourceType, &a.ResourceName, &a.ErrorCode, &a.ErrorMessage}
			},
			refused: func(kind kmsg.ConfigResourceType, name string, code int16, text *string) kmsg.DescribeConfigsResponseResource {
				out := kmsg.NewDescribeConfigsResponseResource()
				out.ResourceType, out.ResourceName, out.ErrorCode, out.ErrorMessage = kind, name, code, text
				out.Configs = []kmsg.DescribeConfigsResponseResourceConfig{}
				return out
			},
			mapped: func(a *kmsg.DescribeConfigsResponseResource) {
				a.Configs = slices.DeleteFunc(a.Configs, func(c kmsg.DescribeConfigsResponseResourceConfig) bool {
					return strings.HasSuffix(c.Name, ".replication.throttled.replicas") // lists physical node ids
				})
			},
		})
}
