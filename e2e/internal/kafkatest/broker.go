package kafkatest

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"

	"tollgate.internal/e2e/internal/kafkajars"
	"tollgate.internal/e2e/internal/proc"
)

// A Broker is one node of a cluster, running or not. Its methods may be called
// from several goroutines, as tests with faults under load do.
type Broker struct {
	ID int32

	cluster *Cluster
	dir     string
	config  string

	mu             sync.Mutex
	ports          map[Listener]int // replaced as a whole by Move
	controllerPort int
	process        *proc.Process // of the latest start
}

// Addr is the address under which the broker is advertised on a listener; a
// listener that the cluster does not have panics.
func (b *Broker) Addr(l Listener) string {
	host := "127.0.0.1"
	if l != PLAINTEXT {
		host = b.cluster.Options.Host
	}
	return net.JoinHostPort(host, strconv.Itoa(b.Port(l)))
}

// Port is the port of a listener on 127.0.0.1.
func (b *Broker) Port(l Listener) int {
	b.mu.Lock()
	port, ok := b.ports[l]
	b.mu.Unlock()
	if !ok {
		panic(fmt.Sprintf("no listener %q among %v", l, b.cluster.Options.listeners()))
	}
	return port
}

// PID is the process id of the latest start; [Broker.Running] says whether it is still there.
func (b *Broker) PID() int { return b.current().PID() }

// Kill ends the broker with SIGKILL, if it runs, and waits for its end.
func (b *Broker) Kill() error {
	if p := b.current(); p != nil && p.Running() {
		return b.named("kill", p.Kill())
	}
	return nil
}

// Stop asks the broker with SIGTERM to hand over its partitions and end, and
// waits until it has.
func (b *Broker) Stop(ctx context.Context) error {
	if p := b.current(); p != nil && p.Running() {
		return b.named("stop", p.Terminate(ctx, time.Minute))
	}
	return nil
}

// Pause freezes the broker with SIGSTOP: its connections stay open and nothing answers.
func (b *Broker) Pause() error { return b.named("pause", b.current().Signal(syscall.SIGSTOP)) }

// Resume ends Pause.
func (b *Broker) Resume() error { return b.named("resume", b.current().Signal(syscall.SIGCONT)) }

// Running reports whether the broker's process is there.
func (b *Broker) Running() bool {
	p := b.current()
	return p != nil && p.Running()
}

// Restart starts the broker again, on the same ports and data, and returns when
// it lists itself among the live brokers. One that still runs is stopped first.
func (b *Broker) Restart(ctx context.Context) error {
	if err := b.Stop(ctx); err != nil {
		return err
	}
	if err := b.launch(); err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(ctx, startTimeout)
	defer cancel()
	if err := b.waitServing(ctx); err != nil {
		return fmt.Errorf("%w\n%s", b.named("restart", err), b.LogTail(25))
	}
	return nil
}

// LogTail is the end of the broker's log, under a line that names it.
func (b *Broker) LogTail(lines int) string { return b.logTail(0, lines) }

// logTail is the end of what the broker logged behind the first bytes of its log.
func (b *Broker) logTail(from int64, lines int) string {
	text, err := os.ReadFile(b.log())
	if err != nil {
		return ""
	}
	text = bytes.TrimSpace(text[min(from, int64(len(text))):])
	if len(text) == 0 {
		return ""
	}
	all := strings.Split(string(text), "\n")
	if len(all) > lines {
		all = all[len(all)-lines:]
	}
	return fmt.Sprintf("--- Kafka %s broker %d ---\n%s", b.cluster.Options.Version, b.ID, strings.Join(all, "\n"))
}

func (b *Broker) logSize() int64 {
	info, err := os.Stat(b.log())
	if err != nil {
		return 0
	}
	return info.Size()
}

func (b *Broker) log() string { return filepath.Join(b.dir, "broker.log") }

func (b *Broker) current() *proc.Process {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.process
}

func (b *Broker) named(what string, err error) error {
	if err != nil {
		return fmt.Errorf("%s broker %d: %w", what, b.ID, err)
	}
	return nil
}

// launch starts the process and does not wait for anything.
func (b *Broker) launch() error {
	args := slices.Concat(
		[]string{
			"-Xms32m", "-Xmx256m", "-Xss512k", "-XX:+UseSerialGC", "-XX:TieredStopAtLevel=1",
			"-XX:MaxMetaspaceSize=128m", "-XX:ReservedCodeCacheSize=64m", "-Djava.awt.headless=true",
		},
		b.cluster.jars.Sharing(), kafkajars.Quiet(),
		// Until all nodes listen, every node complains about the others.
		[]string{"-Dorg.slf4j.simpleLogger.log.org.apache.kafka.clients.NetworkClient=error"},
		b.cluster.Options.JVM,
		[]string{"-cp", b.cluster.jars.Classpath(b.cluster.Options.Jars...), "kafka.Kafka", b.config})
	cmd, err := b.cluster.java(context.Background(), args...)
	if err != nil {
		return err
	}
	log, err := os.OpenFile(b.log(), os.O_CREATE|os.O_WRONLY|os.O_APPEND, 0o644)
	if err != nil {
		return err
	}
	defer log.Close() // the child has its own descriptor
	cmd.Stdout, cmd.Stderr, cmd.Dir = log, log, b.dir

	b.mu.Lock()
	defer b.mu.Unlock()
	if b.process != nil && b.process.Running() {
		return b.named("start", errors.New("it runs already"))
	}
	b.process, err = proc.Start(cmd)
	return b.named("start", err)
}
