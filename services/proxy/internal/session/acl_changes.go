package session

import (
	"context"
	"time"

	"github.com/twmb/franz-go/pkg/kmsg"

	"tollgate.internal/pkg/nodeapi"
	"tollgate.internal/services/proxy/internal/refusal"
	"tollgate.internal/services/proxy/internal/view"
)

// ACLs is where the ACLs of virtual clusters are kept. Changes are in force when it
// answers.
type ACLs interface {
	ChangeACLs(ctx context.Context, change *nodeapi.ACLChange) (*nodeapi.ACLChanged, error)
}

// aclPatience is how long a client waits for its change: less than it does by itself
// (Java's default.api.timeout.ms is 60 s, its request.timeout.ms 30 s).
const aclPatience = 20 * time.Second

// aclChange is why the client may not change ACLs.
func (s *Session) aclChange(t *view.Table) error {
	switch {
	case !s.mayCluster(t, kmsg.ACLOperationAlter):
		return refusal.ClusterNotAuthorized
	case !t.View.ACL.Enabled():
		return refusal.ACLsDisabled.Tell("No Authorizer is configured.")
	case s.node.ACLs == nil:
		return refusal.ACLsReadOnly.Tell("ACLs of this virtual cluster are managed in its resource files: change them there")
	}
	return nil
}

// changeACLs has a change made for the client, if it may.
func (s *Session) changeACLs(ctx context.Context, change *nodeapi.ACLChange) (*nodeapi.ACLChanged, error) {
	t, err := s.table(ctx)
	if err != nil {
		return nil, refusal.ACLsUnreachable.With(err)
	}
	if err := s.aclChange(t); err != nil {
		return nil, err
	}
	change.VirtualCluster, change.Principal, change.Address = s.vc.Name, s.Principal(), s.client.Remote.String()
	ctx, cancel := context.WithTimeout(ctx, aclPatience)
	defer cancel()
	done, err := s.node.ACLs.ChangeACLs(ctx, change)
	if err != nil {
		return nil, refusal.ACLsUnreachable.With(err)
	}
	if done.Behind {
		s.log.WarnContext(ctx, "a change of ACLs is stored, but not in force on every node yet", "revision", done.Revision)
	}
	return done, nil
}
