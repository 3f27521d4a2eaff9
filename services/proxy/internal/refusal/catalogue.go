package refusal

import "github.com/twmb/franz-go/pkg/kerr"

// The catalogue, sorted by id. A new refusal takes the next number of its area
// and goes into [All]; then run "make generate".
var (
	ClusterNotAuthorized = &Refusal{
		ID:    "TG-ACL-001",
		Kafka: kerr.ClusterAuthorizationFailed,
		When:  "an operation on the cluster that the principal may not perform",
		Cause: "No ACL on resource type cluster, name kafka-cluster, allows the operation to the principal, or a DENY covers it; creating, altering and describing ACLs, quotas and cluster-wide settings all ask for one.",
		Cure:  "Add an Acl for the principal with resource {type: cluster, name: kafka-cluster} and the operation in the log line, or a super user under spec.acls.superUsers.",
	}
	ACLsReadOnly = &Refusal{
		ID:    "TG-ACL-002",
		Kafka: kerr.PolicyViolation,
		When:  "a change of ACLs through the Kafka protocol",
		Cause: "The gateway runs from resource files (--resources), which are the only place where ACLs are written.",
		Cure:  "Change the Acl resources in the directory; they apply within a second.",
	}
	ACLsDisabled = &Refusal{
		ID:    "TG-ACL-003",
		Kafka: kerr.SecurityDisabled,
		When:  "a request about ACLs in a virtual cluster without ACLs",
		Cause: "spec.acls.enabled is false, so there is no ACL store, as on a broker without an authorizer.",
		Cure:  "Set spec.acls.enabled: true (type partner has it always).",
	}
	QuotasReadOnly = &Refusal{
		ID:    "TG-ACL-005",
		Kafka: kerr.PolicyViolation,
		When:  "a change of client quotas through the Kafka protocol",
		Cause: "Quotas belong to the VirtualCluster and ServiceAccount resources; tenants cannot raise their own.",
		Cure:  "Change spec.quotas of the VirtualCluster or the ServiceAccount.",
	}
	CredentialsReadOnly = &Refusal{
		ID:    "TG-ACL-006",
		Kafka: kerr.PolicyViolation,
		When:  "a change of SCRAM credentials through the Kafka protocol",
		Cause: "The gateway runs from resource files (--resources), which are the only place where credentials are written.",
		Cure:  "Change the ServiceAccount resource.",
	}
	OperatorOnly = &Refusal{
		ID:    "TG-ACL-007",
		Kafka: kerr.ClusterAuthorizationFailed,
		When:  "an operation on brokers, loggers or client metrics",
		Cause: "Brokers are shared by all tenants; their settings, log directories, leaders and reassignments are never open to one of them, whatever its ACLs say.",
		Cure:  "Use an operator's connection straight to the upstream cluster.",
	}
	ACLsUnreachable = &Refusal{
		ID:    "TG-ACL-008",
		Kafka: kerr.RequestTimedOut,
		When:  "a change of ACLs through the Kafka protocol",
		Cause: "The portal, which keeps the ACLs, does not answer this node, or refuses its token.",
		Cure:  "Look at the cause in the log line, the portal's health, and the API address and token of the node. The client may ask again: a change made twice is the same.",
	}
	ACLInvalid = &Refusal{
		ID:    "TG-ACL-009",
		Kafka: kerr.InvalidRequest,
		When:  "an ACL, or a filter for ACLs, that has no meaning",
		Cause: "A name, type, operation or principal in it is not one that ACLs of a virtual cluster can have; the text says which.",
		Cure:  "Correct the ACL; principals are User:NAME of the virtual cluster's service accounts, hosts are * or addresses.",
	}
	MechanismNotOffered = &Refusal{
		ID:    "TG-AUTH-001",
		Kafka: kerr.UnsupportedSaslMechanism,
		When:  "a SASL mechanism that the virtual cluster does not offer",
		Cause: "The client's sasl.mechanism is not under spec.authentication of the VirtualCluster, or the listener's protocol has no SASL.",
		Cure:  "Use one of the mechanisms in the log line, or add the one wanted to spec.authentication.",
	}
	BadCredentials = &Refusal{
		ID:    "TG-AUTH-002",
		Kafka: kerr.SaslAuthenticationFailed,
		When:  "a login with wrong credentials",
		Cause: "No such account, a wrong password, or a secret that has expired. The client is told the same in every case, after the same time; the log line tells them apart.",
		Cure:  "Check user name and password, and that the account belongs to this virtual cluster: the host name the client connects to selects it.",
	}
	SASLMalformed = &Refusal{
		ID:    "TG-AUTH-003",
		Kafka: kerr.SaslAuthenticationFailed,
		When:  "a SASL message that does not follow its mechanism's grammar",
		Cause: "A client bug, or a client that speaks another mechanism than the one it announced.",
		Cure:  "Check the client's SASL settings; the log line names what was expected.",
	}
	AuthorizationID = &Refusal{
		ID:    "TG-AUTH-004",
		Kafka: kerr.SaslAuthenticationFailed,
		When:  "a login on behalf of somebody else",
		Cause: "The SASL authorization id is neither empty nor equal to the user name.",
		Cure:  "Leave the authorization id empty.",
	}
	DelegationTokenLogin = &Refusal{
		ID:    "TG-AUTH-005",
		Kafka: kerr.SaslAuthenticationFailed,
		When:  "a login with a delegation token",
		Cause: "SCRAM was begun with tokenauth=true.",
		Cure:  "Use a ServiceAccount's password.",
	}
	TokenRefused = &Refusal{
		ID:    "TG-AUTH-006",
		Kafka: kerr.SaslAuthenticationFailed,
		When:  "an OAuth bearer token",
		Cause: "Expired or not yet valid, wrong issuer or audience, an unknown signing key, a signature that does not verify, an algorithm that is not allowed, or no principal claim. The log line says which.",
		Cure:  "Compare the token's claims with spec.authentication.oauthbearer and check both clocks (30 s of skew are allowed).",
	}
	TokenKeysUnavailable = &Refusal{
		ID:    "TG-AUTH-007",
		When:  "an OAuth bearer token whose issuer's keys could not be had",
		Cause: "The JWKS of the issuer has not been fetched yet, or its server does not answer.",
		Cure:  "Make jwksURL reachable from the gateway; the log line has the last error. Keys fetched before stay in use.",
	}
	AccountUnknown = &Refusal{
		ID:    "TG-AUTH-008",
		Kafka: kerr.SaslAuthenticationFailed,
		When:  "a valid token or certificate of nobody we know",
		Cause: "No ServiceAccount of type external lists the name among spec.externalNames, or the account has expired.",
		Cure:  "Add the name in the log line to a ServiceAccount.",
	}
	CertificateNotMapped = &Refusal{
		ID:    "TG-AUTH-009",
		When:  "a client certificate that no principal rule maps",
		Cause: "None of the rules of spec.authentication.mtls.principalRules matches the subject's distinguished name.",
		Cure:  "Add a rule, or DEFAULT as the last one; the log line has the name as Kafka prints it.",
	}
	CertificateMissing = &Refusal{
		ID:    "TG-AUTH-010",
		When:  "a client that shows no certificate where nothing else would authenticate it",
		Cause: "The virtual cluster authenticates by certificate alone, or by SASL which the client did not begin.",
		Cure:  "Give the client a key store (ssl.keystore.location), or use security.protocol=SASL_SSL.",
	}
	NotAuthenticated = &Refusal{
		ID:    "TG-AUTH-011",
		When:  "a request before authentication",
		Cause: "The client's security.protocol has no SASL (SSL or PLAINTEXT) while the virtual cluster asks for it, or the client is not a Kafka client.",
		Cure:  "Set security.protocol=SASL_SSL and sasl.mechanism.",
	}
	OutOfOrder = &Refusal{
		ID:    "TG-AUTH-012",
		Kafka: kerr.IllegalSaslState,
		When:  "a SASL request out of order",
		Cause: "SaslAuthenticate without SaslHandshake, a second ApiVersions, or SASL after authentication without re-authentication.",
		Cure:  "A client bug; report it with the client's name and version in the log line.",
	}
	ReauthenticationTooSoon = &Refusal{
		ID:    "TG-AUTH-013",
		Kafka: kerr.IllegalSaslState,
		When:  "a re-authentication less than a second after the last",
		Cause: "A client that re-authenticates in a loop.",
		Cure:  "Check the client's version; Java re-authenticates at 85-95 % of the lifetime.",
	}
	ReauthenticationMismatch = &Refusal{
		ID:    "TG-AUTH-014",
		Kafka: kerr.SaslAuthenticationFailed,
		When:  "a re-authentication as somebody else",
		Cause: "Principal or mechanism differ from those the connection began with.",
		Cure:  "Open a new connection to change the principal.",
	}
	SessionExpired = &Refusal{
		ID:      "TG-AUTH-015",
		When:    "a request after the session's lifetime",
		Cause:   "The credential expired, or maxReauthentication passed, and the client did not re-authenticate (KIP-368).",
		Cure:    "Use a client that re-authenticates (Java 2.2, librdkafka 1.x and later), or let it reconnect: nothing else is wrong.",
		Routine: true,
	}
	CredentialRevoked = &Refusal{
		ID:    "TG-AUTH-016",
		When:  "a session whose account was removed, changed or has expired",
		Cause: "The ServiceAccount, the secret it logged in with, or the certificate authority is gone since the last reload.",
		Cure:  "None, when it was intended; else restore the account. The client reconnects and is judged anew.",
	}
	AuthenticationTimeout = &Refusal{
		ID:    "TG-AUTH-017",
		When:  "a connection that did not authenticate in time",
		Cause: "The client waits for something, is very slow, or is not a Kafka client and keeps connections open.",
		Cure:  "Check what is at the address in the log line; limits.authenticationTimeout sets the time.",
	}
	TenantInactive = &Refusal{
		ID:    "TG-AUTH-019",
		When:  "a client of a tenant that is suspended or closing",
		Cause: "spec.state of the Tenant is not active.",
		Cure:  "Set it to active.",
	}
	SizeInvalid = &Refusal{
		ID:    "TG-FRAME-001",
		When:  "a frame with a negative size or one too small for a header",
		Cause: "Not a Kafka client, or one that lost count after an error.",
		Cure:  "Check what is at the address in the log line.",
	}
	TooLarge = &Refusal{
		ID:    "TG-FRAME-002",
		When:  "a frame above the size limit",
		Cause: "A request larger than limits.requestBytes (Kafka's socket.request.max.bytes), one other than Produce larger than a 32nd of limits.requestMemory, or bytes that are not Kafka: a size of 0x47455420 is \"GET \", 0x16030100 a TLS hello, 0x0d0a0d0a a PROXY header.",
		Cure:  "Make the client's batches smaller, raise the limit, or correct the client's security.protocol.",
	}
	TooLargeUnauthenticated = &Refusal{
		ID:    "TG-FRAME-003",
		When:  "a frame above 512 KiB before authentication",
		Cause: "Before authentication only ApiVersions and SASL are legal, and those are small.",
		Cure:  "Check what is at the address in the log line.",
	}
	Truncated = &Refusal{
		ID:    "TG-FRAME-004",
		When:  "a request whose body does not follow its schema",
		Cause: "A truncated or garbled body, a length that points outside the frame, bytes left over, or a client bug.",
		Cure:  "Check the client's version; the log line names request and version.",
	}
	KeyUnknown = &Refusal{
		ID:    "TG-FRAME-005",
		When:  "a request key that no Kafka has, or a newer Kafka than this gateway knows",
		Cause: "A client that ignores ApiVersions, or garbage.",
		Cure:  "Check the client; a gateway that knows the request may be needed.",
	}
	KeyNotOffered = &Refusal{
		ID:    "TG-FRAME-006",
		When:  "a request that virtual clusters do not offer",
		Cause: "Requests between brokers, of operators, or of features that are left out; ApiVersions does not list them, and a broker closes the connection for a disabled request too.",
		Cure:  "See docs/compatibility.md for what is offered; use a client that heeds ApiVersions.",
	}
	VersionNotOffered = &Refusal{
		ID:    "TG-FRAME-007",
		When:  "a version of a request that was not offered",
		Cause: "A client that ignores ApiVersions, or one that kept an older answer across a change.",
		Cure:  "Let it reconnect; if it repeats, use a client that heeds ApiVersions.",
	}
	APIVersionsVersion = &Refusal{
		ID:      "TG-FRAME-008",
		Kafka:   kerr.UnsupportedVersion,
		When:    "a version of ApiVersions that the gateway does not know",
		Cause:   "A newer client; it tries again with the version named in the answer (KIP-511).",
		Cure:    "None.",
		Routine: true,
	}
	ClientSoftware = &Refusal{
		ID:    "TG-FRAME-009",
		Kafka: kerr.InvalidRequest,
		When:  "a client software name or version with characters that are not allowed",
		Cause: "ApiVersions v3 and later allow letters, digits, '.' and '-' (KIP-511).",
		Cure:  "Correct the client library's software name.",
	}
	RequestTimeout = &Refusal{
		ID:    "TG-FRAME-010",
		When:  "a request that began and did not arrive in time",
		Cause: "A very slow or broken network, or somebody who sends a byte now and then to hold a connection and its memory.",
		Cure:  "Check the address in the log line; limits.requestTimeout sets the time.",
	}
	ClientStalled = &Refusal{
		ID:    "TG-FRAME-011",
		When:  "a client that takes nothing of its answer",
		Cause: "A client that hangs or was stopped, or a network that carries nothing more; the broker connection behind the answer is others' too.",
		Cure:  "Check what is at the address in the log line; limits.stallTimeout sets the time.",
	}
	GroupNotAuthorized = &Refusal{
		ID:    "TG-GROUP-001",
		Kafka: kerr.GroupAuthorizationFailed,
		When:  "a consumer group that the principal may not use",
		Cause: "No ACL allows the operation on the group, or a DENY covers it.",
		Cure:  "Add an Acl with resource {type: group, name: …}: READ to consume and commit, DESCRIBE to look, DELETE to delete.",
	}
	GroupInvalid = &Refusal{
		ID:    "TG-GROUP-002",
		Kafka: kerr.InvalidGroupID,
		When:  "an empty or illegal group id",
		Cause: "The client has no group.id, or one that is too long with the virtual cluster's prefix.",
		Cure:  "Set group.id.",
	}
	CoordinatorKeyType = &Refusal{
		ID:    "TG-GROUP-003",
		Kafka: kerr.InvalidRequest,
		When:  "a coordinator of a kind that is not offered",
		Cause: "FindCoordinator for share state, which is between brokers, or an unknown key type.",
		Cure:  "A client bug, unless it is an inter-broker tool.",
	}
	RegexInvalid = &Refusal{
		ID:    "TG-GROUP-005",
		Kafka: kerr.InvalidRegularExpression,
		When:  "a subscription pattern that is not RE2",
		Cause: "Look-around, back-references or a syntax error in SubscriptionPattern.",
		Cure:  "Correct the pattern; RE2 syntax applies, as on a broker.",
	}
	ServerNameMissing = &Refusal{
		ID:    "TG-LISTEN-001",
		When:  "a TLS connection without a server name",
		Cause: "The client connects to an IP address, or to a name without a dot (Java sends no SNI for those), or its TLS library sends no SNI; without it the gateway cannot know whose Kafka is meant.",
		Cure:  "Use one of the host names in the log line as bootstrap.servers.",
	}
	ServerNameUnknown = &Refusal{
		ID:    "TG-LISTEN-002",
		When:  "a TLS connection to a host name that belongs to no virtual cluster",
		Cause: "A typing error, a virtual cluster that was removed or is not loaded, or a DNS record that is older than the configuration.",
		Cure:  "Use one of the host names in the log line, or add a VirtualCluster with that spec.host or spec.customHosts.",
	}
	NoCertificate = &Refusal{
		ID:    "TG-LISTEN-003",
		When:  "a TLS connection to a known host name that no certificate covers",
		Cause: "None of the listener's certificates names the host; *.gw.example.com covers acme.gw.example.com and b1-acme.gw.example.com, but a custom host needs a certificate for itself and for its broker names (b0-kafka.acme.com, …: a wildcard *.acme.com covers both).",
		Cure:  "Add a certificate for the name in the log line.",
	}
	NotTLS = &Refusal{
		ID:    "TG-LISTEN-004",
		When:  "a connection that does not begin with a TLS handshake",
		Cause: "The client's security.protocol is PLAINTEXT or SASL_PLAINTEXT, or it is a port scan or a health check that sends bytes.",
		Cure:  "Set security.protocol=SASL_SSL (or SSL).",
	}
	HandshakeFailed = &Refusal{
		ID:    "TG-LISTEN-005",
		When:  "a TLS handshake that failed",
		Cause: "The client does not trust the gateway's certificate, expects another name, offers only TLS 1.1 or older, or offers no common cipher suite.",
		Cure:  "Check the client's trust store (ssl.truststore.location, ssl.ca.location); the log line has the alert.",
	}
	ClientCertificateRefused = &Refusal{
		ID:    "TG-LISTEN-006",
		When:  "a client certificate that does not verify, or none where one is needed",
		Cause: "The certificate is not issued by the authority of spec.authentication.mtls.caFile, has expired, is not for client authentication, or the client has no key store and the virtual cluster offers nothing else.",
		Cure:  "Give the client a certificate of that authority; the log line has the reason.",
	}
	HandshakeTimeout = &Refusal{
		ID:    "TG-LISTEN-007",
		When:  "a connection whose handshake took too long",
		Cause: "A client that connects and sends nothing or only little: a TCP health check that stays open, a very slow network, or an attack.",
		Cure:  "Check the address in the log line; limits.handshakeTimeout sets the time.",
	}
	ClientGone = &Refusal{
		ID:      "TG-LISTEN-008",
		When:    "a connection that the client closed during the handshake",
		Cause:   "A TCP health check of a load balancer, a port scan, or a client that refused the gateway's certificate without an alert.",
		Cure:    "None for health checks. Otherwise look at the client's log.",
		Routine: true,
	}
	ProxyHeaderInvalid = &Refusal{
		ID:    "TG-LISTEN-009",
		When:  "a connection from a listed proxy without a valid PROXY protocol v2 header",
		Cause: "The address is under proxyProtocol of the listener, but sent no header, one of version 1, or a broken one.",
		Cure:  "Switch PROXY protocol v2 on at the load balancer, also for its health checks, or take the address off the list.",
	}
	ProxyHeaderUnlisted = &Refusal{
		ID:    "TG-LISTEN-010",
		When:  "a PROXY protocol header from an address that may not send one",
		Cause: "A load balancer that is not under proxyProtocol of the listener, or somebody who wants to appear under another address.",
		Cure:  "Add the load balancer's address to proxyProtocol of the listener.",
	}
	TooManyConnections = &Refusal{
		ID:    "TG-LISTEN-011",
		When:  "a connection beyond the node's limit",
		Cause: "limits.connections are open on this node.",
		Cure:  "Add nodes, or raise the limit together with the process's limit of open files.",
	}
	TooManyUnauthenticated = &Refusal{
		ID:    "TG-LISTEN-012",
		When:  "a connection while too many others have not authenticated yet",
		Cause: "Many clients connect at once (they come back by themselves), or an attack.",
		Cure:  "Raise limits.unauthenticatedConnections if it is normal load.",
	}
	TooManyUnauthenticatedFromAddress = &Refusal{
		ID:    "TG-LISTEN-013",
		When:  "a connection of an address with too many others that have not authenticated yet",
		Cause: "Many clients behind one address, or an attack from it. IPv6 addresses count by /64.",
		Cure:  "Raise limits.unauthenticatedConnectionsPerAddress; behind a load balancer use PROXY protocol v2.",
	}
	TooManyFromAddress = &Refusal{
		ID:    "TG-LISTEN-014",
		When:  "a connection of an address beyond its limit",
		Cause: "limits.connectionsPerAddress are open from it: many clients behind one address, or a client that leaks connections. IPv6 addresses count by /64.",
		Cure:  "Raise the limit; behind a load balancer use PROXY protocol v2.",
	}
	TooManyOfVirtualCluster = &Refusal{
		ID:    "TG-LISTEN-015",
		When:  "a connection beyond the virtual cluster's limit",
		Cause: "spec.quotas.connections of the VirtualCluster are open, on all nodes together; while Redis is away each node has its part of them. Every client opens one connection per broker and one more per group.",
		Cure:  "Raise the quota, or find the client that opens so many.",
	}
	ProtocolNotOffered = &Refusal{
		ID:    "TG-LISTEN-016",
		When:  "a virtual cluster on a listener whose protocol cannot authenticate its clients",
		Cause: "The listener's protocol (SSL, SASL_SSL, PLAINTEXT, SASL_PLAINTEXT) and spec.authentication have nothing in common: PLAINTEXT takes anonymous clients alone, SSL certificates or anonymous, SASL_* a SASL mechanism.",
		Cure:  "Use a listener with protocol TLS, or change spec.authentication.",
	}
	VirtualClusterUnknown = &Refusal{
		ID:    "TG-LISTEN-017",
		When:  "a client of a virtual cluster that is not there",
		Cause: "It was removed, or moved to another home, under the client's connection; or the virtualCluster of a port-routed listener is one that no resource defines.",
		Cure:  "None when it was intended. Otherwise add the VirtualCluster, or remove the listener.",
	}
	BrokerWithoutPort = &Refusal{
		ID:    "TG-LISTEN-018",
		Kafka: kerr.BrokerNotAvailable,
		When:  "a broker for which a port-routed listener has no port",
		Cause: "The broker's virtual node id is outside every range of the listener's brokerPorts.",
		Cure:  "Widen a range, or add one whose firstNode is the id in the log line.",
	}
	VirtualClusterNotLoaded = &Refusal{
		ID:    "TG-LISTEN-019",
		When:  "a TLS connection to a host name of which the node could not find out whose it is",
		Cause: "It is the first client of its virtual cluster on this node, and neither the control plane's Redis nor the node's disk gave the virtual cluster in time; the log line says why. Or so many names that nobody owns are asked for that the node asks for no more.",
		Cure:  "None for the client: its connection is closed without a word, and it tries again. Make the Redis reachable from the node, or find who sends the unknown names.",
	}
	TooFastForVirtualCluster = &Refusal{
		ID:    "TG-LISTEN-020",
		When:  "a connection while too many others of its virtual cluster are being made",
		Cause: "Clients connect more often than spec.quotas.connectionsPerSecond of the VirtualCluster allows, on all nodes together; the first in excess are kept waiting for up to two seconds.",
		Cure:  "None for the client: it tries again. Raise the quota, or find the clients that do not keep their connections.",
	}
	TooManyOfAccount = &Refusal{
		ID:    "TG-LISTEN-021",
		When:  "a connection beyond the service account's limit",
		Cause: "spec.quotas.connections of the ServiceAccount are open, on all nodes together. Every client opens one connection per broker and one more per group.",
		Cure:  "Raise the quota, or find the client that opens so many.",
	}
	TooFastForAccount = &Refusal{
		ID:    "TG-LISTEN-022",
		When:  "a connection while too many others of its service account are being made",
		Cause: "Clients log in more often than spec.quotas.connectionsPerSecond of the ServiceAccount allows, on all nodes together; the first in excess are kept waiting for up to two seconds.",
		Cure:  "None for the client: it tries again. Raise the quota, or find the clients that do not keep their connections.",
	}
	Internal = &Refusal{
		ID:    "TG-NODE-001",
		Kafka: kerr.UnknownServerError,
		When:  "a request that met an error nobody foresaw",
		Cause: "A bug of the gateway. The client is told nothing of it.",
		Cure:  "Report the log line.",
	}
	Draining = &Refusal{
		ID:      "TG-NODE-002",
		When:    "a connection to a node that is being stopped or drained",
		Cause:   "The node received SIGTERM, or was told to drain, and moves its clients off.",
		Cure:    "None: clients reconnect to another node.",
		Routine: true,
	}
	SocketsExhausted = &Refusal{
		ID:    "TG-NODE-005",
		When:  "new connections for a while",
		Cause: "The process, or the machine, has no file descriptors left; clients wait in the listen queue.",
		Cure:  "Raise the limit of open files (LimitNOFILE, ulimit -n) or lower limits.connections below it.",
	}
	ClosedByOperator = &Refusal{
		ID:      "TG-NODE-006",
		When:    "a connection that somebody closes by the API (DELETE /v1/sessions/{id}, tollgate session close)",
		Cause:   "An operator, or somebody with a token of the tenant, closed this one connection; the audit log says who. The client may come back.",
		Cure:    "None. To keep the client away, revoke its secret or remove its account.",
		Routine: true,
	}
	TopicCreationOff = &Refusal{
		ID:    "TG-POLICY-001",
		Kafka: kerr.PolicyViolation,
		When:  "the creation of a topic where tenants create none",
		Cause: "The virtual cluster is of type partner: its topics are alias topics, lent by the operators.",
		Cure:  "Ask for a TopicGrant and an AliasTopic.",
	}
	TooManyTopics = &Refusal{
		ID:    "TG-POLICY-002",
		Kafka: kerr.PolicyViolation,
		When:  "a topic beyond the virtual cluster's limit",
		Cause: "spec.topics.maxTopics is reached.",
		Cure:  "Delete topics, or raise the limit.",
	}
	PartitionsOverLimit = &Refusal{
		ID:    "TG-POLICY-003",
		Kafka: kerr.PolicyViolation,
		When:  "more partitions than a topic may have",
		Cause: "The count asked for is above spec.topics.maxPartitions.",
		Cure:  "Ask for fewer, or raise the limit.",
	}
	ReplicationFactor = &Refusal{
		ID:    "TG-POLICY-004",
		Kafka: kerr.PolicyViolation,
		When:  "a replication factor outside the allowed range",
		Cause: "It is below spec.topics.minReplicationFactor or above maxReplicationFactor.",
		Cure:  "Leave it out (-1) for the default.",
	}
	ReplicaAssignment = &Refusal{
		ID:    "TG-POLICY-005",
		Kafka: kerr.PolicyViolation,
		When:  "an assignment of replicas by hand",
		Cause: "Placement on the shared brokers is the operators' affair.",
		Cure:  "Give a number of partitions and a replication factor instead.",
	}
	ConfigKey = &Refusal{
		ID:    "TG-POLICY-006",
		Kafka: kerr.PolicyViolation,
		When:  "a topic setting that tenants may not change",
		Cause: "The key is not in spec.topics.configKeys.",
		Cure:  "Leave the key out, or add it to the list.",
	}
	NameTooLong = &Refusal{
		ID:    "TG-POLICY-007",
		Kafka: kerr.InvalidTopicException,
		When:  "a topic name that is too long with the virtual cluster's prefix",
		Cause: "Kafka allows 249 characters, the prefix \"<virtual cluster>.\" included.",
		Cure:  "Choose a shorter name.",
	}
	TooManyPartitions = &Refusal{
		ID:    "TG-POLICY-008",
		Kafka: kerr.PolicyViolation,
		When:  "a topic or partitions beyond the virtual cluster's limit of partitions",
		Cause: "With those asked for, the topics of the virtual cluster would have more partitions together than spec.quotas.partitions of the VirtualCluster.",
		Cure:  "Delete topics, ask for fewer partitions, or raise the quota.",
	}
	PolicyAcks = &Refusal{
		ID:    "TG-POLICY-009",
		Kafka: kerr.InvalidRequiredAcks,
		When:  "records that are produced with fewer acknowledgements than a policy asks for",
		Cause: "The producer's acks is less than spec.config.acks of the Policy in the log line. With acks=0 the client cannot be told: its connection is closed instead.",
		Cure:  "Set acks=all (or 1, where the policy says leader) on the producer, or change the policy or its scope.",
	}
	PolicyCompression = &Refusal{
		ID:    "TG-POLICY-010",
		Kafka: kerr.PolicyViolation,
		When:  "records that are compressed otherwise than a policy allows",
		Cause: "The codec of the batch is not in spec.config.compression of the Policy in the log line; some clients send small batches uncompressed whatever is configured.",
		Cure:  "Set compression.type on the producer to one of the list, or change the policy or its scope.",
	}
	PolicyBatchSize = &Refusal{
		ID:    "TG-POLICY-011",
		Kafka: kerr.PolicyViolation, // not MESSAGE_TOO_LARGE: Java producers before 4.2 split into what is as large, again and again (KAFKA-8350)
		When:  "a batch of records that is larger than a policy allows",
		Cause: "The batch, compressed as it was sent, has more bytes than spec.config.maxBatchBytes of the Policy in the log line.",
		Cure:  "Lower batch.size and max.request.size of the producer (batch.size and message.max.bytes of librdkafka) well below the limit: compression is an estimate while a batch is filled, or change the policy or its scope.",
	}
	PolicyIdempotence = &Refusal{
		ID:    "TG-POLICY-012",
		Kafka: kerr.PolicyViolation,
		When:  "records of a producer that is not idempotent, where a policy asks for it",
		Cause: "The batch has no producer id, and spec.config.idempotent of the Policy in the log line is true.",
		Cure:  "Set enable.idempotence=true on the producer, or change the policy or its scope.",
	}
	Invalid = &Refusal{
		ID:    "TG-REQUEST-001",
		Kafka: kerr.InvalidRequest,
		When:  "a request whose fields contradict each other or Kafka's rules",
		Cause: "Both a topic's name and its id, the same topic twice, a version's new field used wrongly: the text in the answer says which.",
		Cure:  "Check the client's version.",
	}
	FetchSessionUnknown = &Refusal{
		ID:      "TG-REQUEST-003",
		Kafka:   kerr.FetchSessionIDNotFound,
		When:    "a fetch session that this connection does not hold",
		Cause:   "The client moved to another node, the session was dropped to make room, or somebody guesses ids: a session is valid only on the connection and for the principal that began it.",
		Cure:    "None: the client begins a new session.",
		Routine: true,
	}
	EndpointType = &Refusal{
		ID:    "TG-REQUEST-011",
		Kafka: kerr.MismatchedEndpointType,
		When:  "DescribeCluster for controllers",
		Cause: "Controllers of the shared cluster are not shown; the client used bootstrap.controllers.",
		Cure:  "Use bootstrap.servers.",
	}
	RefusedWithoutAcks = &Refusal{
		ID:    "TG-REQUEST-012",
		When:  "a Produce with acks=0 of which something was refused",
		Cause: "With acks=0 there is no answer that could carry the code, so the connection is closed, as a broker does; a line before this one, or err, says what was refused.",
		Cure:  "See to that refusal, or use acks=1 or all.",
	}
	ShareSessionUnknown = &Refusal{
		ID:      "TG-REQUEST-013",
		Kafka:   kerr.ShareSessionNotFound,
		When:    "a share session that this connection does not hold",
		Cause:   "The client opened it on a connection that has ended, or opened another one since: a share session is valid only on the connection that began it, as on a broker.",
		Cure:    "None: the client begins a new session; what it had acquired goes to others.",
		Routine: true,
	}
	ShareRequestInvalid = &Refusal{
		ID:    "TG-REQUEST-014",
		Kafka: kerr.InvalidRequest,
		When:  "a ShareFetch or ShareAcknowledge without group or member, or with more partitions than there can be",
		Cause: "A client bug, or somebody tries what the gateway bears.",
		Cure:  "Look at the client.",
	}
	EndpointTypeUnknown = &Refusal{
		ID:    "TG-REQUEST-015",
		Kafka: kerr.UnsupportedEndpointType,
		When:  "DescribeCluster for endpoints of a kind that does not exist",
		Cause: "The client is newer than this gateway, or has a bug.",
		Cure:  "Report it with the client's name and version in the log line.",
	}
	QuotaEntityUnknown = &Refusal{
		ID:    "TG-REQUEST-016",
		Kafka: kerr.UnsupportedVersion,
		When:  "a filter for quotas of something that has none",
		Cause: "DescribeClientQuotas knows user, client-id and ip.",
		Cure:  "Correct the filter.",
	}
	TopicElsewhere = &Refusal{
		ID:      "TG-SPAN-001",
		Kafka:   kerr.NotLeaderForPartition,
		When:    "a request for a topic to a broker of another cluster",
		Cause:   "The virtual cluster spans several clusters and the client's metadata is old, or it asked a bootstrap host for what only a leader answers.",
		Cure:    "None: the client refreshes its metadata.",
		Routine: true,
	}
	CoordinatorElsewhere = &Refusal{
		ID:      "TG-SPAN-002",
		Kafka:   kerr.NotCoordinator,
		When:    "a request of a group or transaction to a broker of another cluster",
		Cause:   "Groups are on the virtual cluster's home and a transaction on the cluster that spec.transactions names, or on home; the client asked a broker of another one.",
		Cure:    "None: the client looks for the coordinator.",
		Routine: true,
	}
	TransactionElsewhere = &Refusal{
		ID:    "TG-SPAN-003",
		Kafka: kerr.TransactionAbortable,
		When:  "a topic in a transaction that lives on another cluster",
		Cause: "A transaction is on one cluster: home, or the one that spec.transactions of the VirtualCluster names for the transactional id. What the same request asked for beside it is refused too; the producer aborts and may go on.",
		Cure:  "Write to topics of one cluster in a transaction; for topics of a cluster other than home, name it for a prefix of transactional ids in spec.transactions.",
	}
	TransactionElsewhereOld = &Refusal{
		ID:    "TG-SPAN-004",
		Kafka: kerr.InvalidTxnState,
		When:  "records of a transaction that lives on another cluster, by a client older than TRANSACTION_ABORTABLE",
		Cause: "As TG-SPAN-003.",
		Cure:  "As TG-SPAN-003.",
	}
	OffsetsElsewhere = &Refusal{
		ID:    "TG-SPAN-005",
		Kafka: kerr.TransactionAbortable,
		When:  "a group's offsets in a transaction that cannot hold them",
		Cause: "Groups are on the virtual cluster's home, so offsets go into transactions that are on home, and only those of topics that have a stub there. The transaction is on another cluster (spec.transactions), or home lets the gateway create no stub for the topic.",
		Cure:  "Use a transactional id whose transactions are on home, with output topics on home; or let the gateway create stubs (see the virtual cluster's status).",
	}
	OffsetsElsewhereOld = &Refusal{
		ID:    "TG-SPAN-006",
		Kafka: kerr.GroupAuthorizationFailed,
		When:  "a group's offsets in a transaction that cannot hold them, by a client older than TRANSACTION_ABORTABLE",
		Cause: "As TG-SPAN-005; this code is one after which such clients can abort and go on.",
		Cure:  "As TG-SPAN-005.",
	}
	ProducerOfHome = &Refusal{
		ID:    "TG-SPAN-007",
		Kafka: kerr.PolicyViolation,
		When:  "records of an idempotent producer whose id another cluster gave out",
		Cause: "The producer was started when the gateway issued no producer ids of its own, and home's numbers mean other producers elsewhere: its records could be taken for duplicates and dropped.",
		Cure:  "Start the producer anew.",
	}
	NoStub = &Refusal{
		ID:    "TG-SPAN-008",
		Kafka: kerr.InvalidRequest,
		When:  "a topic without a stub in a group of the consumer protocol (KIP-848)",
		Cause: "Home assigns the partitions of such groups, and lets the gateway create no stub for this topic of another cluster.",
		Cure:  "Use group.protocol=classic for this group, or let the gateway create stubs (see the virtual cluster's status).",
	}
	OffsetsAway = &Refusal{
		ID:    "TG-SPAN-009",
		Kafka: kerr.CoordinatorLoadInProgress,
		When:  "a change of offsets that are kept on a topic's own cluster, which does not answer",
		Cause: "Home lets the gateway create no stub for the topic (TG-STUB-001 to 003), so its cluster keeps the offsets, and none of its brokers, or not the group's coordinator there, answers in time.",
		Cure:  "See to the cluster in the log line; the client tries again. Offsets of other topics are not concerned.",
	}
	OffsetsUnreadable = &Refusal{
		ID:    "TG-SPAN-010",
		Kafka: kerr.UnstableOffsetCommit,
		When:  "a look at offsets that are kept on a topic's own cluster, which does not answer",
		Cause: "As TG-SPAN-009. The code is the one with which clients ask again: with any other they would stop, and without one begin where auto.offset.reset says.",
		Cure:  "As TG-SPAN-009.",
	}
	OffsetsNotTaken = &Refusal{
		ID:    "TG-SPAN-011",
		Kafka: kerr.CoordinatorLoadInProgress,
		When:  "a change of offsets that a topic's own cluster does not let the gateway make",
		Cause: "Offsets that are kept on a topic's own cluster are committed there to the group with the virtual cluster's prefix. The gateway's principal may not READ, DESCRIBE or DELETE that group, or somebody has joined it there.",
		Cure:  "Allow the gateway READ, DESCRIBE and DELETE on groups with the prefix on the cluster in the log line, and let nobody else use them; the client tries again.",
	}
	TransactionElsewhereSarama = &Refusal{
		ID:    "TG-SPAN-012",
		Kafka: kerr.UnknownProducerID,
		When:  "a topic in a transaction that lives on another cluster, for sarama",
		Cause: "As TG-SPAN-003; this code is one after which sarama can abort and go on.",
		Cure:  "As TG-SPAN-003.",
	}
	StubRefused = &Refusal{
		ID:     "TG-STUB-001",
		When:   "a stub topic that home does not take",
		Cause:  "The gateway's principal on home may not CREATE, ALTER or DESCRIBE topics under the virtual cluster's prefix, a policy or a limit of partitions of home forbids it, or the name collides with another topic's. Offsets of the topic are then kept on its own cluster, and the virtual cluster does not offer KIP-848 groups; a stub that cannot be extended keeps new partitions from being shown.",
		Cure:   "Allow the gateway CREATE, ALTER, DESCRIBE, READ and DELETE on topics with the prefix in the log line, or raise the limit; it tries again every five minutes.",
		Unseen: true,
	}
	StubHeld = &Refusal{
		ID:     "TG-STUB-002",
		When:   "a stub topic for an alias whose offsets may be on its topic's own cluster",
		Cause:  "Groups with the virtual cluster's prefix exist on the cluster in the log line, because no stub could be made earlier. A stub would begin without the offsets that they hold.",
		Cure:   "None is needed. To change over to stubs, delete those groups on that cluster once their offsets may be lost or have been noted; it is looked at again every five minutes.",
		Unseen: true,
	}
	StubsOff = &Refusal{
		ID:     "TG-STUB-003",
		When:   "a stub topic while stubs are switched off",
		Cause:  "spec.stubs.disabled is true: offsets of topics on other clusters are kept there.",
		Cure:   "None is needed. Stubs that exist are not deleted; offsets committed meanwhile are not carried over when stubs are switched on again.",
		Unseen: true,
	}
	StubLost = &Refusal{
		ID:     "TG-STUB-004",
		When:   "a stub topic that somebody deleted",
		Cause:  "A topic below __tg.stub. was deleted on home by hand or by a clean-up job, and with it the offsets that groups had committed for the alias. It is made again at once; groups begin where auto.offset.reset says.",
		Cure:   "Exempt topics whose names contain __tg.stub. from whatever deleted it.",
		Unseen: true,
	}
	StubHomeUnreachable = &Refusal{
		ID:     "TG-STUB-005",
		When:   "a look at stub topics while home does not answer",
		Cause:  "No broker of home answers in time. What is known of stubs stays in use; new aliases and partitions of other clusters are shown once home answers.",
		Cure:   "See to the cluster in the log line.",
		Unseen: true,
	}
	StubNotDeleted = &Refusal{
		ID:     "TG-STUB-006",
		When:   "the deletion of a stub topic whose alias is gone",
		Cause:  "The gateway's principal on home may not DELETE topics under the virtual cluster's prefix, or home has delete.topic.enable=false.",
		Cure:   "Allow it, or delete the topic by hand: nothing uses it any more.",
		Unseen: true,
	}
	TopicNotAuthorized = &Refusal{
		ID:    "TG-TOPIC-001",
		Kafka: kerr.TopicAuthorizationFailed,
		When:  "a topic that the principal may not use",
		Cause: "No ACL allows the operation on the topic, or a DENY covers it. A topic that does not exist gets the same answer.",
		Cure:  "Add an Acl with resource {type: topic, name: …} and the operation in the log line.",
	}
	TopicUnknown = &Refusal{
		ID:    "TG-TOPIC-002",
		Kafka: kerr.UnknownTopicOrPartition,
		When:  "a topic that does not exist in the virtual cluster",
		Cause: "Never created, deleted, an alias without a covering grant, or a topic of somebody else: the client cannot tell these apart.",
		Cure:  "Create the topic, or add AliasTopic and TopicGrant.",
	}
	TopicIDUnknown = &Refusal{
		ID:      "TG-TOPIC-003",
		Kafka:   kerr.UnknownTopicID,
		When:    "a topic id that does not exist in the virtual cluster",
		Cause:   "The topic was deleted or created anew, or its alias points elsewhere now; a zero id means the client asked before it had metadata.",
		Cure:    "None: the client refreshes its metadata.",
		Routine: true,
	}
	TopicNameInvalid = &Refusal{
		ID:    "TG-TOPIC-005",
		Kafka: kerr.InvalidTopicException,
		When:  "a topic name that Kafka does not allow",
		Cause: "Empty, longer than 249 characters, \".\" or \"..\", or characters other than letters, digits, '.', '_' and '-'.",
		Cure:  "Correct the name.",
	}
	TopicExists = &Refusal{
		ID:    "TG-TOPIC-006",
		Kafka: kerr.TopicAlreadyExists,
		When:  "the creation of a topic that exists",
		Cause: "A topic or an alias topic of that name is there.",
		Cure:  "Choose another name, or delete the topic first.",
	}
	AliasReadOnly = &Refusal{
		ID:    "TG-TOPIC-007",
		Kafka: kerr.TopicAuthorizationFailed,
		When:  "a change of an alias topic",
		Cause: "Alias topics are lent: their records may be read and written, but the topic itself is not the tenant's to delete, extend, configure or truncate.",
		Cure:  "Ask its owner.",
	}
	GrantMissing = &Refusal{
		ID:    "TG-TOPIC-008",
		Kafka: kerr.UnknownTopicOrPartition,
		When:  "an alias topic without a grant",
		Cause: "Its TopicGrant is missing, has expired or was withdrawn; the alias does not exist for clients until another covers it.",
		Cure:  "Add or extend a TopicGrant of the tenant for the cluster and topic in the log line.",
	}
	GrantReadOnly = &Refusal{
		ID:    "TG-TOPIC-009",
		Kafka: kerr.TopicAuthorizationFailed,
		When:  "a write to an alias topic that is lent for reading",
		Cause: "The TopicGrant has access: read.",
		Cure:  "Set access: read-write.",
	}
	TransactionalIDNotAuthorized = &Refusal{
		ID:    "TG-TXN-001",
		Kafka: kerr.TransactionalIDAuthorizationFailed,
		When:  "a transactional id that the principal may not use",
		Cause: "No ACL allows the operation on the transactional id, or a DENY covers it.",
		Cure:  "Add an Acl with resource {type: transactionalId, name: …}: WRITE to produce, DESCRIBE to look.",
	}
	IDMissing = &Refusal{
		ID:    "TG-TXN-002",
		Kafka: kerr.TransactionalIDAuthorizationFailed,
		When:  "transactional records in a Produce without a transactional id",
		Cause: "The batch's transactional bit is set and nothing says whose transaction it is, so no ACL could be checked.",
		Cure:  "A client bug; report it.",
	}
	NotAttempted = &Refusal{
		ID:      "TG-TXN-006",
		Kafka:   kerr.OperationNotAttempted,
		When:    "a partition beside one that was refused",
		Cause:   "Partitions join a transaction all together or not at all; another partition of the same request was refused.",
		Cure:    "See to the other partition.",
		Routine: true,
	}
	ProducerIDNotAuthorized = &Refusal{
		ID:    "TG-TXN-008",
		Kafka: kerr.ClusterAuthorizationFailed,
		When:  "a producer id for a principal that may write nothing",
		Cause: "Idempotent producers (the default since Kafka 3.0) need IDEMPOTENT_WRITE on the cluster or WRITE on any topic.",
		Cure:  "Add an Acl that allows WRITE on a topic.",
	}
	ProducerIDsWithoutLease = &Refusal{
		ID:    "TG-TXN-009",
		Kafka: kerr.CoordinatorLoadInProgress,
		When:  "a producer id while the node has no lease to give them from",
		Cause: "The source of producerIDs (a file or Redis) could not record a lease since the node started, or since it used up the one it had; or the node started a moment ago. Producers that have an id are not affected, and the others wait: an id that somebody else may have would lose records.",
		Cure:  "See to the source; /readyz and the log line have its error. The node tries again by itself, and so do producers.",
	}
	ProducerIDsNotConfigured = &Refusal{
		ID:    "TG-TXN-010",
		Kafka: kerr.CoordinatorLoadInProgress,
		When:  "a producer id in a virtual cluster with several clusters, on a node without a source for them",
		Cause: "An id of one upstream cluster may be somebody else's on another; where a virtual cluster has more than one (spec.clusters), the gateway gives the ids, and the node's configuration has no producerIDs.source.",
		Cure:  "Set producerIDs.source (--producer-ids) to file:PATH or a redis:// URL on every node.",
	}
	ProducerIDsTooFast = &Refusal{
		ID:    "TG-TXN-011",
		Kafka: kerr.CoordinatorLoadInProgress,
		When:  "a producer id of a virtual cluster that asks for too many",
		Cause: "More than 1,000 producers began at once, or more than 100 in a second for a while, on one node: often a producer that is made for each record. Brokers remember every id, for each partition, for a day.",
		Cure:  "Keep producers and share them between threads. Those that were refused try again by themselves.",
	}
	ProducerIDUnavailable = &Refusal{
		ID:      "TG-TXN-012",
		Kafka:   kerr.CoordinatorLoadInProgress,
		When:    "a producer id while the upstream cluster that gives it does not answer",
		Cause:   "Without producerIDs.source the ids of idempotent producers are the upstream cluster's; none of its brokers can be reached, or the one that was asked hung up.",
		Cure:    "See to the upstream cluster, or set producerIDs.source (--producer-ids).",
		Routine: true,
	}
	BrokerUnavailable = &Refusal{
		ID:      "TG-UPSTREAM-001",
		Kafka:   kerr.NotLeaderForPartition,
		When:    "a request whose broker cannot be reached, before anything was sent to it",
		Cause:   "The broker is down, or the network to it. The client refreshes its metadata and tries again; nothing was written.",
		Cure:    "See to the broker in the log line.",
		Routine: true,
	}
	LeaderUnavailable = &Refusal{
		ID:      "TG-UPSTREAM-002",
		Kafka:   kerr.LeaderNotAvailable,
		When:    "a partition without a leader",
		Cause:   "All its replicas are down, or an election is going on, or its cluster cannot be reached.",
		Cure:    "See to the upstream cluster in the log line.",
		Routine: true,
	}
	CoordinatorUnavailable = &Refusal{
		ID:      "TG-UPSTREAM-003",
		Kafka:   kerr.CoordinatorNotAvailable,
		When:    "a coordinator that is not known at present",
		Cause:   "The upstream cluster loads or elects it, or cannot be reached.",
		Cure:    "None for a moment; else see to the upstream cluster.",
		Routine: true,
	}
	CoordinatorLost = &Refusal{
		ID:      "TG-UPSTREAM-004",
		Kafka:   kerr.NotCoordinator,
		When:    "a request to a coordinator that moved or went away",
		Cause:   "The broker that coordinates the group or transaction is down or gave it up.",
		Cure:    "None: the client looks for the new one.",
		Routine: true,
	}
	TimedOut = &Refusal{
		ID:    "TG-UPSTREAM-005",
		Kafka: kerr.RequestTimedOut,
		When:  "a request that the upstream cluster did not answer in time",
		Cause: "A slow or overloaded broker, or an admin request that waits for one.",
		Cure:  "See to the upstream cluster in the log line.",
	}
	OutcomeUnknown = &Refusal{
		ID:    "TG-UPSTREAM-006",
		When:  "a request whose connection to the broker broke after it was sent",
		Cause: "Nobody knows whether the records were written; a code would say more than is known. The client reconnects, and an idempotent producer sends again without duplicates.",
		Cure:  "See to the broker in the log line.",
	}
	AnswerInvalid = &Refusal{
		ID:    "TG-UPSTREAM-007",
		When:  "an answer of a broker that cannot be read",
		Cause: "A broker that speaks another schema than it announced, or a bug of the gateway.",
		Cure:  "Report the log line with the broker's version.",
	}
	LoginFailed = &Refusal{
		ID:    "TG-UPSTREAM-009",
		Kafka: kerr.NotLeaderForPartition,
		When:  "an upstream cluster that does not let the gateway in",
		Cause: "The gateway's credential for the cluster is wrong or expired, a token endpoint, STS or a KDC gives it none, or the cluster's certificate does not verify.",
		Cure:  "Correct spec.sasl or spec.tls of the UpstreamCluster in the log line.",
	}
	Busy = &Refusal{
		ID:    "TG-UPSTREAM-010",
		Kafka: kerr.NotLeaderForPartition,
		When:  "a client while the connections to a broker are all in use",
		Cause: "The limit of connections to one broker is reached and none came free in time.",
		Cure:  "Raise the limit, or see why the broker is slow.",
	}
	CredentialUnusable = &Refusal{
		ID:    "TG-UPSTREAM-011",
		When:  "a secret or a certificate of the gateway that it cannot use for an upstream cluster",
		Cause: "A file or variable that spec.tls or spec.sasl of the UpstreamCluster names is missing, empty, or not what it should be.",
		Cure:  "Correct the file that the log line names: it is read again within a second. Until then the last one that was good is used; without one the cluster is not reached.",
	}
	HomeUnknown = &Refusal{
		ID:    "TG-UPSTREAM-012",
		When:  "a client that comes before its virtual cluster's home was ever reached",
		Cause: "The node was started while the home cluster was down, so nobody knows what the brokers can do, and what a client is told of that is final. The connection is reset, as if nothing ran here, and the client tries again.",
		Cure:  "See to the upstream cluster, or to spec.home of the virtual cluster.",
	}
)

// All is the catalogue, sorted by id.
func All() []*Refusal {
	return []*Refusal{
		ClusterNotAuthorized,
		ACLsReadOnly,
		ACLsDisabled,
		QuotasReadOnly,
		CredentialsReadOnly,
		OperatorOnly,
		ACLsUnreachable,
		ACLInvalid,
		MechanismNotOffered,
		BadCredentials,
		SASLMalformed,
		AuthorizationID,
		DelegationTokenLogin,
		TokenRefused,
		TokenKeysUnavailable,
		AccountUnknown,
		CertificateNotMapped,
		CertificateMissing,
		NotAuthenticated,
		OutOfOrder,
		ReauthenticationTooSoon,
		ReauthenticationMismatch,
		SessionExpired,
		CredentialRevoked,
		AuthenticationTimeout,
		TenantInactive,
		SizeInvalid,
		TooLarge,
		TooLargeUnauthenticated,
		Truncated,
		KeyUnknown,
		KeyNotOffered,
		VersionNotOffered,
		APIVersionsVersion,
		ClientSoftware,
		RequestTimeout,
		ClientStalled,
		GroupNotAuthorized,
		GroupInvalid,
		CoordinatorKeyType,
		RegexInvalid,
		ServerNameMissing,
		ServerNameUnknown,
		NoCertificate,
		NotTLS,
		HandshakeFailed,
		ClientCertificateRefused,
		HandshakeTimeout,
		ClientGone,
		ProxyHeaderInvalid,
		ProxyHeaderUnlisted,
		TooManyConnections,
		TooManyUnauthenticated,
		TooManyUnauthenticatedFromAddress,
		TooManyFromAddress,
		TooManyOfVirtualCluster,
		ProtocolNotOffered,
		VirtualClusterUnknown,
		BrokerWithoutPort,
		VirtualClusterNotLoaded,
		TooFastForVirtualCluster,
		TooManyOfAccount,
		TooFastForAccount,
		Internal,
		Draining,
		SocketsExhausted,
		ClosedByOperator,
		TopicCreationOff,
		TooManyTopics,
		PartitionsOverLimit,
		ReplicationFactor,
		ReplicaAssignment,
		ConfigKey,
		NameTooLong,
		TooManyPartitions,
		PolicyAcks,
		PolicyCompression,
		PolicyBatchSize,
		PolicyIdempotence,
		Invalid,
		FetchSessionUnknown,
		EndpointType,
		RefusedWithoutAcks,
		ShareSessionUnknown,
		ShareRequestInvalid,
		EndpointTypeUnknown,
		QuotaEntityUnknown,
		TopicElsewhere,
		CoordinatorElsewhere,
		TransactionElsewhere,
		TransactionElsewhereOld,
		OffsetsElsewhere,
		OffsetsElsewhereOld,
		ProducerOfHome,
		NoStub,
		OffsetsAway,
		OffsetsUnreadable,
		OffsetsNotTaken,
		TransactionElsewhereSarama,
		StubRefused,
		StubHeld,
		StubsOff,
		StubLost,
		StubHomeUnreachable,
		StubNotDeleted,
		TopicNotAuthorized,
		TopicUnknown,
		TopicIDUnknown,
		TopicNameInvalid,
		TopicExists,
		AliasReadOnly,
		GrantMissing,
		GrantReadOnly,
		TransactionalIDNotAuthorized,
		IDMissing,
		NotAttempted,
		ProducerIDNotAuthorized,
		ProducerIDsWithoutLease,
		ProducerIDsNotConfigured,
		ProducerIDsTooFast,
		ProducerIDUnavailable,
		BrokerUnavailable,
		LeaderUnavailable,
		CoordinatorUnavailable,
		CoordinatorLost,
		TimedOut,
		OutcomeUnknown,
		AnswerInvalid,
		LoginFailed,
		Busy,
		CredentialUnusable,
		HomeUnknown,
	}
}
