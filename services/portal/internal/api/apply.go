package api

import (
	"context"
	"encoding/json"
	"net/http"
	"reflect"

	"github.com/danielgtaylor/huma/v2"

	"tollgate.internal/pkg/resource"
	"tollgate.internal/services/portal/internal/control"
)

// Applied is what became of objects that were applied together.
type Applied struct {
	Revision Revision        `json:"revision" doc:"Of the change; 0: nothing changed, or it was a dry run."`
	Results  []AppliedObject `json:"results" doc:"In the order of the objects; what was pruned stands at the end."`
}

// AppliedObject is what became of one object.
type AppliedObject struct {
	Kind   string          `json:"kind"`
	Scope  string          `json:"scope,omitempty" doc:"The tenant or virtual cluster that the name is unique in."`
	Name   string          `json:"name"`
	Change string          `json:"change" enum:"created,replaced,unchanged,deleted"`
	Before json.RawMessage `json:"before,omitempty" doc:"The object as it was."`
	Object json.RawMessage `json:"object" doc:"The object as it is; as it was, if it is deleted."`
}

// maxApplied bounds what one transaction changes: others wait for it.
const maxApplied = 10_000

func (a *API) applyRoute() {
	type input struct {
		Prune string `query:"prune" maxLength:"2000" example:"managed-by=git" doc:"Also delete what has these labels and is not among the objects: a label selector."`
		DryRun
		Waiting
	}
	list := &huma.Schema{Type: huma.TypeArray, Items: a.schemas.everyKind(a.schemas.write), MaxItems: ptr(maxApplied)}
	applied := a.schemas.registry.Schema(reflect.TypeFor[Applied](), true, "")
	object := a.schemas.registry.Map()["AppliedObject"]
	object.Properties["before"], object.Properties["object"] = a.schemas.everyKind(a.schemas.read), a.schemas.everyKind(a.schemas.read)
	register(a, route{
		method: http.MethodPost, path: "/v1/apply", id: "apply", tag: "apply", summary: "Create or replace many objects", roles: forOps | forTenant, write: true,
		description: "All of them or none, in whatever order. A list in JSON, or a stream of YAML documents. Mistakes of all objects are answered at once. A revision in an object must still be the object's.",
		body:        list, types: []string{typeJSON, typeYAML}, limit: maxApplyBytes,
		answers: map[int]documented{
			200: {"Everything is as it was sent.", applied, nil, []string{"Tollgate-Applied"}},
			202: {"The change is kept. Not every node serves it yet, which Tollgate-Applied says more about.", applied, nil, []string{"Tollgate-Applied"}},
		},
	}, func(ctx context.Context, c *call, in *input) (*reply, error) {
		return a.apply(ctx, c, in.Prune, in.DryRun.DryRun, &in.Waiting)
	})
}

func (a *API) apply(ctx context.Context, c *call, prune string, dryRun bool, waiting *Waiting) (*reply, error) {
	wait, err := waiting.patience()
	if err != nil {
		return nil, err
	}
	selector, err := control.ParseSelector(prune)
	if err != nil {
		return nil, invalid(FieldError{Field: "query.prune", Message: "is no label selector: write conditions such as managed-by=git, parted by commas"})
	}
	if c.caller.ReadOnly {
		return nil, c.caller.forbidden()
	}
	documents, p := c.body.documents("")
	if p != nil {
		return nil, p
	}
	if len(documents) > maxApplied {
		return nil, problem(http.StatusRequestEntityTooLarge, "the body holds more than %d objects: apply them in parts", maxApplied)
	}
	objects := make([]*resource.Written, len(documents))
	for i, d := range documents {
		if !c.caller.mayWrite(d.Object.Kind()) {
			return nil, c.caller.forbidden() // whatever its name, and whether it exists
		}
		objects[i] = d.Written
	}
	var pruned *control.Prune
	if prune != "" {
		pruned = &control.Prune{Labels: selector}
		for _, kind := range resource.Kinds {
			if c.caller.mayWrite(kind.Name) {
				pruned.Kinds = append(pruned.Kinds, kind.Name)
			}
		}
	}
	results, err := c.view.apply(ctx, objects, pruned, control.Options{DryRun: dryRun})
	if err != nil {
		return nil, c.spelled(err, documents...)
	}
	out := Applied{Results: make([]AppliedObject, len(results))}
	served := int64(0) // what the fleet has to have, also of what was there before
	for i, r := range results {
		key := resource.KeyOf(r.Object)
		one := AppliedObject{Kind: key.Kind, Scope: key.Scope, Name: key.Name, Change: string(r.Change)}
		if one.Object, err = c.show(r.Stored); err != nil {
			return nil, err
		}
		if r.Before != nil && r.Change == control.Replaced {
			if one.Before, err = c.show(control.Stored{Object: r.Before}); err != nil {
				return nil, err
			}
		}
		out.Results[i] = one
		served = max(served, r.Revision)
		if r.Change != control.Unchanged && !dryRun {
			out.Revision = c.view.shown(r.Revision)
		}
	}
	return &reply{status: a.waited(ctx, c, http.StatusOK, served, wait, dryRun), body: out}, nil
}
