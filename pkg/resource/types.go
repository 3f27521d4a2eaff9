package resource

import (
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"tollgate.internal/pkg/strictyaml"
)

// APIVersion is the only apiVersion understood.
const APIVersion = "tollgate/v1"

// Duration is written with its unit, such as 30s.
type Duration time.Duration

// String is as Go writes it.
func (d Duration) String() string { return time.Duration(d).String() }

// MarshalText writes what UnmarshalText reads.
func (d Duration) MarshalText() ([]byte, error) { return []byte(d.String()), nil }

// UnmarshalText reads a duration with its unit.
func (d *Duration) UnmarshalText(text []byte) error {
	t, err := time.ParseDuration(string(text))
	if err != nil {
		return errors.New("must be a duration with its unit, such as 30s")
	}
	*d = Duration(t)
	return nil
}

// Metadata names an object. Tenant is set for VirtualCluster, TopicGrant and Budget;
// VirtualCluster for AliasTopic, ServiceAccount, ACL, and a Policy that is of one.
type Metadata struct {
	Name           string            `yaml:"name" json:"name"`
	Tenant         string            `yaml:"tenant,omitempty" json:"tenant,omitempty"`
	VirtualCluster string            `yaml:"virtualCluster,omitempty" json:"virtualCluster,omitempty"`
	Labels         map[string]string `yaml:"labels,omitempty" json:"labels,omitempty"`
	Revision       int64             `yaml:"revision,omitempty" json:"revision,omitempty"`
	Source         Source            `yaml:"-" json:"-"`
}

// Source is where an object was read, so that an error found later can name the
// place. It is zero for an object that came from elsewhere than a file.
type Source struct {
	File  string
	Line  int
	lines strictyaml.Lines
}

// Problem is something found wrong with a field after the object was read.
func (m *Metadata) Problem(field, format string, args ...any) Problem {
	return Problem{File: m.Source.File, Line: m.Source.lines.Of(field, m.Source.Line), Field: field, Message: fmt.Sprintf(format, args...)}
}

// String is file:line.
func (s Source) String() string { return s.File + ":" + strconv.Itoa(s.Line) }

// BaseDir is the directory that relative paths in the object start from: that
// of its file.
func (m *Metadata) BaseDir() string {
	if m.Source.File == "" {
		return ""
	}
	return filepath.Dir(m.Source.File)
}

// Path resolves a path that the object names against [Metadata.BaseDir].
func (m *Metadata) Path(path string) string {
	if path == "" || filepath.IsAbs(path) {
		return path
	}
	return filepath.Join(m.BaseDir(), path)
}

// Tenant is a partner.
type Tenant struct {
	Metadata Metadata   `yaml:"metadata" json:"metadata"`
	Spec     TenantSpec `yaml:"spec" json:"spec"`
}

// TenantState says whether a tenant's clients are served.
type TenantState string

// The states of a tenant. Suspending or closing ends its sessions.
const (
	TenantActive    TenantState = "active"
	TenantSuspended TenantState = "suspended"
	TenantClosing   TenantState = "closing"
)

// TenantSpec is what ops say of a tenant. State defaults to active.
type TenantSpec struct {
	DisplayName string      `yaml:"displayName,omitempty" json:"displayName,omitempty"`
	Contacts    []string    `yaml:"contacts,omitempty" json:"contacts,omitempty"`
	Plan        string      `yaml:"plan,omitempty" json:"plan,omitempty"`
	State       TenantState `yaml:"state,omitempty" json:"state,omitempty"`
}

// UpstreamCluster is a physical Kafka cluster.
type UpstreamCluster struct {
	Metadata Metadata            `yaml:"metadata" json:"metadata"`
	Spec     UpstreamClusterSpec `yaml:"spec" json:"spec"`
}

// UpstreamClusterSpec says how to reach a cluster: without TLS it is plaintext.
type UpstreamClusterSpec struct {
	Bootstrap []string      `yaml:"bootstrap" json:"bootstrap"`
	TLS       *UpstreamTLS  `yaml:"tls,omitempty" json:"tls,omitempty"`
	SASL      *UpstreamSASL `yaml:"sasl,omitempty" json:"sasl,omitempty"`
}

// UpstreamTLS names PEM files, or holds what is in them; without CA and CAFile it is
// the system's roots.
type UpstreamTLS struct {
	CA         string    `yaml:"ca,omitempty" json:"ca,omitempty"` // in place of CAFile
	CAFile     string    `yaml:"caFile,omitempty" json:"caFile,omitempty"`
	CertFile   string    `yaml:"certFile,omitempty" json:"certFile,omitempty"`
	KeyFile    Reference `yaml:"keyFile,omitempty" json:"keyFile,omitempty"`
	ServerName string    `yaml:"serverName,omitempty" json:"serverName,omitempty"`
}

// The mechanisms of an upstream login.
const (
	SASLPlain       = "PLAIN"
	SASLSCRAM256    = "SCRAM-SHA-256"
	SASLSCRAM512    = "SCRAM-SHA-512"
	SASLOAuthBearer = "OAUTHBEARER"
	SASLGSSAPI      = "GSSAPI"
	SASLMSKIAM      = "AWS_MSK_IAM"
)

// UpstreamSASL is the gateway's own login on a cluster. Each mechanism has fields of
// its own; those of others are refused.
type UpstreamSASL struct {
	Mechanism string `yaml:"mechanism" json:"mechanism"`

	// PLAIN, SCRAM-SHA-256 and SCRAM-SHA-512.
	Username string    `yaml:"username,omitempty" json:"username,omitempty"`
	Password Reference `yaml:"password,omitempty" json:"password,omitempty"`

	// OAUTHBEARER: client credentials (RFC 6749 §4.4). An empty CAFile means the
	// system's roots.
	TokenURL     string            `yaml:"tokenURL,omitempty" json:"tokenURL,omitempty"`
	ClientID     string            `yaml:"clientID,omitempty" json:"clientID,omitempty"`
	ClientSecret Reference         `yaml:"clientSecret,omitempty" json:"clientSecret,omitempty"`
	Scopes       []string          `yaml:"scopes,omitempty" json:"scopes,omitempty"`
	Extensions   map[string]string `yaml:"extensions,omitempty" json:"extensions,omitempty"` // KIP-342
	CAFile       string            `yaml:"caFile,omitempty" json:"caFile,omitempty"`         // of the token endpoint

	// GSSAPI. A principal without a realm is of krb5Conf's default realm.
	Keytab      Reference `yaml:"keytab,omitempty" json:"keytab,omitempty"`
	Principal   string    `yaml:"principal,omitempty" json:"principal,omitempty"`
	Krb5Conf    string    `yaml:"krb5Conf,omitempty" json:"krb5Conf,omitempty"`       // defaults to /etc/krb5.conf
	ServiceName string    `yaml:"serviceName,omitempty" json:"serviceName,omitempty"` // of the brokers; defaults to kafka

	// AWS_MSK_IAM. Without keys or a profile they come from where the AWS SDK looks by
	// default; with RoleARN they only serve to assume that role.
	Region          string    `yaml:"region,omitempty" json:"region,omitempty"`
	AccessKeyID     Reference `yaml:"accessKeyID,omitempty" json:"accessKeyID,omitempty"`
	SecretAccessKey Reference `yaml:"secretAccessKey,omitempty" json:"secretAccessKey,omitempty"`
	SessionToken    Reference `yaml:"sessionToken,omitempty" json:"sessionToken,omitempty"`
	Profile         string    `yaml:"profile,omitempty" json:"profile,omitempty"`
	RoleARN         string    `yaml:"roleArn,omitempty" json:"roleArn,omitempty"`
	ExternalID      string    `yaml:"externalId,omitempty" json:"externalId,omitempty"`
	STSEndpoint     string    `yaml:"stsEndpoint,omitempty" json:"stsEndpoint,omitempty"` // defaults to the region's
}

// Reference points at a secret: "env:NAME" or "file:PATH" (relative to the
// file it stands in). It is never the value itself. "aws-sm:" is kept for later.
type Reference string

// VirtualCluster is a tenant's Kafka.
type VirtualCluster struct {
	Metadata Metadata           `yaml:"metadata" json:"metadata"`
	Spec     VirtualClusterSpec `yaml:"spec" json:"spec"`
}

// VirtualClusterType is standard or partner.
type VirtualClusterType string

// A standard virtual cluster owns topics under the prefix "<name>." on home;
// a partner one has alias topics only and ACLs that cannot be switched off.
const (
	Standard VirtualClusterType = "standard"
	Partner  VirtualClusterType = "partner"
)

// VirtualClusterSpec is everything a tenant's Kafka is made of.
type VirtualClusterSpec struct {
	Type             VirtualClusterType `yaml:"type" json:"type"`
	Host             string             `yaml:"host" json:"host"`
	CustomHosts      []string           `yaml:"customHosts,omitempty" json:"customHosts,omitempty"`
	Home             string             `yaml:"home" json:"home"`
	Clusters         []string           `yaml:"clusters,omitempty" json:"clusters,omitempty"` // defaults to [home]
	Slots            map[string]int32   `yaml:"slots,omitempty" json:"slots,omitempty"`       // by cluster; see Slot
	Stubs            StubSettings       `yaml:"stubs,omitempty" json:"stubs,omitzero"`
	Transactions     []TransactionRule  `yaml:"transactions,omitempty" json:"transactions,omitempty"` // longest prefix first; others are on home
	Authentication   Authentication     `yaml:"authentication" json:"authentication"`
	ACLs             ACLSettings        `yaml:"acls,omitempty" json:"acls,omitzero"`
	Quotas           Quotas             `yaml:"quotas,omitempty" json:"quotas,omitzero"`
	Topics           TopicPolicy        `yaml:"topics,omitempty" json:"topics,omitzero"`
	AutoCreateTopics bool               `yaml:"autoCreateTopics,omitempty" json:"autoCreateTopics,omitempty"`
}

// MaxSlot bounds the slots of clusters, so that node ids stay below 2^30
// (PROTOCOL.md §B1).
const MaxSlot = 1<<14 - 1

// Slot is what tells a cluster's brokers from those of the others: their node ids in
// the virtual cluster are slot<<16 | id. It must never mean another cluster, so it
// follows from the cluster's name: 0 is home's, unless Slots says otherwise.
func (s *VirtualClusterSpec) Slot(cluster string) int32 {
	if slot, ok := s.Slots[cluster]; ok {
		return slot
	}
	if cluster == s.Home {
		return 0
	}
	sum := sha256.Sum256([]byte("tollgate cluster slot\x00" + cluster))
	return 1 + int32(binary.BigEndian.Uint32(sum[:])%MaxSlot)
}

// Spans reports whether there is a cluster beside home.
func (s *VirtualClusterSpec) Spans() bool { return len(s.Clusters) > 1 }

// TransactionCluster is where the transactions of an id are (PROTOCOL.md §C3).
func (s *VirtualClusterSpec) TransactionCluster(id string) string {
	cluster, longest := s.Home, -1
	for _, r := range s.Transactions {
		if len(r.Prefix) > longest && strings.HasPrefix(id, r.Prefix) {
			cluster, longest = r.Cluster, len(r.Prefix)
		}
	}
	return cluster
}

// TransactionRule puts the transactions whose ids begin so on a cluster.
type TransactionRule struct {
	Prefix  string `yaml:"prefix" json:"prefix"`
	Cluster string `yaml:"cluster" json:"cluster"`
}

// StubSettings are about the hidden topics on home that offsets of topics elsewhere
// are committed against (PROTOCOL.md §B4).
type StubSettings struct {
	Disabled          bool     `yaml:"disabled,omitempty" json:"disabled,omitempty"`                   // offsets are then kept on the topics' own clusters
	ReplicationFactor int16    `yaml:"replicationFactor,omitempty" json:"replicationFactor,omitempty"` // 1, or what home asks for
	KeepFor           Duration `yaml:"keepFor,omitempty" json:"keepFor,omitempty"`                     // after their alias is gone; 168h
}

// Authentication is any subset of the mechanisms; anonymous stands alone.
type Authentication struct {
	Plain               *struct{}     `yaml:"plain,omitempty" json:"plain,omitempty"`
	SCRAM               *struct{}     `yaml:"scram,omitempty" json:"scram,omitempty"`
	OAuthBearer         []OAuthIssuer `yaml:"oauthbearer,omitempty" json:"oauthbearer,omitempty"` // in files: one mapping or a list
	MTLS                *MTLS         `yaml:"mtls,omitempty" json:"mtls,omitempty"`
	Anonymous           *struct{}     `yaml:"anonymous,omitempty" json:"anonymous,omitempty"`
	MaxReauthentication Duration      `yaml:"maxReauthentication,omitempty" json:"maxReauthentication,omitempty"` // KIP-368 connections.max.reauth.ms; 0 = none
}

// OAuthIssuer is one issuer of tokens. JWKSURL may be http(s): or file:;
// empty means the issuer's discovery document.
type OAuthIssuer struct {
	Issuer         string   `yaml:"issuer" json:"issuer"`
	Audience       []string `yaml:"audience" json:"audience"`
	JWKSURL        string   `yaml:"jwksURL,omitempty" json:"jwksURL,omitempty"`
	PrincipalClaim string   `yaml:"principalClaim,omitempty" json:"principalClaim,omitempty"` // defaults to sub
}

// MTLS accepts client certificates of a CA. PrincipalRules are Kafka's
// ssl.principal.mapping.rules (KIP-371); empty means DEFAULT.
type MTLS struct {
	CA             string `yaml:"ca,omitempty" json:"ca,omitempty"`         // PEM; in place of CAFile
	CAFile         string `yaml:"caFile,omitempty" json:"caFile,omitempty"` // read by the proxies
	PrincipalRules string `yaml:"principalRules,omitempty" json:"principalRules,omitempty"`
}

// ACLSettings switch authorisation on. Enabled is ignored for type partner,
// where it is always on.
type ACLSettings struct {
	Enabled              bool     `yaml:"enabled,omitempty" json:"enabled,omitempty"`
	SuperUsers           []string `yaml:"superUsers,omitempty" json:"superUsers,omitempty"`
	AllowEveryoneIfNoACL bool     `yaml:"allowEveryoneIfNoAclFound,omitempty" json:"allowEveryoneIfNoAclFound,omitempty"`
}

// Quotas bound a virtual cluster, on all nodes of a fleet together; 0 means
// unlimited. Partitions are those of the topics that it owns.
type Quotas struct {
	ProduceBytesPerSecond int64 `yaml:"produceBytesPerSecond,omitempty" json:"produceBytesPerSecond,omitempty"`
	FetchBytesPerSecond   int64 `yaml:"fetchBytesPerSecond,omitempty" json:"fetchBytesPerSecond,omitempty"`
	RequestsPerSecond     int64 `yaml:"requestsPerSecond,omitempty" json:"requestsPerSecond,omitempty"`
	Connections           int   `yaml:"connections,omitempty" json:"connections,omitempty"`
	ConnectionsPerSecond  int64 `yaml:"connectionsPerSecond,omitempty" json:"connectionsPerSecond,omitempty"`
	Partitions            int   `yaml:"partitions,omitempty" json:"partitions,omitempty"`
}

// AccountQuotas bound one service account, within those of its virtual cluster; 0
// means that only those do.
type AccountQuotas struct {
	ProduceBytesPerSecond int64 `yaml:"produceBytesPerSecond,omitempty" json:"produceBytesPerSecond,omitempty"`
	FetchBytesPerSecond   int64 `yaml:"fetchBytesPerSecond,omitempty" json:"fetchBytesPerSecond,omitempty"`
	RequestsPerSecond     int64 `yaml:"requestsPerSecond,omitempty" json:"requestsPerSecond,omitempty"`
	Connections           int   `yaml:"connections,omitempty" json:"connections,omitempty"`
	ConnectionsPerSecond  int64 `yaml:"connectionsPerSecond,omitempty" json:"connectionsPerSecond,omitempty"`
}

// TopicPolicy bounds the topics that tenants create; zero values mean the
// defaults beside each field.
type TopicPolicy struct {
	MaxTopics                int      `yaml:"maxTopics,omitempty" json:"maxTopics,omitempty"`                               // unlimited
	MaxPartitions            int32    `yaml:"maxPartitions,omitempty" json:"maxPartitions,omitempty"`                       // per topic; 100
	DefaultPartitions        int32    `yaml:"defaultPartitions,omitempty" json:"defaultPartitions,omitempty"`               // upstream's num.partitions
	MinReplicationFactor     int16    `yaml:"minReplicationFactor,omitempty" json:"minReplicationFactor,omitempty"`         // 1
	MaxReplicationFactor     int16    `yaml:"maxReplicationFactor,omitempty" json:"maxReplicationFactor,omitempty"`         // 3
	DefaultReplicationFactor int16    `yaml:"defaultReplicationFactor,omitempty" json:"defaultReplicationFactor,omitempty"` // upstream's default.replication.factor
	ConfigKeys               []string `yaml:"configKeys,omitempty" json:"configKeys,omitempty"`                             // resource.DefaultConfigKeys
}

// TopicGrant lends a tenant a physical topic, or all topics of a prefix.
type TopicGrant struct {
	Metadata Metadata       `yaml:"metadata" json:"metadata"`
	Spec     TopicGrantSpec `yaml:"spec" json:"spec"`
}

// Access is what a grant allows.
type Access string

// The two kinds of access.
const (
	ReadOnly  Access = "read"
	ReadWrite Access = "read-write"
)

// TopicGrantSpec is the outer wall: no alias works without a covering grant.
type TopicGrantSpec struct {
	Cluster string        `yaml:"cluster" json:"cluster"`
	Topic   TopicSelector `yaml:"topic" json:"topic"`
	Access  Access        `yaml:"access" json:"access"`
	Until   time.Time     `yaml:"until,omitempty" json:"until,omitzero"` // zero: no end
}

// Pattern is how a name selects.
type Pattern string

// The two patterns.
const (
	Literal  Pattern = "literal"
	Prefixed Pattern = "prefixed"
)

// TopicSelector selects physical topics. Pattern defaults to literal.
type TopicSelector struct {
	Name    string  `yaml:"name" json:"name"`
	Pattern Pattern `yaml:"pattern,omitempty" json:"pattern,omitempty"`
}

// AliasTopic is the name (metadata.name) under which a virtual cluster sees a
// physical topic.
type AliasTopic struct {
	Metadata Metadata       `yaml:"metadata" json:"metadata"`
	Spec     AliasTopicSpec `yaml:"spec" json:"spec"`
}

// AliasTopicSpec says what an alias stands for. Clients take what is behind it for
// the same topic, with the same id and committed offsets, as long as Identity is the
// same. It is the id of the topic that the alias first stood for, as kafka-topics
// shows it (22 characters of base64); empty means the id of the topic there is now.
type AliasTopicSpec struct {
	Cluster  string `yaml:"cluster" json:"cluster"`
	Topic    string `yaml:"topic" json:"topic"`
	Identity string `yaml:"identity,omitempty" json:"identity,omitempty"`
}

// ServiceAccount is who a client is.
type ServiceAccount struct {
	Metadata Metadata           `yaml:"metadata" json:"metadata"`
	Spec     ServiceAccountSpec `yaml:"spec" json:"spec"`
}

// AccountType is local or external.
type AccountType string

// A local account proves itself by a password (PLAIN, SCRAM); an external one
// by a token's subject or a certificate's name.
const (
	Local    AccountType = "local"
	External AccountType = "external"
)

// ServiceAccountSpec holds a password by reference, verifiers, or external
// names. The principal is "User:" + metadata.name.
type ServiceAccountSpec struct {
	Type          AccountType   `yaml:"type" json:"type"`
	Password      Reference     `yaml:"password,omitempty" json:"password,omitempty"`
	Verifiers     []Verifier    `yaml:"verifiers,omitempty" json:"verifiers,omitempty"`
	ExternalNames []string      `yaml:"externalNames,omitempty" json:"externalNames,omitempty"`
	Expires       time.Time     `yaml:"expires,omitempty" json:"expires,omitzero"`
	Quotas        AccountQuotas `yaml:"quotas,omitempty" json:"quotas,omitzero"`
}

// Verifier proves knowledge of a secret without holding it. SCRAM: Mechanism
// SCRAM-SHA-256 or SCRAM-SHA-512 with Salt, StoredKey, ServerKey in base64.
// Argon2id: a PHC string, good for PLAIN only. At most two secrets may live.
type Verifier struct {
	ID         string    `yaml:"id,omitempty" json:"id,omitempty"`
	Mechanism  string    `yaml:"mechanism" json:"mechanism"` // SCRAM-SHA-256, SCRAM-SHA-512, argon2id
	Iterations int       `yaml:"iterations,omitempty" json:"iterations,omitempty"`
	Salt       string    `yaml:"salt,omitempty" json:"salt,omitempty"`
	StoredKey  string    `yaml:"storedKey,omitempty" json:"storedKey,omitempty"`
	ServerKey  string    `yaml:"serverKey,omitempty" json:"serverKey,omitempty"`
	Hash       string    `yaml:"hash,omitempty" json:"hash,omitempty"`
	Expires    time.Time `yaml:"expires,omitempty" json:"expires,omitzero"`
}

// ACL is one binding of Kafka's ACL model (kind Acl), on virtual names.
type ACL struct {
	Metadata Metadata `yaml:"metadata" json:"metadata"`
	Spec     ACLSpec  `yaml:"spec" json:"spec"`
}

// ACLSpec uses Kafka's own words: operations READ, WRITE, …; permissions
// ALLOW, DENY; resource types topic, group, cluster, transactionalId,
// delegationToken, user; patterns literal, prefixed. Host defaults to "*".
type ACLSpec struct {
	Principal  string      `yaml:"principal" json:"principal"`
	Host       string      `yaml:"host,omitempty" json:"host,omitempty"`
	Resource   ACLResource `yaml:"resource" json:"resource"`
	Operation  string      `yaml:"operation" json:"operation"`
	Permission string      `yaml:"permission" json:"permission"`
}

// ACLResource is what an ACL is about.
type ACLResource struct {
	Type    string  `yaml:"type" json:"type"`
	Name    string  `yaml:"name" json:"name"`
	Pattern Pattern `yaml:"pattern,omitempty" json:"pattern,omitempty"`
}
