package api

import (
	"context"
	"encoding/json"
	"errors"

	"tollgate.internal/pkg/resource"
	"tollgate.internal/services/portal/internal/control"
)

// view is the objects and the log as one caller sees them. Every revision that comes
// from the store passes here on its way out, and every one that a caller sends on its
// way in: in objects, conditions, places in the log and errors. Only the Revision of a
// [control.Result] stays the store's: the fleet is waited for by it.
type view struct {
	control *control.Control
	actor   control.Actor
	tenant  string // whose objects and log they are; "": everybody's
	revisions
}

func (a *API) viewOf(c *caller) view {
	return view{a.control, c.actor, c.tenant(), revisionsFor(c.tenant(), a.control.RevisionKey())}
}

// show puts into objects what the caller reads for their revisions.
func (v *view) show(objects ...resource.Object) {
	for _, o := range objects {
		if o != nil {
			o.Meta().Revision = int64(v.shown(o.Meta().Revision))
		}
	}
}

func (v *view) showAll(results []control.Result) []control.Result {
	for i := range results {
		if r := &results[i]; r.Before == r.Object { // it was deleted
			v.show(r.Object)
		} else {
			v.show(r.Object, r.Before)
		}
	}
	return results
}

// fail is an error as the caller reads it.
func (v *view) fail(err error) error {
	if e, ok := errors.AsType[*control.Conflict](err); ok {
		return &control.Conflict{Key: e.Key, Want: int64(v.shown(e.Want)), Have: int64(v.shown(e.Have))}
	}
	if e, ok := errors.AsType[*control.Exists](err); ok {
		return &control.Exists{Key: e.Key, Revision: int64(v.shown(e.Revision))}
	}
	return err
}

// condition puts the store's revisions into what the caller sent.
func (v *view) condition(options *control.Options, objects ...*resource.Written) {
	options.Tenant = v.tenant
	options.IfRevision = v.meant(Revision(options.IfRevision))
	for _, o := range objects {
		o.Object.Meta().Revision = v.meant(Revision(o.Object.Meta().Revision))
	}
}

// get reads an object, if it is there for the caller.
func (v *view) get(ctx context.Context, key resource.Key) (control.Stored, error) {
	s, err := v.control.GetOf(ctx, v.tenant, key)
	if err != nil {
		return control.Stored{}, v.fail(err)
	}
	v.show(s.Object)
	return s, nil
}

func (v *view) list(ctx context.Context, q control.Query) (control.Page, error) {
	page, err := v.control.List(ctx, q)
	for _, s := range page.Items {
		v.show(s.Object)
	}
	return page, v.fail(err)
}

func (v *view) put(ctx context.Context, o *resource.Written, options control.Options) (control.Result, error) {
	results, err := v.apply(ctx, []*resource.Written{o}, nil, options)
	if err != nil {
		return control.Result{}, err
	}
	return results[0], nil
}

// apply creates or replaces objects; with prune, it deletes others.
func (v *view) apply(ctx context.Context, objects []*resource.Written, prune *control.Prune, options control.Options) (results []control.Result, err error) {
	v.condition(&options, objects...)
	if prune == nil {
		results, err = v.control.Apply(ctx, v.actor, objects, options)
	} else {
		results, err = v.control.ApplyAndPrune(ctx, v.actor, objects, *prune, options)
	}
	return v.showAll(results), v.fail(err)
}

func (v *view) delete(ctx context.Context, key resource.Key, options control.Options) (control.Result, error) {
	v.condition(&options)
	result, err := v.control.Delete(ctx, v.actor, key, options)
	if err != nil {
		return control.Result{}, v.fail(err)
	}
	return v.showAll([]control.Result{result})[0], nil
}

// audit reads a page of the log.
func (v *view) audit(ctx context.Context, q control.AuditQuery) (entries []AuditEntry, next string, err error) {
	behind, err := control.ParsePosition(q.After)
	if err != nil {
		return nil, "", err
	}
	if q.For = v.tenant; q.After != "" {
		q.After = v.meantAt(Revision(behind.Revision), behind.Seq).String()
	}
	page, err := v.control.Audit(ctx, q)
	if err != nil {
		return nil, "", v.fail(err)
	}
	entries = make([]AuditEntry, len(page.Entries))
	for i := range page.Entries {
		if entries[i], err = v.entry(&page.Entries[i]); err != nil {
			return nil, "", err
		}
	}
	if page.Next != "" {
		last := entries[len(entries)-1]
		next = control.Position{Revision: int64(last.Revision), Seq: last.Seq}.String()
	}
	return entries, next, nil
}

// entry is a line of the log as the caller may see it.
func (v *view) entry(e *control.Entry) (AuditEntry, error) {
	out := AuditEntry{
		Time: e.Time, Actor: e.Actor, ActorKind: e.ActorKind, Address: e.Address, Request: e.Request,
		Action: string(e.Action), Kind: e.Kind, Scope: e.Scope, Name: e.Name, Tenant: e.Tenant, Detail: e.Detail,
		Before: e.Before, After: e.After,
	}
	out.Revision, out.Seq = v.shownAt(e.Position())
	if v.tenant == "" {
		return out, nil
	}
	if e.ActorTenant != v.tenant {
		out.Actor, out.ActorKind, out.Address, out.Request = control.Operator, control.Operator, "", ""
	}
	less := func(document json.RawMessage) ([]byte, error) { return document, nil } // what there is of secrets
	switch e.Action {
	case control.ActionCreate, control.ActionReplace, control.ActionDelete:
		less = func(document json.RawMessage) ([]byte, error) { return redacted(e.Kind, document) }
	case control.ActionCreateToken, control.ActionRevokeToken:
		less = withoutMaker
	case control.ActionRequestGrant, control.ActionApproveGrant, control.ActionRefuseGrant, control.ActionWithdrawGrant:
		less = func(document json.RawMessage) ([]byte, error) { return withoutDeciders(v.tenant, document) }
	}
	for _, document := range []*json.RawMessage{&out.Before, &out.After} {
		if len(*document) == 0 {
			continue
		}
		var err error
		if *document, err = less(*document); err != nil {
			return AuditEntry{}, err
		}
	}
	return out, nil
}

// withoutMaker is a token without who made it, for tenants make none.
func withoutMaker(document json.RawMessage) ([]byte, error) {
	var t control.Token
	if err := json.Unmarshal(document, &t); err != nil {
		return nil, err
	}
	t.CreatedBy = control.Operator
	return json.Marshal(t)
}

// events are those behind a place in the log.
func (v *view) events(ctx context.Context, behind control.Position) <-chan control.Entry {
	return v.control.Events(ctx, v.tenant, behind.Revision-1)
}
