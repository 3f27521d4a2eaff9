package failures

import (
	"context"
	"crypto/x509/pkix"
	"errors"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kmsg"

	"tollgate.internal/e2e/internal/drivers"
	"tollgate.internal/e2e/internal/rawkafka"
	"tollgate.internal/e2e/internal/site"
	"tollgate.internal/e2e/internal/testpki"
)

// A change names a file that one node lacks. What the change takes away is gone there,
// too, at once; everything else goes on; the node says what is wrong; and when the file
// is there, so is all of the change.
func TestAChangeThatANodeCannotServe(t *testing.T) {
	disk := t.TempDir()
	b := start(t, site.Options{Nodes: 2, NodeDisk: disk})
	has, lacks := b.Nodes[0], b.Nodes[1]
	ca, err := testpki.New("partners of acme")
	if err != nil {
		t.Fatal(err)
	}
	pair, err := ca.Client(pkix.Name{CommonName: "carol"})
	if err != nil {
		t.Fatal(err)
	}
	cert, key, err := pair.Write(t.TempDir(), "carol")
	if err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(disk, "partners.pem")
	give := func(n *site.Node) {
		t.Helper()
		if err := os.WriteFile(n.Path(path), ca.PEM, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	give(has)

	b.tenant(t, "globex")
	b.account(t, acme, "keeper")
	bystanders := append(append(b.open(t, acme, dev), b.open(t, acme, "keeper")...), b.open(t, "globex", dev)...)
	b.Apply(t, `{apiVersion: tollgate/v1, kind: ServiceAccount, metadata: {name: leaver, virtualCluster: acme, labels: {leaves: "yes"}}, spec: {type: local}}`)
	b.Secret(t, acme, "leaver", password)
	sessions := b.open(t, acme, "leaver")
	working := b.work(t, false)

	a := b.Must(t, http.MethodPost, "/v1/apply?prune=leaves%3Dyes", fmt.Sprintf(`
apiVersion: tollgate/v1
kind: VirtualCluster
metadata: {name: acme, tenant: acme}
spec: {type: partner, host: acme, home: main, clusters: [main], authentication: {plain: {}, scram: {}, mtls: {caFile: %q}}, acls: {enabled: true, superUsers: ["User:%s"]}}
---
{apiVersion: tollgate/v1, kind: ServiceAccount, metadata: {name: carol, virtualCluster: acme}, spec: {type: external, externalNames: ["CN=carol"]}}
`, path, dev))
	since := time.Now()
	if a.Status != http.StatusOK {
		t.Fatal(a.Body)
	}
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	for _, s := range sessions {
		at, err := s.Ended(ctx)
		if err != nil {
			t.Fatal(err)
		}
		if took := at.Sub(since); took > 5*promised { // this machine has more to do
			t.Errorf("%s ended after %v", s.Name, took)
		} else {
			t.Logf("%s ended after %v", s.Name, took)
		}
	}
	for _, n := range b.Nodes {
		site.Eventually(t, "a login is answered", func(ctx context.Context) error {
			is, err := site.Refused(ctx, n.Target(acme, "PLAIN", "leaver", password))
			if err == nil && !is {
				t.Errorf("%s lets in who was taken away", n.Name)
			}
			return err
		})
		if is, err := site.Refused(ctx, n.Target(acme, "PLAIN", "keeper", password)); err != nil || is {
			t.Errorf("%s refuses who stays: %t, %v", n.Name, is, err)
		}
	}

	byCertificate := func(n *site.Node) error {
		target := n.Target(acme, "", "", "")
		target.CertFile, target.KeyFile = cert, key
		return metadataOf(ctx, target)
	}
	site.Eventually(t, "the node with the file serves all of it", func(context.Context) error { return byCertificate(has) })
	unserved := func(want float64) error {
		if got := lacks.Metric(t, "tollgate_proxy_fleet_bundles_unserved"); got != want {
			return fmt.Errorf("%v bundles are unserved, want %v", got, want)
		}
		return nil
	}
	site.Eventually(t, "the other says what is wrong", func(ctx context.Context) error {
		_, ready, err := lacks.Get(ctx, "/readyz")
		if err != nil {
			return err
		}
		list := b.Must(t, http.MethodGet, "/v1/nodes", "").Body
		for where, text := range map[string]string{"/readyz": ready, "the log": lacks.Said(t), "the list of nodes": list} {
			if !strings.Contains(text, path) {
				return fmt.Errorf("%s does not name the file: %s", where, text)
			}
		}
		return unserved(1)
	})
	if err := byCertificate(lacks); err == nil {
		t.Error("a node believes certificates without the authority that signs them")
	}
	if behind, head := lacks.Metric(t, "tollgate_proxy_fleet_applied_revision"), has.Metric(t, "tollgate_proxy_fleet_applied_revision"); behind >= head {
		t.Errorf("the node without the file says that it serves revision %v, and the other %v", behind, head)
	}
	working.goOn(t)

	give(lacks)
	site.Eventually(t, "with the file the rest is in force", func(context.Context) error {
		return errors.Join(byCertificate(lacks), unserved(0))
	})
	working.end(t)
	for _, s := range bystanders {
		if err := s.StillOpen(); err != nil {
			t.Error(err)
		}
	}
}

// metadataOf asks for it, as somebody who has to be known to be answered.
func metadataOf(ctx context.Context, target drivers.Target) error {
	conn, err := rawkafka.Dial(ctx, target)
	if err != nil {
		return err
	}
	defer conn.Close()
	req := kmsg.NewPtrMetadataRequest()
	req.Version = 9
	_, err = conn.Ask(req)
	return err
}
