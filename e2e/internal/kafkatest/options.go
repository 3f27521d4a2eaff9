package kafkatest

import (
	"fmt"
	"maps"
	"slices"
	"strings"

	"tollgate.internal/e2e/internal/kafkajars"
)

// The versions of Kafka under test.
const (
	V3 = kafkajars.V3
	V4 = kafkajars.V4
)

// Versions are all versions under test, oldest first.
func Versions() []string { return kafkajars.Versions() }

// A Listener is one of the ways to reach a broker.
type Listener string

const (
	// PLAINTEXT is always there: brokers talk to each other and the harness to
	// them over it. Its principal is User:ANONYMOUS, which is a super user.
	PLAINTEXT Listener = "PLAINTEXT"
	// SASL is SASL_SSL with PLAIN, SCRAM-SHA-256 and SCRAM-SHA-512 for the users of Options.
	SASL Listener = "SASL"
	// MTLS is SSL and demands a client certificate of the cluster's CA.
	MTLS Listener = "MTLS"
)

var protocols = map[Listener]string{PLAINTEXT: "PLAINTEXT", SASL: "SASL_SSL", MTLS: "SSL"}

// Users are the SASL users of a cluster whose Options name no others, with their
// passwords. User:admin is a super user where there is an authorizer.
func Users() map[string]string {
	return map[string]string{
		"admin":   "admin-secret",
		"gateway": "gateway-secret",
		"alice":   "alice-secret",
		"bob":     "bob-secret",
	}
}

// Options say what cluster to start; the zero value is one node of [V4] with
// the PLAINTEXT listener.
type Options struct {
	Version string
	// Nodes, all broker and controller in one, have the ids 1, 2, 3 unless
	// NodeIDs says otherwise; ids may be sparse.
	Nodes   int
	NodeIDs []int32
	// SASL and MTLS switch the listeners of that name on, besides PLAINTEXT.
	SASL, MTLS bool
	// Listeners are further ones, with their security protocols; Properties say the rest.
	Listeners map[Listener]string
	// Host is the name under which SASL, MTLS and further listeners are advertised;
	// without it 127.0.0.1. Who resolves it to 127.0.0.1 is the client's business.
	Host string
	// ServerNames are further names of the brokers' certificates, wildcards
	// among them. They always hold localhost, 127.0.0.1 and, unless ServerNames
	// are given, Host.
	ServerNames []string
	// Users of the SASL listener and their passwords; nil means [Users].
	Users map[string]string
	// Authorizer switches StandardAuthorizer on, with ANONYMOUS and admin as super users.
	Authorizer           bool
	AllowEveryoneIfNoACL bool
	// Features are levels given at format time, such as transaction.version: 1.
	Features map[string]int
	// Properties override what the harness writes into server.properties.
	Properties map[string]string
	// NodeProperties are further ones for each node, such as broker.rack.
	NodeProperties func(id int32) map[string]string
	// JVM are further flags of the brokers' JVMs.
	JVM []string
	// Jars are put behind Kafka's own on the brokers' class path.
	Jars []string
}

func (o Options) normal() (Options, error) {
	if o.Version == "" {
		o.Version = V4
	}
	if len(o.NodeIDs) == 0 {
		for id := range int32(max(o.Nodes, 1)) {
			o.NodeIDs = append(o.NodeIDs, id+1)
		}
	}
	if o.Nodes != 0 && o.Nodes != len(o.NodeIDs) {
		return o, fmt.Errorf("%d nodes but %d node ids", o.Nodes, len(o.NodeIDs))
	}
	o.Nodes = len(o.NodeIDs)
	if sorted := slices.Sorted(slices.Values(o.NodeIDs)); len(slices.Compact(sorted)) != o.Nodes || sorted[0] < 0 {
		return o, fmt.Errorf("node ids %v are not distinct and 0 or more", o.NodeIDs)
	}
	if o.Host == "" {
		o.Host = "127.0.0.1"
	}
	if len(o.ServerNames) == 0 && o.Host != "127.0.0.1" {
		o.ServerNames = []string{o.Host}
	}
	o.ServerNames = append([]string{"localhost", "127.0.0.1"}, o.ServerNames...)
	if o.Users == nil {
		o.Users = Users()
	}
	return o, nil
}

// listeners are those that clients may use, PLAINTEXT first.
func (o Options) listeners() []Listener {
	all := []Listener{PLAINTEXT}
	if o.SASL {
		all = append(all, SASL)
	}
	if o.MTLS {
		all = append(all, MTLS)
	}
	return append(all, slices.Sorted(maps.Keys(o.Listeners))...)
}

func (o Options) protocol(l Listener) string {
	if p, ok := o.Listeners[l]; ok {
		return p
	}
	return protocols[l]
}

// tls says whether a listener needs the brokers' certificate.
func (o Options) tls() bool {
	return slices.ContainsFunc(o.listeners(), func(l Listener) bool { return strings.HasSuffix(o.protocol(l), "SSL") })
}

// properties are the server.properties of one broker: the smallest that is
// stable, tuned to notice a dead broker within seconds.
func (c *Cluster) properties(b *Broker) map[string]string {
	o := c.Options
	replicas := min(o.Nodes, 3)
	rf, isr := fmt.Sprint(replicas), fmt.Sprint(min(replicas, 2))

	var listeners, advertised, protocol []string
	for _, l := range o.listeners() {
		listeners = append(listeners, fmt.Sprintf("%s://127.0.0.1:%d", l, b.Port(l)))
		advertised = append(advertised, fmt.Sprintf("%s://%s", l, b.Addr(l)))
		protocol = append(protocol, fmt.Sprintf("%s:%s", l, o.protocol(l)))
	}
	listeners = append(listeners, fmt.Sprintf("CONTROLLER://127.0.0.1:%d", b.controllerPort))
	protocol = append(protocol, "CONTROLLER:PLAINTEXT")
	var voters []string
	for _, v := range c.brokers {
		voters = append(voters, fmt.Sprintf("%d@127.0.0.1:%d", v.ID, v.controllerPort))
	}

	p := map[string]string{
		"process.roles":                  "broker,controller",
		"node.id":                        fmt.Sprint(b.ID),
		"controller.quorum.voters":       strings.Join(voters, ","),
		"listeners":                      strings.Join(listeners, ","),
		"advertised.listeners":           strings.Join(advertised, ","),
		"listener.security.protocol.map": strings.Join(protocol, ","),
		"controller.listener.names":      "CONTROLLER",
		"inter.broker.listener.name":     string(PLAINTEXT),
		"log.dirs":                       b.dir + "/data",

		"default.replication.factor":               rf,
		"offsets.topic.replication.factor":         rf,
		"transaction.state.log.replication.factor": rf,
		"min.insync.replicas":                      isr,
		"transaction.state.log.min.isr":            isr,
		"offsets.topic.num.partitions":             "4",
		"transaction.state.log.num.partitions":     "4",
		"auto.create.topics.enable":                "false",
		"num.partitions":                           "1",
		"group.initial.rebalance.delay.ms":         "0",

		"num.network.threads":                   "1", // for each listener
		"num.io.threads":                        "2",
		"background.threads":                    "2",
		"num.replica.fetchers":                  "1",
		"num.recovery.threads.per.data.dir":     "1",
		"log.cleaner.threads":                   "1",
		"log.cleaner.dedupe.buffer.size":        "2097152",
		"log.index.size.max.bytes":              "1048576",
		"metadata.log.segment.bytes":            "16777216",
		"broker.heartbeat.interval.ms":          "500",
		"broker.session.timeout.ms":             "3000",
		"controller.quorum.election.timeout.ms": "500",
		"controller.quorum.fetch.timeout.ms":    "1000",
	}
	if c.jars.Modern() {
		p["share.coordinator.state.topic.replication.factor"] = rf
		p["share.coordinator.state.topic.min.isr"] = isr
		p["share.coordinator.state.topic.num.partitions"] = "4"
	}
	if o.tls() {
		p["ssl.keystore.type"] = "PEM"
		p["ssl.keystore.location"] = c.keystore
		p["ssl.truststore.type"] = "PEM"
		p["ssl.truststore.location"] = c.CAFile
		p["listener.name.mtls.ssl.client.auth"] = "required"
	}
	if o.SASL {
		plain := "org.apache.kafka.common.security.plain.PlainLoginModule required"
		for _, user := range slices.Sorted(maps.Keys(o.Users)) {
			plain += fmt.Sprintf(" user_%s=%q", user, o.Users[user])
		}
		const scram = "org.apache.kafka.common.security.scram.ScramLoginModule required;"
		p["sasl.enabled.mechanisms"] = "PLAIN,SCRAM-SHA-256,SCRAM-SHA-512"
		p["listener.name.sasl.plain.sasl.jaas.config"] = plain + ";"
		p["listener.name.sasl.scram-sha-256.sasl.jaas.config"] = scram
		p["listener.name.sasl.scram-sha-512.sasl.jaas.config"] = scram
	}
	if o.Authorizer {
		p["authorizer.class.name"] = "org.apache.kafka.metadata.authorizer.StandardAuthorizer"
		p["super.users"] = "User:ANONYMOUS;User:admin"
		p["allow.everyone.if.no.acl.found"] = fmt.Sprint(o.AllowEveryoneIfNoACL)
	}
	maps.Copy(p, o.Properties)
	if o.NodeProperties != nil {
		maps.Copy(p, o.NodeProperties(b.ID))
	}
	return p
}

// encode writes a Java properties file.
func encode(p map[string]string) []byte {
	var b strings.Builder
	for _, name := range slices.Sorted(maps.Keys(p)) {
		fmt.Fprintf(&b, "%s=%s\n", name, strings.ReplaceAll(p[name], `\`, `\\`))
	}
	return []byte(b.String())
}
