package api

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"reflect"
	"strconv"
	"strings"
	"time"

	"github.com/danielgtaylor/huma/v2"

	"tollgate.internal/pkg/resource"
	"tollgate.internal/services/portal/internal/control"
)

// objectStatus is what the portal says of an object.
type objectStatus struct {
	Created time.Time `json:"created,omitzero"`
	Changed time.Time `json:"changed,omitzero"`
}

// accountStatus is that of a ServiceAccount.
type accountStatus struct {
	Created time.Time      `json:"created,omitzero"`
	Changed time.Time      `json:"changed,omitzero"`
	Secrets []SecretStatus `json:"secrets,omitempty" doc:"What clients log in with; never more than this is shown of it."`
}

type SecretStatus struct {
	ID       string    `json:"id"`
	Created  time.Time `json:"created"`
	Expires  time.Time `json:"expires,omitzero" doc:"Missing: never."`
	Imported bool      `json:"imported,omitempty" doc:"It was brought along, not made here."`
}

func secretOf(s control.Secret) SecretStatus {
	return SecretStatus{ID: s.ID, Created: s.Created, Expires: s.Expires, Imported: s.Imported}
}

// Parameters that several operations have. Huma looks into embedded structs only
// where their names are exported.
type (
	DryRun struct {
		DryRun bool `query:"dryRun" doc:"Do everything but keep it, and answer as if it was kept."`
	}
	Waiting struct {
		Wait    string `query:"wait" enum:"applied" doc:"Answer when every live node serves the change."`
		Timeout string `query:"timeout" example:"10s" doc:"How long to wait, 60s at most; 10s. What is not applied by then is kept all the same: that is 202."`
	}
	Matching struct {
		IfMatch string `header:"If-Match" doc:"Only if the object is at this revision: what ETag said. * means that there is one."`
	}
	Paging struct {
		Limit int    `query:"limit" minimum:"1" maximum:"1000" doc:"The most that one page has; 100."`
		After string `query:"after" maxLength:"1000" doc:"What the page before said in next."`
	}

	noParameters struct{}
	listInput    struct {
		LabelSelector string `query:"labelSelector" maxLength:"2000" example:"plan=gold,!trial" doc:"Conditions on labels, all of which have to hold: a=b, a!=b, a in (b, c), a notin (b), a, !a."`
		Name          string `query:"name" maxLength:"249" doc:"Only those whose names contain this."`
		Tenant        string `query:"tenant" maxLength:"63" doc:"Only what is this tenant's."`
		Paging
	}
	putInput struct {
		Matching
		IfNoneMatch string `header:"If-None-Match" enum:"*" doc:"Only if there is no such object yet."`
		DryRun
		Waiting
	}
	changeInput struct {
		Matching
		DryRun
		Waiting
	}
)

// pathOf is where the objects of a kind are that are within something, if the kind's are.
func pathOf(kind resource.Kind) string {
	switch kind.Scope {
	case resource.KindTenant:
		return "/v1/tenants/{tenant}/" + kind.Plural
	case resource.KindVirtualCluster:
		return "/v1/virtual-clusters/{virtualCluster}/" + kind.Plural
	}
	return "/v1/" + kind.Plural
}

// location is where one object is.
func location(key resource.Key) string {
	kind, _ := resource.KindOf(key.Kind)
	if key.Scope == "" {
		return "/v1/" + kind.Plural + "/" + key.Name
	}
	path := strings.NewReplacer("{tenant}", key.Scope, "{virtualCluster}", key.Scope).Replace(pathOf(kind))
	return path + "/" + key.Name
}

// objectRoutes are the operations that every kind has.
func (a *API) objectRoutes(kind resource.Kind) {
	path, both := pathOf(kind), forOps|forTenant
	read := a.schemas.read[kind.Name]
	name := func(action string) string { return action + kind.Name }

	register(a, route{
		method: http.MethodGet, path: path, id: name("list"), tag: "objects", summary: "List " + kind.Plural, roles: both,
		description: "In the order of their names. An object that is there all the while is on exactly one page, whatever is written meanwhile.",
		answers:     map[int]documented{200: {"A page.", a.listSchema(kind.Name+"List", read), nil, nil}},
	}, func(ctx context.Context, c *call, in *listInput) (*reply, error) {
		scope, err := a.within(ctx, c, kind)
		if err != nil {
			return nil, err
		}
		return a.list(ctx, c, kind, scope, in)
	})
	if kind.Scope != "" {
		description := "In the order of what they are within, and their names."
		if kind.Everywhere() {
			description += " Those of all virtual clusters come first."
		}
		register(a, route{
			method: http.MethodGet, path: "/v1/" + kind.Plural, id: name("listAll"), tag: "objects", summary: "List " + kind.Plural + " everywhere", roles: both,
			description: description,
			answers:     map[int]documented{200: {"A page.", a.listSchema(kind.Name+"List", read), nil, nil}},
		}, func(ctx context.Context, c *call, in *listInput) (*reply, error) {
			return a.list(ctx, c, kind, "", in)
		})
	}
	a.singleRoutes(kind, path+"/{name}", kind.Name, "", both)
	if kind.Everywhere() {
		a.singleRoutes(kind, "/v1/"+kind.Plural+"/{name}", kind.Name+"Everywhere", ", of all virtual clusters", forOps)
	}
}

// singleRoutes are the operations on one object of a kind.
func (a *API) singleRoutes(kind resource.Kind, one, id, which string, both role) {
	read, write := a.schemas.read[kind.Name], a.schemas.write[kind.Name]
	etag := []string{"ETag"}
	changed := []string{"ETag", "Tollgate-Change", "Tollgate-Applied"}
	pending := documented{"The change is kept. Not every node serves it yet, which Tollgate-Applied says more about.", read, nil, changed}
	name := func(action string) string { return action + id }

	register(a, route{
		method: http.MethodGet, path: one, id: name("get"), tag: "objects", summary: "Read one" + which, roles: both,
		answers: map[int]documented{200: {"The object.", read, nil, etag}},
	}, func(ctx context.Context, c *call, _ *noParameters) (*reply, error) {
		key, err := c.key(kind)
		if err != nil {
			return nil, err
		}
		s, err := a.visible(ctx, c, key)
		if err != nil {
			return nil, err
		}
		return c.object(http.StatusOK, s)
	})
	register(a, route{
		method: http.MethodPut, path: one, id: name("put"), tag: "objects", summary: "Create or replace one" + which, roles: both, write: true,
		description: "What is not sent gets its default. Names in the path may be left out of metadata. What is there already, as it is, changes nothing and takes no revision.",
		body:        write, types: []string{typeJSON, typeYAML},
		answers: map[int]documented{
			200: {"It was replaced, or is as it was.", read, nil, changed},
			201: {"It was created.", read, nil, append([]string{"Location"}, changed...)},
			202: pending,
		},
	}, func(ctx context.Context, c *call, in *putInput) (*reply, error) {
		return a.put(ctx, c, kind, in)
	})
	register(a, route{
		method: http.MethodPatch, path: one, id: name("patch"), tag: "objects", summary: "Change some fields of one" + which, roles: both, write: true,
		description: "A JSON merge patch (RFC 7396): null takes a field away, lists are replaced as a whole.",
		body:        &huma.Schema{Type: huma.TypeObject}, types: []string{typeMerge, typeJSON},
		answers: map[int]documented{200: {"The object as it is now.", read, nil, changed}, 202: pending},
	}, func(ctx context.Context, c *call, in *changeInput) (*reply, error) {
		return a.patch(ctx, c, kind, in)
	})
	register(a, route{
		method: http.MethodDelete, path: one, id: name("delete"), tag: "objects", summary: "Delete one" + which, roles: both, write: true,
		description: "What others refer to is not deleted: 409 says by what.",
		answers:     map[int]documented{200: {"The object as it was.", read, nil, []string{"Tollgate-Change", "Tollgate-Applied"}}, 202: pending},
	}, func(ctx context.Context, c *call, in *changeInput) (*reply, error) {
		return a.delete(ctx, c, kind, in)
	})
}

// listSchema is a page of something.
func (a *API) listSchema(name string, item *huma.Schema) *huma.Schema {
	a.schemas.registry.Map()[name] = &huma.Schema{
		Type:                 huma.TypeObject,
		AdditionalProperties: false,
		Properties: map[string]*huma.Schema{
			"items": {Type: huma.TypeArray, Items: item},
			"next":  {Type: huma.TypeString, Description: "For the next page, as ?after=. Missing: this was the last."},
		},
		Required: []string{"items"},
	}
	return &huma.Schema{Ref: schemaPrefix + name}
}

// listed is a page of something.
type listed struct {
	Items []json.RawMessage `json:"items"`
	Next  string            `json:"next,omitempty"`
}

// key is the object that the path names.
func (c *call) key(kind resource.Kind) (key resource.Key, err error) {
	key.Kind = kind.Name
	if key.Scope, err = c.scope(kind); err != nil {
		return key, err
	}
	key.Name, err = c.named("name")
	return key, err
}

// scope is what the path says that objects of a kind are within; empty: nothing.
func (c *call) scope(kind resource.Kind) (string, error) {
	if c.everywhere(kind) {
		return "", nil
	}
	switch kind.Scope {
	case resource.KindTenant:
		return c.named("tenant")
	case resource.KindVirtualCluster:
		return c.named("virtualCluster")
	}
	return "", nil
}

// everywhere reports whether the path is that of objects which may be within something, and
// are not.
func (c *call) everywhere(kind resource.Kind) bool {
	return kind.Everywhere() && c.r.PathValue("virtualCluster") == ""
}

// within looks whether what the path says objects are within is there for the caller.
func (a *API) within(ctx context.Context, c *call, kind resource.Kind) (scope string, err error) {
	if scope, err = c.scope(kind); err != nil || scope == "" {
		return "", err
	}
	_, err = a.visible(ctx, c, resource.Key{Kind: kind.Scope, Name: scope})
	return scope, err
}

func (a *API) list(ctx context.Context, c *call, kind resource.Kind, scope string, in *listInput) (*reply, error) {
	selector, err := control.ParseSelector(in.LabelSelector)
	if err != nil {
		return nil, inQuery(err)
	}
	tenant, ok := c.of(in.Tenant)
	if !ok {
		return &reply{body: listed{Items: []json.RawMessage{}}}, nil
	}
	page, err := c.view.list(ctx, control.Query{
		Kind: kind.Name, Scope: scope, Tenant: tenant, Labels: selector, Name: in.Name, Limit: in.limit(), After: in.After,
	})
	if err != nil {
		return nil, inQuery(err)
	}
	out := listed{Items: make([]json.RawMessage, len(page.Items)), Next: page.Next}
	for i, s := range page.Items {
		if out.Items[i], err = c.show(s); err != nil {
			return nil, err
		}
	}
	return &reply{body: out}, nil
}

// of is the tenant that a list is about, if one is asked for or the caller sees one
// only. False: the caller asks for another one, who has nothing.
func (c *call) of(asked string) (tenant string, ok bool) {
	own := c.caller.tenant()
	return cmp.Or(own, asked), own == "" || asked == "" || asked == own
}

func (p *Paging) limit() int {
	if p.Limit == 0 {
		return 100
	}
	return p.Limit
}

// inQuery is an error about what stands in the query.
func inQuery(err error) error {
	if e, ok := errors.AsType[*control.Invalid](err); ok {
		out := fieldErrors(e.Problems, false)
		for i := range out {
			out[i].Field = "query." + out[i].Field
		}
		return invalid(out...)
	}
	return err
}

func (a *API) put(ctx context.Context, c *call, kind resource.Kind, in *putInput) (*reply, error) {
	options, err := c.options(in.DryRun.DryRun, in.Matching)
	if err != nil {
		return nil, err
	}
	if options.IfAbsent = in.IfNoneMatch != ""; options.IfAbsent && in.IfMatch != "" {
		return nil, invalid(FieldError{Field: "header.If-None-Match", Message: "says the opposite of If-Match: send one of them"})
	}
	wait, err := in.patience()
	if err != nil {
		return nil, err
	}
	if err := a.admit(ctx, c, kind); err != nil {
		return nil, err
	}
	d, p := c.body.one(kind.Name)
	if p != nil {
		return nil, p
	}
	if in.IfMatch == "*" {
		key, err := c.key(kind)
		if err != nil {
			return nil, err
		}
		if _, err := c.view.get(ctx, key); err != nil {
			return nil, a.precondition(err, in.Matching)
		}
	}
	c.fit(d, kind)
	result, err := c.view.put(ctx, d.Written, options)
	if err != nil {
		return nil, a.precondition(c.spelled(err, d), in.Matching)
	}
	return a.answer(ctx, c, result, options, wait)
}

// spelled says of what is wrong where it stands in the body.
func (c *call) spelled(err error, documents ...document) error {
	if _, ok := errors.AsType[*control.Invalid](err); !ok {
		return err
	}
	p := invalid()
	for _, d := range documents {
		p.Errors = append(p.Errors, d.errors(len(documents) > 1, c.body.yaml && c.r.Method != http.MethodPatch)...)
	}
	if len(p.Errors) == 0 { // about no document: about what they are together
		return err
	}
	return p
}

// precondition is 412 where the client said by a header what it had seen, and 409
// where it stands in the object.
func (a *API) precondition(err error, in Matching) error {
	if in.IfMatch == "" {
		return err
	}
	if e, ok := errors.AsType[*control.Conflict](err); ok {
		return problem(http.StatusPreconditionFailed, "%v", e)
	}
	if _, ok := errors.AsType[*control.NotFound](err); ok && in.IfMatch == "*" {
		return problem(http.StatusPreconditionFailed, "there is no such object, and If-Match wants one: leave it out to create it")
	}
	return err
}

// options are those of a change of one object.
func (c *call) options(dryRun bool, match Matching) (control.Options, error) {
	options := control.Options{DryRun: dryRun}
	if text := match.IfMatch; text != "" && text != "*" {
		revision, err := strconv.ParseInt(strings.Trim(text, `"`), 10, 64)
		if err != nil || revision <= 0 || len(text) < 3 || text[0] != '"' || text[len(text)-1] != '"' {
			return options, invalid(FieldError{Field: "header.If-Match", Message: `must be one revision in quotes, such as "17", or *`})
		}
		options.IfRevision = revision
	}
	return options, nil
}

// admit is for whoever wants to change an object of a kind: 404 for what is not
// there for the caller, and 403 for what is and may not be changed.
func (a *API) admit(ctx context.Context, c *call, kind resource.Kind) error {
	scope, err := a.within(ctx, c, kind)
	if err != nil {
		return err
	}
	switch {
	case c.caller.mayWrite(kind.Name):
		return nil
	case scope != "" || c.caller.Role == control.RoleOps:
		return c.caller.forbidden() // of what is within it, everything may be read
	}
	key, err := c.key(kind)
	if err != nil {
		return err
	}
	if _, err := a.visible(ctx, c, key); err != nil {
		return err
	}
	return c.caller.forbidden()
}

// fit sees to it that an object is the one in the path.
func (c *call) fit(d document, kind resource.Kind) {
	m := d.Object.Meta()
	check := func(field string, have *string, want string) {
		if *have != "" && *have != want {
			d.Problem("metadata."+field, "is %q, and the path says %q", *have, want)
		}
		*have = want
	}
	check("name", &m.Name, c.r.PathValue("name"))
	if c.everywhere(kind) && m.VirtualCluster != "" {
		d.Problem("metadata.virtualCluster", "is %q, and the path is that of policies of all virtual clusters: leave it out, or put it to %s/%s", m.VirtualCluster, "/v1/virtual-clusters/"+m.VirtualCluster+"/"+kind.Plural, m.Name)
		return
	}
	switch kind.Scope {
	case resource.KindTenant:
		check("tenant", &m.Tenant, c.r.PathValue("tenant"))
	case resource.KindVirtualCluster:
		check("virtualCluster", &m.VirtualCluster, c.r.PathValue("virtualCluster"))
	}
}

// patchTries is how often a patch is put on an object that others change meanwhile.
const patchTries = 5

func (a *API) patch(ctx context.Context, c *call, kind resource.Kind, in *changeInput) (*reply, error) {
	options, err := c.options(in.DryRun.DryRun, in.Matching)
	if err != nil {
		return nil, err
	}
	wait, err := in.patience()
	if err != nil {
		return nil, err
	}
	key, err := c.key(kind)
	if err != nil {
		return nil, err
	}
	for try := 1; ; try++ {
		s, err := a.visible(ctx, c, key)
		if err != nil {
			return nil, a.precondition(err, in.Matching)
		}
		if !c.caller.mayWrite(kind.Name) {
			return nil, c.caller.forbidden()
		}
		original, err := resource.Marshal(s.Object)
		if err != nil {
			return nil, err
		}
		text, p := merged(original, c.body.data)
		if p != nil {
			return nil, p
		}
		d, p := body{data: text}.one(kind.Name)
		if p != nil {
			return nil, p
		}
		c.fit(d, kind)
		result, err := c.view.put(ctx, d.Written, options)
		if err == nil {
			return a.answer(ctx, c, result, options, wait)
		}
		// The patch is for the object as it is, if it does not say otherwise.
		conflict, ok := errors.AsType[*control.Conflict](err)
		if ok && options.IfRevision == 0 && conflict.Want == s.Object.Meta().Revision && try < patchTries {
			continue
		}
		return nil, a.precondition(c.spelled(err, d), in.Matching)
	}
}

func (a *API) delete(ctx context.Context, c *call, kind resource.Kind, in *changeInput) (*reply, error) {
	options, err := c.options(in.DryRun.DryRun, in.Matching)
	if err != nil {
		return nil, err
	}
	wait, err := in.patience()
	if err != nil {
		return nil, err
	}
	key, err := c.key(kind)
	if err != nil {
		return nil, err
	}
	if _, err := a.visible(ctx, c, key); err != nil {
		return nil, a.precondition(err, in.Matching)
	}
	if !c.caller.mayWrite(kind.Name) {
		return nil, c.caller.forbidden()
	}
	result, err := c.view.delete(ctx, key, options)
	if err != nil {
		return nil, a.precondition(err, in.Matching)
	}
	return a.answer(ctx, c, result, options, wait)
}

// answer is that to a change of one object.
func (a *API) answer(ctx context.Context, c *call, result control.Result, options control.Options, wait time.Duration) (*reply, error) {
	c.w.Header().Set("Tollgate-Change", string(result.Change))
	status := http.StatusOK
	if result.Change == control.Created && !options.DryRun {
		status = http.StatusCreated
		c.w.Header().Set("Location", location(resource.KeyOf(result.Object)))
	}
	status = a.waited(ctx, c, status, result.Revision, wait, options.DryRun)
	if result.Change == control.Deleted {
		data, err := c.show(result.Stored)
		return &reply{status: status, body: data}, err
	}
	return c.object(status, result.Stored)
}

// object is an answer that is an object.
func (c *call) object(status int, s control.Stored) (*reply, error) {
	data, err := c.show(s)
	if revision := s.Object.Meta().Revision; revision > 0 {
		c.w.Header().Set("ETag", strconv.Quote(strconv.FormatInt(revision, 10)))
	}
	return &reply{status: status, body: data}, err
}

// show is an object as the caller may see it.
func (c *call) show(s control.Stored) (json.RawMessage, error) {
	data, err := resource.Marshal(s.Object)
	if err != nil {
		return nil, err
	}
	if c.caller.Role != control.RoleOps {
		if data, err = redacted(s.Object.Kind(), data); err != nil {
			return nil, err
		}
	}
	status := accountStatus{Created: s.Status.Created, Changed: s.Status.Changed}
	for _, one := range s.Status.Secrets {
		status.Secrets = append(status.Secrets, secretOf(one))
	}
	if reflect.ValueOf(status).IsZero() {
		return data, nil
	}
	more, err := json.Marshal(status)
	if err != nil {
		return nil, err
	}
	data = append(data[:len(data)-1], `,"status":`...) // behind the last field
	return append(append(data, more...), '}'), nil
}

// redacted is a document without what tells of the brokers behind it.
func redacted(kind string, document []byte) ([]byte, error) {
	if kind == resource.KindUpstreamCluster || kind == resource.KindPriceBook {
		return nil, fmt.Errorf("a %s was about to be shown to a tenant", kind)
	}
	fields := hidden[kind]
	if len(fields) == 0 {
		return document, nil
	}
	var whole struct {
		APIVersion string                     `json:"apiVersion"`
		Kind       string                     `json:"kind"`
		Metadata   json.RawMessage            `json:"metadata"`
		Spec       map[string]json.RawMessage `json:"spec"`
	}
	if err := json.Unmarshal(document, &whole); err != nil {
		return nil, fmt.Errorf("redact a %s: %w", kind, err)
	}
	for _, field := range fields {
		delete(whole.Spec, field)
	}
	return json.Marshal(whole)
}
