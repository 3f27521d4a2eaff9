package session

import (
	"context"
	"maps"
	"slices"

	"github.com/twmb/franz-go/pkg/kmsg"

	"tollgate.internal/services/proxy/internal/refusal"
)

// AlterUserScramCredentials (KIP-554): version 0; read-only while the resources come
// from files. What a client sends of a password is not looked at.
func alterUserSCRAMCredentials(s *Session, ctx context.Context, r kmsg.Request) (kmsg.Response, error) {
	req := r.(*kmsg.AlterUserSCRAMCredentialsRequest)
	resp := req.ResponseKind().(*kmsg.AlterUserSCRAMCredentialsResponse)
	t, err := s.table(ctx)
	if err != nil {
		return nil, err
	}
	var why error = refusal.CredentialsReadOnly.Tell("credentials of this virtual cluster are managed in its resource files: change them there")
	if !s.mayCluster(t, kmsg.ACLOperationAlter) {
		why = refusal.ClusterNotAuthorized
	}
	code, text := s.refusedText(why)
	users := make(map[string]bool)
	for _, d := range req.Deletions {
		users[d.Name] = true
	}
	for _, u := range req.Upsertions {
		users[u.Name] = true
	}
	for _, user := range slices.Sorted(maps.Keys(users)) {
		out := kmsg.NewAlterUserSCRAMCredentialsResponseResult()
		out.User, out.ErrorCode, out.ErrorMessage = user, code, text
		resp.Results = append(resp.Results, out)
	}
	return resp, nil
}
