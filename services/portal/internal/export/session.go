package export

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"reflect"
	"slices"
	"sync"
	"time"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"
	"github.com/twmb/franz-go/pkg/sasl"

	"tollgate.internal/pkg/credential"
	"tollgate.internal/pkg/resource"
	"tollgate.internal/services/portal/internal/control"
)

const (
	// maxBatch is how large a batch may be for brokers and topics as they are by
	// default; batchBytes leaves room for what is around the records.
	maxBatch   = 1_000_012
	batchBytes = 950_000
	// askLimit is for the questions that are asked before anything is sent.
	askLimit = 15 * time.Second
	clientID = "tollgate-portal"
)

// session is a client of the brokers, for as long as nothing goes wrong.
type session struct {
	loop       *Loop
	client     *kgo.Client
	cluster    *resource.UpstreamCluster
	credential *credential.Credential
	looked     time.Time // whether the cluster is as it was

	mu   sync.Mutex // guards last
	last error      // of a connection
}

// open connects, and looks whether the topic is there.
func (l *Loop) open(ctx context.Context) (s *session, err error) {
	u, err := l.options.Cluster(ctx)
	if err != nil {
		return nil, err
	}
	s = &session{loop: l, cluster: u, looked: time.Now()}
	if s.credential, err = l.keeper.Open(u); err != nil {
		s.credential.Close()
		return nil, &credentialError{err}
	}
	opts := []kgo.Opt{
		kgo.SeedBrokers(u.Spec.Bootstrap...), kgo.ClientID(clientID), kgo.DefaultProduceTopic(l.options.Topic),
		kgo.RequiredAcks(kgo.AllISRAcks()), kgo.ManualFlushing(), kgo.ProducerBatchMaxBytes(maxBatch),
		kgo.DialTimeout(5 * time.Second), kgo.RetryTimeout(askLimit), kgo.RequestRetries(3),
		// It fails with what the brokers said, rather than when the time is over.
		kgo.RecordRetries(6), kgo.RecordDeliveryTimeout(l.options.patient),
		kgo.WithHooks(s),
	}
	if s.credential.TLS != nil {
		opts = append(opts, kgo.DialTLSConfig(s.credential.TLS))
	}
	if s.credential.SASL != nil {
		opts = append(opts, kgo.SASL(telling{s.credential.SASL, s}))
	}
	if s.client, err = kgo.NewClient(append(opts, l.options.kafka...)...); err != nil {
		s.credential.Close()
		return nil, err
	}
	asking, cancel := context.WithTimeout(ctx, askLimit)
	defer cancel()
	err = s.topic(asking)
	if errors.Is(err, kerr.UnknownTopicOrPartition) && l.options.Create {
		err = s.create(asking)
	}
	if err != nil {
		err = s.because(err)
		s.close()
		return nil, err
	}
	return s, nil
}

func (s *session) close() {
	s.client.Close()
	s.credential.Close()
}

// topic looks whether the topic is there. Asking never makes it.
func (s *session) topic(ctx context.Context) error {
	req := kmsg.NewPtrMetadataRequest()
	req.AllowAutoTopicCreation = false
	topic := kmsg.NewMetadataRequestTopic()
	topic.Topic = &s.loop.options.Topic
	req.Topics = append(req.Topics, topic)
	resp, err := req.RequestWith(ctx, s.client)
	if err != nil {
		return err
	}
	for _, t := range resp.Topics {
		return kerr.ErrorForCode(t.ErrorCode)
	}
	return kerr.UnknownTopicOrPartition
}

// create makes the topic as the brokers make topics by default.
func (s *session) create(ctx context.Context) error {
	req := kmsg.NewPtrCreateTopicsRequest()
	topic := kmsg.NewCreateTopicsRequestTopic()
	topic.Topic, topic.NumPartitions, topic.ReplicationFactor = s.loop.options.Topic, -1, -1
	req.Topics = append(req.Topics, topic)
	req.TimeoutMillis = int32(askLimit.Milliseconds())
	resp, err := req.RequestWith(ctx, s.client)
	if err != nil {
		return &createError{err}
	}
	for _, t := range resp.Topics {
		if err := kerr.ErrorForCode(t.ErrorCode); err != nil && !errors.Is(err, kerr.TopicAlreadyExists) {
			if t.ErrorMessage != nil && *t.ErrorMessage != "" {
				err = fmt.Errorf("%w (%s)", err, *t.ErrorMessage)
			}
			return &createError{err}
		}
	}
	s.loop.log.Info("topic created for the audit log", "topic", s.loop.options.Topic, "cluster", s.cluster.Metadata.Name)
	return nil
}

// outdated reports whether the cluster is to be reached in another way by now.
func (s *session) outdated(ctx context.Context) bool {
	if time.Since(s.looked) < time.Second {
		return false
	}
	s.looked = time.Now()
	u, err := s.loop.options.Cluster(ctx)
	if err != nil {
		_, gone := errors.AsType[*NoClusterError](err)
		return gone // else nobody knows
	}
	return !reflect.DeepEqual(u.Spec, s.cluster.Spec) || s.credential.Changed()
}

var errUnanswered = errors.New("not acknowledged in time")

// send returns those that were not acknowledged by all replicas, in their order, and
// why the first was not.
func (s *session) send(ctx context.Context, all []*event) (refused []*event, err error) {
	sending, cancel := context.WithTimeout(ctx, s.loop.options.patient+5*time.Second)
	defer cancel()
	var mu sync.Mutex // guards errs: what is not waited for any more may come all the same
	errs := slices.Repeat([]error{errUnanswered}, len(all))
	for i, e := range all {
		record := *e.record // the client writes into it
		s.client.Produce(sending, &record, func(_ *kgo.Record, err error) {
			mu.Lock()
			defer mu.Unlock()
			errs[i] = err
		})
	}
	_ = s.client.Flush(sending) // the records tell
	mu.Lock()
	defer mu.Unlock()
	for i, e := range all {
		if errs[i] != nil {
			refused = append(refused, e)
			if err == nil {
				err = errs[i]
			}
		}
	}
	if err == nil {
		return nil, nil
	}
	if r, ok := s.credential.SASL.(interface{ Refused() }); ok && errors.Is(err, kerr.SaslAuthenticationFailed) {
		r.Refused() // a token may be good no longer, though it has not ended
	}
	return refused, s.because(err)
}

// because adds what became of connections to an error that only says that time is over.
func (s *session) because(err error) error {
	s.mu.Lock()
	last := s.last
	s.mu.Unlock()
	vague := errors.Is(err, errUnanswered) || errors.Is(err, context.DeadlineExceeded) || errors.Is(err, kgo.ErrRecordTimeout) ||
		errors.Is(err, kgo.ErrRecordRetries) || errors.Is(err, kgo.ErrClientClosed)
	if vague && last != nil {
		return fmt.Errorf("%w: %w", err, last)
	}
	return err
}

// OnBrokerConnect is a hook of the client.
func (s *session) OnBrokerConnect(_ kgo.BrokerMetadata, _ time.Duration, _ net.Conn, err error) {
	s.heard(err)
}

// OnBrokerRead is a hook of the client.
func (s *session) OnBrokerRead(_ kgo.BrokerMetadata, _ int16, _ int, _, _ time.Duration, err error) {
	s.heard(err)
}

func (s *session) heard(err error) {
	if errors.Is(err, context.Canceled) || errors.Is(err, net.ErrClosed) {
		return
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.last = err
}

// NoClusterError says that there is no such cluster.
type NoClusterError struct{ Name string }

func (e *NoClusterError) Error() string {
	return fmt.Sprintf("there is no UpstreamCluster %s: create it, or name another one in TOLLGATE_PORTAL_AUDIT_CLUSTER", e.Name)
}

// telling is a mechanism whose errors are known to be about the login: they come from
// token endpoints and KDCs, or are what brokers say in a mechanism's own words.
type telling struct {
	sasl.Mechanism
	session *session
}

func (m telling) Authenticate(ctx context.Context, host string) (sasl.Session, []byte, error) {
	dialogue, first, err := m.Mechanism.Authenticate(ctx, host)
	if err != nil {
		return nil, nil, m.session.noLogin(err)
	}
	return tellingDialogue{dialogue, m.session}, first, nil
}

type tellingDialogue struct {
	sasl.Session
	session *session
}

func (d tellingDialogue) Challenge(answer []byte) (done bool, next []byte, err error) {
	if done, next, err = d.Session.Challenge(answer); err != nil {
		err = d.session.noLogin(err)
	}
	return done, next, err
}

func (s *session) noLogin(err error) error {
	err = &loginError{fmt.Errorf("%v: %w", s.credential.SASL, err)}
	s.heard(err)
	return err
}

// loginError is a login that came to nothing.
type loginError struct{ err error }

func (e *loginError) Error() string { return e.err.Error() }
func (e *loginError) Unwrap() error { return e.err }

// refusedTLS reports whether an error is what the broker said of TLS: about the portal's
// certificate, most likely. crypto/tls has no type for it.
func refusedTLS(err error) bool {
	remote, ok := errors.AsType[*net.OpError](err)
	return ok && remote.Op == "remote error"
}

// credentialError is about files and variables that the cluster names.
type credentialError struct{ err error }

func (e *credentialError) Error() string { return e.err.Error() }
func (e *credentialError) Unwrap() error { return e.err }

type createError struct{ err error }

func (e *createError) Error() string { return e.err.Error() }
func (e *createError) Unwrap() error { return e.err }

// Cause is a word for why exporting does not go on.
type Cause string

// The causes.
const (
	CauseCluster     Cause = "cluster"     // it is not there, or what it names cannot be read
	CauseUnreachable Cause = "unreachable" // brokers do not answer, or cannot keep what they are sent
	CauseLogin       Cause = "login"       // brokers do not take the credential, or are not who they should be
	CauseTopic       Cause = "topic"       // it is not there, or cannot be created
	CauseForbidden   Cause = "not_allowed" // the login may not write it
	CauseReached     Cause = "reached"     // a tenant could read or write it
	CauseTooLarge    Cause = "too_large"   // an entry is larger than the topic takes
	CauseOther       Cause = "other"
)

// Causes are all of them.
var Causes = []Cause{CauseCluster, CauseUnreachable, CauseLogin, CauseTopic, CauseForbidden, CauseReached, CauseTooLarge, CauseOther}

// explain says what an error means, and what is to be done.
func (l *Loop) explain(err error) (Cause, string) {
	topic := l.options.Topic
	_, noCluster := errors.AsType[*NoClusterError](err)
	_, credential := errors.AsType[*credentialError](err)
	create, creating := errors.AsType[*createError](err)
	_, login := errors.AsType[*loginError](err)
	_, untrusted := errors.AsType[*tls.CertificateVerificationError](err)
	_, network := errors.AsType[net.Error](err)
	e, kafka := errors.AsType[*kerr.Error](err)
	_, reached := errors.AsType[*control.Reached](err)
	switch {
	case reached:
		return CauseReached, err.Error()
	case noCluster:
		return CauseCluster, err.Error()
	case credential:
		return CauseCluster, fmt.Sprintf("the portal has no credential for the cluster, whose files and variables have to be where it runs: %v", err)
	case refusedTLS(err):
		return CauseLogin, fmt.Sprintf("the portal cannot log in to the cluster: the broker ended TLS, as it does when it wants a certificate, or another one: %v", err)
	case login, errors.Is(err, kerr.SaslAuthenticationFailed), errors.Is(err, kerr.UnsupportedSaslMechanism), untrusted:
		return CauseLogin, fmt.Sprintf("the portal cannot log in to the cluster: %v", err)
	case creating:
		return CauseTopic, fmt.Sprintf("topic %s cannot be created: allow the portal's login CREATE, or create it: %v", topic, create.err)
	case errors.Is(err, kerr.UnknownTopicOrPartition):
		return CauseTopic, fmt.Sprintf("there is no topic %s: create it, or set TOLLGATE_PORTAL_AUDIT_CREATE=true (brokers also say so of one that the portal's login may not DESCRIBE)", topic)
	case errors.Is(err, kerr.TopicAuthorizationFailed), errors.Is(err, kerr.ClusterAuthorizationFailed):
		return CauseForbidden, fmt.Sprintf("the portal's login may not write topic %s: allow it WRITE and DESCRIBE on the topic, and with brokers before 2.8 IDEMPOTENT_WRITE on the cluster: %v", topic, err)
	case errors.Is(err, kerr.MessageTooLarge):
		return CauseTooLarge, fmt.Sprintf("topic %s does not even take an entry without what the object was and is: raise its max.message.bytes", topic)
	case kafka && !e.Retriable:
		return CauseOther, err.Error()
	case network, kafka, errors.Is(err, errUnanswered), errors.Is(err, context.DeadlineExceeded), errors.Is(err, kgo.ErrRecordTimeout), errors.Is(err, kgo.ErrRecordRetries):
		return CauseUnreachable, fmt.Sprintf("the brokers do not answer, or cannot keep what they are sent: %v", err)
	}
	return CauseOther, err.Error()
}
