package control

import (
	"errors"
	"fmt"
	"strings"
	"sync"
	"testing"
	"time"

	"tollgate.internal/pkg/resource"
)

var (
	partner   = Actor{Name: "pipeline (abc)", Tenant: "acme", Kind: "token", Address: "192.0.2.9", Request: "r9"}
	asAcme    = Options{Tenant: "acme"}
	returns27 = GrantAsk{Topic: resource.TopicSelector{Name: "returns"}, Access: resource.ReadWrite, Until: time.Date(2027, 12, 31, 0, 0, 0, 0, time.UTC), Reason: "we ship what comes back"}
)

// ask is a request of acme's that is good.
func (b *bed) ask(ask GrantAsk) GrantRequest {
	b.t.Helper()
	r, change, err := b.AskGrant(b.t.Context(), partner, "acme", ask, asAcme)
	if err != nil || change != Created || r.State != RequestOpen {
		b.t.Fatalf("%+v, %s, %v", r, change, err)
	}
	return r
}

func (b *bed) head() int64 {
	b.t.Helper()
	head, err := b.Head(b.t.Context())
	if err != nil {
		b.t.Fatal(err)
	}
	return head
}

// settle passes what the fleet is to be told.
func (b *bed) settle() (told int) {
	b.t.Helper()
	pending, err := b.Pending(b.t.Context(), 1000)
	if err == nil {
		err = b.Published(b.t.Context(), pending...)
	}
	if err != nil {
		b.t.Fatal(err)
	}
	return len(pending)
}

func TestARequestBecomesAGrant(t *testing.T) {
	each(t, func(t *testing.T, b *bed) {
		b.apply(base)
		b.settle()
		r := b.ask(returns27)
		if again, change, err := b.AskGrant(t.Context(), partner, "acme", returns27, asAcme); err != nil || change != Unchanged || again.ID != r.ID {
			t.Errorf("the same again: %+v, %s, %v", again, change, err)
		}

		// What is only asked for covers nothing, and nobody is told of it.
		alias := doc("AliasTopic name: returns, virtualCluster: acme-prod | cluster: west, topic: returns")
		if _, err := b.try(alias); err == nil || !strings.Contains(err.Error(), "no TopicGrant of acme lends returns of west") {
			t.Errorf("an alias of what is only asked for: %v", err)
		}
		if told := b.settle(); told != 0 {
			t.Errorf("%d bundles are changed by a request", told)
		}
		if page, err := b.List(t.Context(), Query{Kind: resource.KindTopicGrant}); err != nil || len(page.Items) != 1 {
			t.Errorf("grants: %+v, %v", page, err)
		}

		// In a dry run nothing is kept.
		approval := Approval{Cluster: "west", Topic: resource.TopicSelector{Name: "shop.returns.v3"}, Access: resource.ReadOnly, Name: "returns"}
		before := b.head()
		if dry, _, err := b.ApproveGrant(t.Context(), alice, "acme", r.ID, approval, Options{DryRun: true}); err != nil || dry.State != RequestApproved {
			t.Errorf("dry run: %+v, %v", dry, err)
		}
		if b.head() != before {
			t.Error("a dry run is kept")
		}

		done, revision, err := b.ApproveGrant(t.Context(), alice, "acme", r.ID, approval, Options{})
		if err != nil || revision != before+1 || done.State != RequestApproved || *done.Granted != (Granted{Name: "returns", Access: resource.ReadOnly, Until: returns27.Until}) {
			t.Fatalf("%+v at %d, %v", done, revision, err)
		}
		s, err := b.Get(t.Context(), key("TopicGrant", "acme", "returns"))
		if err != nil {
			t.Fatal(err)
		}
		if g := s.Object.(*resource.TopicGrant).Spec; g.Cluster != "west" || g.Topic != (resource.TopicSelector{Name: "shop.returns.v3", Pattern: resource.Literal}) || g.Access != resource.ReadOnly || !g.Until.Equal(returns27.Until) || s.Tenant != "acme" {
			t.Errorf("granted %+v", g)
		}
		if told := b.settle(); told != 1 {
			t.Errorf("%d bundles are changed by an approval, want acme-prod's", told)
		}
		b.apply(strings.Replace(alias, "topic: returns", "topic: shop.returns.v3", 1))

		// Who asked, who approved, when, and what became of what: in one transaction.
		page, err := b.Audit(t.Context(), AuditQuery{Tenant: "acme", From: b.now, Oldest: true})
		if err != nil {
			t.Fatal(err)
		}
		var log []string
		for _, e := range page.Entries {
			if e.Revision >= before {
				log = append(log, fmt.Sprintf("%d %s %s %s by %s", e.Revision-before, e.Action, e.Kind, e.Detail, e.Actor))
			}
			if e.Kind == KindGrantRequest && (e.Scope != "acme" || e.Name != r.ID || strings.Contains(string(e.After), "shop.returns") || strings.Contains(string(e.After), "west")) {
				t.Errorf("entry %+v", e)
			}
		}
		want := "0 request-grant TopicGrantRequest  by pipeline (abc)|1 create TopicGrant  by alice|1 approve-grant TopicGrantRequest TopicGrant returns by alice|2 create AliasTopic  by alice"
		if got := strings.Join(log, "|"); got != want {
			t.Errorf("log\n%s, want\n%s", got, want)
		}
		last := page.Entries[len(page.Entries)-2]
		if !strings.Contains(string(last.Before), `"state":"open"`) || !strings.Contains(string(last.After), `"state":"approved"`) || !strings.Contains(string(last.After), `"askedBy":"pipeline (abc)"`) {
			t.Errorf("before %s, after %s", last.Before, last.After)
		}
	})
}

// A request is decided once, whoever comes second.
func TestARequestIsDecidedOnce(t *testing.T) {
	each(t, func(t *testing.T, b *bed) {
		b.apply(base)
		approve := func(c *Control, id, name string) error {
			_, _, err := c.ApproveGrant(t.Context(), alice, "acme", id, Approval{Cluster: "west", Name: name}, Options{})
			return err
		}
		refuse := func(c *Control, id, _ string) error {
			_, err := c.RefuseGrant(t.Context(), Actor{Name: "bob"}, "acme", id, "not yours", Options{})
			return err
		}
		withdraw := func(c *Control, id, _ string) error {
			_, err := c.WithdrawGrant(t.Context(), partner, "acme", id, asAcme)
			return err
		}
		all := map[string]func(*Control, string, string) error{"approved": approve, "refused": refuse, "withdrawn": withdraw}
		for first, do := range all {
			for second, then := range all {
				r := b.ask(returns27)
				if err := do(b.Control, r.ID, "a-"+first+"-"+second); err != nil {
					t.Fatalf("%s: %v", first, err)
				}
				before := b.head()
				err := then(b.Control, r.ID, "b")
				no, ok := errors.AsType[*Refused](err)
				if !ok || !strings.Contains(no.Text, "was "+first+" already, by ") || second == "withdrawn" && (strings.Contains(no.Text, "alice") || strings.Contains(no.Text, "bob")) {
					t.Errorf("%s, and then %s: %v", first, second, err)
				}
				if got, err := b.GetGrantRequest(t.Context(), "acme", r.ID, Options{}); err != nil || string(got.State) != first || b.head() != before {
					t.Errorf("%s, and then %s: %+v, %v", first, second, got, err)
				}
			}
		}

		// Two portals at once, several times: one wins.
		other := b.another()
		for i := range 10 {
			asked := returns27
			asked.Reason = fmt.Sprintf("again, %d", i)
			r := b.ask(asked)
			var wg sync.WaitGroup
			errs := make([]error, 2)
			for n, c := range []*Control{b.Control, other} {
				wg.Go(func() {
					errs[n] = []func(*Control, string, string) error{approve, refuse}[(i+n)%2](c, r.ID, fmt.Sprintf("race-%d", i))
				})
			}
			wg.Wait()
			won := 0
			for _, err := range errs {
				if _, lost := errors.AsType[*Refused](err); err == nil {
					won++
				} else if !lost {
					t.Errorf("%v", err)
				}
			}
			got, err := b.GetGrantRequest(t.Context(), "acme", r.ID, Options{})
			_, missing := b.Get(t.Context(), key("TopicGrant", "acme", fmt.Sprintf("race-%d", i)))
			if won != 1 || err != nil || (got.State == RequestApproved) != (missing == nil) {
				t.Errorf("%d won: %v; %s, %v, %v", won, errs, got.State, err, missing)
			}
		}
	})
}

// An approval lends what was asked for or less, and what a grant may lend at all.
func TestAnApprovalIsNoMoreThanWasAskedFor(t *testing.T) {
	each(t, func(t *testing.T, b *bed) {
		b.apply(base)
		b.Reserve(Topic{Cluster: "west", Name: "audit", For: "the audit log"})
		read := GrantAsk{Topic: resource.TopicSelector{Name: "returns"}, Access: resource.ReadOnly, Until: returns27.Until, Reason: "x"}
		for _, c := range []struct {
			name     string
			approval Approval
			want     string
		}{
			{"no cluster", Approval{}, "cluster: required"},
			{"no such cluster", Approval{Cluster: "mars"}, `cluster: there is no UpstreamCluster "mars"`},
			{"more access", Approval{Cluster: "west", Access: resource.ReadWrite}, "access: read was asked for"},
			{"a prefix", Approval{Cluster: "west", Topic: resource.TopicSelector{Name: "r", Pattern: resource.Prefixed}}, "topic.pattern: one topic was asked for"},
			{"a prefix of the name that was asked for", Approval{Cluster: "west", Topic: resource.TopicSelector{Pattern: resource.Prefixed}}, "topic.pattern: one topic was asked for"},
			{"longer", Approval{Cluster: "west", Until: returns27.Until.Add(time.Second)}, "until: is later than was asked for, which is 2027-12-31T00:00:00Z"},
			{"of the past", Approval{Cluster: "west", Until: b.now}, "until: is past"},
			{"a topic of the brokers", Approval{Cluster: "west", Topic: resource.TopicSelector{Name: "__consumer_offsets"}}, `topic.name: "__consumer_offsets" is the brokers' own topic`},
			{"a topic of ours", Approval{Cluster: "west", Topic: resource.TopicSelector{Name: "audit"}}, "topic: would put topic audit of west"},
			{"a name that is taken", Approval{Cluster: "west", Name: "orders"}, "name: there is a TopicGrant orders of acme already"},
			{"a name that is none", Approval{Cluster: "west", Name: "No"}, "name: "},
			{"an access that is none", Approval{Cluster: "west", Access: "all"}, "access: "},
		} {
			r := b.ask(read)
			before := b.head()
			_, _, err := b.ApproveGrant(t.Context(), alice, "acme", r.ID, c.approval, Options{})
			no, ok := errors.AsType[*Invalid](err)
			if !ok || len(no.Problems) != 1 || !strings.HasPrefix(no.Problems[0].Field+": "+no.Problems[0].Message, c.want) {
				t.Errorf("%s: %v, want %s", c.name, err, c.want)
			}
			if b.head() != before {
				t.Errorf("%s: something is kept", c.name)
			}
			if _, err := b.WithdrawGrant(t.Context(), partner, "acme", r.ID, asAcme); err != nil {
				t.Error(err)
			}
		}

		// As it was asked for, under a name that is made.
		prefix := GrantAsk{Topic: resource.TopicSelector{Name: "ret", Pattern: resource.Prefixed}, Access: resource.ReadWrite, Reason: "two\nlines"}
		r := b.ask(prefix)
		done, _, err := b.ApproveGrant(t.Context(), alice, "acme", r.ID, Approval{Cluster: "west"}, Options{})
		if err != nil || *done.Granted != (Granted{Name: "request-" + r.ID, Access: resource.ReadWrite}) {
			t.Fatalf("%+v, %v", done, err)
		}
		s, err := b.Get(t.Context(), key("TopicGrant", "acme", "request-"+r.ID))
		if err != nil || s.Object.(*resource.TopicGrant).Spec.Topic != prefix.Topic {
			t.Errorf("%+v, %v", s.Object, err)
		}

		// Its end came while it waited.
		soon := read
		soon.Until = b.now.Add(time.Hour)
		r = b.ask(soon)
		b.now = b.now.Add(time.Hour)
		if _, _, err := b.ApproveGrant(t.Context(), alice, "acme", r.ID, Approval{Cluster: "west"}, Options{}); err == nil || !strings.Contains(err.Error(), "until: is past") {
			t.Errorf("what has ended is lent: %v", err)
		}
	})
}

func TestWhatIsAskedForIsText(t *testing.T) {
	each(t, func(t *testing.T, b *bed) {
		b.apply(base)
		for name, change := range map[string]func(*GrantAsk){
			"topic.name: required":      func(a *GrantAsk) { a.Topic.Name = "" },
			"topic.name: ":              func(a *GrantAsk) { a.Topic.Name = "a topic" },
			"topic.name: \"__consumer":  func(a *GrantAsk) { a.Topic.Name = "__consumer_offsets" },
			"topic.pattern: must be":    func(a *GrantAsk) { a.Topic.Pattern = "regexp" },
			"access: required":          func(a *GrantAsk) { a.Access = "" },
			"until: is past":            func(a *GrantAsk) { a.Until = b.now },
			"until: is too far":         func(a *GrantAsk) { a.Until = time.Date(10000, 1, 1, 0, 0, 0, 0, time.UTC) },
			"reason: required":          func(a *GrantAsk) { a.Reason = " \n" },
			"reason: has more than":     func(a *GrantAsk) { a.Reason = strings.Repeat("ü", 1001) },
			"reason: must be text: wit": func(a *GrantAsk) { a.Reason = "\x1b[2J" },
			"reason: must be text":      func(a *GrantAsk) { a.Reason = "deny\u202e" },
		} {
			ask := returns27
			change(&ask)
			_, _, err := b.AskGrant(t.Context(), partner, "acme", ask, asAcme)
			if no, ok := errors.AsType[*Invalid](err); !ok || len(no.Problems) != 1 || !strings.HasPrefix(no.Problems[0].Field+": "+no.Problems[0].Message, name) {
				t.Errorf("%v, want %s", err, name)
			}
		}
		// Every character that a name has elsewhere, and no look at what there is.
		for _, topic := range []string{"shop.orders", "audit", "Nothing_at-all.1"} {
			ask := returns27
			ask.Topic.Name = topic
			r := b.ask(ask)
			if _, err := b.WithdrawGrant(t.Context(), partner, "acme", r.ID, asAcme); err != nil {
				t.Error(err)
			}
		}
	})
}

// Nobody floods those who decide, nor the store; and whoever has a name next has
// nothing of who had it before.
func TestRequestsHaveLimits(t *testing.T) {
	each(t, func(t *testing.T, b *bed) {
		limits := DefaultLimits()
		limits.Requests = 3
		b.Limit(limits)
		b.apply(base + doc("Tenant name: globex", "Tenant name: bare"))
		asked := func(reason string) GrantAsk {
			ask := returns27
			ask.Reason = reason
			return ask
		}
		var open []GrantRequest
		for i := range 3 {
			open = append(open, b.ask(asked(fmt.Sprint(i))))
			b.now = b.now.Add(time.Second)
		}
		_, _, err := b.AskGrant(t.Context(), partner, "acme", asked("one more"), asAcme)
		if no, ok := errors.AsType[*Refused](err); !ok || !strings.Contains(no.Text, "acme has 3 open requests, and 3 is the most (TOLLGATE_PORTAL_MAX_GRANT_REQUESTS): withdraw one") {
			t.Errorf("one more: %v", err)
		}
		if _, change, err := b.AskGrant(t.Context(), partner, "acme", asked("1"), asAcme); err != nil || change != Unchanged {
			t.Errorf("one that is open: %s, %v", change, err)
		}
		if _, _, err := b.AskGrant(t.Context(), alice, "globex", returns27, Options{}); err != nil {
			t.Errorf("of another tenant: %v", err)
		}
		for range decidedKept + 5 {
			if _, err := b.WithdrawGrant(t.Context(), partner, "acme", open[0].ID, asAcme); err != nil {
				t.Fatal(err)
			}
			b.now = b.now.Add(time.Second)
			open = append(open[1:], b.ask(asked(b.now.String())))
		}
		page, err := b.ListGrantRequests(t.Context(), GrantRequestQuery{Tenant: "acme", State: RequestWithdrawn})
		if err != nil || len(page.Items) != decidedKept {
			t.Errorf("%d are kept, %v", len(page.Items), err)
		}
		if page, err := b.ListGrantRequests(t.Context(), GrantRequestQuery{Tenant: "acme", State: RequestOpen}); err != nil || len(page.Items) != 3 {
			t.Errorf("%d are open, %v", len(page.Items), err)
		}

		// Page by page, those first that wait the longest.
		var listed []GrantRequest
		for q := (GrantRequestQuery{Limit: 7}); ; {
			page, err := b.ListGrantRequests(t.Context(), q)
			if err != nil {
				t.Fatal(err)
			}
			listed = append(listed, page.Items...)
			if q.After = page.Next; q.After == "" {
				break
			}
		}
		for i := 1; i < len(listed); i++ {
			if listed[i].Asked.Before(listed[i-1].Asked) || listed[i].ID == listed[i-1].ID {
				t.Errorf("%v is listed behind %v", listed[i].Asked, listed[i-1].Asked)
			}
		}
		if len(listed) != decidedKept+3+1 {
			t.Errorf("%d are listed", len(listed))
		}

		if _, _, err := b.AskGrant(t.Context(), alice, "bare", returns27, Options{}); err != nil {
			t.Fatal(err)
		}
		if _, err := b.Delete(t.Context(), alice, key("Tenant", "", "bare"), Options{}); err != nil {
			t.Errorf("a tenant with a request: %v", err)
		}
		b.apply(doc("Tenant name: bare"))
		if page, err := b.ListGrantRequests(t.Context(), GrantRequestQuery{Tenant: "bare"}); err != nil || len(page.Items) != 0 {
			t.Errorf("the next tenant of the name has %v, %v", page.Items, err)
		}
	})
}

// To a tenant, what is another's is not there.
func TestRequestsOfOthersAreNotThere(t *testing.T) {
	each(t, func(t *testing.T, b *bed) {
		b.apply(base + doc("Tenant name: globex"))
		theirs, _, err := b.AskGrant(t.Context(), alice, "globex", returns27, Options{})
		if err != nil {
			t.Fatal(err)
		}
		before := b.head()
		for _, at := range [][2]string{{"globex", theirs.ID}, {"acme", theirs.ID}, {"nobody", theirs.ID}, {"globex", "nothing"}, {"a\x00", "b"}} {
			_, errs := b.GetGrantRequest(t.Context(), at[0], at[1], asAcme)
			_, withdrawn := b.WithdrawGrant(t.Context(), partner, at[0], at[1], asAcme)
			var asked error
			if at[0] != "acme" {
				_, _, asked = b.AskGrant(t.Context(), partner, at[0], returns27, asAcme)
			} else {
				asked = &NotFound{}
			}
			for _, err := range []error{errs, withdrawn, asked} {
				if _, ok := errors.AsType[*NotFound](err); !ok {
					t.Errorf("%v: %v, want that there is none", at, err)
				}
			}
		}
		if b.head() != before {
			t.Error("something is kept")
		}
		if page, err := b.ListGrantRequests(t.Context(), GrantRequestQuery{Tenant: "acme"}); err != nil || len(page.Items) != 0 {
			t.Errorf("acme has %v, %v", page.Items, err)
		}
	})
}
