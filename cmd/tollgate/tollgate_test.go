package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"tollgate.internal/cmd/tollgate/internal/dev"
	"tollgate.internal/pkg/resource"
)

// tollgate runs one command and returns what it printed.
func tollgate(t *testing.T, input string, args ...string) (string, error) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	var out bytes.Buffer
	err := run(ctx, args, stdio{strings.NewReader(input), &out, t.Output()})
	return out.String(), err
}

func must(t *testing.T, input string, args ...string) string {
	t.Helper()
	out, err := tollgate(t, input, args...)
	if err != nil {
		t.Fatalf("tollgate %s: %v", strings.Join(args, " "), err)
	}
	return out
}

// announced hears of the first thing dev prints, which it does when
// everything serves.
type announced chan struct{}

func (a announced) Write(p []byte) (int, error) {
	select {
	case a <- struct{}{}:
	default:
	}
	return len(p), nil
}

// startDev runs tollgate dev until stop is called.
func startDev(t *testing.T, args ...string) (stop func()) {
	t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	serves := make(announced, 1)
	done := make(chan error, 1)
	go func() {
		done <- run(ctx, append([]string{"dev"}, args...), stdio{strings.NewReader(""), serves, t.Output()})
	}()
	select {
	case <-serves:
	case err := <-done:
		cancel()
		t.Fatalf("tollgate dev: %v", err)
	}
	stopped := false
	stop = func() {
		if stopped {
			return
		}
		stopped = true
		cancel()
		if err := <-done; err != nil {
			t.Errorf("tollgate dev: %v", err)
		}
	}
	t.Cleanup(stop)
	return stop
}

// freePorts finds a port base whose whole block is free, below the range that
// outgoing connections take theirs from.
func freePorts(t *testing.T) int {
	t.Helper()
	for base := 15000; base < 32000; base += 400 {
		var held []net.Listener
		for port := base; port < base+200; port++ {
			l, err := net.Listen("tcp", net.JoinHostPort("127.0.0.1", strconv.Itoa(port)))
			if err != nil {
				break
			}
			held = append(held, l)
		}
		for _, l := range held {
			l.Close()
		}
		if len(held) == 200 {
			return base
		}
	}
	t.Fatal("no 200 free ports in a row between 15000 and 32000")
	return 0
}

// What several runs share is in Redis, where they are given one.
func TestARealRedisInPlaceOfTheStateDirectory(t *testing.T) {
	dir := t.TempDir()
	state, socket := filepath.Join(dir, "state"), filepath.Join(dir, "redis.sock")
	redis := exec.Command("redis-server", "--port", "0", "--unixsocket", socket, "--save", "", "--appendonly", "no")
	redis.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	if err := redis.Start(); err != nil {
		t.Fatalf("%v: tools/setup.sh installs it", err)
	}
	t.Cleanup(func() { redis.Process.Kill(); redis.Wait() })
	base := freePorts(t)
	startDev(t, "--state", state, "--listen", net.JoinHostPort("127.0.0.1", strconv.Itoa(base)), "--port-base", strconv.Itoa(base), "--redis", "unix://"+socket)
	must(t, "one\n", "produce", "things", "--state", state)
	out, err := exec.Command("redis-cli", "-s", socket, "bitcount", "tollgate:producer-id-leases:0").Output()
	if err != nil || string(out) != "1\n" {
		t.Errorf("%q leases in Redis, %v, want 1", out, err)
	}
	if _, err := os.Stat(filepath.Join(state, "producer-ids")); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("leases in the state directory: %v", err)
	}
}

func TestRecordsOutliveARestart(t *testing.T) {
	state := filepath.Join(t.TempDir(), "state")
	base := freePorts(t)
	listen := net.JoinHostPort("127.0.0.1", strconv.Itoa(base))
	args := []string{"--state", state, "--listen", listen, "--port-base", strconv.Itoa(base)}
	stop := startDev(t, args...)
	first, err := dev.Read(state)
	if err != nil {
		t.Fatal(err)
	}

	must(t, "one\ntwo\n", "produce", "things", "--state", state)
	must(t, "k:v\n", "produce", "orders", "--state", state, "--vc", "acme-prod", "--user", "shipping", "--key-separator", ":")
	out := must(t, "", "consume", "orders", "--state", state, "--vc", "acme-prod", "--user", "shipping", "--mechanism", "PLAIN",
		"--group", "shipping-1", "--from-beginning", "--max", "1", "--key-separator", "=")
	if out != "k=v\n" {
		t.Errorf("consumed %q from orders, want k=v", out)
	}
	must(t, "", "topics", "create", "a", "b", "--partitions", "2", "--state", state)
	must(t, "", "topics", "delete", "b", "--state", state)
	if out := must(t, "", "topics", "list", "--state", state); !strings.Contains(out, "a ") || !strings.Contains(out, "things ") || strings.Contains(out, "b ") {
		t.Errorf("topics list:\n%s", out)
	}
	if out := must(t, "", "topics", "list", "--state", state, "--vc", "globex", "--plaintext"); strings.Contains(out, "things") {
		t.Errorf("globex sees topics of acme-dev:\n%s", out)
	}
	if _, err := tollgate(t, "x\n", "produce", "elsewhere", "--state", state, "--vc", "acme-prod", "--user", "shipping"); err == nil {
		t.Error("produce to a topic without an ACL succeeded")
	}
	hosts, err := os.ReadFile(first.HostsFile)
	if err != nil {
		t.Fatal(err)
	}
	west := (&resource.VirtualClusterSpec{Home: "main"}).Slot("west") << 16
	for _, name := range []string{
		"acme.gw.localhost", "b0-acme.gw.localhost", fmt.Sprintf("b%d-acme.gw.localhost", west+2), "b2-globex.gw.localhost",
	} {
		if !strings.Contains(string(hosts), "127.0.0.1 "+name+"\n") {
			t.Errorf("no %s in the hosts file:\n%s", name, hosts)
		}
	}

	stop()
	if _, err := os.Stat(filepath.Join(state, "dev.json")); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("dev.json after the stop: %v, want none", err)
	}
	startDev(t, args...)
	second, err := dev.Read(state)
	if err != nil {
		t.Fatal(err)
	}
	for i, vc := range second.VirtualClusters {
		was := first.VirtualClusters[i]
		if vc.Bootstrap != was.Bootstrap || vc.PortBootstrap != was.PortBootstrap || vc.ServiceAccounts[0].Password != was.ServiceAccounts[0].Password {
			t.Errorf("%s changed over the restart: %+v, was %+v", vc.Name, vc, was)
		}
	}
	out = must(t, "", "consume", "things", "--state", state, "--from-beginning", "--max", "2")
	got := strings.Fields(out)
	slices.Sort(got)
	if !slices.Equal(got, []string{"one", "two"}) {
		t.Errorf("consumed %q after the restart, want one and two", got)
	}
}

func TestMistakesAreExplained(t *testing.T) {
	empty := t.TempDir()
	for _, c := range []struct {
		name string
		args []string
		want string
	}{
		{"nothing serves", []string{"topics", "list", "--state", empty}, "start tollgate dev"},
		{"nothing to execute in", []string{"dev", "exec", "--state", empty, "--", "true"}, "start tollgate dev"},
		{"no such command", []string{"fly"}, "usage"},
		{"no topic", []string{"produce", "--state", empty}, "usage"},
		{"an upstream without a port", []string{"dev", "--state", empty, "--upstream", "main=localhost"}, "usage"},
		{"a listener without a port", []string{"dev", "--state", empty, "--listen", "127.0.0.1:0"}, "--listen"},
	} {
		t.Run(c.name, func(t *testing.T) {
			if _, err := tollgate(t, "", c.args...); err == nil || !strings.Contains(err.Error(), c.want) {
				t.Errorf("%q: %v, want an error with %q", c.args, err, c.want)
			}
		})
	}
}

// A virtual cluster that is added while tollgate dev runs is served on both kinds
// of listeners, and announced, without a restart; one that is removed is gone.
func TestVirtualClustersComeAndGoWhileItRuns(t *testing.T) {
	state := filepath.Join(t.TempDir(), "state")
	base := freePorts(t)
	startDev(t, "--state", state, "--listen", net.JoinHostPort("127.0.0.1", strconv.Itoa(base)), "--port-base", strconv.Itoa(base))
	find := func() (*dev.VirtualCluster, string) {
		t.Helper()
		info, err := dev.Read(state)
		if err != nil {
			t.Fatal(err)
		}
		hosts, err := os.ReadFile(info.HostsFile)
		if err != nil {
			t.Fatal(err)
		}
		for i, vc := range info.VirtualClusters {
			if vc.Name == "late" {
				return &info.VirtualClusters[i], string(hosts)
			}
		}
		return nil, string(hosts)
	}
	await := func(what string, cond func() bool) {
		t.Helper()
		for end := time.Now().Add(time.Minute); !cond(); {
			if time.Now().After(end) {
				t.Fatalf("not within a minute: %s", what)
			}
			time.Sleep(20 * time.Millisecond) // between two looks at the condition
		}
	}
	if vc, _ := find(); vc != nil {
		t.Fatal("it is there before it was added")
	}
	file := filepath.Join(state, "resources", "late.yaml")
	content := `
{apiVersion: tollgate/v1, kind: VirtualCluster, metadata: {name: late, tenant: acme}, spec: {type: standard, host: late, customHosts: [kafka.late.localhost], home: main, autoCreateTopics: true, authentication: {plain: {}}}}
---
{apiVersion: tollgate/v1, kind: ServiceAccount, metadata: {name: app, virtualCluster: late}, spec: {type: local, password: "file:secrets/late-app"}}
`
	if err := os.WriteFile(filepath.Join(state, "resources", "secrets", "late-app"), []byte("a-late-secret"), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(file, []byte(content), 0o600); err != nil {
		t.Fatal(err)
	}
	await("dev.json names it", func() bool { vc, _ := find(); return vc != nil })
	vc, hosts := find()
	if vc.PortBootstrap == "" || len(vc.ServiceAccounts) != 1 || vc.ServiceAccounts[0].Password != "a-late-secret" {
		t.Errorf("announced as %+v", vc)
	}
	for _, name := range []string{"late.gw.localhost", "b0-late.gw.localhost", "kafka.late.localhost", "b2-kafka.late.localhost"} {
		if !strings.Contains(hosts, "127.0.0.1 "+name+"\n") {
			t.Errorf("no %s in the hosts file:\n%s", name, hosts)
		}
	}
	must(t, "over TLS\n", "produce", "things", "--state", state, "--vc", "late")
	if out := must(t, "", "consume", "things", "--state", state, "--vc", "late", "--plaintext", "--from-beginning", "--max", "1"); out != "over TLS\n" {
		t.Errorf("consumed %q by its ports", out)
	}

	if err := os.Remove(file); err != nil {
		t.Fatal(err)
	}
	await("dev.json no longer names it", func() bool { vc, _ := find(); return vc == nil })
	if _, hosts := find(); strings.Contains(hosts, "late") {
		t.Errorf("still in the hosts file:\n%s", hosts)
	}
	if c, err := net.Dial("tcp", vc.PortBootstrap); err == nil {
		c.Close()
		t.Error("its port still listens")
	}
	must(t, "x\n", "produce", "things", "--state", state) // the others go on
}

// The seeded tenant acme cannot tell that its topics are on two clusters; dev.json can.
func TestATenantSpansBothClusters(t *testing.T) {
	state := filepath.Join(t.TempDir(), "state")
	base := freePorts(t)
	args := []string{"--state", state, "--listen", net.JoinHostPort("127.0.0.1", strconv.Itoa(base)), "--port-base", strconv.Itoa(base)}
	stop := startDev(t, args...)
	info, err := dev.Read(state)
	if err != nil {
		t.Fatal(err)
	}
	var topics []dev.Topic
	for _, vc := range info.VirtualClusters {
		if vc.Name == "acme-prod" {
			topics = vc.Topics
		}
	}
	want := []dev.Topic{{Name: "orders", Cluster: "main", Physical: "shop.orders.v2"}, {Name: "shipments", Cluster: "west", Physical: "logistics.shipments.v1"}}
	if !slices.Equal(topics, want) {
		t.Errorf("dev.json has the topics %v, want %v", topics, want)
	}

	as := []string{"--state", state, "--vc", "acme-prod", "--user", "shipping"}
	read := func(how ...string) []string {
		t.Helper()
		args := slices.Concat([]string{"consume", "orders", "shipments", "--group", "shipping", "--from-beginning", "--max", "2"}, as, how)
		lines := strings.Fields(must(t, "", args...))
		slices.Sort(lines)
		return lines
	}
	must(t, "order\n", append([]string{"produce", "orders"}, as...)...)
	must(t, "shipment\n", append([]string{"produce", "shipments"}, as...)...)
	if got := read(); !slices.Equal(got, []string{"order", "shipment"}) {
		t.Errorf("consumed %q", got)
	}

	// The group goes on where it was, by ports and after a restart.
	must(t, "order-2\n", append([]string{"produce", "orders", "--plaintext"}, as...)...)
	must(t, "shipment-2\n", append([]string{"produce", "shipments", "--plaintext"}, as...)...)
	if got := read("--plaintext"); !slices.Equal(got, []string{"order-2", "shipment-2"}) {
		t.Errorf("consumed %q by ports", got)
	}
	stop()
	startDev(t, args...)
	must(t, "order-3\n", append([]string{"produce", "orders"}, as...)...)
	must(t, "shipment-3\n", append([]string{"produce", "shipments"}, as...)...)
	if got := read(); !slices.Equal(got, []string{"order-3", "shipment-3"}) {
		t.Errorf("consumed %q after a restart", got)
	}
}
