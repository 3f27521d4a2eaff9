package store

import (
	"context"
	"slices"
	"strings"
	"time"

	"tollgate.internal/pkg/resource"
)

// Row is an object as it is kept.
type Row struct {
	Key       resource.Key
	Tenant    string // whose it is; "": nobody's
	Labels    map[string]string
	Revision  int64
	Created   int64 // the revision that made it
	CreatedAt time.Time
	ChangedAt time.Time
	Document  string // JSON
}

const rowColumns = "kind, scope, name, tenant, revision, created_revision, created_at, changed_at, document"

func scanRow(scan func(...any) error) (r Row, err error) {
	var created, changed int64
	err = scan(&r.Key.Kind, &r.Key.Scope, &r.Key.Name, &r.Tenant, &r.Revision, &r.Created, &created, &changed, &r.Document)
	r.CreatedAt, r.ChangedAt = fromMicros(created), fromMicros(changed)
	return r, err
}

// Object finds an object; false where there is none. Labels are left out.
func (t *Tx) Object(ctx context.Context, key resource.Key) (r Row, ok bool, err error) {
	err = t.query(ctx, func(scan func(...any) error) (err error) {
		ok = true
		r, err = scanRow(scan)
		return err
	}, "SELECT "+rowColumns+" FROM objects WHERE kind = ? AND scope = ? AND name = ?", key.Kind, key.Scope, key.Name)
	return r, ok, err
}

// ObjectOf is Object for what belongs to a tenant. What is somebody else's takes as
// long as what is not there: it is not looked at. Equality would let the database take
// the primary key, and look whose it is afterwards.
func (t *Tx) ObjectOf(ctx context.Context, tenant string, key resource.Key) (r Row, ok bool, err error) {
	err = t.query(ctx, func(scan func(...any) error) (err error) {
		ok = true
		r, err = scanRow(scan)
		return err
	}, "SELECT "+rowColumns+" FROM objects WHERE (tenant, kind, scope, name) >= (?, ?, ?, ?) AND (tenant, kind, scope, name) <= (?, ?, ?, ?)",
		tenant, key.Kind, key.Scope, key.Name, tenant, key.Kind, key.Scope, key.Name)
	return r, ok, err
}

// Exists reports whether there is an object.
func (t *Tx) Exists(ctx context.Context, key resource.Key) (bool, error) {
	var one int64
	return t.one(ctx, "SELECT 1 FROM objects WHERE kind = ? AND scope = ? AND name = ?", []any{key.Kind, key.Scope, key.Name}, &one)
}

// PutObject creates or replaces an object and its labels.
func (t *Tx) PutObject(ctx context.Context, r Row) error {
	if err := t.do(ctx, `INSERT INTO objects (`+rowColumns+`) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)
		ON CONFLICT (kind, scope, name) DO UPDATE SET tenant = excluded.tenant, revision = excluded.revision,
			changed_at = excluded.changed_at, document = excluded.document`,
		r.Key.Kind, r.Key.Scope, r.Key.Name, r.Tenant, r.Revision, r.Created, micros(r.CreatedAt), micros(r.ChangedAt), r.Document); err != nil {
		return err
	}
	if err := t.deleteLabels(ctx, r.Key); err != nil {
		return err
	}
	for label, value := range r.Labels {
		if err := t.do(ctx, "INSERT INTO labels (kind, scope, name, label, value) VALUES (?, ?, ?, ?, ?)",
			r.Key.Kind, r.Key.Scope, r.Key.Name, label, value); err != nil {
			return err
		}
	}
	return nil
}

func (t *Tx) deleteLabels(ctx context.Context, key resource.Key) error {
	return t.do(ctx, "DELETE FROM labels WHERE kind = ? AND scope = ? AND name = ?", key.Kind, key.Scope, key.Name)
}

// DeleteObject removes an object with its labels, claims and references.
func (t *Tx) DeleteObject(ctx context.Context, key resource.Key) error {
	if err := t.deleteLabels(ctx, key); err != nil {
		return err
	}
	if err := t.ReleaseClaims(ctx, key); err != nil {
		return err
	}
	if err := t.PutReferences(ctx, key, nil); err != nil {
		return err
	}
	return t.do(ctx, "DELETE FROM objects WHERE kind = ? AND scope = ? AND name = ?", key.Kind, key.Scope, key.Name)
}

// Query selects objects of one kind. Empty fields select all.
type Query struct {
	Kind, Scope, Tenant string
	Everywhere          bool   // only what has no scope
	Name                string // what the name contains
	Labels              []Requirement
	AfterScope          string // with AfterName: only what comes behind this object
	AfterName           string
	Limit               int // 0: no limit
}

// Operator is how a label is compared.
type Operator uint8

// The operators. NotIn selects what does not have the label, too.
const (
	In Operator = iota
	NotIn
	Exists
	NotExists
)

// Requirement is one condition on labels.
type Requirement struct {
	Label    string
	Operator Operator
	Values   []string
}

// Objects lists objects in the order of scope and name.
func (t *Tx) Objects(ctx context.Context, q Query) (rows []Row, err error) {
	query, args := q.rows(t.store.postgres)
	err = t.query(ctx, func(scan func(...any) error) error {
		r, err := scanRow(scan)
		rows = append(rows, r)
		return err
	}, query, args...)
	return rows, err
}

// Union lists what several queries select, in no order, and without pages: one question
// to the database where it would be several.
func (t *Tx) Union(ctx context.Context, queries ...Query) (rows []Row, err error) {
	var all []string
	var args []any
	for _, q := range queries {
		from, more := q.from()
		all, args = append(all, "SELECT "+objectColumns+from), append(args, more...)
	}
	err = t.query(ctx, func(scan func(...any) error) error {
		r, err := scanRow(scan)
		rows = append(rows, r)
		return err
	}, strings.Join(all, " UNION ALL "), args...)
	return rows, err
}

// CountObjects is how many objects a query selects, whatever its page.
func (t *Tx) CountObjects(ctx context.Context, q Query) (n int64, err error) {
	from, args := q.from()
	_, err = t.one(ctx, "SELECT count(*)"+from, args, &n)
	return n, err
}

// objectColumns are rowColumns beside another table.
const objectColumns = "objects.kind, objects.scope, objects.name, objects.tenant, objects.revision, objects.created_revision, objects.created_at, objects.changed_at, objects.document"

// rows is the query of a page.
func (q *Query) rows(postgres bool) (query string, args []any) {
	from, args := q.from()
	query = "SELECT " + objectColumns + from
	by := "objects.scope, objects.name"
	if _, ok := q.driver(); ok {
		by = "d.scope, d.name" // whose index has this order
	}
	switch behind := q.AfterScope != "" || q.AfterName != ""; {
	case behind && q.Tenant != "" && postgres:
		// Said so, only the index of the tenant's objects serves. PostgreSQL would take the
		// primary key where it thinks that few are left, and read those of others.
		query += " AND (objects.tenant, objects.kind, objects.scope, objects.name) > (?, ?, ?, ?)"
		args = append(args, q.Tenant, q.Kind, q.AfterScope, q.AfterName)
	case behind:
		query += " AND (" + by + ") > (?, ?)"
		args = append(args, q.AfterScope, q.AfterName)
	}
	query += " ORDER BY " + by
	if q.Limit > 0 {
		query += " LIMIT ?"
		args = append(args, q.Limit)
	}
	return query, args
}

// driver is the requirement that objects are found by: one of values, where nothing else
// says better which objects they are.
func (q *Query) driver() (Requirement, bool) {
	if q.Scope == "" && q.Tenant == "" && !q.Everywhere {
		for _, r := range q.Labels {
			if r.Operator == In && len(r.Values) > 0 {
				return r, true
			}
		}
	}
	return Requirement{}, false
}

// from is everything behind the columns but for the page.
func (q *Query) from() (string, []any) {
	where, args := q.where()
	d, ok := q.driver()
	if !ok {
		return " FROM objects WHERE " + where, args
	}
	// CROSS keeps SQLite from beginning with the objects.
	values, in := inList(d.Values)
	from := " FROM labels d CROSS JOIN objects WHERE d.kind = ? AND d.label = ? AND d.value " + in +
		" AND objects.scope = d.scope AND objects.name = d.name AND " + where
	return from, append(append([]any{q.Kind, d.Label}, values...), args...)
}

// inList compares with values.
func inList(values []string) (args []any, in string) {
	for _, v := range values {
		args = append(args, v)
	}
	if len(values) == 1 {
		return args, "= ?" // whose rows have an order
	}
	return args, "IN (" + strings.Join(slices.Repeat([]string{"?"}, len(values)), ", ") + ")"
}

func (q *Query) where() (string, []any) {
	conditions, args := []string{"objects.kind = ?"}, []any{q.Kind}
	add := func(condition string, more ...any) {
		conditions, args = append(conditions, condition), append(args, more...)
	}
	if q.Scope != "" {
		add("objects.scope = ?", q.Scope)
	} else if q.Everywhere {
		add("objects.scope = ''")
	}
	if q.Tenant != "" {
		add("objects.tenant = ?", q.Tenant)
	}
	if q.Name != "" {
		add("replace(objects.name, ?, '') <> objects.name", q.Name) // "contains", in words that both databases have
	}
	driver, driven := q.driver()
	for _, r := range q.Labels {
		if driven && r.Operator == In && r.Label == driver.Label && slices.Equal(r.Values, driver.Values) {
			continue
		}
		// A value to compare with and not EXISTS, which SQLite turns into a join that reads
		// every label behind the page: seconds with ten thousand tenants.
		condition := "COALESCE((SELECT 1 FROM labels l WHERE l.kind = objects.kind AND l.scope = objects.scope AND l.name = objects.name AND l.label = ?"
		values := []any{r.Label}
		if r.Operator == In || r.Operator == NotIn {
			more, in := inList(r.Values)
			condition += " AND l.value " + in
			values = append(values, more...)
		}
		condition += "), 0) = "
		if r.Operator == In || r.Operator == Exists {
			condition += "1"
		} else {
			condition += "0"
		}
		add(condition, values...)
	}
	return strings.Join(conditions, " AND "), args
}

// Claim is something that only one object may have.
type Claim struct{ Space, Scope, Value string }

// Holder finds who has a claim.
func (t *Tx) Holder(ctx context.Context, c Claim) (key resource.Key, taken bool, err error) {
	taken, err = t.one(ctx, "SELECT kind, object_scope, object_name FROM claims WHERE space = ? AND scope = ? AND value = ?",
		[]any{c.Space, c.Scope, c.Value}, &key.Kind, &key.Scope, &key.Name)
	return key, taken, err
}

// PutClaim gives a claim to an object. That another has it is an error of the change, which
// was to look before.
func (t *Tx) PutClaim(ctx context.Context, c Claim, key resource.Key) error {
	return t.do(ctx, "INSERT INTO claims (space, scope, value, kind, object_scope, object_name) VALUES (?, ?, ?, ?, ?, ?)",
		c.Space, c.Scope, c.Value, key.Kind, key.Scope, key.Name)
}

// ReleaseClaims takes every claim from an object.
func (t *Tx) ReleaseClaims(ctx context.Context, key resource.Key) error {
	return t.do(ctx, "DELETE FROM claims WHERE kind = ? AND object_scope = ? AND object_name = ?", key.Kind, key.Scope, key.Name)
}

// Reference is a field that names another object.
type Reference struct {
	Field string
	To    resource.Key
}

// PutReferences replaces the references of an object.
func (t *Tx) PutReferences(ctx context.Context, key resource.Key, references []Reference) error {
	if err := t.do(ctx, "DELETE FROM refs WHERE kind = ? AND scope = ? AND name = ?", key.Kind, key.Scope, key.Name); err != nil {
		return err
	}
	for _, r := range references {
		if err := t.do(ctx, "INSERT INTO refs (kind, scope, name, field, to_kind, to_scope, to_name) VALUES (?, ?, ?, ?, ?, ?, ?)",
			key.Kind, key.Scope, key.Name, r.Field, r.To.Kind, r.To.Scope, r.To.Name); err != nil {
			return err
		}
	}
	return nil
}

// ReferencedBy lists up to limit objects that name an object, and counts them all.
func (t *Tx) ReferencedBy(ctx context.Context, key resource.Key, limit int) (by []resource.Key, total int64, err error) {
	const from = " FROM (SELECT DISTINCT kind, scope, name FROM refs WHERE to_kind = ? AND to_scope = ? AND to_name = ?) r"
	args := []any{key.Kind, key.Scope, key.Name}
	if _, err = t.one(ctx, "SELECT count(*)"+from, args, &total); err != nil || total == 0 {
		return nil, total, err
	}
	err = t.query(ctx, func(scan func(...any) error) error {
		var k resource.Key
		err := scan(&k.Kind, &k.Scope, &k.Name)
		by = append(by, k)
		return err
	}, "SELECT kind, scope, name"+from+" ORDER BY kind, scope, name LIMIT ?", append(args, limit)...)
	return by, total, err
}
