package control

import (
	"context"

	"tollgate.internal/pkg/resource"
)

// ClosesSession writes into the log that somebody closes a session of a virtual cluster:
// before it is done, so that nothing is done that is not written there. Detail tells
// which one it is.
func (c *Control) ClosesSession(ctx context.Context, actor Actor, virtualCluster, detail string) error {
	if !storable(virtualCluster) {
		return &NotFound{What: "virtual cluster of that name"}
	}
	key := resource.Key{Kind: resource.KindVirtualCluster, Name: virtualCluster}
	return c.write(ctx, actor, false, func(w *write) error {
		row, ok, err := w.tx.Object(ctx, key)
		if err != nil {
			return err
		}
		if !ok {
			return &NotFound{What: key.String()}
		}
		return w.audit(ctx, string(ActionCloseSession), key, row.Tenant, shown(detail), "", "")
	})
}
