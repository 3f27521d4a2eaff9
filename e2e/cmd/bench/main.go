// Command bench measures what the gateway costs; `make bench` runs it.
package main

import (
	"context"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"strings"
	"syscall"
	"time"

	"tollgate.internal/e2e/internal/bench"
)

const usage = `Measures what the gateway costs beside HAProxy and beside no proxy.

  make bench                                 everything, into docs/performance.md
  make bench BENCH=produce-1k                one part, printed only
  make bench BENCH=produce,fetch             several, by the beginnings of their names

While working on the hot path, from the root of the repository:

  go run ./e2e/cmd/bench -profile cpu.prof produce-64k && go tool pprof -top cpu.prof
  go build -o /tmp/before ./services/proxy/cmd/proxy   # and, after a change:
  go run ./e2e/cmd/bench -other /tmp/before produce-1k # both in turns in one run

A longer look: with -rounds 1 -round 5m the load stays up, and the gateway's admin
listener, whose address is printed at the start, serves /debug/pprof all the while.

Parts:
`

func main() {
	if bench.Child() {
		return
	}
	var o bench.Options
	out := flag.String("out", "", "write the report to `FILE` too")
	flag.IntVar(&o.Rounds, "rounds", 0, "how often each side is loaded, in turns")
	flag.DurationVar(&o.RoundTime, "round", 0, "how long one round loads one side")
	flag.IntVar(&o.Idle, "idle", 0, "how many connections are held idle")
	flag.IntVar(&o.Tenants, "tenants", 0, "how many tenants a control plane has")
	flag.IntVar(&o.Bundles, "bundles", 0, "how many virtual clusters a node could serve")
	flag.StringVar(&o.Gateway, "gateway", "", "measure this `BINARY` of services/proxy/cmd/proxy; without it, one built from this tree")
	flag.StringVar(&o.Other, "other", "", "measure a second `BINARY` beside it")
	flag.StringVar(&o.Profile, "profile", "", "write a CPU profile of the gateway to `FILE`, of a part about CPU per request, taken after its figures")
	flag.Usage = func() {
		w := flag.CommandLine.Output()
		fmt.Fprint(w, usage)
		for _, p := range bench.Parts() {
			fmt.Fprintf(w, "  %-18s %s\n", p[0], p[1])
		}
		fmt.Fprintln(w, "\nFlags:")
		flag.PrintDefaults()
	}
	flag.Parse()
	for _, arg := range flag.Args() {
		o.Parts = append(o.Parts, strings.FieldsFunc(arg, func(r rune) bool { return r == ',' || r == ' ' })...)
	}
	began := time.Now()
	o.Progress = func(format string, args ...any) {
		fmt.Fprintf(os.Stderr, "%4.0fs %s\n", time.Since(began).Seconds(), fmt.Sprintf(format, args...))
	}
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	if err := measure(ctx, o, *out); err != nil {
		fmt.Fprintln(os.Stderr, "bench:", err)
		os.Exit(1)
	}
}

func measure(ctx context.Context, o bench.Options, file string) error {
	report, err := bench.Run(ctx, o)
	if err != nil {
		return err
	}
	if err := report.Write(os.Stdout); err != nil || file == "" {
		return err
	}
	if !report.Whole {
		fmt.Fprintf(os.Stderr, "%s is left as it is: not every part was run\n", file)
		return nil
	}
	f, err := os.Create(file)
	if err != nil {
		return err
	}
	defer f.Close()
	if err := report.Write(f); err != nil {
		return err
	}
	return f.Close()
}
