package control

import (
	"context"
	"crypto/rand"
	"encoding/json"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"time"
	"unicode"
	"unicode/utf8"

	"tollgate.internal/pkg/resource"
	"tollgate.internal/services/portal/internal/store"
)

// KindGrantRequest stands for what tenants ask to be lent, in the log. There is no such
// resource: nothing that is only asked for can cover an alias, stand in a file or reach a
// bundle.
const KindGrantRequest = "TopicGrantRequest"

// RequestState is what became of a request:
//
//	open --> approved, refused, withdrawn
//
// It is decided once. What was asked for never changes.
type RequestState string

// The states of requests.
const (
	RequestOpen      RequestState = "open"
	RequestApproved  RequestState = "approved"  // there is a TopicGrant, which has a life of its own
	RequestRefused   RequestState = "refused"   // Answer says why
	RequestWithdrawn RequestState = "withdrawn" // nobody has to look at it any more
)

// GrantRequest is what a tenant asks those who run the gateway to be lent. Everything
// that it asks for is what it wrote itself: nobody looks whether there is such a topic,
// so a tenant learns of none. What it is lent of which cluster is in the TopicGrant alone.
type GrantRequest struct {
	ID     string                 `json:"id"`
	Tenant string                 `json:"tenant"`
	State  RequestState           `json:"state"`
	Topic  resource.TopicSelector `json:"topic"` // as the tenant knows it
	Access resource.Access        `json:"access"`
	Until  time.Time              `json:"until,omitzero"` // zero: no end
	Reason string                 `json:"reason"`

	Asked         time.Time `json:"asked"`
	AskedBy       string    `json:"askedBy"`
	AskedByTenant string    `json:"askedByTenant,omitempty"` // whose token that is; empty: one of those who run the gateway

	Decided         time.Time `json:"decided,omitzero"` // zero: it is open
	DecidedBy       string    `json:"decidedBy,omitempty"`
	DecidedByTenant string    `json:"decidedByTenant,omitempty"`
	Answer          string    `json:"answer,omitempty"`  // of who refused it, for the tenant
	Granted         *Granted  `json:"granted,omitempty"` // nil: it was not approved
}

// Granted is what a tenant may know of the TopicGrant that a request became.
type Granted struct {
	Name   string          `json:"name"`
	Access resource.Access `json:"access"`
	Until  time.Time       `json:"until,omitzero"` // zero: no end
}

func (r GrantRequest) key() resource.Key {
	return resource.Key{Kind: KindGrantRequest, Scope: r.Tenant, Name: r.ID}
}

// For is a request as a tenant may read it: of who runs the gateway it knows nothing.
func (r GrantRequest) For(tenant string) GrantRequest {
	if tenant == "" {
		return r
	}
	if r.AskedByTenant != tenant {
		r.AskedBy = Operator
	}
	if !r.Decided.IsZero() && r.DecidedByTenant != tenant {
		r.DecidedBy = Operator
	}
	return r
}

// GrantAsk is what somebody asks for.
type GrantAsk struct {
	Topic  resource.TopicSelector
	Access resource.Access
	Until  time.Time // zero: no end
	Reason string
}

const (
	maxReason = 1000

	// decidedKept is how many requests of a tenant are kept that were decided. The log has
	// all of them.
	decidedKept = 100
)

func (a *GrantAsk) check(now time.Time) error {
	var problems resource.Problems
	report := func(field, format string, args ...any) {
		problems = append(problems, resource.Problem{Field: field, Message: fmt.Sprintf(format, args...)})
	}
	if a.Topic.Pattern == "" {
		a.Topic.Pattern = resource.Literal
	}
	if a.Topic.Pattern != resource.Literal && a.Topic.Pattern != resource.Prefixed {
		report("topic.pattern", "must be literal or prefixed")
	} else if a.Topic.Name == "" {
		report("topic.name", "required: the topic as you were told of it")
	} else if err := a.Topic.Check(); err != nil {
		report("topic.name", "%v", err)
	}
	if a.Access != resource.ReadOnly && a.Access != resource.ReadWrite {
		report("access", "required: read or read-write")
	}
	if a.Until = micro(a.Until); !a.Until.IsZero() {
		if problem := checkUntil(a.Until, now); problem != "" {
			report("until", "%s", problem)
		}
	} else {
		a.Until = time.Time{}
	}
	if problem := checkReason(a.Reason); problem != "" {
		report("reason", "%s", problem)
	}
	if len(problems) > 0 {
		return &Invalid{problems}
	}
	return nil
}

func checkUntil(until, now time.Time) string {
	switch {
	case !now.Before(until):
		return "is past: nothing would be lent"
	case until.Year() > 9999:
		return "is too far away: leave it out for no end"
	}
	return ""
}

// checkReason is what is wrong with a text of people for people. It is shown on
// terminals, so it has nothing that moves a cursor or turns text around.
func checkReason(text string) string {
	switch {
	case strings.TrimSpace(text) == "":
		return "required: who decides has to know why"
	case utf8.RuneCountInString(text) > maxReason:
		return fmt.Sprintf("has more than %d characters", maxReason)
	case !utf8.ValidString(text) || strings.ContainsFunc(text, func(r rune) bool {
		return unicode.IsControl(r) && r != '\n' || unicode.Is(unicode.Bidi_Control, r)
	}):
		return "must be text: without control characters, but for line breaks"
	}
	return ""
}

// AskGrant keeps what somebody asks for, of a tenant. The same again while it is open is
// that request, Unchanged.
func (c *Control) AskGrant(ctx context.Context, actor Actor, tenant string, ask GrantAsk, options Options) (r GrantRequest, change Change, err error) {
	id := strings.ToLower(rand.Text()[:tokenIDChars])
	err = c.write(ctx, actor, options.DryRun, func(w *write) error {
		of := resource.Key{Kind: resource.KindTenant, Name: tenant}
		if options.Tenant != "" && tenant != options.Tenant || !storableKey(of) {
			return &NotFound{Key: of}
		}
		if ok, err := w.tx.Exists(ctx, of); err != nil {
			return err
		} else if !ok {
			return &NotFound{Key: of}
		}
		asks := ask
		if err := asks.check(w.now); err != nil {
			return err
		}
		open, err := w.tx.GrantRequests(ctx, store.RequestQuery{Tenant: tenant, State: string(RequestOpen)})
		if err != nil {
			return err
		}
		for _, row := range open {
			same, err := requestOf(row)
			if err != nil {
				return err
			}
			if same.Topic == asks.Topic && same.Access == asks.Access && same.Until.Equal(asks.Until) && same.Reason == asks.Reason {
				r, change = same, Unchanged
				return nil
			}
		}
		if most := w.limits.Requests; len(open) >= most {
			return refused("%s has %d open requests, and %d is the most (TOLLGATE_PORTAL_MAX_GRANT_REQUESTS): withdraw one, or wait until one is decided", tenant, len(open), most)
		}
		change = Created
		r = GrantRequest{
			ID: id, Tenant: tenant, State: RequestOpen, Topic: asks.Topic, Access: asks.Access, Until: asks.Until, Reason: asks.Reason,
			Asked: w.now, AskedBy: shown(w.actor.Name), AskedByTenant: w.actor.Tenant,
		}
		return w.keepRequest(ctx, nil, &r, ActionRequestGrant)
	})
	if err != nil {
		return GrantRequest{}, "", err
	}
	return r, change, nil
}

// Approval is what is lent of what was asked for: that, or less.
type Approval struct {
	Name    string                 // of the TopicGrant; empty: made of the request's id
	Cluster string                 // name of the UpstreamCluster
	Topic   resource.TopicSelector // as the brokers know it; empty: as it was asked for
	Access  resource.Access        // empty: as it was asked for
	Until   time.Time              // zero: as it was asked for
}

// ApproveGrant makes a TopicGrant of an open request. Revision is that of the change.
func (c *Control) ApproveGrant(ctx context.Context, actor Actor, tenant, id string, approval Approval, options Options) (r GrantRequest, revision int64, err error) {
	err = c.write(ctx, actor, options.DryRun, func(w *write) error {
		before, err := w.openRequest(ctx, tenant, id, options)
		if err != nil {
			return err
		}
		grant, err := w.grantFor(ctx, before, approval)
		if err != nil {
			return err
		}
		problems := new(resource.Problems)
		objects, err := written(grant, problems)
		if err != nil {
			return err
		}
		if _, err := w.put(ctx, objects, Options{}); err != nil {
			return asApproval(err)
		}
		r, revision = *before, w.tx.Revision
		r.Granted = &Granted{Name: grant.Metadata.Name, Access: grant.Spec.Access, Until: grant.Spec.Until}
		return w.decide(ctx, before, &r, RequestApproved, ActionApproveGrant)
	})
	if err != nil {
		return GrantRequest{}, 0, err
	}
	return r, revision, nil
}

// grantFor is the TopicGrant that an approval makes of a request.
func (w *write) grantFor(ctx context.Context, r *GrantRequest, a Approval) (*resource.TopicGrant, error) {
	var problems resource.Problems
	report := func(field, format string, args ...any) {
		problems = append(problems, resource.Problem{Field: field, Message: fmt.Sprintf(format, args...)})
	}
	grant := &resource.TopicGrant{
		Metadata: resource.Metadata{Name: a.Name, Tenant: r.Tenant},
		Spec:     resource.TopicGrantSpec{Cluster: a.Cluster, Topic: a.Topic, Access: a.Access, Until: micro(a.Until)},
	}
	const more = "lend more by a TopicGrant of your own"
	s := &grant.Spec
	if grant.Metadata.Name == "" {
		grant.Metadata.Name = "request-" + r.ID
	}
	if s.Cluster == "" {
		report("cluster", "required: the UpstreamCluster that the topic is on")
	}
	if s.Topic.Name == "" {
		s.Topic.Name = r.Topic.Name
		if s.Topic.Pattern == "" {
			s.Topic.Pattern = r.Topic.Pattern
		}
	}
	if s.Topic.Pattern == resource.Prefixed && r.Topic.Pattern != resource.Prefixed {
		report("topic.pattern", "one topic was asked for: approve that, or %s", more)
	}
	if s.Access == "" {
		s.Access = r.Access
	}
	if s.Access == resource.ReadWrite && r.Access != resource.ReadWrite {
		report("access", "read was asked for: approve that, or %s", more)
	}
	if a.Until.IsZero() {
		s.Until = r.Until
	}
	if !s.Until.IsZero() {
		if problem := checkUntil(s.Until, w.now); problem != "" {
			report("until", "%s: choose a later time, or refuse the request", problem)
		} else if !r.Until.IsZero() && s.Until.After(r.Until) {
			report("until", "is later than was asked for, which is %s: approve that, or %s", rfc3339(r.Until), more)
		}
	}
	key := resource.KeyOf(grant)
	if storableKey(key) {
		if taken, err := w.tx.Exists(ctx, key); err != nil {
			return nil, err
		} else if taken {
			report("name", "there is a %s already: choose another name", key)
		}
	}
	if len(problems) > 0 {
		return nil, &Invalid{problems}
	}
	return grant, nil
}

// asApproval says of what is wrong with a TopicGrant where it stands in an [Approval].
func asApproval(err error) error {
	e, ok := errors.AsType[*Invalid](err)
	if !ok {
		return err
	}
	problems := make(resource.Problems, len(e.Problems))
	for i, p := range e.Problems {
		field, _ := strings.CutPrefix(p.Field, "spec.")
		field, _ = strings.CutPrefix(field, "metadata.")
		problems[i] = resource.Problem{Field: field, Message: p.Message}
	}
	return &Invalid{problems}
}

// RefuseGrant says no to an open request, and to the tenant why.
func (c *Control) RefuseGrant(ctx context.Context, actor Actor, tenant, id, reason string, options Options) (GrantRequest, error) {
	return c.decide(ctx, actor, tenant, id, options, RequestRefused, ActionRefuseGrant, func(r *GrantRequest) error {
		if problem := checkReason(reason); problem != "" {
			return invalid("reason", "%s", problem)
		}
		r.Answer = reason
		return nil
	})
}

// WithdrawGrant takes an open request back.
func (c *Control) WithdrawGrant(ctx context.Context, actor Actor, tenant, id string, options Options) (GrantRequest, error) {
	return c.decide(ctx, actor, tenant, id, options, RequestWithdrawn, ActionWithdrawGrant, func(*GrantRequest) error { return nil })
}

func (c *Control) decide(ctx context.Context, actor Actor, tenant, id string, options Options, state RequestState, action Action, change func(*GrantRequest) error) (r GrantRequest, err error) {
	err = c.write(ctx, actor, options.DryRun, func(w *write) error {
		before, err := w.openRequest(ctx, tenant, id, options)
		if err != nil {
			return err
		}
		r = *before
		if err := change(&r); err != nil {
			return err
		}
		return w.decide(ctx, before, &r, state, action)
	})
	if err != nil {
		return GrantRequest{}, err
	}
	return r, nil
}

// openRequest finds a request that is still to be decided. Changes come one after the
// other, so of two who decide at once the second finds it decided.
func (w *write) openRequest(ctx context.Context, tenant, id string, options Options) (*GrantRequest, error) {
	r, err := findRequest(ctx, w.tx, tenant, id, options)
	if err != nil {
		return nil, err
	}
	if r.State != RequestOpen {
		seen := r.For(options.Tenant)
		return nil, refused("%s was %s already, by %s at %s, and is decided once: read it again", seen.key(), seen.State, seen.DecidedBy, rfc3339(seen.Decided))
	}
	return &r, nil
}

func findRequest(ctx context.Context, tx *store.Tx, tenant, id string, options Options) (GrantRequest, error) {
	missing := &NotFound{Key: resource.Key{Kind: KindGrantRequest, Scope: tenant, Name: id}}
	if options.Tenant != "" && tenant != options.Tenant || !storableKey(missing.Key) {
		return GrantRequest{}, missing
	}
	row, ok, err := tx.GrantRequest(ctx, tenant, id)
	if err != nil {
		return GrantRequest{}, err
	}
	if !ok {
		return GrantRequest{}, missing
	}
	return requestOf(row)
}

// decide keeps what became of a request.
func (w *write) decide(ctx context.Context, before, after *GrantRequest, state RequestState, action Action) error {
	after.State, after.Decided, after.DecidedBy, after.DecidedByTenant = state, w.now, shown(w.actor.Name), w.actor.Tenant
	if err := w.keepRequest(ctx, before, after, action); err != nil {
		return err
	}
	return w.tx.ForgetGrantRequests(ctx, after.Tenant, decidedKept)
}

func (w *write) keepRequest(ctx context.Context, before, after *GrantRequest, action Action) error {
	text := func(r *GrantRequest) (string, error) {
		if r == nil {
			return "", nil
		}
		data, err := json.Marshal(r)
		return string(data), err
	}
	was, err := text(before)
	if err != nil {
		return err
	}
	is, err := text(after)
	if err != nil {
		return err
	}
	if err := w.tx.PutGrantRequest(ctx, store.GrantRequest{
		Tenant: after.Tenant, ID: after.ID, State: string(after.State), AskedAt: after.Asked, DecidedAt: after.Decided, Document: is,
	}); err != nil {
		return err
	}
	detail := ""
	if after.Granted != nil {
		detail = resource.KindTopicGrant + " " + after.Granted.Name
	}
	return w.audit(ctx, string(action), after.key(), after.Tenant, detail, was, is)
}

func requestOf(row store.GrantRequest) (r GrantRequest, err error) {
	if err = json.Unmarshal([]byte(row.Document), &r); err != nil {
		return r, fmt.Errorf("read request %s of %s: %w", row.ID, row.Tenant, err)
	}
	return r, nil
}

// GetGrantRequest reads one request.
func (c *Control) GetGrantRequest(ctx context.Context, tenant, id string, options Options) (r GrantRequest, err error) {
	err = c.store.Read(ctx, func(tx *store.Tx) (err error) {
		r, err = findRequest(ctx, tx, tenant, id, options)
		return err
	})
	return r, err
}

// GrantRequestQuery selects requests. Empty fields select all.
type GrantRequestQuery struct {
	Tenant string
	State  RequestState
	Limit  int    // 1 to MaxLimit; 0: MaxLimit
	After  string // Next of the page before
}

// GrantRequestPage is a part of a list.
type GrantRequestPage struct {
	Items []GrantRequest
	Next  string // for the next page; empty: this was the last
}

// ListGrantRequests reads requests, those first that wait the longest.
func (c *Control) ListGrantRequests(ctx context.Context, q GrantRequestQuery) (page GrantRequestPage, err error) {
	if !storable(q.Tenant, string(q.State)) {
		return page, nil
	}
	asked, id, err := openCursor(q.After)
	if err != nil {
		return page, err
	}
	sq := store.RequestQuery{Tenant: q.Tenant, State: string(q.State), AfterID: id}
	if asked != "" {
		at, err := strconv.ParseInt(asked, 10, 64)
		if err != nil {
			return page, invalid("after", "is not what the page before gave: leave it out to begin anew")
		}
		sq.AfterAsked = time.UnixMicro(at)
	}
	limit := q.Limit
	if limit <= 0 || limit > MaxLimit {
		limit = MaxLimit
	}
	sq.Limit = limit + 1
	err = c.store.Read(ctx, func(tx *store.Tx) error {
		page = GrantRequestPage{}
		rows, err := tx.GrantRequests(ctx, sq)
		if err != nil {
			return err
		}
		if len(rows) > limit {
			rows = rows[:limit]
			last := rows[limit-1]
			page.Next = cursor(strconv.FormatInt(last.AskedAt.UnixMicro(), 10), last.ID)
		}
		for _, row := range rows {
			r, err := requestOf(row)
			if err != nil {
				return err
			}
			page.Items = append(page.Items, r)
		}
		return nil
	})
	return page, err
}
