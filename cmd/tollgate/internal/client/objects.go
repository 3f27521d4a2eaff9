package client

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"iter"
	"net/http"
	"net/url"
	"strconv"
	"time"

	"tollgate.internal/pkg/resource"
)

// Object is an object as a server tells of it.
type Object struct {
	resource.Object
	Raw json.RawMessage // all of it, with status and what this version does not know
}

// UnmarshalJSON reads the answer of a server.
func (o *Object) UnmarshalJSON(data []byte) (err error) {
	o.Raw = bytes.Clone(data)
	o.Object, err = resource.Unmarshal(data)
	return err
}

// Status is what the server says of the object beside what it was told.
func (o *Object) Status(into any) error {
	var whole struct {
		Status json.RawMessage `json:"status"`
	}
	if err := json.Unmarshal(o.Raw, &whole); err != nil || whole.Status == nil {
		return err
	}
	return json.Unmarshal(whole.Status, into)
}

// Secrets are those of a service account, which has them in its status.
func (o *Object) Secrets() ([]Secret, error) {
	var status struct {
		Secrets []Secret `json:"secrets"`
	}
	err := o.Status(&status)
	return status.Secrets, err
}

// collection is the path of a kind's objects: of one scope or, without one, of all.
func collection(kind resource.Kind, scope string) string {
	if kind.Scope == "" || scope == "" {
		return "/v1/" + kind.Plural
	}
	owner, _ := resource.KindOf(kind.Scope)
	return "/v1/" + owner.Plural + "/" + url.PathEscape(scope) + "/" + kind.Plural
}

func pathOf(key resource.Key) string {
	kind, _ := resource.KindOf(key.Kind)
	return collection(kind, key.Scope) + "/" + url.PathEscape(key.Name)
}

// Get reads one object.
func (c *Client) Get(ctx context.Context, key resource.Key) (*Object, error) {
	o := new(Object)
	if err := c.do(ctx, request{method: http.MethodGet, path: pathOf(key)}, o); err != nil {
		return nil, named(key, err)
	}
	return o, nil
}

// named says what was not found: the answer itself does not, so that it is the
// same for what belongs to others.
func named(key resource.Key, err error) error {
	if IsNotFound(err) {
		return fmt.Errorf("%s: %w", key, err)
	}
	return err
}

// ListOptions select objects.
type ListOptions struct {
	Kind   resource.Kind
	Scope  string // of kinds that have one; empty: everywhere
	Tenant string // only what is this tenant's; empty: everybody's
	Labels string // selector: a=b,c!=d,e
}

// pageSize is how much is asked for at once.
const pageSize = 1000

// List lists objects in the order of their scopes and names, page by page.
func (c *Client) List(ctx context.Context, o ListOptions) iter.Seq2[*Object, error] {
	return pages[*Object](ctx, c, collection(o.Kind, o.Scope), listQuery("labelSelector", o.Labels, "tenant", o.Tenant))
}

func listQuery(nameValue ...string) url.Values {
	query := make(url.Values)
	for i := 0; i < len(nameValue); i += 2 {
		if nameValue[i+1] != "" {
			query.Set(nameValue[i], nameValue[i+1])
		}
	}
	return query
}

// pages follows a list to its end.
func pages[T any](ctx context.Context, c *Client, path string, query url.Values) iter.Seq2[T, error] {
	return func(yield func(T, error) bool) {
		if !query.Has("limit") {
			query.Set("limit", strconv.Itoa(pageSize))
		}
		for {
			var page struct {
				Items []T    `json:"items"`
				Next  string `json:"next"`
			}
			if err := c.do(ctx, request{method: http.MethodGet, path: path, query: query}, &page); err != nil {
				var none T
				yield(none, err)
				return
			}
			for _, item := range page.Items {
				if !yield(item, nil) {
					return
				}
			}
			if page.Next == "" {
				return
			}
			query.Set("after", page.Next)
		}
	}
}

// Change says how a change is to be made.
type Change struct {
	DryRun   bool          // say what would happen, and change nothing
	Wait     time.Duration // answer when all nodes have applied it, or after so long; 0: at once
	Revision int64         // refuse it unless the object has this revision; 0: do not look
}

func (ch Change) query() url.Values {
	query := make(url.Values)
	if ch.DryRun {
		query.Set("dryRun", "true")
	}
	if ch.Wait > 0 && !ch.DryRun {
		query.Set("wait", "applied")
		query.Set("timeout", ch.Wait.String())
	}
	return query
}

// Put creates or replaces an object.
func (c *Client) Put(ctx context.Context, o resource.Object, ch Change) (*Object, error) {
	body, err := resource.Marshal(o)
	if err != nil {
		return nil, err
	}
	got := new(Object)
	err = c.do(ctx, request{
		method: http.MethodPut, path: pathOf(resource.KeyOf(o)), query: ch.query(), body: json.RawMessage(body), match: ch.Revision, wait: ch.Wait,
	}, got)
	if err != nil && !IsLate(err) {
		return nil, err
	}
	return got, err
}

// Delete deletes an object.
func (c *Client) Delete(ctx context.Context, key resource.Key, ch Change) error {
	err := c.do(ctx, request{method: http.MethodDelete, path: pathOf(key), query: ch.query(), match: ch.Revision, wait: ch.Wait}, nil)
	return named(key, err)
}
