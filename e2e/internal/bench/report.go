package bench

import (
	"fmt"
	"io"
	"slices"
	"strings"
	"time"

	"tollgate.internal/e2e/internal/kafkajars"
)

// A Report is what a run measured.
type Report struct {
	Whole   bool // every part was run
	Took    time.Duration
	Machine [][2]string // date, processor and what else decides over figures
	Busy    bool        // the machine had other work
	Tables  []*Table
	Budgets []Budget
}

// A Table is printed as one.
type Table struct {
	Title  string
	Text   string // how it was measured
	Header []string
	Rows   [][]string
}

// A Budget is a figure that was promised, and what became of it.
type Budget struct {
	Figure   string
	Limit    float64
	Goal     float64 // the limit to come; 0: none
	Measured float64
	Unit     string
}

// Met says whether the promise is kept.
func (b Budget) Met() bool { return b.Measured <= b.Limit }

// table returns the table of that title, made when there is none.
func (r *Report) table(title, text string, header ...string) *Table {
	for _, t := range r.Tables {
		if t.Title == title {
			return t
		}
	}
	t := &Table{Title: title, Text: text, Header: header}
	r.Tables = append(r.Tables, t)
	return t
}

func (t *Table) add(cells ...string) { t.Rows = append(t.Rows, cells) }

const costText = `4 connections with 5 requests in flight each; TLS 1.3 from the client, plaintext to the broker. CPU is the
user and system time of the process between client and broker, divided by requests. The gateway has logged the clients
in, decides by ACLs, and maps the alias; clients of HAProxy use the physical topic. Up to version 12 topics are
named, from 13 on they have ids.`

func (r *Report) addCost(c cost, sides []*usage) {
	t := r.table("CPU per request", costText, "request", "through", "CPU per request", "spread", "against HAProxy", "requests/s")
	base := median(sides[len(sides)-1].cpu)
	for i, u := range sides {
		ratio := median(u.cpu) / base
		t.add(c.workload.String(), u.server.name, micros(median(u.cpu)), spread(u.cpu, micros), times(ratio), fmt.Sprintf("%.0f", median(u.rate)))
		if i == 0 && c.budget > 0 {
			r.Budgets = append(r.Budgets, Budget{"CPU per " + c.workload.String() + " against HAProxy", c.budget, c.goal, ratio, "×"})
		}
	}
}

const spanningText = `As above, through one gateway, of a virtual cluster with one cluster behind it and of one that spans two: to a topic on its
home cluster and to one on the other.`

func (r *Report) addSpanning(w workload, sides []*usage) {
	t := r.table("One cluster and two", spanningText, "request", "virtual cluster, topic", "CPU per request", "spread", "against one cluster", "requests/s")
	base := median(sides[0].cpu)
	for _, u := range sides {
		t.add(w.String(), u.target.Name, micros(median(u.cpu)), spread(u.cpu, micros), times(median(u.cpu)/base), fmt.Sprintf("%.0f", median(u.rate)))
	}
}

const tellingText = `%d topics of %d partitions each; %d connections ask, %d times a second together, by the clock as under Latency. CPU is
that of the process that is asked: the real broker itself where there is no proxy. HAProxy stands before that broker; the gateways
answer from what they know of stub brokers with the same topics, of one cluster, and of two with half of the topics each. They decide
about every topic by ACLs. At most is what is answered when each connection asks again at once; who answers too few is asked half of
that.`

func (r *Report) addTellings(w workload, sides []*telling) {
	t := r.table("Metadata of many topics", fmt.Sprintf(tellingText, w.Topics, w.Partitions, manyConnections, manyPerSecond),
		"request", "through", "CPU per request", "spread", "against HAProxy", "asked/s", "p50", "p99", "answers/s at most", "allocated per request", "memory of the process")
	base := 0.0
	for _, s := range sides {
		if s.target.Name == "haproxy" {
			base = median(s.cpu)
		}
	}
	for _, s := range sides {
		allocated := "–"
		if s.admin != "" {
			allocated = fmt.Sprintf("%.1f KiB in %.0f", median(s.bytes)/1024, median(s.objects))
		}
		t.add(w.String(), s.target.Name, micros(median(s.cpu)), spread(s.cpu, micros), times(median(s.cpu)/base), fmt.Sprintf("%.0f", s.pace()),
			micros(microseconds(quantile(s.took, 0.5))), micros(microseconds(quantile(s.took, 0.99))),
			fmt.Sprintf("%.0f", s.most), allocated, fmt.Sprintf("%d MiB", s.resident>>20))
	}
}

const commitText = `%d groups commit through a connection each, one commit after the other, of %d topics with %d partitions each, on a real broker,
which gathers commits for some milliseconds. Of the virtual cluster of two clusters, one of the topics is on the other cluster, and its
offsets are kept against a stub topic on home.`

func (r *Report) addCommits(sides []*usage) {
	w := commitWorkload
	t := r.table("Group commits", fmt.Sprintf(commitText, committers, w.Topics, w.Partitions),
		"through", "commits/s", "spread", "CPU per commit", "spread", "against HAProxy")
	base := 0.0
	for _, u := range sides {
		if u.target.Name == "haproxy" {
			base = median(u.cpu)
		}
	}
	rate := func(v float64) string { return fmt.Sprintf("%.0f", v) }
	for _, u := range sides {
		row := []string{u.target.Name, rate(median(u.rate)), spread(u.rate, rate)}
		if len(u.cpu) == 0 {
			row = append(row, "–", "–", "–")
		} else {
			row = append(row, micros(median(u.cpu)), spread(u.cpu, micros), times(median(u.cpu)/base))
		}
		t.add(row...)
	}
}

const latencyText = `Requests are sent by the clock, over 4 connections, however fast they are answered; the time of each counts
from the moment it was to be sent. Added is what the proxy adds to TLS straight to the broker. CPU is per request at this rate,
at which hardly ever two travel together.`

func (r *Report) addLatency(p pace, sides []*timing) {
	t := r.table("Latency", latencyText, "request", "through", "p50", "p99", "p99.9", "added p50", "p99", "p99.9", "CPU per request", "spread", "against HAProxy")
	quantiles := []float64{0.5, 0.99, 0.999}
	plain, base, haproxy := sides[0], sides[1], sides[2] // the first two: no proxy, without TLS and with
	for _, s := range sides {
		row := []string{fmt.Sprintf("%s, %.0f/s", p.workload, p.perSecond), s.target.Name}
		for _, q := range quantiles {
			row = append(row, micros(microseconds(quantile(s.took, q))))
		}
		for _, q := range quantiles {
			if s == plain || s == base {
				row = append(row, "–")
				continue
			}
			row = append(row, added(microseconds(quantile(s.took, q)-quantile(base.took, q))))
		}
		if len(s.cpu) == 0 {
			row = append(row, "–", "–", "–")
		} else {
			row = append(row, micros(median(s.cpu)), spread(s.cpu, micros), times(median(s.cpu)/median(haproxy.cpu)))
		}
		t.add(row...)
	}
}

const idleText = `Each client has logged in (SCRAM-SHA-512 at the gateway; HAProxy knows no logins), asked for metadata, and is
silent. Memory is what the process holds more than before the first of them, divided by their number: as it is some seconds after
the last came, after a garbage collection, and after each has produced one record, up to 50 at a time. Connections are those the
broker counts. CPU is that of the silence, all clients together.`

func (r *Report) addIdle(sides []*idleness) {
	n := float64(sides[0].connections)
	t := r.table(fmt.Sprintf("%d idle clients", sides[0].connections), idleText,
		"through", "memory per client", "collected", "after a record", "connections to the broker", "after a record", "CPU")
	for i, s := range sides {
		each := func(bytes int64) float64 { return float64(bytes) / n / 1024 }
		t.add(s.name, kib(each(s.fresh)), kib(each(s.collected)), kib(each(s.served)), fmt.Sprint(s.upstream), fmt.Sprint(s.afterwards), percent(s.silence))
		if i == 0 {
			r.Budgets = append(r.Budgets,
				Budget{"memory per idle authenticated TLS connection", 25, 17, each(s.fresh), "KiB"},
				Budget{fmt.Sprintf("upstream connections for %d idle clients", s.connections), 100, 0, float64(max(s.upstream, s.afterwards)), "connections"})
		}
	}
}

func kib(v float64) string { return fmt.Sprintf("%.1f KiB", v) }

const arrivalText = `Full TLS 1.3 handshakes, X25519 and ECDSA P-256; 4 clients at a time connect and leave as soon as they can. Per
second and core is what the CPU time of one makes possible.`

func (r *Report) addArrivals(sides []*arrival) {
	t := r.table("Clients that come", arrivalText, "what", "through", "CPU each", "spread", "per second and core", "per second here")
	for _, s := range sides {
		cpu := median(s.cpu)
		t.add(s.says, s.server.name, micros(cpu), spread(s.cpu, micros), fmt.Sprintf("%.0f", 1e6/cpu), fmt.Sprintf("%.0f", median(s.rate)))
	}
}

const planeText = `A portal, a Redis, %d nodes, and on either database the same resources: each tenant has a virtual cluster, 2 grants, %d aliases,
an account and 3 ACLs. A change denies or allows a tenant its topic: it is visible when clients on every node are answered so, and
applied when the API has answered to ?wait=applied. Pages are of 100 objects, of all aliases; a deep one is behind the
first half, and those of a label among the tenants. Everything is published anew when Redis was emptied. tollgate apply is
the command, from its start to its end. Redis, PostgreSQL (which does not wait for its disk here; SQLite does), nodes and clients share the
machine with the portal.`

func (r *Report) addPlanes(all []*planeFigures, tenants int) {
	for _, f := range all {
		few := fmt.Sprintf("%d tenants", min(fewTenants, tenants/2))
		t := r.table(fmt.Sprintf("%d tenants", tenants), fmt.Sprintf(planeText, fleetNodes, aliasesEach),
			"what", "database", few, fmt.Sprintf("%d tenants", tenants), "ratio")
		both := func(what string, few, many []time.Duration, q float64) float64 {
			at := func(took []time.Duration) float64 {
				return microseconds(quantile(slices.Sorted(slices.Values(took)), q))
			}
			t.add(what, f.database, micros(at(few)), micros(at(many)), times(at(many)/at(few)))
			return at(many)
		}
		one := func(what, value string) { t.add(what, f.database, "–", value, "–") }
		both("change visible on every node, p50", f.few.visible, f.many.visible, 0.5)
		visible := both("change visible on every node, p99", f.few.visible, f.many.visible, 0.99)
		both("change applied, as the API says, p50", f.few.applied, f.many.applied, 0.5)
		both("change applied, as the API says, p99", f.few.applied, f.many.applied, 0.99)
		both("first page of a list, p95", f.few.first, f.many.first, 0.95)
		both("deep page of a list, p95", f.few.deep, f.many.deep, 0.95)
		both("page by label, p95", f.few.byLabel, f.many.byLabel, 0.95)
		both("page by tenant, p95", f.few.byTenant, f.many.byTenant, 0.95)
		one("everything published anew", seconds(f.republished))
		one(fmt.Sprintf("%d objects created through the API", f.objects),
			fmt.Sprintf("%s, %.0f/s, published %s later", seconds(f.seeded), float64(f.objects)/f.seeded.Seconds(), seconds(f.trailing)))
		one(fmt.Sprintf("tollgate apply of %d documents", f.documents), fmt.Sprintf("%s, again %s", seconds(f.created), seconds(f.unchanged)))
		one("CPU of the portal while nothing happens", fmt.Sprintf("%s a minute", micros(f.silence*60e6)))
		one("memory of the portal", fmt.Sprintf("%d MiB", f.resident>>20))
		r.Budgets = append(r.Budgets, Budget{fmt.Sprintf("change visible on every node, p99, %d tenants on %s", tenants, f.database), 1000, 0, visible / 1000, "ms"})
	}
}

func seconds(d time.Duration) string { return fmt.Sprintf("%.2f s", d.Seconds()) }

const nodeText = `One Redis with the bundles of %d virtual clusters, each with %d aliases, an account and 3 ACLs (%d MiB, written in %s), and one
without any. Ready is when the node lets clients in, from the start of its process. The first client of a virtual cluster has the node load
it; the second finds it loaded: each shakes hands, logs in (SCRAM-SHA-512), asks for metadata of one topic, and leaves. Memory is what the node
holds more when %d virtual clusters are loaded, divided by their number; of its heap, after a garbage collection.`

func (r *Report) addNode(f *nodeFigures, bundles, loaded int) {
	t := r.table(fmt.Sprintf("%d virtual clusters", bundles), fmt.Sprintf(nodeText, bundles, aliasesEach, f.redis>>20, seconds(f.written), loaded),
		"what", "few", "many", "ratio")
	mib := func(bytes float64) string { return fmt.Sprintf("%.1f MiB", bytes/(1<<20)) }
	pair := func(what string, few, many float64, format func(float64) string) {
		t.add(what, format(few), format(many), times(many/few))
	}
	pair("time to ready, with nothing in Redis and with all", median(f.emptyReady), median(f.ready), micros)
	pair("memory when ready, with nothing in Redis and with all", median(f.emptyRSS), median(f.rss), mib)
	for _, q := range []float64{0.5, 0.99} {
		at := func(took []time.Duration) float64 {
			return microseconds(quantile(slices.Sorted(slices.Values(took)), q))
		}
		pair(fmt.Sprintf("the second client of a virtual cluster and the first, p%.0f", 100*q), at(f.second), at(f.first), micros)
	}
	each := func(bytes int64) string { return kib(float64(bytes) / float64(loaded) / 1024) }
	t.add("memory per loaded virtual cluster", "–", each(f.resident), "–")
	t.add("heap per loaded virtual cluster", "–", each(f.heap), "–")
	t.add("CPU while nothing happens, one loaded", percent(f.unsettled), "–", "–")
	t.add(fmt.Sprintf("CPU while nothing happens, %d loaded", loaded), "–", percent(f.silence), "–")
}

func percent(cores float64) string { return fmt.Sprintf("%.2f %% of a core", 100*cores) }

const streamText = `ProducerPerformance (acks=1, batches of 64 KiB) and ConsumerPerformance of Kafka %s, one client, one partition, %d
records of 1 KiB a round, on one real broker; client, gateway and broker share the machine. MB are of 2^20 bytes. Straight to the
broker with TLS, the broker does the encryption; through the gateway, the gateway does, and speaks plaintext to it.`

func (r *Report) addStreams(streams []*stream, records int) {
	t := r.table("Java tools on a real broker", fmt.Sprintf(streamText, kafkajars.V4, records),
		"through", "produced", "spread", "gateway's CPU", "consumed", "spread", "gateway's CPU")
	rate := func(v float64) string { return fmt.Sprintf("%.0f MB/s", v) }
	for _, s := range streams {
		cpu := func(v []float64) string {
			if s.gateway == nil {
				return "–"
			}
			return micros(median(v)) + "/MB"
		}
		t.add(s.name, rate(median(s.produced)), spread(s.produced, rate), cpu(s.produceCPU),
			rate(median(s.consumed)), spread(s.consumed, rate), cpu(s.consumeCPU))
	}
}

func microseconds(d time.Duration) float64 { return float64(d.Nanoseconds()) / 1e3 }

func added(v float64) string {
	if v < 0 {
		return "-" + micros(-v)
	}
	return "+" + micros(v)
}

func micros(v float64) string {
	if v >= 1000 {
		return fmt.Sprintf("%.2f ms", v/1000)
	}
	return fmt.Sprintf("%.1f µs", v)
}

func times(v float64) string { return fmt.Sprintf("%.2f×", v) }

func median(v []float64) float64 {
	s := slices.Sorted(slices.Values(v))
	n := len(s)
	if n == 0 {
		return 0
	}
	return (s[(n-1)/2] + s[n/2]) / 2
}

func spread(v []float64, format func(float64) string) string {
	if len(v) == 0 {
		return ""
	}
	return format(slices.Min(v)) + " – " + format(slices.Max(v))
}

// Write prints the report as Markdown whose tables line up.
func (r *Report) Write(w io.Writer) error {
	var b strings.Builder
	b.WriteString("# Performance\n\nWritten by `make bench`: one run on one machine. Ratios carry over to other machines, times do not. Medians of\nseveral rounds, in which what is compared took turns.\n\n")
	facts := &Table{Header: []string{"run", ""}}
	for _, m := range r.Machine {
		facts.add(m[0], m[1])
	}
	facts.add("time taken", r.Took.Round(time.Second).String())
	facts.write(&b)
	if r.Busy {
		b.WriteString("\n**The machine was busy with something else when this began**, so rates, latencies and spreads say little. Ratios of CPU stand\nbetter, but a proxy that waits for a core finds more requests at once, and each costs it less.\n")
	}
	if len(r.Budgets) > 0 {
		b.WriteString("\n## Budgets\n")
		t := &Table{Header: []string{"figure", "budget", "later", "measured", ""}}
		for _, x := range r.Budgets {
			verdict, goal := "met", "–"
			if x.Goal > 0 {
				goal = amount(x.Goal, x.Unit)
			}
			switch {
			case !x.Met():
				verdict = "**missed**"
			case x.Measured > x.Goal && x.Goal > 0:
				verdict = "met, the later one not yet"
			}
			t.add(x.Figure, amount(x.Limit, x.Unit), goal, amount(x.Measured, x.Unit), verdict)
		}
		t.write(&b)
	}
	for _, t := range r.Tables {
		fmt.Fprintf(&b, "\n## %s\n%s\n\n", t.Title, t.Text)
		t.write(&b)
	}
	_, err := io.WriteString(w, b.String())
	return err
}

func amount(v float64, unit string) string {
	if unit == "×" {
		return times(v)
	}
	return strings.TrimSuffix(fmt.Sprintf("%.1f", v), ".0") + " " + unit
}

func (t *Table) write(b *strings.Builder) {
	widths := make([]int, len(t.Header))
	length := func(s string) int { return len([]rune(s)) }
	for _, row := range append([][]string{t.Header}, t.Rows...) {
		for i, cell := range row {
			widths[i] = max(widths[i], length(cell), 3)
		}
	}
	line := func(row []string, fill string) {
		b.WriteString("|")
		for i, cell := range row {
			b.WriteString(" " + cell + strings.Repeat(fill, widths[i]-length(cell)) + " |")
		}
		b.WriteString("\n")
	}
	line(t.Header, " ")
	line(make([]string, len(t.Header)), "-")
	for _, row := range t.Rows {
		line(row, " ")
	}
}
