package e2e

import (
	"context"
	"crypto/x509/pkix"
	"fmt"
	"io"
	"net/http"
	"regexp"
	"testing"
	"time"

	"tollgate.internal/e2e/internal/drivers"
	"tollgate.internal/e2e/internal/gateway"
	"tollgate.internal/e2e/internal/issuer"
	"tollgate.internal/e2e/internal/kafkatest"
	"tollgate.internal/e2e/internal/load"
	"tollgate.internal/e2e/internal/testpki"
)

// loginResources are a virtual cluster for tokens and one for certificates. Both
// have ACLs, so that nobody gets far whose principal is not the right one.
const loginResources = `
{apiVersion: tollgate/v1, kind: Tenant, metadata: {name: logins}, spec: {displayName: Logins}}
---
apiVersion: tollgate/v1
kind: VirtualCluster
metadata: {name: tokens, tenant: logins}
spec:
  type: standard
  host: tokens
  home: main
  acls: {enabled: true}
  authentication: {oauthbearer: {issuer: %q, audience: [kafka], jwksURL: %q}}
---
{apiVersion: tollgate/v1, kind: ServiceAccount, metadata: {name: shipping, virtualCluster: tokens}, spec: {type: external, externalNames: [shipping-client]}}
---
{apiVersion: tollgate/v1, kind: Acl, metadata: {name: topics-1, virtualCluster: tokens}, spec: {principal: "User:shipping", resource: {type: topic, name: "*"}, operation: ALL, permission: ALLOW}}
---
{apiVersion: tollgate/v1, kind: Acl, metadata: {name: groups-1, virtualCluster: tokens}, spec: {principal: "User:shipping", resource: {type: group, name: "*"}, operation: ALL, permission: ALLOW}}
---
apiVersion: tollgate/v1
kind: VirtualCluster
metadata: {name: certificates, tenant: logins}
spec:
  type: standard
  host: certificates
  home: main
  acls: {enabled: true}
  authentication: {mtls: {caFile: clients.pem, principalRules: "RULE:^CN=([a-z]+),OU=([A-Za-z]+),O=Acme$/$1@$2/L,DEFAULT"}}
---
{apiVersion: tollgate/v1, kind: ServiceAccount, metadata: {name: carol, virtualCluster: certificates}, spec: {type: external, externalNames: ["carol@dev"]}}
---
{apiVersion: tollgate/v1, kind: Acl, metadata: {name: topics-2, virtualCluster: certificates}, spec: {principal: "User:carol", resource: {type: topic, name: "*"}, operation: ALL, permission: ALLOW}}
---
{apiVersion: tollgate/v1, kind: Acl, metadata: {name: groups-2, virtualCluster: certificates}, spec: {principal: "User:carol", resource: {type: group, name: "*"}, operation: ALL, permission: ALLOW}}
`

// logsIn lets a client create a topic, produce and consume.
func logsIn(t *testing.T, d drivers.Driver, target drivers.Target, name string) {
	t.Helper()
	steps := []drivers.Step{
		{Do: drivers.CreateTopic, Topic: name, Partitions: 2},
		{Do: drivers.Produce, Topic: name, Count: 5, Prefix: "p-", Idempotent: true},
		{Do: drivers.Consume, Topic: name, Group: name, Count: 5},
	}
	if !d.Supports(drivers.CreateTopic) {
		if _, err := drivers.Do(t.Context(), drivers.FranzGo(), target, steps[0]); err != nil {
			t.Fatal(err)
		}
		steps = steps[1:]
	}
	outcomes, err := drivers.Do(t.Context(), d, target, steps...)
	if err != nil {
		t.Fatal(err)
	}
	if got := outcomes[len(outcomes)-1].Values(); len(got) != 5 {
		t.Errorf("read %v, want 5 records", got)
	}
}

func TestClientsLogInByTokenAndByCertificate(t *testing.T) {
	t.Parallel()
	kafka := upstreams[kafkatest.V4].Get(t)
	tokens := issuer.Start(t, "kafka", 10*time.Minute, map[string]string{"shipping-client": "s3cret", "stranger": "s3cret"})
	ca, err := testpki.New("Clients of acme")
	if err != nil {
		t.Fatal(err)
	}
	p := gateway.Start(t, map[string]string{"main": kafka.Bootstrap()}, map[string]string{
		"all.yaml":    fmt.Sprintf(loginResources, tokens.URL, tokens.JWKSURL()),
		"clients.pem": string(ca.PEM),
	})

	byToken := p.Target(t, "tokens", "OAUTHBEARER", "shipping-client", "s3cret")
	byToken.TokenURL = tokens.TokenURL()
	certified := func(t *testing.T, ca *testpki.CA, name pkix.Name) drivers.Target {
		t.Helper()
		pair, err := ca.Client(name)
		if err != nil {
			t.Fatal(err)
		}
		target := p.Target(t, "certificates", "", "", "")
		if target.CertFile, target.KeyFile, err = pair.Write(t.TempDir(), "client"); err != nil {
			t.Fatal(err)
		}
		return target
	}
	carol := pkix.Name{CommonName: "carol", OrganizationalUnit: []string{"Dev"}, Organization: []string{"Acme"}}
	byCertificate := certified(t, ca, carol)

	java := []drivers.Driver{drivers.Java(kafkatest.V3), drivers.Java(kafkatest.V4)}
	for _, d := range append(java, drivers.ConfluentKafka(), drivers.FranzGo()) {
		t.Run(d.Name()+" by token", func(t *testing.T) { logsIn(t, d, byToken, drivers.Slug(d)) })
	}
	for _, d := range append(java, drivers.ConfluentKafka(), drivers.FranzGo(), drivers.Kcat(), drivers.Sarama(), drivers.KafkaPython(), drivers.KafkaJS()) {
		t.Run(d.Name()+" by certificate", func(t *testing.T) { logsIn(t, d, byCertificate, drivers.Slug(d)) })
	}

	stranger := byToken
	stranger.User = "stranger"
	other, err := testpki.New("Clients of acme")
	if err != nil {
		t.Fatal(err)
	}
	for name, target := range map[string]drivers.Target{
		"a subject without an account":       stranger,
		"a name without an account":          certified(t, ca, pkix.Name{CommonName: "mallory", OrganizationalUnit: []string{"Dev"}, Organization: []string{"Acme"}}),
		"no certificate":                     p.Target(t, "certificates", "", "", ""),
		"a certificate of another authority": certified(t, other, carol),
	} {
		outcomes, err := drivers.FranzGo().Run(t.Context(), target, drivers.Step{Do: drivers.ListTopics, Seconds: 5})
		if err != nil {
			t.Fatal(err)
		}
		if outcomes[0].Err == nil {
			t.Errorf("%s was let in: %v", name, outcomes[0].Events)
		}
	}
}

// metrics are those of the gateway.
func metrics(t *testing.T, p *gateway.Process) string {
	t.Helper()
	resp, err := http.Get(p.Nodes[0].Metrics)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	text, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}

// A client whose token ends logs in again on the same connection (KIP-368), and
// goes on.
func TestClientsOutliveTheirTokens(t *testing.T) {
	t.Parallel()
	kafka := upstreams[kafkatest.V4].Get(t)
	// Java asks for the next token after four fifths of this: two seconds are left on a busy machine.
	tokens := issuer.Start(t, "kafka", 10*time.Second, map[string]string{"shipping-client": "s3cret"})
	ca, err := testpki.New("Clients of acme")
	if err != nil {
		t.Fatal(err)
	}
	p := gateway.Start(t, map[string]string{"main": kafka.Bootstrap()}, map[string]string{
		"all.yaml":    fmt.Sprintf(loginResources, tokens.URL, tokens.JWKSURL()),
		"clients.pem": string(ca.PEM),
	})
	target := p.Target(t, "tokens", "OAUTHBEARER", "shipping-client", "s3cret")
	target.TokenURL = tokens.TokenURL()
	create := drivers.Step{Do: drivers.CreateTopic, Topic: "long-lived"}
	if _, err := drivers.Do(t.Context(), drivers.FranzGo(), target, create); err != nil {
		t.Fatal(err)
	}
	before := tokens.Issued("shipping-client")
	ctx, cancel := context.WithTimeout(t.Context(), load.Patience)
	defer cancel()
	producer, err := load.VerifiableProducer(ctx, kafkatest.V4, target, "long-lived",
		"sasl.login.refresh.min.period.seconds=1", "sasl.login.refresh.buffer.seconds=1")
	if err != nil {
		t.Fatal(err)
	}
	err = load.Wait(ctx, func() error {
		if n := tokens.Issued("shipping-client") - before; n < 4 { // three lives are over
			return fmt.Errorf("%d tokens issued to the producer", n)
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	if err := producer.WaitMore(ctx, 100); err != nil {
		t.Fatal(err)
	}
	if err := producer.Stop(ctx); err != nil {
		t.Error(err)
	}
	// TG-AUTH-015 is a request on a session whose login has ended.
	if late := regexp.MustCompile(`(?m)^.*TG-AUTH-015.* [1-9].*$`).FindString(metrics(t, p)); late != "" {
		t.Errorf("the client logged in again too late: %s", late)
	}
}
