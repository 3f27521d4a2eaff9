package bench

import (
	"context"
	"fmt"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/twmb/franz-go/pkg/kmsg"
)

// The topics of a cluster that has many: what clients of the gateway call them,
// and what is before that on the cluster that is not home.
const (
	manyPrefix     = "orders-"
	manyStored     = "depot.v1."
	manyPartitions = 10

	manyConnections = 50
	manyPerSecond   = 1000
)

// many are the clients' two ways to ask: admin clients ask for all topics, a
// consumer for those it has subscribed to.
func (b *run) manyWorkloads() []workload {
	w := workload{Key: int16(kmsg.Metadata), Version: 12, Topics: b.Topics, Partitions: manyPartitions}
	named := w
	named.Named = true
	return []workload{w, named}
}

// telling is what a side did to answer Metadata.
type telling struct {
	timing
	pid      int
	admin    string    // of a gateway
	most     float64   // answers a second when each connection asks again at once
	bytes    []float64 // allocated for a request
	objects  []float64
	resident int64
}

func manyNames(prefix string, from, to int) []string {
	var names []string
	for i := from; i < to; i++ {
		names = append(names, fmt.Sprintf("%s%s%04d", prefix, manyPrefix, i))
	}
	return names
}

func manyTopics(prefix string, from, to int) []stubTopic {
	var topics []stubTopic
	for i, name := range manyNames(prefix, from, to) {
		topics = append(topics, stubTopic{topic{name, stubTopicID(from + i)}, manyPartitions})
	}
	return topics
}

// many measures how Metadata of many topics is answered: by a real broker, by it
// behind HAProxy, and by gateways of one cluster and of two, which have stub
// brokers behind them, for they answer from what they know.
func (b *run) many(ctx context.Context) error {
	stored := single + "."
	kafka, err := b.startKafka(ctx, "many-kafka", nil)
	if err != nil {
		return err
	}
	b.Progress("creating %d topics with %d partitions each on a real broker", b.Topics, manyPartitions)
	if err := createTopics(ctx, kafka, manyPartitions, manyNames(stored, 0, b.Topics)...); err != nil {
		return err
	}
	plaintext, encrypted := direct(kafka)
	haproxy, _, err := b.startHAProxy(ctx, "haproxy-many", plaintext.Addr)
	if err != nil {
		return err
	}
	broker := kafka.Brokers()[0].PID()
	sides := []*telling{
		{timing: timing{target: plaintext}, pid: broker},
		{timing: timing{target: encrypted}, pid: broker},
		{timing: timing{target: haproxy.target}, pid: haproxy.process.PID()},
	}
	sides[2].target.Name = "haproxy"
	for _, s := range sides {
		s.target.Topics = manyNames(stored, 0, b.Topics)
	}
	for _, binary := range b.binaries() {
		for _, spans := range []bool{false, true} {
			s, err := b.manyGateway(ctx, binary, spans)
			if err != nil {
				return err
			}
			t := &telling{timing: timing{target: s.target}, pid: s.process.PID(), admin: s.admin}
			t.target.Topics = manyNames("", 0, b.Topics)
			sides = append(sides, t)
		}
	}
	for _, w := range b.manyWorkloads() {
		if err := b.tell(ctx, w, sides); err != nil {
			return err
		}
	}
	return nil
}

// manyGateway is a gateway of one cluster, or of two with half of the topics each.
func (b *run) manyGateway(ctx context.Context, binary [2]string, spans bool) (*server, error) {
	name, half := binary[0], b.Topics
	var other StubAddress
	var err error
	if spans {
		name, half = name+virtualClusters[1][1], b.Topics/2
		if _, other, err = b.startStub(ctx, otherCluster, manyTopics(manyStored, half, b.Topics)...); err != nil {
			return nil, err
		}
	}
	_, main, err := b.startStub(ctx, mainCluster, manyTopics(single+".", 0, half)...)
	if err != nil {
		return nil, err
	}
	s, err := b.startGateway(ctx, name+" many", binary[1], manyResources(main.Plaintext, other.Plaintext, manyNames("", half, b.Topics)))
	if err != nil {
		return nil, err
	}
	s.target.Name = name
	return s, nil
}

func (b *run) tell(ctx context.Context, w workload, sides []*telling) error {
	for _, s := range sides {
		s.took, s.cpu, s.bytes, s.objects = nil, nil, nil, nil
		err := awaited(ctx, func() error {
			return b.load.call(ctx, "Load.Connect", ConnectArgs{s.target, w, manyConnections}, &s.id)
		})
		if err != nil {
			return err
		}
	}
	for range 2 { // to warm up, and then to see how many each can answer
		for _, s := range sides {
			var r LoadResult
			if err := b.load.call(ctx, "Load.Saturate", SaturateArgs{s.id, 1, b.RoundTime}, &r); err != nil {
				return fmt.Errorf("%s: %w", s.target.Name, err)
			}
			s.most = float64(r.Requests) / r.Elapsed.Seconds()
		}
	}
	for range b.Rounds {
		for _, s := range sides {
			if err := b.tellOnce(ctx, s); err != nil {
				return fmt.Errorf("%s: %w", s.target.Name, err)
			}
		}
	}
	if b.Profile != "" {
		i := slices.IndexFunc(sides, func(s *telling) bool { return s.admin != "" })
		args := RateArgs{sides[i].id, sides[i].pace(), b.ProfileTime + b.RoundTime}
		if err := b.profile(ctx, sides[i].admin, func() error { return b.load.call(ctx, "Load.Rate", args, &RateResult{}) }); err != nil {
			return err
		}
	}
	for _, s := range sides {
		if err := b.load.call(ctx, "Load.Disconnect", s.id, &struct{}{}); err != nil {
			return err
		}
		slices.Sort(s.took)
	}
	b.report.addTellings(w, sides)
	return nil
}

// pace is how many requests a second a side is sent: half of what it can do at
// most, if that is less than all should be sent.
func (s *telling) pace() float64 {
	if s.most < 1.2*manyPerSecond {
		return max(1, s.most/2)
	}
	return manyPerSecond
}

func (b *run) tellOnce(ctx context.Context, s *telling) error {
	// A slow side has to answer some on each connection too.
	args := RateArgs{s.id, s.pace(), max(b.RoundTime, time.Duration(float64(time.Second)*2*manyConnections/s.pace()))}
	var r RateResult
	before, err := s.spent(ctx)
	if err != nil {
		return err
	}
	if err := b.load.call(ctx, "Load.Rate", args, &r); err != nil {
		return err
	}
	after, err := s.spent(ctx)
	if err != nil {
		return err
	}
	n := float64(len(r.Took))
	s.took = append(s.took, r.Took...)
	s.cpu = append(s.cpu, (after.cpu-before.cpu)/n)
	s.bytes = append(s.bytes, (after.bytes-before.bytes)/n)
	s.objects = append(s.objects, (after.objects-before.objects)/n)
	s.resident, err = residentBytes(s.pid)
	return err
}

// spent is what a process has used of CPU, in microseconds, and allocated.
type spent struct{ cpu, bytes, objects float64 }

func (s *telling) spent(ctx context.Context) (spent, error) {
	var v spent
	if s.admin != "" {
		var err error
		if v.bytes, v.objects, err = allocated(ctx, s.admin); err != nil {
			return v, err
		}
	}
	cpu, err := cpuTime(s.pid)
	v.cpu = microseconds(cpu)
	return v, err
}

var memStats = regexp.MustCompile(`(?m)^# (TotalAlloc|Mallocs) = (\d+)$`)

// allocated is how much a gateway has allocated since its start, in how many objects.
func allocated(ctx context.Context, admin string) (bytes, objects float64, err error) {
	var text strings.Builder
	if err := get(ctx, admin+"/debug/pprof/allocs?debug=1", &text); err != nil {
		return 0, 0, err
	}
	found := memStats.FindAllStringSubmatch(text.String(), -1)
	if len(found) != 2 {
		return 0, 0, fmt.Errorf("no allocations in %.300s", text.String())
	}
	if bytes, err = strconv.ParseFloat(found[0][2], 64); err != nil {
		return 0, 0, err
	}
	objects, err = strconv.ParseFloat(found[1][2], 64)
	return bytes, objects, err
}
