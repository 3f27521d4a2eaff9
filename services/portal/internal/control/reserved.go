package control

import (
	"context"
	"fmt"
	"strings"
	"time"

	"tollgate.internal/pkg/resource"
)

// Topic is a physical topic.
type Topic struct {
	Cluster string // name of the UpstreamCluster
	Name    string
	For     string // what it is kept for: "the audit log"
}

// Reserve keeps a topic out of every tenant's reach from now on: no grant may cover it,
// and no standard virtual cluster may have it among its own. It is an error if something
// does already. Reserve comes before all changes.
func (c *Control) Reserve(ctx context.Context, topic Topic) error {
	for _, kind := range []string{resource.KindVirtualCluster, resource.KindTopicGrant} {
		for q := (Query{Kind: kind}); ; {
			page, err := c.List(ctx, q)
			if err != nil {
				return err
			}
			for _, item := range page.Items {
				if topic.within(item.Object) != "" {
					return fmt.Errorf("topic %s of UpstreamCluster %s is to be kept for %s, and %s reaches it: choose another topic, or take that away first",
						topic.Name, topic.Cluster, topic.For, resource.KeyOf(item.Object))
				}
			}
			if q.After = page.Next; q.After == "" {
				break
			}
		}
	}
	c.reserved = append(c.reserved, topic)
	return nil
}

// within is the field by which an object puts the topic within a tenant's reach;
// empty: it does not.
func (t *Topic) within(o resource.Object) string {
	switch o := o.(type) {
	case *resource.VirtualCluster:
		if o.Spec.Type == resource.Standard && o.Spec.Home == t.Cluster && strings.HasPrefix(t.Name, o.Metadata.Name+".") {
			return "metadata.name"
		}
	case *resource.TopicGrant:
		always := *o
		always.Spec.Until = time.Time{}
		if always.Covers(t.Cluster, t.Name, time.Time{}) {
			return "spec.topic"
		}
	}
	return ""
}

func (t *Topic) text() string {
	return fmt.Sprintf("would put topic %s of %s, which is kept for %s, within a tenant's reach: choose another name", t.Name, t.Cluster, t.For)
}
