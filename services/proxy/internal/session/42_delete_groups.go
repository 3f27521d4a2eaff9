package session

import (
	"context"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kmsg"

	"tollgate.internal/services/proxy/internal/view"
)

// DeleteGroups: versions 0 to 2. Where other clusters than home keep offsets (see
// split.go), a group is deleted there too once home has deleted it, or says that it has
// none, as after its own part has expired. It is one group after the other then, each
// in its turn.
func deleteGroups(s *Session, ctx context.Context, r kmsg.Request) (kmsg.Response, error) {
	req := r.(*kmsg.DeleteGroupsRequest)
	t, err := s.table(ctx)
	if err != nil || !t.Split() {
		return deleteGroupsAtHome(s, ctx, req)
	}
	var all *kmsg.DeleteGroupsResponse
	for _, name := range req.Groups {
		one := *req
		one.Groups = []string{name}
		resp, err := s.deleteSplit(ctx, t, &one)
		if err != nil {
			return nil, err
		}
		if all == nil {
			all = resp
			continue
		}
		all.Groups = append(all.Groups, resp.Groups...)
	}
	if all == nil {
		all = req.ResponseKind().(*kmsg.DeleteGroupsResponse)
	}
	return all, nil
}

// deleteSplit deletes the one group of req, wherever it is.
func (s *Session) deleteSplit(ctx context.Context, t *view.Table, req *kmsg.DeleteGroupsRequest) (*kmsg.DeleteGroupsResponse, error) {
	name := req.Groups[0]
	end, busy := s.turn(ctx, group(t, name))
	defer end()
	if busy != nil {
		resp := req.ResponseKind().(*kmsg.DeleteGroupsResponse)
		g := kmsg.NewDeleteGroupsResponseGroup()
		g.Group, g.ErrorCode = name, s.refused(busy, "group", name)
		resp.Groups = append(resp.Groups, g)
		return resp, nil
	}
	up, err := deleteGroupsAtHome(s, ctx, req)
	if err != nil {
		return nil, err
	}
	resp := up.(*kmsg.DeleteGroupsResponse)
	for i := range resp.Groups {
		g := &resp.Groups[i]
		if g.ErrorCode != 0 && g.ErrorCode != kerr.GroupIDNotFound.Code {
			continue
		}
		had, err := s.forgetAway(ctx, t, group(t, name))
		switch {
		case err != nil:
			g.ErrorCode = s.refused(err, "group", name)
		case had:
			g.ErrorCode = 0
		}
	}
	return resp, nil
}

func deleteGroupsAtHome(s *Session, ctx context.Context, req *kmsg.DeleteGroupsRequest) (kmsg.Response, error) {
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
