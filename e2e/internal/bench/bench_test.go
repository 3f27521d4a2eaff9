package bench

import (
	"os"
	"strings"
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
	report, err := Run(t.Context(), Options{Rounds: 1, RoundTime: 100 * time.Millisecond, Progress: t.Logf})
	if err != nil {
		t.Fatal(err)
	}
	var text strings.Builder
	if err := report.Write(&text); err != nil {
		t.Fatal(err)
	}
	t.Log(text.String())
	if len(report.Tables) != 1 || len(report.Tables[0].Rows) != 2*len(costs) {
		t.Errorf("tables %v", report.Tables)
	}
	if len(report.Budgets) != 4 {
		t.Errorf("budgets %v", report.Budgets)
	}
	if !report.Whole {
		t.Error("a run of every part is not whole")
	}
}

func TestAMissedBudgetIsShownAsMissed(t *testing.T) {
	r := &Report{Budgets: []Budget{{"a", 1.5, 1.6, "×"}, {"b", 25, 17.04, "KiB"}}}
	var text strings.Builder
	if err := r.Write(&text); err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{"| a      | 1.50×  | 1.60×    | **missed** |", "| b      | 25 KiB | 17 KiB   | met        |"} {
		if !strings.Contains(text.String(), want) {
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
