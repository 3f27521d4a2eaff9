package bench

import (
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kmsg"
)

func TestMain(m *testing.M) {
	if Child() {
		return
	}
	os.Exit(m.Run())
}

// Every part runs, with so little of everything that its figures mean nothing: a
// request that fails, or is answered wrongly, ends the run with an error.
func TestEveryPart(t *testing.T) {
	report, err := Run(t.Context(), Options{
		Rounds: 1, RoundTime: 100 * time.Millisecond, Idle: 60, Topics: 20, Records: 2000, Progress: t.Logf,
		Tenants: 40, Changes: 6, Documents: 60, Bundles: 400, Loaded: 30,
		Profile: filepath.Join(t.TempDir(), "cpu.prof"), ProfileTime: time.Second,
	})
	if err != nil {
		t.Fatal(err)
	}
	var text strings.Builder
	if err := report.Write(&text); err != nil {
		t.Fatal(err)
	}
	t.Log(text.String())
	got := make(map[string]int)
	for _, table := range report.Tables {
		got[table.Title] = len(table.Rows)
		for _, row := range table.Rows {
			if len(row) != len(table.Header) || slices.Contains(row, "") {
				t.Errorf("%s: row %q under %q", table.Title, row, table.Header)
			}
		}
	}
	want := map[string]int{
		"CPU per request": 2 * len(costs), "Latency": 4 * len(paces), "60 idle clients": 2,
		"One cluster and two": 3 * len(spanned), "Metadata of many topics": 2 * 5, "Group commits": 5,
		"Clients that come": 4, "40 tenants": 2 * 13, "400 virtual clusters": 8, "Java tools on a real broker": 3,
	}
	if !maps.Equal(got, want) {
		t.Errorf("rows by table %v: want %v", got, want)
	}
	if len(report.Budgets) != 8 {
		t.Errorf("budgets %v", report.Budgets)
	}
	if !report.Whole {
		t.Error("a run of every part is not whole")
	}
}

func TestAMissedBudgetIsShownAsMissed(t *testing.T) {
	r := &Report{Budgets: []Budget{{"a", 1.5, 1.2, 1.6, "×"}, {"b", 25, 17, 18.04, "KiB"}, {"c", 100, 0, 54, "connections"}, {"d", 1.5, 1.2, 1.2, "×"}}}
	var text strings.Builder
	if err := r.Write(&text); err != nil {
		t.Fatal(err)
	}
	plain := strings.Join(strings.Fields(text.String()), " ")
	for _, want := range []string{
		"| a | 1.50× | 1.20× | 1.60× | **missed** |",
		"| b | 25 KiB | 17 KiB | 18 KiB | met, the later one not yet |",
		"| c | 100 connections | – | 54 connections | met |",
		"| d | 1.50× | 1.20× | 1.20× | met |",
	} {
		if !strings.Contains(plain, want) {
			t.Errorf("no line %q in\n%s", want, text.String())
		}
	}
}

func TestBatchesHaveTheSizeAskedForAndPassABrokersChecks(t *testing.T) {
	for _, n := range []int{100, 1 << 10, 1100, 64 << 10, 1 << 20} {
		b, err := batch(n)
		if err != nil {
			t.Fatal(err)
		}
		if len(b) != n {
			t.Errorf("batch(%d) has %d bytes", n, len(b))
		}
		if err := checkBatch(b); err != nil {
			t.Errorf("batch(%d): %v", n, err)
		}
		b[n-1] ^= 1
		if checkBatch(b) == nil {
			t.Errorf("batch(%d) with a flipped bit passes", n)
		}
	}
}

func TestCPUTimeIsThatOfTheProcess(t *testing.T) {
	usage := func() time.Duration {
		var u syscall.Rusage
		if err := syscall.Getrusage(syscall.RUSAGE_SELF, &u); err != nil {
			t.Fatal(err)
		}
		return time.Duration(u.Utime.Nano() + u.Stime.Nano())
	}
	for usage() < 100*time.Millisecond {
	}
	low := usage()
	got, err := cpuTime(os.Getpid())
	if err != nil {
		t.Fatal(err)
	}
	// The kernel divides what it counts exactly into user and system time, rounded down.
	if high := usage(); got < low-time.Millisecond || got > high+time.Millisecond {
		t.Errorf("cpuTime = %v: want %v to %v", got, low, high)
	}
}

func TestTheJavaToolsAreUnderstood(t *testing.T) {
	const produced = `1234 records sent, 246.7 records/sec (0.24 MB/sec), 30.1 ms avg latency, 388.0 ms max latency.
2000 records sent, 4357.3 records/sec (4.26 MB/sec), 63.14 ms avg latency, 388.00 ms max latency, 62 ms 50th, 79 ms 95th, 80 ms 99th, 81 ms 99.9th.
`
	if got, err := produceRate(produced, 2000); err != nil || got != 4.26 {
		t.Errorf("produceRate = %v, %v: want 4.26", got, err)
	}
	if _, err := produceRate(produced, 3000); err == nil {
		t.Error("a run that sent too little passes")
	}
	const consumed = `start.time, end.time, data.consumed.in.MB, MB.sec, data.consumed.in.nMsg, nMsg.sec, rebalance.time.ms, fetch.time.ms, fetch.MB.sec, fetch.nMsg.sec
2026-01-02 03:04:05:678, 2026-01-02 03:04:09:678, 1.9531, 0.4883, 2000, 500.0000, 3600, 400, 4.8828, 5000.0000
`
	if got, err := consumeRate(consumed, 1.953125); err != nil || got != 4.8828 {
		t.Errorf("consumeRate = %v, %v: want 4.8828", got, err)
	}
	if _, err := consumeRate(consumed, 3); err == nil {
		t.Error("a run that read too little passes")
	}
}

func TestQuantiles(t *testing.T) {
	var took []time.Duration
	for i := range 1000 {
		took = append(took, time.Duration(i+1))
	}
	for q, want := range map[float64]time.Duration{0: 1, 0.5: 500, 0.99: 990, 0.999: 999, 1: 1000} {
		if got := quantile(took, q); got != want {
			t.Errorf("quantile %v of 1 to 1000 is %d: want %d", q, got, want)
		}
	}
	if got := quantile(took[:1], 0.999); got != 1 {
		t.Errorf("quantile of one value is %d", got)
	}
}

// The comparison that stands behind every figure tells each wrong answer.
func TestAWrongAnswerIsNoticed(t *testing.T) {
	alias := topic{aliasName, [16]byte{1}}
	for _, c := range costs {
		want, err := c.workload.answer(alias)
		if err != nil {
			t.Fatal(err)
		}
		frame := func(found topic, offset int64) []byte {
			resp, err := c.workload.response(found, offset)
			if err != nil {
				t.Fatal(err)
			}
			return appendAnswer(nil, resp, 7)
		}
		right := frame(alias, 4711)
		if err := want.matches(right, 7); err != nil {
			t.Errorf("%s: the right answer: %v", c.name, err)
		}
		if want.matches(right, 8) == nil {
			t.Errorf("%s: another request's answer passes", c.name)
		}
		if want.matches(frame(topic{physicalName, [16]byte{2}}, 4711), 7) == nil {
			t.Errorf("%s: the physical topic passes", c.name)
		}
		for i := range right {
			if i < 8 || kmsg.Key(c.workload.Key) == kmsg.Produce && i >= want.offset && i < want.offset+8 {
				continue
			}
			right[i] ^= 0x80
			if want.matches(right, 7) == nil {
				t.Fatalf("%s: byte %d flipped passes", c.name, i)
			}
			right[i] ^= 0x80
		}
	}
}
