package control

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"time"

	"tollgate.internal/pkg/resource"
	"tollgate.internal/services/portal/internal/store"
)

// lookAround looks at what a stored object means for others, and others for it:
// what validation leaves open. It adds to the problems of what was written.
func (w *write) lookAround(ctx context.Context, p *put, after *world) error {
	if p.result.Change == Unchanged {
		return nil
	}
	for _, topic := range w.reserved {
		if field := topic.within(p.result.Object); field != "" {
			p.written.Problem(field, "%s", topic.text())
		}
	}
	switch o := p.result.Object.(type) {
	case *resource.VirtualCluster:
		if before, ok := p.result.Before.(*resource.VirtualCluster); ok {
			return w.lookAroundCluster(ctx, p, before, o, after)
		}
	case *resource.TopicGrant:
		before, ok := p.result.Before.(*resource.TopicGrant)
		if !ok || before.Spec.Cluster == o.Spec.Cluster && before.Spec.Topic == o.Spec.Topic {
			return nil // it only ends at another time, or lends more or less: that is up to who lends
		}
		bare, err := w.uncovered(ctx, before)
		if err != nil {
			return err
		}
		if len(bare) > 0 {
			p.written.Problem("spec.topic", "would leave %s without a grant: delete them first, lend their topics by another grant, or set until to end this one",
				list(bare[:min(len(bare), named)], int64(len(bare))))
		}
	case *resource.ServiceAccount:
		if o.Spec.Type != resource.External {
			return nil
		}
		secrets, err := w.tx.Secrets(ctx, p.row.Key.Scope, p.row.Key.Name)
		if err != nil {
			return err
		}
		if len(secrets) > 0 {
			p.written.Problem("spec.type", "the account has %d secrets, which an external one cannot have: revoke them first", len(secrets))
		}
	}
	return nil
}

// coverAliases reports aliases that no grant covers, of those in the world and those
// that come along. One whose topic stays as it was is left alone: its grant may have
// ended since.
func (w *write) coverAliases(ctx context.Context, objects []*resource.Written, beside *world) error {
	coming := make(map[resource.Key]resource.Object, len(objects))
	for _, o := range objects {
		coming[resource.KeyOf(o.Object)] = o.Object
	}
	lent := make(map[string][]*resource.TopicGrant) // by tenant
	for _, o := range objects {
		a, ok := o.Object.(*resource.AliasTopic)
		if !ok || a.Spec.Cluster == "" || a.Spec.Topic == "" {
			continue
		}
		if before, ok := beside.Lookup(resource.KeyOf(a)).(*resource.AliasTopic); ok && before.Spec.Cluster == a.Spec.Cluster && before.Spec.Topic == a.Spec.Topic {
			continue
		}
		of := resource.Key{Kind: resource.KindVirtualCluster, Name: a.Metadata.VirtualCluster}
		vc, ok := coming[of].(*resource.VirtualCluster)
		if !ok {
			if vc, ok = beside.Lookup(of).(*resource.VirtualCluster); !ok {
				continue // which is reported
			}
		}
		tenant := vc.Metadata.Tenant
		if _, known := lent[tenant]; !known {
			grants, err := w.grants(ctx, tenant)
			if err != nil {
				return err
			}
			grants = slices.DeleteFunc(grants, func(g *resource.TopicGrant) bool { return coming[resource.KeyOf(g)] != nil })
			for _, c := range coming {
				if g, ok := c.(*resource.TopicGrant); ok && g.Metadata.Tenant == tenant {
					grants = append(grants, g)
				}
			}
			lent[tenant] = grants
		}
		if !w.covered(lent[tenant], a) {
			o.Problem("spec.topic", "%s", uncoveredText(lent[tenant], tenant, a))
		}
	}
	return nil
}

func uncoveredText(grants []*resource.TopicGrant, tenant string, a *resource.AliasTopic) string {
	for _, g := range grants { // one that has ended is the likely cause
		if g.Covers(a.Spec.Cluster, a.Spec.Topic, g.Spec.Until.Add(-1)) {
			return fmt.Sprintf("TopicGrant %s of %s lent %s of %s until %s: prolong it first",
				g.Metadata.Name, tenant, a.Spec.Topic, a.Spec.Cluster, g.Spec.Until.UTC().Format(time.RFC3339))
		}
	}
	return fmt.Sprintf("no TopicGrant of %s lends %s of %s: create one first", tenant, a.Spec.Topic, a.Spec.Cluster)
}

// lookAroundCluster is for a virtual cluster that is replaced.
func (w *write) lookAroundCluster(ctx context.Context, p *put, before, now *resource.VirtualCluster, after *world) error {
	if before.Metadata.Tenant != now.Metadata.Tenant {
		p.written.Problem("metadata.tenant", "the virtual cluster is tenant %s's and stays theirs: what is in it was lent to them; delete it and create another", before.Metadata.Tenant)
		return nil
	}
	b, n := &before.Spec, &now.Spec
	if b.Type == n.Type && b.Home == n.Home && slices.Equal(b.Clusters, n.Clusters) {
		return nil
	}
	rows, err := w.tx.Objects(ctx, store.Query{Kind: resource.KindAliasTopic, Scope: now.Metadata.Name})
	if err != nil {
		return err
	}
	var wrong []string
	for _, row := range rows {
		alias, err := read(row)
		if err != nil {
			return err
		}
		var problems resource.Problems
		again, err := written(alias, &problems)
		if err != nil {
			return err
		}
		resource.Validate(again, after, w.now)
		if after.trouble != nil {
			return after.trouble
		}
		if len(problems) > 0 {
			wrong = append(wrong, fmt.Sprintf("AliasTopic %s (%s)", row.Key.Name, problems[0].Message))
		}
	}
	if len(wrong) == 0 {
		return nil
	}
	text := strings.Join(wrong[:min(len(wrong), named)], ", ")
	if more := len(wrong) - named; more > 0 {
		text += fmt.Sprintf(" and %d more", more)
	}
	p.written.Problem("spec.clusters", "does not fit what is in the virtual cluster: %s: change or delete that first", text)
	return nil
}

// grants are those of a tenant, as they are now in the transaction.
func (w *write) grants(ctx context.Context, tenant string) ([]*resource.TopicGrant, error) {
	rows, err := w.tx.Objects(ctx, store.Query{Kind: resource.KindTopicGrant, Scope: tenant})
	if err != nil {
		return nil, err
	}
	grants := make([]*resource.TopicGrant, 0, len(rows))
	for _, row := range rows {
		o, err := read(row)
		if err != nil {
			return nil, err
		}
		if g, ok := o.(*resource.TopicGrant); ok {
			grants = append(grants, g)
		}
	}
	return grants, nil
}

func (w *write) covered(grants []*resource.TopicGrant, a *resource.AliasTopic) bool {
	return slices.ContainsFunc(grants, func(g *resource.TopicGrant) bool { return g.Covers(a.Spec.Cluster, a.Spec.Topic, w.now) })
}

// uncovered are the aliases that only a grant covered that is no longer there, or
// says something else by now. A grant that ended leaves nothing behind: it covered
// nothing any more.
func (w *write) uncovered(ctx context.Context, gone *resource.TopicGrant) ([]resource.Key, error) {
	if !gone.Spec.Until.IsZero() && !w.now.Before(gone.Spec.Until) {
		return nil, nil
	}
	grants, err := w.grants(ctx, gone.Metadata.Tenant)
	if err != nil {
		return nil, err
	}
	rows, err := w.tx.Objects(ctx, store.Query{Kind: resource.KindAliasTopic, Tenant: gone.Metadata.Tenant})
	if err != nil {
		return nil, err
	}
	var bare []resource.Key
	for _, row := range rows {
		o, err := read(row)
		if err != nil {
			return nil, err
		}
		a, ok := o.(*resource.AliasTopic)
		if ok && gone.Covers(a.Spec.Cluster, a.Spec.Topic, w.now) && !w.covered(grants, a) {
			bare = append(bare, row.Key)
		}
	}
	return bare, nil
}
