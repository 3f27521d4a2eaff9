package e2e

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"strings"
	"testing"

	"github.com/twmb/franz-go/pkg/kadm"

	"tollgate.internal/e2e/internal/kafkatest"
	"tollgate.internal/e2e/internal/site"
)

const auditTopic = "platform.audit"

// exported exports the audit log of a portal by one login after the other. Each is first
// tried with a credential that does not work, which the portal's health tells of; what is
// changed meanwhile arrives when it does. It returns what the portal has said.
func exported(ctx context.Context, t *testing.T, kafka *kafkatest.Cluster, logins []*login, env ...string) string {
	t.Helper()
	s := site.Start(t, site.Options{Env: append([]string{
		"TOLLGATE_PORTAL_AUDIT_TOPIC=" + auditTopic, "TOLLGATE_PORTAL_AUDIT_CLUSTER=audit", "TOLLGATE_PORTAL_AUDIT_CREATE=true",
	}, env...)})
	portal, admin := s.Portals[0], kadm.NewClient(kafka.Client(t))
	health := func(ctx context.Context) string {
		_, body, err := portal.Get(ctx, "/readyz")
		if err != nil {
			return err.Error()
		}
		return body
	}
	events := func(ctx context.Context) (n int64, err error) {
		ends, err := admin.ListEndOffsets(ctx, auditTopic)
		if err == nil {
			err = ends.Error()
		}
		ends.Each(func(o kadm.ListedOffset) { n += o.Offset })
		return n, err
	}
	change := func(name string) {
		t.Helper()
		s.Must(t, http.MethodPost, "/v1/apply", fmt.Sprintf("{apiVersion: tollgate/v1, kind: Tenant, metadata: {name: %s}, spec: {displayName: %s}}", name, name))
	}
	for _, l := range logins {
		if l.spoil != nil {
			l.spoil(t)
		}
		as := *l
		as.name = "audit"
		s.Must(t, http.MethodPost, "/v1/apply", as.resource(kafka)) // which may still go by the login before
		before := int64(0)
		if l.spoil != nil {
			says := strings.Split(l.says[len(l.says)-1], ": ") // of the mechanism, the step, and why
			site.Eventually(t, "the portal says what is wrong with "+l.name, func(ctx context.Context) error {
				h := health(ctx)
				for _, part := range []string{`"audit":"unavailable"`, "the portal cannot log in to the cluster", says[len(says)-1]} {
					if !strings.Contains(h, part) {
						return fmt.Errorf("%q is not in %s", part, h)
					}
				}
				return nil
			})
			var err error
			if before, err = events(ctx); err != nil {
				t.Fatal(err)
			}
			change(l.name)
			l.mend(t)
		}
		site.Eventually(t, "the log is exported by "+l.name, func(ctx context.Context) error {
			now, err := events(ctx)
			if err == nil && now <= before {
				err = errors.New("nothing new has arrived")
			}
			if h := health(ctx); !strings.Contains(h, `"audit":"ok"`) {
				err = errors.Join(err, errors.New(h))
			}
			return err
		})
	}
	site.Eventually(t, "everything is exported", func(context.Context) error {
		if n := portal.Metric(t, "tollgate_portal_audit_lag_entries"); n != 0 {
			return fmt.Errorf("%v entries are not", n)
		}
		return nil
	})
	return portal.Said(t)
}
