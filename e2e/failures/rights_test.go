package failures

import (
	"context"
	"fmt"
	"net/http"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kmsg"

	"tollgate.internal/e2e/internal/load"
	"tollgate.internal/e2e/internal/site"
)

// What is taken away ends at once, on every node and in sessions that live, and nobody
// else's connection is closed: not another tenant's, and not one of the same tenant.
func TestRightsEndAtOnceAndAlone(t *testing.T) {
	b := onPostgres(t, 3)
	const rounds = 3
	names := func(kind string) (all []string) {
		for i := range rounds {
			all = append(all, fmt.Sprintf("%s%d", kind, i))
		}
		return all
	}
	b.tenant(t, "globex")
	bystanders := append(b.open(t, acme, dev), b.open(t, "globex", dev)...)
	b.account(t, acme, "keeper")
	bystanders = append(bystanders, b.open(t, acme, "keeper")...)

	var wg sync.WaitGroup
	ctx, stop := context.WithCancel(t.Context())
	defer wg.Wait()
	defer stop()
	made := make([]int, 2)
	for i, vc := range []string{acme, "globex"} {
		wg.Go(func() {
			for n := 0; ctx.Err() == nil; n++ {
				a, err := b.Do(ctx, http.MethodPost, "/v1/apply", fmt.Sprintf(`
{apiVersion: tollgate/v1, kind: Acl, metadata: {name: changing, virtualCluster: %s}, spec: {principal: "User:nobody", resource: {type: topic, name: t%d}, operation: READ, permission: ALLOW}}`, vc, n))
				if err == nil && a.Status != http.StatusOK {
					t.Errorf("change %d of %s: %d %s", n, vc, a.Status, a.Body)
					return
				}
				made[i] = n
				wait(ctx)
			}
		})
	}

	var delays []time.Duration
	ended := func(since time.Time, sessions []*site.Session) {
		t.Helper()
		ctx, cancel := context.WithTimeout(t.Context(), patience)
		defer cancel()
		for _, s := range sessions {
			at, err := s.Ended(ctx)
			if err != nil {
				t.Fatal(err)
			}
			delays = append(delays, at.Sub(since))
		}
	}
	for i, name := range names("revoked") {
		secret := b.account(t, acme, name)
		sessions := b.open(t, acme, name)
		b.Must(t, http.MethodDelete, secret, "")
		ended(time.Now(), sessions)

		name = names("expired")[i]
		secret = b.account(t, acme, name)
		sessions = b.open(t, acme, name)
		until := time.Now().Add(500 * time.Millisecond)
		b.Must(t, http.MethodPatch, secret, fmt.Sprintf(`{"expires": %q}`, until.Format(time.RFC3339Nano)))
		ended(until, sessions)

		name = names("deleted")[i]
		b.account(t, acme, name)
		sessions = b.open(t, acme, name)
		b.Must(t, http.MethodDelete, accountPath(acme, name), "")
		ended(time.Now(), sessions)

		name = names("suspended")[i]
		b.tenant(t, name)
		sessions = b.open(t, name, dev)
		b.Must(t, http.MethodPatch, "/v1/tenants/"+name, `{"spec": {"state": "suspended"}}`)
		ended(time.Now(), sessions)

		// A grant that ends takes its alias with it, and leaves the sessions be.
		delays = append(delays, b.endGrant(t, names("lent")[i])...)
	}
	stop()
	wg.Wait()
	slices.Sort(delays)
	t.Logf("%d and %d changes of bystanders; rights ended within %v", made[0], made[1], delays)
	// One may be held up by what else this machine does.
	if usual, longest := delays[len(delays)*3/4], delays[len(delays)-1]; usual > promised || longest > 5*promised {
		t.Errorf("a right ended after %v, and three of four within %v: want %v", longest, usual, promised)
	}
	if made[0]+made[1] < 100 {
		t.Errorf("only %d and %d changes were made meanwhile", made[0], made[1])
	}
	for _, s := range bystanders {
		if err := s.StillOpen(); err != nil {
			t.Error(err)
		}
	}
}

// endGrant has a grant end, and returns how long each node went on to show its alias.
func (b *bed) endGrant(t *testing.T, name string) (delays []time.Duration) {
	t.Helper()
	grant := func(until time.Time) string {
		return fmt.Sprintf("{apiVersion: tollgate/v1, kind: TopicGrant, metadata: {name: %s, tenant: acme}, spec: {cluster: main, topic: {name: %s, pattern: literal}, access: read-write, until: %q}}\n", name, b.lend(t, name), until.Format(time.RFC3339Nano))
	}
	b.Apply(t, grant(time.Now().Add(time.Hour))+fmt.Sprintf("---\n{apiVersion: tollgate/v1, kind: AliasTopic, metadata: {name: %s, virtualCluster: acme}, spec: {cluster: main, topic: %s}}", name, b.lend(t, name)))
	var askers []*site.Asker
	for _, n := range b.Nodes {
		a := n.Asker(acme, dev, password)
		defer a.Close()
		askers = append(askers, a)
		site.Eventually(t, "the alias is there", func(ctx context.Context) error { return showsAlias(ctx, a, name, nil) })
	}
	until := time.Now().Add(500 * time.Millisecond)
	if a := b.Must(t, http.MethodPost, "/v1/apply", grant(until)); a.Status != http.StatusOK {
		t.Fatal(a.Body)
	}
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	for _, a := range askers {
		if err := load.Wait(ctx, func() error { return showsAlias(ctx, a, name, kerr.UnknownTopicOrPartition) }); err != nil {
			t.Fatal(err)
		}
		delays = append(delays, time.Since(until))
	}
	return delays
}

// lend is a physical topic that is there.
func (b *bed) lend(t *testing.T, name string) string {
	t.Helper()
	topic := b.topics[0] + "." + name
	if b.lent == nil {
		b.lent = make(map[string]bool)
	}
	if !b.lent[topic] {
		b.lent[topic] = true
		if _, err := b.admin.CreateTopic(t.Context(), 1, 1, nil, topic); err != nil {
			t.Fatal(err)
		}
	}
	return topic
}

// showsAlias asks a node for an alias.
func showsAlias(ctx context.Context, a *site.Asker, name string, want *kerr.Error) error {
	req := kmsg.NewPtrMetadataRequest()
	req.Version = 9
	topic := kmsg.NewMetadataRequestTopic()
	topic.Topic = &name
	req.Topics = append(req.Topics, topic)
	resp, err := a.Ask(ctx, req)
	if err != nil {
		return err
	}
	got := kerr.TypedErrorForCode(resp.(*kmsg.MetadataResponse).Topics[0].ErrorCode)
	if got != want {
		return fmt.Errorf("alias %s: %v, want %v", name, got, want)
	}
	return nil
}
