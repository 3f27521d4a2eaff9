package redistest

import (
	"fmt"
	"net"
	"strconv"
	"strings"
	"testing"
)

// freePorts are ports that nobody has now. They are below those that the kernel gives
// to outgoing connections, as a rule.
func freePorts(t testing.TB, n int) (ports []int) {
	t.Helper()
	for len(ports) < n {
		l, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		defer l.Close()
		ports = append(ports, l.Addr().(*net.TCPAddr).Port)
	}
	return ports
}

// StartCluster starts a cluster of three servers that share the keys. Its URL names one.
func StartCluster(t testing.TB) (url string, servers []*Server) {
	t.Helper()
	ports := freePorts(t, 6)
	for i := range 3 {
		servers = append(servers, start(t, ports[i], "--cluster-enabled", "yes", "--cluster-port", strconv.Itoa(ports[3+i])))
	}
	const slots = 1 << 14
	for i, s := range servers {
		do(t, s, "cluster", "addslotsrange", slots*i/3, slots*(i+1)/3-1)
		if i > 0 {
			do(t, s, "cluster", "meet", "127.0.0.1", ports[0], ports[3])
		}
	}
	for _, s := range servers {
		s.until(t, "the cluster is whole", func() bool {
			info := do(t, s, "cluster", "info")
			return strings.Contains(info, "cluster_state:ok") && strings.Contains(info, "cluster_known_nodes:3")
		})
	}
	return servers[0].URL + "?addr=" + servers[1].Address(), servers
}

// StartSentinel starts a server, its replica, and a Sentinel that has the one take the
// place of the other. Its URL names the Sentinel.
func StartSentinel(t testing.TB) (url string, master, replica *Server) {
	t.Helper()
	ports := freePorts(t, 3)
	master = start(t, ports[0])
	replica = start(t, ports[1], "--replicaof", "127.0.0.1 "+strconv.Itoa(ports[0]))
	replica.until(t, "the replica has caught up", func() bool {
		return strings.Contains(do(t, replica, "info", "replication"), "master_link_status:up")
	})
	sentinel := start(t, ports[2], "--sentinel", fmt.Sprintf(
		"sentinel monitor ours 127.0.0.1 %d 1\nsentinel down-after-milliseconds ours 500\nsentinel failover-timeout ours 3000\n", ports[0]))
	sentinel.until(t, "the Sentinel knows the replica", func() bool {
		return strings.Contains(do(t, sentinel, "sentinel", "replicas", "ours"), "slave-priority")
	})
	return sentinel.URL + "?master_name=ours", master, replica
}

// do sends a command, and returns what was answered as text.
func do(t testing.TB, s *Server, args ...any) string {
	t.Helper()
	got, err := s.client.Do(t.Context(), args...).Result()
	if err != nil {
		t.Fatalf("%v: %v", args, err)
	}
	return fmt.Sprint(got)
}
