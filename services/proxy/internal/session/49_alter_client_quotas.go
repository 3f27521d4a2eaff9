package session

import (
	"context"

	"github.com/twmb/franz-go/pkg/kmsg"

	"tollgate.internal/services/proxy/internal/refusal"
)

// AlterClientQuotas (KIP-546): versions 0 to 1; quotas are the provider's to set.
func alterClientQuotas(s *Session, ctx context.Context, r kmsg.Request) (kmsg.Response, error) {
	req := r.(*kmsg.AlterClientQuotasRequest)
	resp := req.ResponseKind().(*kmsg.AlterClientQuotasResponse)
	t, err := s.table(ctx)
	if err != nil {
		return nil, err
	}
	var why error = refusal.QuotasReadOnly.Tell("the quotas of this virtual cluster are managed in its resource: change them there")
	if !s.mayCluster(t, kmsg.ACLOperationAlterConfigs) {
		why = refusal.ClusterNotAuthorized
	}
	code, text := s.refusedText(why)
	for _, e := range req.Entries {
		out := kmsg.NewAlterClientQuotasResponseEntry()
		out.ErrorCode, out.ErrorMessage = code, text
		for _, entity := range e.Entity {
			out.Entity = append(out.Entity, kmsg.AlterClientQuotasResponseEntryEntity{Type: entity.Type, Name: entity.Name})
		}
		resp.Entries = append(resp.Entries, out)
	}
	return resp, nil
}
