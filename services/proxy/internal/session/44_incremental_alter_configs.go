package session

import (
	"context"

	"github.com/twmb/franz-go/pkg/kmsg"
)

// IncrementalAlterConfigs: versions 0 to 1.
func incrementalAlterConfigs(s *Session, ctx context.Context, r kmsg.Request) (kmsg.Response, error) {
	req := r.(*kmsg.IncrementalAlterConfigsRequest)
	return askOwner(s, ctx, req, &req.Resources,
		func(r *kmsg.IncrementalAlterConfigsResponse) *[]kmsg.IncrementalAlterConfigsResponseResource {
			return &r.Resources
		},
		byResource[kmsg.IncrementalAlterConfigsRequestResource, kmsg.IncrementalAlterConfigsResponseResource]{
			asked: func(q *kmsg.IncrementalAlterConfigsRequestResource) configResource {
				return configResource{kind: q.ResourceType, name: &q.ResourceName}
			},
			answered: func(a *kmsg.IncrementalAlterConfigsResponseResource) configResource {
				return configResource{a.ResourceType, &a.ResourceName, &a.ErrorCode, &a.ErrorMessage}
			},
			refused: func(kind kmsg.ConfigResourceType, name string, code int16, text *string) kmsg.IncrementalAlterConfigsResponseResource {
				out := kmsg.NewIncrementalAlterConfigsResponseResource()
				out.ResourceType, out.ResourceName, out.ErrorCode, out.ErrorMessage = kind, name, code, text
				return out
			},
			changes: func(q kmsg.IncrementalAlterConfigsRequestResource) (keys []string) {
				for _, c := range q.Configs {
					keys = append(keys, c.Name)
				}
				return keys
			},
		})
}
