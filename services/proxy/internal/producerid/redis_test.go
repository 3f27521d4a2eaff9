package producerid

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"
)

// redisServer is a real one, on a port of its own.
type redisServer struct {
	dir  string
	port int
	args []string
	cmd  *exec.Cmd
}

func startRedis(t *testing.T, args ...string) *redisServer {
	t.Helper()
	r := &redisServer{dir: t.TempDir(), port: freePort(t), args: args}
	r.start(t)
	t.Cleanup(r.kill)
	return r
}

func freePort(t *testing.T) int {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	return l.Addr().(*net.TCPAddr).Port
}

func (r *redisServer) url() string { return fmt.Sprintf("redis://127.0.0.1:%d", r.port) }

// start starts it, also again after kill, on the same port and files.
func (r *redisServer) start(t *testing.T) {
	t.Helper()
	r.cmd = exec.Command("redis-server", append([]string{
		"--port", strconv.Itoa(r.port), "--bind", "127.0.0.1", "--dir", r.dir, "--save", "", "--appendonly", "no", "--logfile", "log",
	}, r.args...)...)
	r.cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	if err := r.cmd.Start(); err != nil {
		t.Fatalf("%v: tools/setup.sh installs it", err)
	}
	ctx := within(t, 20*time.Second)
	for {
		c, err := (&net.Dialer{}).DialContext(ctx, "tcp", net.JoinHostPort("127.0.0.1", strconv.Itoa(r.port)))
		if err == nil {
			c.Close()
			return
		}
		select {
		case <-ctx.Done():
			log, _ := os.ReadFile(filepath.Join(r.dir, "log"))
			t.Fatalf("redis-server does not listen: %v\n%s", err, log)
		case <-time.After(10 * time.Millisecond):
		}
	}
}

func (r *redisServer) kill() {
	r.cmd.Process.Kill()
	r.cmd.Wait()
}

// do sends a command and wants it to be done.
func (r *redisServer) do(t *testing.T, args ...any) any {
	t.Helper()
	s, err := openRedis(r.url(), "", 0)
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	answer, err := s.client.Do(t.Context(), args...).Result()
	if err != nil {
		t.Fatalf("%v: %v", args, err)
	}
	return answer
}

func startSentinel(t *testing.T) string {
	return sentinelOf(t, startRedis(t)).url() + "?master_name=ours"
}

// sentinelOf watches a server, and has another one in its place soon.
func sentinelOf(t *testing.T, master *redisServer) *redisServer {
	t.Helper()
	s := &redisServer{dir: t.TempDir(), port: freePort(t)}
	conf := filepath.Join(s.dir, "sentinel.conf")
	text := fmt.Sprintf("sentinel monitor ours 127.0.0.1 %d 1\nsentinel down-after-milliseconds ours 500\nsentinel failover-timeout ours 3000\n", master.port)
	if err := os.WriteFile(conf, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	s.cmd = exec.Command("redis-server", conf, "--sentinel", "--port", strconv.Itoa(s.port), "--bind", "127.0.0.1", "--dir", s.dir, "--logfile", "log")
	s.cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	if err := s.cmd.Start(); err != nil {
		t.Fatalf("%v: tools/setup.sh installs it", err)
	}
	t.Cleanup(s.kill)
	answers(t, s.url()+"?master_name=ours")
	return s
}

func startCluster(t *testing.T) string {
	r := startRedis(t, "--cluster-enabled", "yes", "--cluster-port", strconv.Itoa(freePort(t)))
	r.do(t, "cluster", "addslotsrange", 0, 16383)
	url := fmt.Sprintf("%s?addr=127.0.0.1:%d", r.url(), r.port)
	answers(t, url)
	return url
}

// answers waits until leases can be had.
func answers(t *testing.T, ref string) {
	t.Helper()
	ctx, s := within(t, 20*time.Second), open(t, ref)
	for {
		_, err := s.Take(ctx)
		if err == nil {
			return
		}
		select {
		case <-ctx.Done():
			t.Fatalf("%s: %v", ref, err)
		case <-time.After(20 * time.Millisecond):
		}
	}
}

func TestRedisTakesThePasswordFromBesideTheURL(t *testing.T) {
	r := startRedis(t, "--requirepass", "s3cret")
	for password, want := range map[string]string{"s3cret": "", "": "NOAUTH", "wrong": "WRONGPASS"} {
		s, err := Open(r.url(), password, 0)
		if err != nil {
			t.Fatal(err)
		}
		_, err = s.Take(t.Context())
		if (want == "") != (err == nil) || err != nil && !strings.Contains(err.Error(), want) {
			t.Errorf("with password %q: %v, want %q", password, err, want)
		}
		s.Close()
	}
}

// What Open was given may hold a password; what it is called in logs does not.
func TestRedisNamesItselfWithoutSecrets(t *testing.T) {
	for ref, want := range map[string]string{
		"redis://user:hunter2@h:1/2":                            "redis://h:1/2",
		"rediss://:hunter2@h:1":                                 "rediss://h:1",
		"redis://u:hunter2@h:1?master_name=m&addr=i:2":          "redis://h:1",
		"unix://user:hunter2@/run/redis.sock":                   "unix:///run/redis.sock",
		"redis://u:hunter2@h:1?addr=i:2":                        "redis://h:1",
		"redis://h:1?master_name=m&username=u&password=hunter2": "redis://h:1",
	} {
		s, err := Open(ref, "", 0)
		if err != nil {
			t.Errorf("Open(%q): %v", ref, err)
			continue
		}
		if s.String() != want {
			t.Errorf("%q is called %q, want %q", ref, s, want)
		}
		s.Close()
	}
}

func TestDeploymentsDoNotShareLeasesInARedis(t *testing.T) {
	r := startRedis(t)
	for deployment := range 2 {
		s, err := Open(r.url(), "", deployment)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := s.Take(t.Context()); err != nil {
			t.Fatal(err)
		}
		s.Close()
		if n := r.do(t, "bitcount", redisKey(deployment)); n != int64(1) {
			t.Errorf("%v leases of deployment %d are taken, want 1", n, deployment)
		}
	}
}

// A Redis that hangs is waited for as long as the caller says, and a lease whose
// answer was lost is not given to anybody else.
func TestRedisThatHangs(t *testing.T) {
	r := startRedis(t)
	s := open(t, r.url())
	if _, err := s.Take(t.Context()); err != nil {
		t.Fatal(err)
	}
	r.cmd.Process.Signal(syscall.SIGSTOP)
	ctx, cancel := context.WithTimeout(t.Context(), 300*time.Millisecond)
	defer cancel()
	began := time.Now()
	if _, err := s.Take(ctx); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("Take: %v, want the deadline", err)
	}
	if took := time.Since(began); took > 2*time.Second {
		t.Errorf("Take of 300 ms took %v", took)
	}
	r.cmd.Process.Signal(syscall.SIGCONT)
	taken := make(map[Lease]bool)
	for range 20 {
		l, err := s.Take(within(t, 20*time.Second))
		if err != nil || taken[l] {
			t.Fatalf("Take: %d, %v", l, err)
		}
		taken[l] = true
	}
}

func TestRedisSaysWhatIsWrong(t *testing.T) {
	r := startRedis(t)
	r.do(t, "rpush", redisKey(0), "x")
	_, err := open(t, r.url()).Take(t.Context())
	if want := "mark a lease in " + r.url() + ", key tollgate:producer-id-leases:0: WRONGTYPE"; err == nil || !strings.HasPrefix(err.Error(), want) {
		t.Errorf("Take: %v, want %s", err, want)
	}
}

// A Redis that dies is followed to its replica, which knows every lease or is told
// of those that are held.
func TestAFailoverOfRedis(t *testing.T) {
	master := startRedis(t)
	replica := startRedis(t, "--replicaof", "127.0.0.1", strconv.Itoa(master.port))
	sentinel := sentinelOf(t, master)
	ref := sentinel.url() + "?master_name=ours"
	ctx := within(t, 60*time.Second)
	until := func(what string, done func() bool) {
		t.Helper()
		for !done() {
			select {
			case <-ctx.Done():
				t.Fatalf("not within a minute: %s", what)
			case <-time.After(50 * time.Millisecond):
			}
		}
	}
	until("the replica has caught up", func() bool {
		return strings.Contains(fmt.Sprint(replica.do(t, "info", "replication")), "master_link_status:up")
	})
	until("the sentinel knows the replica", func() bool {
		return strings.Contains(fmt.Sprint(sentinel.do(t, "sentinel", "replicas", "ours")), "slave-priority")
	})
	node := run(t, ref, 4)
	given := make(map[int64]bool)
	take := func(i *Issuer, n int) {
		for range n {
			id := next(t, i, "acme")
			if given[id] {
				t.Errorf("id %#x again", id)
			}
			given[id] = true
		}
	}
	take(node, 30)
	master.kill()
	take(node, 30)
	node.confirm(ctx)
	if now, held := replica.taken(t), int64(node.Stats().Leases); now < held {
		t.Errorf("%d leases are known, %d are held", now, held)
	}
	take(run(t, ref, 4), 30)
}
