package bench

import (
	"fmt"
	"io"
	"slices"
	"strings"
	"time"
)

// A Report is what a run measured.
type Report struct {
	Whole   bool // every part was run
	Took    time.Duration
	Machine [][2]string // date, processor and what else decides over figures
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
user and system time of the process between client and broker (/proc/PID/stat), divided by requests. The gateway has logged the clients
in, decides by ACLs, and maps the alias; clients of HAProxy use the physical topic. Up to version 12 topics are
named, from 13 on they have ids.`

func (r *Report) addCost(c cost, sides []*usage) {
	t := r.table("CPU per request", costText, "request", "through", "CPU per request", "spread", "against HAProxy", "requests/s")
	base := median(sides[len(sides)-1].cpu)
	for i, u := range sides {
		ratio := median(u.cpu) / base
		t.add(c.workload.String(), u.server.name, micros(median(u.cpu)), spread(u.cpu, micros), times(ratio), fmt.Sprintf("%.0f", median(u.rate)))
		if i == 0 && c.budget > 0 {
			r.Budgets = append(r.Budgets, Budget{"CPU per " + c.workload.String() + " against HAProxy", c.budget, ratio, "×"})
		}
	}
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
	if len(r.Budgets) > 0 {
		b.WriteString("\n## Budgets\n")
		t := &Table{Header: []string{"figure", "budget", "measured", ""}}
		for _, x := range r.Budgets {
			verdict := "met"
			if !x.Met() {
				verdict = "**missed**"
			}
			t.add(x.Figure, amount(x.Limit, x.Unit), amount(x.Measured, x.Unit), verdict)
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
