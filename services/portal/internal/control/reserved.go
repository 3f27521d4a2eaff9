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

// Topic is a physical topic.
type Topic struct {
	Cluster string // name of the UpstreamCluster
	Name    string
	For     string // what it is kept for: "the audit log"
}

// Reserve keeps a topic out of every tenant's reach from now on: no grant and no alias
// may cover it, and no standard virtual cluster may have it among its own. What reaches
// it already stays as it is, for somebody to take away: the Guard tells. Reserve comes
// before all changes.
func (c *Control) Reserve(topic Topic) *Guard {
	c.reserved = append(c.reserved, topic)
	return &Guard{control: c, topic: topic}
}

// Guard knows whether a tenant reaches a reserved topic, whoever let it: changes come
// from portals that do not reserve it, too. It is for one goroutine.
type Guard struct {
	control *Control
	topic   Topic

	at       int64                 // the revision as of which it knows; 0: of none
	reaching map[resource.Key]bool // grants
}

// Reached says that something puts a reserved topic within a tenant's reach.
type Reached struct {
	Topic Topic
	By    resource.Key
	More  int   // how many others do
	At    int64 // the revision at which it was so
}

func (e *Reached) Error() string {
	by, what := e.By.String()+" puts", "that"
	if e.More > 0 {
		by, what = fmt.Sprintf("%s and %d more put", e.By, e.More), "them"
	}
	return fmt.Sprintf("topic %s of UpstreamCluster %s is kept for %s, and %s it within a tenant's reach: delete %s (of a TopicGrant, its AliasTopics first), or choose another topic",
		e.Topic.Name, e.Topic.Cluster, e.Topic.For, by, what)
}

// Check is a [Reached] while a tenant has a way to the topic. The first one reads every
// grant, and the others what was changed since.
func (g *Guard) Check(ctx context.Context) error {
	var reached []resource.Key
	err := g.control.store.Read(ctx, func(tx *store.Tx) error {
		reached = nil
		for _, key := range g.topic.clusters() {
			if row, ok, err := tx.Object(ctx, key); err != nil {
				return err
			} else if ok {
				o, err := read(row)
				if err != nil {
					return err
				}
				if g.topic.within(o) != "" {
					reached = append(reached, key)
				}
			}
		}
		grants, err := g.grants(ctx, tx)
		if err != nil {
			return err
		}
		g.at, g.reaching = tx.Revision, grants
		for key := range grants {
			reached = append(reached, key)
		}
		return nil
	})
	if err != nil || len(reached) == 0 {
		return err
	}
	return &Reached{Topic: g.topic, By: slices.MinFunc(reached, resource.Key.Compare), More: len(reached) - 1, At: g.at}
}

// grants are those that cover the topic.
func (g *Guard) grants(ctx context.Context, tx *store.Tx) (map[resource.Key]bool, error) {
	reaching := make(map[resource.Key]bool)
	look := func(rows ...store.Row) error {
		for _, row := range rows {
			o, err := read(row)
			if err != nil {
				return err
			}
			if g.topic.within(o) != "" {
				reaching[row.Key] = true
			}
		}
		return nil
	}
	if g.at == 0 || tx.Revision < g.at {
		for q := (store.Query{Kind: resource.KindTopicGrant, Limit: MaxLimit}); ; {
			rows, err := tx.Objects(ctx, q)
			if err == nil {
				err = look(rows...)
			}
			if err != nil || len(rows) < q.Limit {
				return reaching, err
			}
			last := rows[len(rows)-1].Key
			q.AfterScope, q.AfterName = last.Scope, last.Name
		}
	}
	again := make(map[resource.Key]bool)
	for key := range g.reaching {
		again[key] = true
	}
	for q := (store.EntryQuery{Key: resource.Key{Kind: resource.KindTopicGrant}, Since: g.at + 1, Limit: MaxLimit}); ; {
		entries, err := tx.Entries(ctx, q)
		if err != nil {
			return nil, err
		}
		for _, e := range entries {
			again[e.Key] = true
			q.Revision, q.Seq = e.Revision, e.Seq
		}
		if len(entries) < q.Limit {
			break
		}
	}
	for key := range again {
		row, ok, err := tx.Object(ctx, key)
		if err == nil && ok {
			err = look(row)
		}
		if err != nil {
			return nil, err
		}
	}
	return reaching, nil
}

// clusters are the virtual clusters that would have the topic among their own, if they
// were of that kind.
func (t *Topic) clusters() (keys []resource.Key) {
	for i := range len(t.Name) {
		if t.Name[i] == '.' {
			keys = append(keys, resource.Key{Kind: resource.KindVirtualCluster, Name: t.Name[:i]})
		}
	}
	return keys
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
	case *resource.AliasTopic:
		if o.Spec.Cluster == t.Cluster && o.Spec.Topic == t.Name {
			return "spec.topic"
		}
	}
	return ""
}

func (t *Topic) text() string {
	return fmt.Sprintf("would put topic %s of %s, which is kept for %s, within a tenant's reach: choose another name", t.Name, t.Cluster, t.For)
}
