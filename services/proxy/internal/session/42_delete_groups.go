package session

import (
	"context"

	"github.com/twmb/franz-go/pkg/kmsg"
)

// DeleteGroups: versions 0 to 2.
func deleteGroups(s *Session, ctx context.Context, r kmsg.Request) (kmsg.Response, error) {
	req := r.(*kmsg.DeleteGroupsRequest)
	return askCoordinator(s, ctx, req, &req.Groups,
		func(r *kmsg.DeleteGroupsResponse) *[]kmsg.DeleteGroupsResponseGroup { return &r.Groups },
		byGroup[string, kmsg.DeleteGroupsResponseGroup]{
			op: kmsg.ACLOperationDelete, asked: itself,
			answered: func(a *kmsg.DeleteGroupsResponseGroup) *string { return &a.Group },
			refused: func(name string, code int16) kmsg.DeleteGroupsResponseGroup {
				g := kmsg.NewDeleteGroupsResponseGroup()
				g.Group, g.ErrorCode = name, code
				return g
			},
		})
}
