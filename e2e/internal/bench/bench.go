// Package bench measures what the gateway costs, as ratios on one machine in one
// run: against HAProxy that terminates the same TLS and does nothing else, and
// against no proxy at all.
//
// The gateway, HAProxy, a stub broker and the clients are processes of their own.
// What is compared is run in turns, several times, and given as a median with its
// spread, for a machine is never quiet. Every answer is compared byte for byte
// with what the broker must have said and the gateway must have made of it; one
// wrong answer ends the benchmark.
//
// [Run] takes the parts one wants; [Report] prints what came of it, and which of
// the budgets is missed.
package bench

import (
	"context"
	"errors"
	"fmt"
	"os"
	"slices"
	"strings"
	"time"
)

// Options say what to measure and how long. The zero value of a number is its
// default.
type Options struct {
	// Parts are names of parts, or of their beginnings; none means all.
	Parts []string
	// Rounds is how often what is compared is run, in turns.
	Rounds int
	// RoundTime is how long a round loads one side.
	RoundTime time.Duration
	// Idle is how many connections are held idle.
	Idle int
	// Topics is how many topics there are where there are many.
	Topics int
	// Records is how many records of 1 KiB the Java tools send in a round.
	Records int
	// Tenants is how many a control plane has, and Changes how many changes of them are
	// timed; Documents is how many documents the command line applies.
	Tenants, Changes, Documents int
	// Bundles is how many virtual clusters a node could serve, and Loaded how many of
	// them have clients.
	Bundles, Loaded int
	// Gateway is a gateway's node that was built before; empty: one is built from
	// this tree. Other is a second one, measured beside it.
	Gateway, Other string
	// Profile is a file for a CPU profile of the gateway, taken for ProfileTime under
	// the load of the last part that is about CPU per request.
	Profile     string
	ProfileTime time.Duration
	// Progress is told what is being done.
	Progress func(format string, args ...any)
}

func (o *Options) defaults() {
	if o.Rounds == 0 {
		o.Rounds = 5
	}
	if o.RoundTime == 0 {
		o.RoundTime = 1500 * time.Millisecond
	}
	if o.Idle == 0 {
		o.Idle = 5000
	}
	if o.Topics == 0 {
		o.Topics = 1000
	}
	if o.Records == 0 {
		o.Records = 400_000
	}
	for _, d := range []struct {
		of      *int
		missing int
	}{{&o.Tenants, 10_000}, {&o.Changes, 200}, {&o.Documents, 1000}, {&o.Bundles, 100_000}, {&o.Loaded, 5000}} {
		if *d.of == 0 {
			*d.of = d.missing
		}
	}
	if o.ProfileTime == 0 {
		o.ProfileTime = 5 * time.Second
	}
	if o.Progress == nil {
		o.Progress = func(string, ...any) {}
	}
}

// A part is a piece of the benchmark that can be run alone.
type part struct {
	name, says string
	run        func(*run, context.Context) error
}

func parts() []part {
	var all []part
	for _, c := range costs {
		all = append(all, part{c.name, "CPU per " + c.workload.String(), func(b *run, ctx context.Context) error {
			return b.cost(ctx, c)
		}})
	}
	for _, p := range paces {
		says := fmt.Sprintf("latency of %s at %.0f requests a second", p.workload, p.perSecond)
		all = append(all, part{p.name, says, func(b *run, ctx context.Context) error { return b.latency(ctx, p) }})
	}
	return append(all,
		part{"spanning", "CPU per Produce and Fetch on a virtual cluster of two clusters against one", (*run).span},
		part{"metadata", "Metadata of many topics", (*run).many},
		part{"commits", "offset commits of groups on a real broker", (*run).commits},
		part{"idle", "memory and broker connections of idle clients", (*run).idle},
		part{"handshakes", "CPU per TLS handshake and per login", (*run).handshakes},
		part{"tenants", "a control plane of many tenants: changes, pages, everything published anew", (*run).tenants},
		part{"bundles", "a node with many virtual clusters in Redis: its start, first clients, memory", (*run).bundles},
		part{"java", "MB/s of Java's perf tools on a real broker", (*run).java},
	)
}

// Parts lists the parts: name and what it measures.
func Parts() [][2]string {
	var list [][2]string
	for _, p := range parts() {
		list = append(list, [2]string{p.name, p.says})
	}
	return list
}

func (o *Options) selected() ([]part, error) {
	all := parts()
	if len(o.Parts) == 0 {
		return all, nil
	}
	var chosen []part
	for _, want := range o.Parts {
		found := false
		for _, p := range all {
			if strings.HasPrefix(p.name, want) {
				found = true
				if !slices.ContainsFunc(chosen, func(c part) bool { return c.name == p.name }) {
					chosen = append(chosen, p)
				}
			}
		}
		if !found {
			return nil, fmt.Errorf("no part %q", want)
		}
	}
	return chosen, nil
}

// run is one run of the benchmark.
type run struct {
	Options
	dir     string
	pki     *pki
	closing []func() error
	report  *Report

	stub     *child
	address  StubAddress
	load     *child
	gateways []*server // the gateway, and the other one
	haproxy  *server
	patient  string // HAProxy's other address
}

// Run measures.
func Run(ctx context.Context, o Options) (_ *Report, err error) {
	o.defaults()
	chosen, err := o.selected()
	if err != nil {
		return nil, err
	}
	b := &run{Options: o, report: &Report{Whole: len(o.Parts) == 0}}
	if b.report.Machine, b.report.Busy, err = machine(ctx); err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, b.close(0)) }()
	if err := b.start(ctx); err != nil {
		return nil, err
	}
	started := time.Now()
	for _, p := range chosen {
		b.Progress("%s: %s", p.name, p.says)
		own := len(b.closing)
		if err := errors.Join(p.run(b, ctx), b.close(own)); err != nil {
			return nil, fmt.Errorf("%s: %w", p.name, err)
		}
	}
	b.report.Took = time.Since(started)
	return b.report, nil
}

func (b *run) onClose(f func() error) { b.closing = append(b.closing, f) }

// close ends what was started after the first few, last first: what one part has
// started is not to cost the next one time.
func (b *run) close(first int) error {
	var errs []error
	for _, f := range slices.Backward(b.closing[first:]) {
		errs = append(errs, f())
	}
	b.closing = b.closing[:first]
	return errors.Join(errs...)
}

func (b *run) start(ctx context.Context) (err error) {
	if b.dir, err = os.MkdirTemp("", "tollgate-bench-"); err != nil {
		return err
	}
	b.onClose(func() error { return os.RemoveAll(b.dir) })
	if b.pki, err = newPKI(b.dir); err != nil {
		return err
	}
	if b.Gateway == "" {
		b.Progress("building the gateway")
		if b.Gateway, err = buildGateway(ctx, b.dir); err != nil {
			return err
		}
	}
	if b.stub, b.address, err = b.startStub(ctx, mainCluster, theTopic); err != nil {
		return err
	}
	if b.load, err = b.startChild(roleLoad, struct{}{}); err != nil {
		return err
	}
	for _, g := range b.binaries() {
		s, err := b.startGateway(ctx, g[0], g[1], partnerResources(b.address.Plaintext))
		if err != nil {
			return err
		}
		b.Progress("%s: process %d, profiles at %s/debug/pprof/", s.name, s.process.PID(), s.admin)
		b.gateways = append(b.gateways, s)
	}
	b.haproxy, b.patient, err = b.startHAProxy(ctx, "haproxy", b.address.Plaintext)
	return err
}

// binaries are the gateway and the other one: name and file.
func (b *run) binaries() [][2]string {
	list := [][2]string{{"tollgate", b.Gateway}}
	if b.Other != "" {
		list = append(list, [2]string{"other", b.Other})
	}
	return list
}

// theTopic is the one topic that most parts need.
var theTopic = stubTopic{topic{physicalName, stubTopicID(1)}, 1}

// stubTopicID makes ids that look like random UUIDs, as Kafka's do.
func stubTopicID(n int) [16]byte {
	return [16]byte{4: 0x40, 8: 0x80, 13: byte(n >> 16), 14: byte(n >> 8), 15: byte(n)}
}

// startStub runs a stub broker that is a whole cluster.
func (b *run) startStub(ctx context.Context, cluster string, topics ...stubTopic) (c *child, address StubAddress, err error) {
	c, err = b.startChild(roleStub, stubConfig{
		Host: "127.0.0.1", ClusterID: "bench-" + cluster, Topics: topics,
		Cert: b.pki.pair.CertPEM, Key: b.pki.pair.KeyPEM, MaxFrame: maxAnswer,
	})
	if err != nil {
		return nil, address, err
	}
	return c, address, c.call(ctx, "Stub.Address", struct{}{}, &address)
}

func (b *run) startChild(role string, config any) (*child, error) {
	c, err := startChild(role, config)
	if err == nil {
		b.onClose(c.close)
	}
	return c, err
}
