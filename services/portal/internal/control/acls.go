package control

import (
	"context"
	"crypto/sha256"
	"encoding/base32"
	"errors"
	"fmt"
	"slices"
	"strings"

	"tollgate.internal/pkg/acl"
	"tollgate.internal/pkg/resource"
	"tollgate.internal/services/portal/internal/store"
)

// ACLChange is what a Kafka client asks for: CreateAcls or DeleteAcls.
type ACLChange struct {
	VirtualCluster string
	Create         []acl.Binding
	Delete         []acl.Filter
}

// ACLResult is what became of it, in the order of what was asked.
type ACLResult struct {
	Created  []error         // of each binding: nil, or why a broker would refuse it
	Deleted  [][]acl.Binding // of each filter: what it selected
	Revision int64           // in effect everywhere once this is; 0: nothing changed
}

// ApplyACLs changes the ACLs of a virtual cluster as a broker does: a binding that
// exists is created again without an error, one that is not valid does not keep the
// others away, and a filter answers with everything it selects, whoever created it
// and by whatever name. Bindings created here are named after what they say.
func (c *Control) ApplyACLs(ctx context.Context, actor Actor, change ACLChange, options Options) (ACLResult, error) {
	var result ACLResult
	if key := (resource.Key{Kind: resource.KindVirtualCluster, Name: change.VirtualCluster}); !storableKey(key) {
		return result, &NotFound{Key: key}
	}
	err := c.write(ctx, actor, options.DryRun, func(w *write) (err error) {
		result = ACLResult{}
		key := resource.Key{Kind: resource.KindVirtualCluster, Name: change.VirtualCluster}
		row, ok, err := w.tx.Object(ctx, key)
		if err != nil {
			return err
		}
		if !ok || options.Tenant != "" && row.Tenant != options.Tenant {
			return &NotFound{Key: key}
		}
		w.actor.Tenant = row.Tenant // whoever logged in there is theirs
		there, err := w.bindings(ctx, change.VirtualCluster)
		if err != nil {
			return err
		}
		if result.Created, there, err = w.createBindings(ctx, change, there); err != nil {
			return err
		}
		if result.Deleted, err = w.deleteBindings(ctx, change, there); err != nil {
			return err
		}
		if w.some {
			result.Revision = w.tx.Revision
		}
		return nil
	})
	if err != nil {
		return ACLResult{}, err
	}
	return result, nil
}

// held is a binding and the object that says it.
type held struct {
	key     resource.Key
	binding acl.Binding
}

func (w *write) bindings(ctx context.Context, virtualCluster string) ([]held, error) {
	rows, err := w.tx.Objects(ctx, store.Query{Kind: resource.KindACL, Scope: virtualCluster})
	if err != nil {
		return nil, err
	}
	all := make([]held, 0, len(rows))
	for _, row := range rows {
		o, err := read(row)
		if err != nil {
			return nil, err
		}
		b, err := acl.BindingOf(o.(*resource.ACL))
		if err != nil {
			return nil, fmt.Errorf("read %s: %w", row.Key, err)
		}
		all = append(all, held{row.Key, b})
	}
	return all, nil
}

func (w *write) createBindings(ctx context.Context, change ACLChange, there []held) ([]error, []held, error) {
	refusals := make([]error, len(change.Create))
	names := make(map[string]bool, len(there))
	for _, h := range there {
		names[h.key.Name] = true
	}
	for i := range change.Create {
		b := change.Create[i]
		b.Host = acl.CanonicalHost(b.Host)
		if slices.ContainsFunc(there, func(h held) bool { return h.binding == b }) {
			continue
		}
		if !storable(b.Principal, b.Host, b.ResourceName) {
			refusals[i] = invalid("", "principal, host and resource name must be UTF-8 without NUL")
			continue
		}
		o, err := acl.ResourceOf(b, change.VirtualCluster)
		if err != nil {
			refusals[i] = invalid("", "%v", err)
			continue
		}
		o.Metadata.Name = bindingName(b)
		for n := 2; names[o.Metadata.Name]; n++ { // somebody gave that name to another binding
			o.Metadata.Name = fmt.Sprintf("%s-%d", bindingName(b), n)
		}
		var problems resource.Problems
		objects, err := written(o, &problems)
		if err != nil {
			return nil, nil, err
		}
		if _, err := w.put(ctx, objects, Options{}); err != nil {
			if why, ok := errors.AsType[*Invalid](err); ok {
				refusals[i] = why
				continue
			}
			return nil, nil, err
		}
		key := resource.KeyOf(o)
		names[key.Name] = true
		there = append(there, held{key, b})
	}
	return refusals, there, nil
}

func (w *write) deleteBindings(ctx context.Context, change ACLChange, there []held) ([][]acl.Binding, error) {
	deleted := make([][]acl.Binding, len(change.Delete))
	gone := make(map[resource.Key]bool)
	for i := range change.Delete {
		for _, h := range there { // also what an earlier filter selected, as brokers answer
			if !change.Delete[i].Matches(&h.binding) {
				continue
			}
			if !slices.Contains(deleted[i], h.binding) { // two objects may say the same
				deleted[i] = append(deleted[i], h.binding)
			}
			if gone[h.key] {
				continue
			}
			gone[h.key] = true
			if _, err := w.remove(ctx, h.key, Options{}); err != nil {
				return nil, err
			}
		}
	}
	return deleted, nil
}

// bindingName is the same for the same binding, so that it cannot be there twice.
func bindingName(b acl.Binding) string {
	sum := sha256.Sum256(fmt.Appendf(nil, "%d\x00%s\x00%d\x00%s\x00%s\x00%d\x00%d",
		b.ResourceType, b.ResourceName, b.Pattern, b.Principal, b.Host, b.Operation, b.Permission))
	return "kafka-" + strings.ToLower(base32.HexEncoding.WithPadding(base32.NoPadding).EncodeToString(sum[:20]))
}
