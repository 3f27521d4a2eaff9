// Package soak lets clients of every kind work through the gateway while brokers
// and the gateway's own nodes are killed, stopped and continued, and checks what
// Kafka promises them.
//
// [Run] starts real clusters, two nodes of the gateway behind a balancer, and the
// clients, which live through all rounds. In a round faults drawn from the seed
// happen; then the writers pause, and what the brokers hold is compared with what
// each client was told. The first broken promise ends the run with everything
// that helps to find its cause.
package soak

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"os"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kgo"
	"golang.org/x/sync/errgroup"

	"tollgate.internal/e2e/internal/drivers"
	"tollgate.internal/e2e/internal/kafkatest"
	"tollgate.internal/e2e/internal/load"
)

// patience is for everything to go on after a fault: longer than clients wait for
// an answer before they ask somebody else.
const patience = 2 * time.Minute

// closing is for clients to end whose brokers may be gone.
const closing = 10 * time.Second

// Options say what to run.
type Options struct {
	Seed   uint64
	Rounds int
	// Clusters are home and, where the virtual cluster is to span two, west.
	Clusters map[string]kafkatest.Options
	// Java are the versions of Kafka's own verifiable producers and consumers.
	Java []string
	// Fleet, if there is one, is what clients go through: three nodes or so, as the portal
	// has told them. Its own parts fail, too. Without it two nodes read files.
	Fleet *Fleet
	// Dir is where everything is kept; it must exist.
	Dir string
	// Say tells how the run goes.
	Say func(format string, args ...any)
}

// Clusters are the clusters of a run: a home of three brokers and, spanning, a
// west of one with the older version; node ids are sparse and meet.
func Clusters(spanning bool) map[string]kafkatest.Options {
	// Members that did not leave are forgotten soon.
	home848 := map[string]string{"group.consumer.session.timeout.ms": "10000", "group.consumer.min.session.timeout.ms": "5000"}
	all := map[string]kafkatest.Options{home: {Version: kafkatest.V4, NodeIDs: []int32{1, 4, 7}, Properties: home848}}
	if spanning {
		all[west] = kafkatest.Options{Version: kafkatest.V3, NodeIDs: []int32{4}}
	}
	return all
}

type soak struct {
	options  Options
	dir      string
	clusters map[string]*kafkatest.Cluster
	brokers  map[*kafkatest.Cluster]*kgo.Client
	admins   map[string]*kadm.Client // of the brokers
	nodes    []node
	target   drivers.Target
	watch    watch
	closers  []func() error
	began    time.Time

	producers   map[string]*load.Producer // by writer and topic
	txs         []*txProducer
	javas       map[string]*load.Verifiable // producers, by topic
	readers     map[string]*load.Verifiable // Java consumers, by topic
	writers     map[string]map[string]bool  // names of those who write to a topic
	logs        map[place]*partitionLog
	checked     []ack // all there were
	random      *faultTimes
	kept        commits         // as the brokers keep them
	commitsRead map[int32]int64 // of the topic they keep them in, by partition

	mu       sync.Mutex
	acks     []ack // since the last check
	readings map[string]map[place]*readership
	samples  map[string]int // taken, by group and where
	offsets  commits        // as they were answered
	thawed   time.Time      // when a broker of home was continued last
	timeline []event
	restarts int
	losses   []*kgo.ErrDataLoss // to be checked
	first    error
	abort    context.CancelCauseFunc
}

// Run soaks. The error says which promise was broken, and how to run it again.
func Run(ctx context.Context, o Options) error {
	s := &soak{
		options: o, dir: o.Dir, began: time.Now(),
		clusters: make(map[string]*kafkatest.Cluster), admins: make(map[string]*kadm.Client), brokers: make(map[*kafkatest.Cluster]*kgo.Client),
		producers: make(map[string]*load.Producer), javas: make(map[string]*load.Verifiable), readers: make(map[string]*load.Verifiable),
		writers: make(map[string]map[string]bool), logs: make(map[place]*partitionLog),
		readings: make(map[string]map[place]*readership), samples: make(map[string]int), offsets: make(commits), kept: make(commits),
	}
	ctx, s.abort = context.WithCancelCause(ctx)
	defer s.abort(nil)
	err := s.run(ctx)
	for _, c := range slices.Backward(s.closers) {
		err = errors.Join(err, c())
	}
	return err
}

// onClose runs in reverse order.
func (s *soak) onClose(c func() error) { s.closers = append(s.closers, c) }

func (s *soak) run(ctx context.Context) error {
	for _, t := range allTopics() {
		s.writers[t.name] = make(map[string]bool)
		for _, at := range t.places() {
			s.logs[at] = newPartitionLog(at)
		}
	}
	for _, step := range []func(context.Context) error{s.startClusters, s.createTopics, s.startGateway, s.startClients} {
		if err := step(ctx); err != nil {
			return s.explain("the start", err)
		}
	}
	if err := s.progress(ctx); err != nil {
		return s.explain("the start", err)
	}
	s.options.Say("all clients are at work")
	sites := []site{{gatewaySite, len(s.nodes), s.options.Fleet != nil}}
	if s.options.Fleet != nil {
		sites = append(sites, site{controlSite, 1, true})
	}
	for _, name := range slices.Sorted(maps.Keys(s.clusters)) {
		sites = append(sites, site{name, len(s.clusters[name].Brokers()), false})
	}
	s.random = newFaultTimes(s.options.Seed)
	rounds := plan(s.options.Seed, s.options.Rounds, sites)
	for i, faults := range rounds {
		began := time.Now()
		if err := s.round(ctx, faults); err != nil {
			return s.explain(fmt.Sprintf("round %d of %d", i+1, len(rounds)), err)
		}
		s.options.Say("round %d of %d: %s: %s, in %.0f s", i+1, len(rounds), list(faults), s.sum(), time.Since(began).Seconds())
	}
	if err := s.finish(ctx); err != nil {
		return s.explain("the end", err)
	}
	s.options.Say("all checked: %s", s.sum())
	for _, e := range s.timeline {
		if e.client {
			s.options.Say("reported at %s: %s", e.at.Format("15:04:05.000"), e.what)
		}
	}
	return nil
}

func list(faults []fault) string {
	var all []string
	for _, f := range faults {
		all = append(all, f.String())
	}
	return strings.Join(all, "; ")
}

func (s *soak) sum() string {
	records, transactions := 0, 0
	for _, l := range s.logs {
		records += len(l.entries)
	}
	for _, p := range s.txs {
		transactions += p.count()
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	return fmt.Sprintf("%d records, %d transactions, %d clients started anew", records, transactions, s.restarts)
}

// The groups of members inside this process, and what they read.
var groups = []struct {
	name   string
	topics []topic
	steady []string // members that stay; others come and go with the rounds
	guest  bool
	opts   []kgo.Opt
}{
	{"classic", numbers, []string{"classic-1", "classic-2"}, true, []kgo.Opt{kgo.Balancers(kgo.CooperativeStickyBalancer())}},
	{"eager", numbers, []string{"eager-1"}, true, []kgo.Opt{kgo.Balancers(kgo.RangeBalancer())}},
	{"next", numbers, []string{"next-1", "next-2"}, true, []kgo.Opt{kgo.ServerSideBalancer(), kgo.Balancers(kgo.RangeBalancer())}},
	{"committed", append([]topic{movedTo}, txs...), []string{"committed-1"}, false, []kgo.Opt{kgo.FetchIsolationLevel(kgo.ReadCommitted())}},
}

// static is a group whose members have names of their own in it: one stays, one
// is started again and again.
const (
	static      = "static"
	staticStays = "static-1"
	staticGoes  = "static-2"
)

func (s *soak) startClients(ctx context.Context) error {
	if err := s.write("writer-1", "writer-2"); err != nil {
		return err
	}
	for _, t := range txs {
		id := "main-tx"
		if t.cluster == west {
			id = "west-tx"
		}
		p := s.transact(id, t)
		s.txs = append(s.txs, p)
	}
	s.onClose(func() error {
		ctx, cancel := context.WithTimeout(context.Background(), closing)
		defer cancel()
		s.stopWriters(ctx) // finish has told what it says
		return nil
	})
	for _, id := range []string{"mover-1", "mover-2"} {
		end := s.move(id)
		s.onClose(func() error { end(); return nil })
	}
	for at := range s.logs {
		if at.topic != movedTo.name {
			continue
		}
		for _, t := range numbers {
			maps.Copy(s.writers[at.topic], s.writers[t.name])
		}
	}
	for _, g := range groups {
		for _, name := range g.steady {
			m, err := s.join(name, g.name, g.topics, g.opts...)
			if err != nil {
				return err
			}
			s.onClose(func() error { m.leave(); return nil })
		}
	}
	m, err := s.join(staticStays, static, numbers, kgo.InstanceID(staticStays))
	if err != nil {
		return err
	}
	s.onClose(func() error { m.leave(); return nil })
	for i, version := range s.options.Java {
		t := javas[i%len(javas)]
		s.writers[t.name][javaWriter(t.name)] = true
		p, err := load.VerifiableProducer(ctx, version, s.target, t.name, "max.in.flight.requests.per.connection=1")
		if err != nil {
			return err
		}
		s.javas[t.name] = p
		var settings []string
		if version == kafkatest.V4 {
			settings = append(settings, "group.protocol=consumer")
		}
		if s.readers[t.name], err = load.VerifiableConsumer(ctx, version, s.target, t.name, "java-"+t.name, settings...); err != nil {
			return err
		}
		s.onClose(func() error {
			ctx, cancel := context.WithTimeout(context.Background(), closing)
			defer cancel()
			p.Stop(ctx)
			s.readers[t.name].Stop(ctx)
			return nil
		})
	}
	ctx, stop := context.WithCancel(context.WithoutCancel(ctx))
	done := make(chan struct{})
	go func() { defer close(done); s.sample(ctx) }()
	s.onClose(func() error { stop(); <-done; return nil })
	return nil
}

// round breaks things while clients come and go, and checks what became of it.
func (s *soak) round(ctx context.Context, faults []fault) error {
	s.event("round begins: %s", list(faults))
	work, workCtx := errgroup.WithContext(ctx)
	for _, f := range faults {
		work.Go(func() error { return s.inject(workCtx, f) })
	}
	for _, g := range groups {
		if !g.guest {
			continue
		}
		came, left := s.random.next(), s.random.next()
		work.Go(func() error { return s.guest(workCtx, g.name+"-guest", g.name, g.topics, came, left, g.opts...) })
	}
	came, left := s.random.next(), s.random.next()
	work.Go(func() error {
		return s.guest(workCtx, staticGoes, static, numbers, came, left, kgo.InstanceID(staticGoes))
	})
	if err := work.Wait(); err != nil {
		return err
	}
	// Nobody was told that it went: nobody else has its partitions.
	back, err := s.join(staticGoes, static, numbers, kgo.InstanceID(staticGoes))
	if err != nil {
		return err
	}
	defer back.leave()
	if err := s.progress(ctx); err != nil {
		return err
	}
	if s.options.Fleet != nil {
		if err := s.change(ctx); err != nil {
			return err
		}
	}
	return s.check(ctx)
}

// guest is a member that comes and goes.
func (s *soak) guest(ctx context.Context, name, group string, topics []topic, came, left time.Duration, opts ...kgo.Opt) error {
	if err := pause(ctx, came); err != nil {
		return err
	}
	m, err := s.join(name, group, topics, opts...)
	if err != nil {
		return err
	}
	defer m.leave()
	return pause(ctx, left)
}

// progress waits until every client has done more work.
func (s *soak) progress(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	work, ctx := errgroup.WithContext(ctx)
	for name, p := range s.producers {
		work.Go(func() error {
			if err := p.WaitMore(ctx, 10); err != nil {
				return fmt.Errorf("producer %s stands still: %w", name, err)
			}
			return nil
		})
	}
	for _, p := range s.txs {
		from := p.count()
		work.Go(func() error {
			return load.Wait(ctx, func() error {
				if p.count() < from+2 {
					return fmt.Errorf("transactional producer %s stands still", p.id)
				}
				return s.failed()
			})
		})
	}
	for name, p := range s.javas {
		work.Go(func() error {
			if err := p.WaitMore(ctx, 10); err != nil {
				return fmt.Errorf("Java producer of %s stands still: %w", name, err)
			}
			return nil
		})
	}
	return work.Wait()
}

// unharmed waits, while all brokers of a cluster are down, until what writes to
// the other cluster has gone on.
func (s *soak) unharmed(ctx context.Context, f fault) error {
	if f.kind != outage || len(s.clusters) < 2 {
		return nil
	}
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	for name, p := range s.producers {
		for _, t := range numbers {
			if t.name == p.Topic && t.cluster != f.site {
				if err := p.WaitMore(ctx, 10); err != nil {
					return fmt.Errorf("producer %s is harmed by the loss of cluster %s: %w", name, f.site, err)
				}
			}
		}
	}
	return nil
}

func (s *soak) reader(group string, at place) *readership {
	if s.readings[group] == nil {
		s.readings[group] = make(map[place]*readership)
	}
	r := s.readings[group][at]
	if r == nil {
		r = new(readership)
		s.readings[group][at] = r
	}
	return r
}

// An event is something that may explain another.
type event struct {
	at     time.Time
	what   string
	client bool // reported it
}

func (s *soak) event(format string, args ...any) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.timeline = append(s.timeline, event{time.Now(), fmt.Sprintf(format, args...), false})
}

// report is an event that a client tells of.
func (s *soak) report(format string, args ...any) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.reportLocked(format, args...)
}

func (s *soak) reportLocked(format string, args ...any) {
	s.timeline = append(s.timeline, event{time.Now(), fmt.Sprintf(format, args...), true})
}

// happened is the end of the timeline: not much of it when clients report the same
// again and again.
func (s *soak) happened() string {
	const events, reports = 60, 25 // reports at either end
	from := s.timeline[max(0, len(s.timeline)-2000):]
	all, told := 0, 0
	for _, e := range from {
		if e.client {
			told++
		} else {
			all++
		}
	}
	var b strings.Builder
	for _, e := range from {
		if e.client {
			if told--; told >= reports && told < len(from)-all-reports {
				continue
			}
		} else if all--; all >= events {
			continue
		}
		fmt.Fprintf(&b, "  %s %7.2fs %s\n", e.at.Format("15:04:05.000"), e.at.Sub(s.began).Seconds(), e.what)
	}
	return b.String()
}

// restarted notes a client that could not go on.
func (s *soak) restarted(who string, why error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.restarts++
	s.reportLocked("%s could not go on: %v", who, why)
}

// suspect notes what a client took for a loss of records it had read.
func (s *soak) suspect(who string, loss *kgo.ErrDataLoss) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.losses = append(s.losses, loss)
	s.reportLocked("%s takes it for a loss: %v", who, loss)
}

// fail notes a broken promise that was seen outside of a check.
func (s *soak) fail(err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.failLocked(err)
}

func (s *soak) failLocked(err error) {
	s.reportLocked("broken: %v", err)
	if s.first == nil {
		s.first = err
		s.abort(err)
	}
}

func (s *soak) failed() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.first
}

// explain adds to an error what helps to find its cause.
func (s *soak) explain(when string, err error) error {
	if first := s.failed(); first != nil {
		err = first // the rest follows from the end it made
	}
	var b strings.Builder
	fmt.Fprintf(&b, "seed %d, %s: %v\n", s.options.Seed, when, err)
	if v, ok := errors.AsType[*violation](err); ok && v.offset >= 0 {
		if l := s.logs[v.at]; l != nil {
			fmt.Fprintf(&b, "records of %v:\n", v.at)
			for _, e := range l.near(v.offset, 4) {
				fmt.Fprintf(&b, "  %v\n", e)
			}
		}
		ctx, cancel := context.WithTimeout(context.Background(), patience)
		defer cancel()
		for _, t := range allTopics() {
			if t.name == v.at.topic {
				headers, err := batches(ctx, s.brokers[s.kafka(t.cluster)], t.physical(), v.at.partition, v.offset)
				fmt.Fprintf(&b, "batches there (%v):\n%s", err, headers)
			}
		}
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	fmt.Fprintf(&b, "what happened:\n%s", s.happened())
	for _, n := range s.nodes {
		fmt.Fprintf(&b, "%v said last:\n%s\n", n, tail(n))
	}
	if s.dir != "" {
		if kept, keepErr := os.MkdirTemp("", "tollgate-soak-"); keepErr == nil {
			for _, n := range s.nodes {
				if raw, readErr := os.ReadFile(n.logFile()); readErr == nil {
					os.WriteFile(kept+"/"+n.String()+".log", raw, 0o600)
				}
			}
			fmt.Fprintf(&b, "the logs of the nodes are kept in %s\n", kept)
		}
	}
	return errors.New(b.String())
}
