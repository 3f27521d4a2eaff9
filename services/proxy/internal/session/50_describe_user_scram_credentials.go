package session

import (
	"context"
	"maps"
	"slices"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kmsg"

	"tollgate.internal/services/proxy/internal/refusal"
)

// DescribeUserScramCredentials (KIP-554): version 0. Mechanisms and iterations of
// the virtual cluster's accounts; there is no way to a secret or a verifier.
func describeUserSCRAMCredentials(s *Session, ctx context.Context, r kmsg.Request) (kmsg.Response, error) {
	req := r.(*kmsg.DescribeUserSCRAMCredentialsRequest)
	resp := req.ResponseKind().(*kmsg.DescribeUserSCRAMCredentialsResponse)
	t, err := s.table(ctx)
	if err != nil {
		return nil, err
	}
	if !s.mayCluster(t, kmsg.ACLOperationDescribe) {
		resp.ErrorCode, resp.ErrorMessage = s.refusedText(refusal.ClusterNotAuthorized)
		return resp, nil
	}
	resp.ErrorMessage = kmsg.StringPtr("")
	known := make(map[string][]kmsg.DescribeUserSCRAMCredentialsResponseResultCredentialInfo)
	for _, c := range t.View.Realm.SCRAMCredentials() {
		info := kmsg.DescribeUserSCRAMCredentialsResponseResultCredentialInfo{Mechanism: scramMechanisms[c.Mechanism], Iterations: int32(c.Iterations)}
		known[c.User] = append(known[c.User], info)
	}
	asked := make(map[string]int)
	for _, u := range req.Users {
		asked[u.Name]++
	}
	if len(req.Users) == 0 {
		for user := range known {
			asked[user] = 1
		}
	}
	for _, user := range slices.Sorted(maps.Keys(asked)) {
		out := kmsg.NewDescribeUserSCRAMCredentialsResponseResult()
		out.User, out.CredentialInfos = user, known[user]
		switch {
		case asked[user] > 1:
			out.ErrorCode, out.CredentialInfos = kerr.DuplicateResource.Code, nil
			out.ErrorMessage = kmsg.StringPtr("Cannot describe SCRAM credentials for the same user twice in a single request: " + user)
		case len(known[user]) == 0:
			out.ErrorCode = kerr.ResourceNotFound.Code
			out.ErrorMessage = kmsg.StringPtr("Attempt to describe a user credential that does not exist: " + user)
		}
		resp.Results = append(resp.Results, out)
	}
	return resp, nil
}

// scramMechanisms are KIP-554's numbers.
var scramMechanisms = map[string]int8{"SCRAM-SHA-256": 1, "SCRAM-SHA-512": 2}
