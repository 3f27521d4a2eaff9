package control

import (
	"context"
	"maps"
	"slices"

	"tollgate.internal/pkg/resource"
)

// giveSlots writes down which slot each cluster of a virtual cluster has: clients keep
// node ids made of them for as long as they live, and so what was given to a cluster
// once is never another's, also when the cluster has left and others come.
func (w *write) giveSlots(ctx context.Context, o *resource.Written) error {
	vc, ok := o.Object.(*resource.VirtualCluster)
	if !ok || vc.Metadata.Name == "" {
		return nil
	}
	row, exists, err := w.tx.Object(ctx, resource.KeyOf(vc))
	if err != nil {
		return err
	}
	slots := make(map[string]int32)
	if exists {
		before, err := read(row)
		if err != nil {
			return err
		}
		maps.Copy(slots, before.(*resource.VirtualCluster).Spec.Slots)
	}
	for _, cluster := range slices.Sorted(maps.Keys(vc.Spec.Slots)) {
		want := vc.Spec.Slots[cluster]
		if had, given := slots[cluster]; given && had != want {
			o.Problem("spec.slots."+cluster, "cluster %s has slot %d, and clients may know its brokers by it: leave the field out", cluster, had)
			continue
		}
		slots[cluster] = want
	}
	vc.Spec.Slots = slots
	for _, cluster := range append([]string{vc.Spec.Home}, vc.Spec.Clusters...) {
		if _, given := slots[cluster]; given || cluster == "" {
			continue
		}
		slot := vc.Spec.Slot(cluster)
		for slices.Contains(slices.Collect(maps.Values(slots)), slot) {
			slot = (slot + 1) % (resource.MaxSlot + 1)
		}
		slots[cluster] = slot
	}
	return nil
}
