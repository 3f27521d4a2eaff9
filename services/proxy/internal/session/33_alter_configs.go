package session

import (
	"context"

	"github.com/twmb/franz-go/pkg/kmsg"
)

// AlterConfigs: versions 0 to 2.
func alterConfigs(s *Session, ctx context.Context, r kmsg.Request) (kmsg.Response, error) {
	req := r.(*kmsg.AlterConfigsRequest)
	return askOwner(s, ctx, req, &req.Resources,
		func(r *kmsg.AlterConfigsResponse) *[]kmsg.AlterConfigsResponseResource { return &r.Resources },
		byResource[kmsg.AlterConfigsRequestResource, kmsg.AlterConfigsResponseResource]{
			asked: func(q *kmsg.AlterConfigsRequestResource) configResource {
				return configResource{kind: q.ResourceType, name: &q.ResourceName}
			},
			answered: func(a *kmsg.AlterConfigsResponseResource) configResource {
				return configResource{a.ResourceType, &a.ResourceName, &a.ErrorCode, &a.ErrorMessage}
			},
			refused: func(kind kmsg.ConfigResourceType, name string, code int16, text *string) kmsg.AlterConfigsResponseResource {
				out := kmsg.NewAlterConfigsResponseResource()
				out.ResourceType, out.ResourceName, out.ErrorCode, out.ErrorMessage = kind, name, code, text
				return out
			},
			changes: func(q kmsg.AlterConfigsRequestResource) (keys []string) {
				for _, c := range q.Configs {
					keys = append(keys, c.Name)
				}
				return keys
			},
		})
}
