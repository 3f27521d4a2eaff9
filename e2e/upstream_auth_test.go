package e2e

import (
	"context"
	"crypto/x509/pkix"
	"errors"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kgo"

	"tollgate.internal/e2e/internal/aws"
	"tollgate.internal/e2e/internal/gateway"
	"tollgate.internal/e2e/internal/kafkatest"
	"tollgate.internal/e2e/internal/kerberos"
	"tollgate.internal/e2e/internal/keycloak"
	"tollgate.internal/e2e/internal/load"
	"tollgate.internal/e2e/internal/testpki"
)

// The listeners of the broker that knows every way to log in, besides those of kafkatest.
const (
	tlsOnly  kafkatest.Listener = "TLS"
	bySecret kafkatest.Listener = "CLEAR" // SASL without TLS
	byTicket kafkatest.Listener = "KRB"
	byToken  kafkatest.Listener = "TOKEN"
	byIAM    kafkatest.Listener = "IAM"
)

// A login is a way for the gateway to log in upstream.
type login struct {
	name     string
	listener kafkatest.Listener
	tls      string // of the resource; empty: none
	sasl     string

	// spoil makes the credential one that does not work, mend one that does.
	spoil, mend func(t *testing.T)
	// says is what a line of the log has to say of the spoilt one.
	says []string
}

const virtualCluster = `
{apiVersion: tollgate/v1, kind: VirtualCluster, metadata: {name: %[1]s, tenant: acme}, spec: {type: standard, host: %[1]s, home: %[2]s, authentication: {anonymous: {}}}}
---
`

// upstreamResource is a cluster that is reached by l.
func (l *login) resource(kafka *kafkatest.Cluster) string {
	spec := fmt.Sprintf("bootstrap: [%q]", kafka.BootstrapOn(l.listener))
	if l.tls != "" {
		spec += ", tls: " + l.tls
	}
	if l.sasl != "" {
		spec += ", sasl: " + l.sasl
	}
	return fmt.Sprintf("{apiVersion: tollgate/v1, kind: UpstreamCluster, metadata: {name: %s}, spec: {%s}}\n---\n", l.name, spec)
}

// file is one outside of the resources that tests write.
type file string

func (f file) write(t *testing.T, content []byte) {
	t.Helper()
	if err := os.WriteFile(string(f)+".new", content, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Rename(string(f)+".new", string(f)); err != nil {
		t.Fatal(err)
	}
}

func (f file) text(content string) func(*testing.T) {
	return func(t *testing.T) { t.Helper(); f.write(t, []byte(content)) }
}

func (f file) copy(from string) func(*testing.T) {
	return func(t *testing.T) {
		t.Helper()
		content, err := os.ReadFile(from)
		if err != nil {
			t.Fatal(err)
		}
		f.write(t, content)
	}
}

// Every way to log in upstream works, against the counterpart it is for. When the
// credentials go bad, each cluster says so by its name and keeps it to itself; when
// their files are put right, the clients that were there go on.
func TestTheGatewayLogsInUpstream(t *testing.T) {
	t.Parallel()
	var (
		kdc    *kerberos.KDC
		idp    *keycloak.Server
		amazon *aws.AWS
		beds   sync.WaitGroup
	)
	beds.Go(func() { idp = keycloak.Start(t) })
	beds.Go(func() { kdc = kerberos.Start(t) })
	beds.Go(func() { amazon = aws.Start(t) })
	beds.Wait()
	if t.Failed() {
		return
	}
	dir := t.TempDir()
	secret := func(name string) file { return file(filepath.Join(dir, name)) }

	o := kafkatest.Options{
		Version: kafkatest.V4, SASL: true, MTLS: true,
		Listeners:  map[kafkatest.Listener]string{tlsOnly: "SSL", bySecret: "SASL_PLAINTEXT", byTicket: "SASL_SSL"},
		Properties: map[string]string{},
	}
	const plainModule = `org.apache.kafka.common.security.plain.PlainLoginModule required user_gateway="gateway-secret";`
	maps.Copy(o.Properties, map[string]string{
		"connections.max.reauth.ms":                   "10000",
		"listener.name.clear.sasl.enabled.mechanisms": "PLAIN",
		"listener.name.clear.plain.sasl.jaas.config":  plainModule,
	})
	brokerKeys := kdc.Keytab(t, "kafka/127.0.0.1@"+kerberos.Realm)
	o.JVM = append(o.JVM, "-Djava.security.krb5.conf="+kdc.Conf)
	maps.Copy(o.Properties, map[string]string{
		"sasl.kerberos.service.name":                "kafka",
		"listener.name.krb.sasl.enabled.mechanisms": "GSSAPI",
		"listener.name.krb.gssapi.sasl.jaas.config": fmt.Sprintf(
			`com.sun.security.auth.module.Krb5LoginModule required useKeyTab=true storeKey=true isInitiator=false keyTab=%q principal="kafka/127.0.0.1@%s";`, brokerKeys, kerberos.Realm),
	})
	idp.Broker(&o, byToken)
	amazon.Broker(t, &o, byIAM)
	kafka := kafkatest.Start(t, o)
	others, err := testpki.New("Somebody else's CA")
	if err != nil {
		t.Fatal(err)
	}
	stranger, err := others.Client(pkix.Name{CommonName: "gateway", OrganizationalUnit: []string{"Clients"}, Organization: []string{"Tollgate"}})
	if err != nil {
		t.Fatal(err)
	}
	strangerCert, strangerKey, err := stranger.Write(dir, "stranger")
	if err != nil {
		t.Fatal(err)
	}
	ca := fmt.Sprintf("{caFile: %q}", kafka.CAFile)

	roots, cert, key := secret("roots.pem"), secret("client.pem"), secret("client.key")
	password, sha256, sha512 := secret("plain.secret"), secret("scram256.secret"), secret("scram512.secret")
	clear, client, keytab := secret("clear.secret"), secret("client.secret"), secret("gateway.keytab")
	keySecret, baseSecret, shared := secret("key.secret"), secret("base.secret"), secret("aws-credentials")
	stale := kdc.Keytab(t, "tollgate@"+kerberos.Realm)
	fresh := kdc.Keytab(t, "tollgate@"+kerberos.Realm) // the key before is good no longer
	const role = "arn:aws:iam::111122223333:role/kafka"
	amazon.SetRole(role, "acme-1")
	amazon.SetKey(t, aws.Key{ID: "AKIASTATIC", Secret: "static-secret", Principal: "arn:aws:iam::111122223333:user/static"})
	amazon.SetKey(t, aws.Key{ID: "AKIABASE", Secret: "base-secret", Principal: "arn:aws:iam::111122223333:user/base"})
	amazon.SetKey(t, aws.Key{ID: "AKIASHARED", Secret: "shared-secret", Principal: "arn:aws:iam::111122223333:user/shared"})
	secret("static.id").text("AKIASTATIC")(t)
	secret("base.id").text("AKIABASE")(t)
	profile := "[default]\naws_access_key_id = AKIASHARED\naws_secret_access_key = %s\n"
	both := func(f, g func(*testing.T)) func(*testing.T) { return func(t *testing.T) { t.Helper(); f(t); g(t) } }

	assume := fmt.Sprintf("{mechanism: AWS_MSK_IAM, region: %s, roleArn: %q, externalId: acme-1, stsEndpoint: %q, accessKeyID: 'file:%s', secretAccessKey: 'file:%s'}",
		aws.Region, role, amazon.STS, secret("base.id"), baseSecret)
	logins := []*login{
		{name: "plaintext", listener: kafkatest.PLAINTEXT},
		{
			name: "tls", listener: tlsOnly, tls: fmt.Sprintf("{caFile: %q}", string(roots)),
			mend: roots.copy(kafka.CAFile), spoil: roots.text(string(others.PEM)),
			says: []string{"certificate signed by unknown authority"},
		},
		{
			name: "mtls", listener: kafkatest.MTLS, tls: fmt.Sprintf("{caFile: %q, certFile: %q, keyFile: 'file:%s'}", kafka.CAFile, string(cert), key),
			mend: both(cert.copy(kafka.ClientCertFile), key.copy(kafka.ClientKeyFile)), spoil: both(cert.copy(strangerCert), key.copy(strangerKey)),
			says: []string{"the broker ended TLS"},
		},
		{
			name: "plain", listener: kafkatest.SASL, tls: ca, sasl: fmt.Sprintf("{mechanism: PLAIN, username: gateway, password: 'file:%s'}", password),
			mend: password.text("gateway-secret\n"), spoil: password.text("wrong"),
			says: []string{"PLAIN as gateway: SaslAuthenticate: SASL_AUTHENTICATION_FAILED"},
		},
		{
			name: "clear", listener: bySecret, sasl: fmt.Sprintf("{mechanism: PLAIN, username: gateway, password: 'file:%s'}", clear),
			mend: clear.text("gateway-secret\n"), spoil: clear.text("wrong"),
			says: []string{"PLAIN as gateway: SaslAuthenticate: SASL_AUTHENTICATION_FAILED"},
		},
		{
			name: "scram-256", listener: kafkatest.SASL, tls: ca, sasl: fmt.Sprintf("{mechanism: SCRAM-SHA-256, username: gateway, password: 'file:%s'}", sha256),
			mend: sha256.text("gateway-secret\n"), spoil: sha256.text("wrong"),
			says: []string{"SCRAM-SHA-256 as gateway: SaslAuthenticate: SASL_AUTHENTICATION_FAILED"},
		},
		{
			name: "scram-512", listener: kafkatest.SASL, tls: ca, sasl: fmt.Sprintf("{mechanism: SCRAM-SHA-512, username: gateway, password: 'file:%s'}", sha512),
			mend: sha512.text("gateway-secret\n"), spoil: sha512.text("wrong"),
			says: []string{"SCRAM-SHA-512 as gateway: SaslAuthenticate: SASL_AUTHENTICATION_FAILED"},
		},
		{
			name: "oauth", listener: byToken, tls: ca,
			sasl: fmt.Sprintf("{mechanism: OAUTHBEARER, tokenURL: %q, clientID: %s, clientSecret: 'file:%s', extensions: {traceId: e2e}}", idp.TokenURL(), keycloak.ClientID, client),
			mend: client.text(keycloak.ClientSecret + "\n"), spoil: client.text("wrong"),
			says: []string{"OAUTHBEARER as gateway: no credential: ", "token endpoint " + idp.TokenURL() + ": 401 Unauthorized, unauthorized_client"},
		},
		{
			name: "kerberos", listener: byTicket, tls: ca,
			sasl: fmt.Sprintf("{mechanism: GSSAPI, keytab: 'file:%s', principal: tollgate, krb5Conf: %q}", keytab, kdc.Conf),
			mend: keytab.copy(fresh), spoil: keytab.copy(stale),
			says: []string{"GSSAPI as tollgate@" + kerberos.Realm + ": no credential: ", "KDC of " + kerberos.Realm + ": ", "password/keytab incorrect"},
		},
		{
			name: "iam-keys", listener: byIAM, tls: ca,
			sasl: fmt.Sprintf("{mechanism: AWS_MSK_IAM, region: %s, accessKeyID: 'file:%s', secretAccessKey: 'file:%s'}", aws.Region, secret("static.id"), keySecret),
			mend: keySecret.text("static-secret\n"), spoil: keySecret.text("wrong"),
			says: []string{"AWS_MSK_IAM in " + aws.Region + " as the static keys: the broker refused the token: invalid_token"},
		},
		{
			name: "iam-role", listener: byIAM, tls: ca, sasl: assume,
			mend: baseSecret.text("base-secret\n"), spoil: baseSecret.text("wrong"),
			says: []string{"AWS_MSK_IAM in " + aws.Region + " as " + role + ": no credential: ", "assume role " + role + ": ", "SignatureDoesNotMatch"},
		},
		{
			// The same keys serve both clusters.
			name: "iam-role-2", listener: byIAM, tls: ca, sasl: assume,
			says: []string{"SignatureDoesNotMatch"},
		},
		{
			// Rotated, and not everywhere at once.
			name: "iam-default", listener: byIAM, tls: ca, sasl: fmt.Sprintf("{mechanism: AWS_MSK_IAM, region: %s}", aws.Region),
			mend: func(t *testing.T) {
				t.Helper()
				shared.text(fmt.Sprintf(profile, "rotated-secret"))(t)
			},
			spoil: func(t *testing.T) {
				t.Helper()
				amazon.SetKey(t, aws.Key{ID: "AKIASHARED", Secret: "rotated-secret", Principal: "arn:aws:iam::111122223333:user/shared"})
			},
			says: []string{"AWS_MSK_IAM in " + aws.Region + " as the default credentials: the broker refused the token: invalid_token"},
		},
	}
	shared.text(fmt.Sprintf(profile, "shared-secret"))(t)

	calm := upstreams[kafkatest.V4].Get(t)
	var b strings.Builder
	fmt.Fprintf(&b, "{apiVersion: tollgate/v1, kind: Tenant, metadata: {name: acme}, spec: {displayName: ACME}}\n---\n")
	fmt.Fprintf(&b, "{apiVersion: tollgate/v1, kind: UpstreamCluster, metadata: {name: calm}, spec: {bootstrap: [%q]}}\n---\n", calm.Bootstrap())
	fmt.Fprintf(&b, virtualCluster, "calm-vc", "calm")
	for _, l := range logins {
		if l.mend != nil && l.name != "iam-default" {
			l.mend(t)
		}
		b.WriteString(l.resource(kafka))
		fmt.Fprintf(&b, virtualCluster, l.name+"-vc", l.name)
	}
	env := []string{
		"AWS_SHARED_CREDENTIALS_FILE=" + string(shared), "AWS_EC2_METADATA_DISABLED=true", "AWS_ACCESS_KEY_ID=", "AWS_SECRET_ACCESS_KEY=", "AWS_PROFILE=",
	}
	p := gateway.Start(t, nil, map[string]string{"all.yaml": b.String()}, env...)

	ctx, cancel := context.WithTimeout(t.Context(), 6*load.Patience)
	defer cancel()
	clients := make(map[string]*guest)
	for _, l := range logins {
		clients[l.name] = visit(ctx, t, p, l.name+"-vc")
	}
	quiet := visit(ctx, t, p, "calm-vc")
	if n := amazon.Assumed(role); n != 1 {
		t.Errorf("the role was assumed %d times for two clusters, want once", n)
	}
	for _, name := range []string{"plain", "oauth"} {
		if warned := logLines(t, p, "upstream credential is not safe on its way", "cluster="+name+" "); len(warned) > 0 && name == "plain" || len(warned) == 0 && name == "oauth" {
			t.Errorf("warnings of cluster %s: %q", name, warned)
		}
	}
	if len(logLines(t, p, "upstream credential is not safe on its way", "cluster=clear ", "reads the password")) != 1 {
		t.Error("no warning of a password in the clear")
	}

	// Every mechanism logs in again on connections that are open, before the broker would
	// close them.
	for _, l := range logins {
		if l.sasl == "" {
			continue
		}
		err := load.Wait(ctx, func() error {
			if renewed := regexp.MustCompile(`tollgate_proxy_upstream_reauthentications_total\{cluster="` + l.name + `"\} [1-9]`); !renewed.MatchString(metrics(t, p)) {
				return errors.New("no login of cluster " + l.name + " was renewed")
			}
			return nil
		})
		if err != nil {
			t.Error(err)
		}
	}
	if refused := logLines(t, p, "refusal=TG-UPSTREAM-009 "); len(refused) > 0 {
		t.Errorf("logins that should have gone well: %q", refused)
	}

	// Connections that there are stay, so it takes a restart of the broker for the gateway
	// to notice.
	for _, l := range logins {
		if l.spoil != nil {
			l.spoil(t)
		}
	}
	if err := kafka.Broker(1).Restart(ctx); err != nil {
		t.Fatal(err)
	}
	noticed, cancelNoticed := context.WithTimeout(ctx, load.Patience)
	defer cancelNoticed()
	for _, l := range logins {
		if l.says == nil {
			clients[l.name].works(ctx, t)
			continue
		}
		err := load.Wait(noticed, func() error {
			if len(logLines(t, p, append([]string{"refusal=TG-UPSTREAM-009 ", "cluster=" + l.name + " "}, l.says...)...)) == 0 {
				return fmt.Errorf("the log does not say of cluster %s: %q", l.name, l.says)
			}
			if failures := regexp.MustCompile(`tollgate_proxy_upstream_login_failures_total\{cluster="` + l.name + `"\} [1-9]`); !failures.MatchString(metrics(t, p)) {
				return errors.New("the failed logins of cluster " + l.name + " are not counted")
			}
			return nil
		})
		if err != nil {
			t.Error(err)
		}
	}
	began := time.Now()
	quiet.works(ctx, t)
	if took := time.Since(began); took > 5*time.Second {
		t.Errorf("a client of another cluster waited %v", took)
	}
	for _, l := range logins {
		if l.mend != nil {
			l.mend(t)
		}
	}
	for _, l := range logins {
		clients[l.name].works(ctx, t)
	}
	text, err := os.ReadFile(p.Log)
	if err != nil {
		t.Fatal(err)
	}

	// A portal logs in by the same code, and another client.
	exporting := slices.DeleteFunc(logins, func(l *login) bool { return l.name == "iam-role-2" })
	for _, l := range exporting {
		if l.name == "iam-default" {
			l.spoil = shared.text(fmt.Sprintf(profile, "wrong")) // it is rotated once
		}
	}
	text = append(text, exported(ctx, t, kafka, exporting, env...)...)
	for _, never := range []string{"gateway-secret", "static-secret", "base-secret", "shared-secret", "rotated-secret", keycloak.ClientSecret} {
		if strings.Contains(string(text), never) {
			t.Errorf("the log holds %q", never)
		}
	}
}

// guest is a client of a virtual cluster that stays.
type guest struct {
	name   string
	client *kgo.Client
	sent   int
}

// visit connects a client, makes a topic and uses it.
func visit(ctx context.Context, t *testing.T, p *gateway.Process, vc string) *guest {
	t.Helper()
	target := p.Target(t, vc, "", "", "")
	opts, err := target.KgoOpts()
	if err != nil {
		t.Fatal(err)
	}
	c, err := kgo.NewClient(append(opts, kgo.DefaultProduceTopic("things"), kgo.ConsumeTopics("things"), kgo.ConsumerGroup("readers"),
		kgo.ConsumeResetOffset(kgo.NewOffset().AtStart()), kgo.RecordDeliveryTimeout(0), kgo.UnknownTopicRetries(-1))...)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(c.Close)
	made, err := kadm.NewClient(c).CreateTopic(ctx, 1, 1, nil, "things")
	if err := errors.Join(err, made.Err); err != nil {
		t.Fatalf("%s: create a topic: %v", vc, err)
	}
	g := &guest{name: vc, client: c}
	g.works(ctx, t)
	return g
}

// works produces a record and reads it.
func (g *guest) works(ctx context.Context, t *testing.T) {
	t.Helper()
	g.sent++
	want := fmt.Sprint(g.sent)
	if err := g.client.ProduceSync(ctx, kgo.StringRecord(want)).FirstErr(); err != nil {
		t.Fatalf("%s: produce: %v", g.name, err)
	}
	for {
		fetches := g.client.PollFetches(ctx)
		if err := ctx.Err(); err != nil {
			t.Fatalf("%s: consume: %v %v", g.name, err, fetches.Err())
		}
		records := fetches.Records()
		if len(records) == 0 {
			continue // an error that the client gets over
		}
		if got := string(records[len(records)-1].Value); got == want {
			return
		}
	}
}

// logLines are the lines of the gateway's log with all of these in them.
func logLines(t *testing.T, p *gateway.Process, all ...string) (lines []string) {
	t.Helper()
	text, err := os.ReadFile(p.Log)
	if err != nil {
		t.Fatal(err)
	}
	for line := range strings.Lines(string(text)) {
		if !slices.ContainsFunc(all, func(part string) bool { return !strings.Contains(line, part) }) {
			lines = append(lines, line)
		}
	}
	return lines
}
