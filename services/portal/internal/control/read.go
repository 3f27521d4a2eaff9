package control

import (
	"context"
	"encoding/base64"
	"errors"
	"fmt"
	"strings"

	"tollgate.internal/pkg/resource"
	"tollgate.internal/services/portal/internal/store"
)

// Get reads one object.
func (c *Control) Get(ctx context.Context, key resource.Key) (Stored, error) {
	return c.GetOf(ctx, "", key)
}

// GetOf is Get for a tenant, who has what is its own and nothing else.
func (c *Control) GetOf(ctx context.Context, tenant string, key resource.Key) (Stored, error) {
	var s Stored
	if !storableKey(key) {
		return s, &NotFound{Key: key}
	}
	err := c.store.Read(ctx, func(tx *store.Tx) error {
		look := tx.Object
		if tenant != "" {
			look = func(ctx context.Context, key resource.Key) (store.Row, bool, error) {
				return tx.ObjectOf(ctx, tenant, key)
			}
		}
		row, ok, err := look(ctx, key)
		if err != nil {
			return err
		}
		if !ok {
			return &NotFound{Key: key}
		}
		if s, err = stored(row); err != nil || key.Kind != resource.KindServiceAccount {
			return err
		}
		return (&write{tx: tx, now: c.now()}).addSecrets(ctx, &s)
	})
	if err != nil {
		return Stored{}, err
	}
	return s, nil
}

func stored(row store.Row) (Stored, error) {
	o, err := read(row)
	return Stored{Object: o, Status: Status{Created: row.CreatedAt, Changed: row.ChangedAt}, Tenant: row.Tenant}, err
}

// Query selects objects of one kind.
type Query struct {
	Kind   string
	Scope  string   // only those of one virtual cluster or, for TopicGrants, tenant
	Tenant string   // only what is this tenant's
	Labels Selector // see ParseSelector
	Name   string   // only those whose names contain this
	Limit  int      // 1 to MaxLimit; 0: MaxLimit
	After  string   // Next of the page before
	Count  bool     // also tell how many there are in all
}

// MaxLimit is the most objects that one page has.
const MaxLimit = 1000

// Page is a part of a list. An object that is there all the while one pages
// through a list is on exactly one page, whatever is written meanwhile.
type Page struct {
	Items    []Stored
	Next     string // for the next page; empty: this was the last
	Revision int64  // that the page was read at
	Total    int64  // of all pages, if it was asked for
}

// List reads objects in the order of their scopes and names.
func (c *Control) List(ctx context.Context, q Query) (Page, error) {
	kind, known := resource.KindOf(q.Kind)
	if !known {
		return Page{}, fmt.Errorf("list: unknown kind %q", q.Kind)
	}
	switch {
	case !storable(q.Scope):
		return Page{}, &NotFound{Key: resource.Key{Kind: kind.Scope, Name: q.Scope}}
	case !storable(q.Name, q.Tenant):
		return Page{}, invalid("name", "must be UTF-8 without NUL")
	}
	sq := store.Query{Kind: q.Kind, Scope: q.Scope, Tenant: q.Tenant, Name: q.Name, Labels: q.Labels.requirements}
	var err error
	if sq.AfterScope, sq.AfterName, err = openCursor(q.After); err != nil {
		return Page{}, err
	}
	limit := q.Limit
	if limit <= 0 || limit > MaxLimit {
		limit = MaxLimit
	}
	sq.Limit = limit + 1 // one more tells whether there is a next page
	var page Page
	err = c.store.Read(ctx, func(tx *store.Tx) error {
		page = Page{Revision: tx.Revision}
		if q.Scope != "" {
			if ok, err := tx.Exists(ctx, resource.Key{Kind: kind.Scope, Name: q.Scope}); err != nil {
				return err
			} else if !ok {
				return &NotFound{Key: resource.Key{Kind: kind.Scope, Name: q.Scope}}
			}
		}
		if q.Count {
			if page.Total, err = tx.CountObjects(ctx, sq); err != nil {
				return err
			}
		}
		rows, err := tx.Objects(ctx, sq)
		if err != nil {
			return err
		}
		if len(rows) > limit {
			rows = rows[:limit]
			last := rows[limit-1].Key
			page.Next = cursor(last.Scope, last.Name)
		}
		for _, row := range rows {
			s, err := stored(row)
			if err != nil {
				return err
			}
			page.Items = append(page.Items, s)
		}
		if q.Kind == resource.KindServiceAccount {
			return listSecrets(ctx, tx, page.Items)
		}
		return nil
	})
	if err != nil {
		return Page{}, err
	}
	return page, nil
}

// cursor hides what it is made of: only List is to read it.
func cursor(parts ...string) string {
	return base64.RawURLEncoding.EncodeToString([]byte(strings.Join(parts, "\x00")))
}

func openCursor(text string) (a, b string, err error) {
	if text == "" {
		return "", "", nil
	}
	raw, err := base64.RawURLEncoding.DecodeString(text)
	a, b, ok := strings.Cut(string(raw), "\x00")
	if err != nil || !ok || !storable(a, b) {
		return "", "", invalid("after", "is not what the page before gave: leave it out to begin anew")
	}
	return a, b, nil
}

// Selector selects objects by their labels. The zero Selector selects all.
type Selector struct{ requirements []store.Requirement }

// ParseSelector reads conditions parted by commas, all of which have to hold:
//
//	plan=gold  plan==gold  plan!=gold  plan in (gold, silver)  plan notin (gold)  plan  !plan
//
// != and notin also select what does not have the label.
func ParseSelector(text string) (Selector, error) {
	var s Selector
	for rest := strings.TrimSpace(text); rest != ""; {
		r, after, err := requirement(rest)
		if err != nil {
			return Selector{}, invalid("labelSelector", "%q: %v", text, err)
		}
		s.requirements = append(s.requirements, r)
		after = strings.TrimSpace(after)
		if after == "" {
			break
		}
		next, comma := strings.CutPrefix(after, ",")
		if rest = strings.TrimSpace(next); !comma || rest == "" {
			return Selector{}, invalid("labelSelector", "%q: conditions are parted by commas, such as plan=gold,!trial", text)
		}
	}
	return s, nil
}

var errSelector = errors.New("a condition is label=value, label!=value, label in (a, b), label notin (a, b), label or !label")

// requirement reads the first condition of a text.
func requirement(text string) (r store.Requirement, rest string, err error) {
	if after, not := strings.CutPrefix(text, "!"); not {
		r.Operator = store.NotExists
		r.Label, rest = word(strings.TrimSpace(after))
		if r.Label == "" {
			return r, "", errSelector
		}
		return r, rest, nil
	}
	if r.Label, rest = word(text); r.Label == "" {
		return r, "", errSelector
	}
	rest = strings.TrimSpace(rest)
	for _, o := range []struct {
		text     string
		operator store.Operator
	}{{"==", store.In}, {"!=", store.NotIn}, {"=", store.In}} {
		if after, ok := strings.CutPrefix(rest, o.text); ok {
			value, rest := word(strings.TrimSpace(after)) // an empty value is one
			r.Operator, r.Values = o.operator, []string{value}
			return r, rest, nil
		}
	}
	if rest == "" || rest[0] == ',' {
		r.Operator = store.Exists
		return r, rest, nil
	}
	operator, after := word(rest)
	switch operator {
	case "in":
		r.Operator = store.In
	case "notin":
		r.Operator = store.NotIn
	default:
		return r, "", errSelector
	}
	values, ok := strings.CutPrefix(strings.TrimSpace(after), "(")
	values, rest, closed := strings.Cut(values, ")")
	if !ok || !closed {
		return r, "", errSelector
	}
	for v := range strings.SplitSeq(values, ",") {
		value, more := word(strings.TrimSpace(v))
		if strings.TrimSpace(more) != "" {
			return r, "", errSelector
		}
		r.Values = append(r.Values, value)
	}
	if len(r.Values) > maxValues {
		return r, "", fmt.Errorf("more than %d values", maxValues)
	}
	return r, rest, nil
}

const maxValues = 100

// word is what a label or its value can be made of.
func word(text string) (word, rest string) {
	n := strings.IndexFunc(text, func(r rune) bool {
		return !(r >= 'a' && r <= 'z' || r >= 'A' && r <= 'Z' || r >= '0' && r <= '9' || strings.ContainsRune("._/-", r))
	})
	if n < 0 {
		return text, ""
	}
	return text[:n], text[n:]
}
