// Package kerberos runs a real key distribution centre, MIT's, for tests.
package kerberos

import (
	"bytes"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"testing"
	"time"

	"tollgate.internal/e2e/internal/ports"
	"tollgate.internal/e2e/internal/proc"
)

// Realm is the realm of every KDC of this package.
const Realm = "TOLLGATE.TEST"

// KDC is a running one.
type KDC struct {
	Conf string // krb5.conf of its clients

	dir string
	env []string
}

// Start starts a KDC until t ends.
func Start(t testing.TB) *KDC {
	t.Helper()
	lease, err := ports.Reserve(1)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(lease.Release)
	dir := t.TempDir()
	k := &KDC{Conf: filepath.Join(dir, "krb5.conf"), dir: dir}
	kdc := filepath.Join(dir, "kdc.conf")
	address := fmt.Sprintf("127.0.0.1:%d", lease.Ports[0])
	for path, text := range map[string]string{
		k.Conf: fmt.Sprintf(`[libdefaults]
  default_realm = %[1]s
  dns_lookup_kdc = false
  dns_lookup_realm = false
  dns_canonicalize_hostname = false
  rdns = false
  udp_preference_limit = 1
[realms]
  %[1]s = {
    kdc = %[2]s
  }
`, Realm, address),
		kdc: fmt.Sprintf(`[kdcdefaults]
  kdc_listen = ""
  kdc_tcp_listen = %[2]s
[realms]
  %[1]s = {
    database_name = %[3]s/principal
    key_stash_file = %[3]s/stash
    acl_file = %[3]s/kadm5.acl
    max_life = 10h
  }
[logging]
  kdc = FILE:%[3]s/kdc.log
`, Realm, address, dir),
	} {
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	k.env = append(os.Environ(), "KRB5_CONFIG="+k.Conf, "KRB5_KDC_PROFILE="+kdc)
	k.run(t, "kdb5_util", "create", "-s", "-r", Realm, "-P", "master")
	log, err := os.Create(filepath.Join(dir, "krb5kdc.out"))
	if err != nil {
		t.Fatal(err)
	}
	defer log.Close()
	cmd := exec.Command(program("krb5kdc"), "-n")
	cmd.Env, cmd.Stdout, cmd.Stderr = k.env, log, log
	process, err := proc.Start(cmd)
	if err != nil {
		t.Fatalf("%v (tools/setup.sh installs it)", err)
	}
	t.Cleanup(func() {
		if err := process.Kill(); err != nil {
			t.Error(err)
		}
		if t.Failed() {
			text, _ := os.ReadFile(filepath.Join(dir, "kdc.log"))
			t.Logf("the KDC said:\n%s", text[max(0, len(text)-4000):])
		}
	})
	for end := time.Now().Add(time.Minute); ; time.Sleep(20 * time.Millisecond) { // between two looks
		c, err := net.Dial("tcp", address)
		if err == nil {
			c.Close()
			return k
		}
		if time.Now().After(end) || !process.Running() {
			text, _ := os.ReadFile(log.Name())
			t.Fatalf("the KDC does not answer: %v\n%s", err, text)
		}
	}
}

// Keytab makes a principal, if there is none of this name, gives it a new key, and
// returns a keytab with that key only.
func (k *KDC) Keytab(t testing.TB, principal string) (path string) {
	t.Helper()
	k.run(t, "kadmin.local", "-r", Realm, "-q", "addprinc -randkey "+principal) // says so if it exists, and goes on
	f, err := os.CreateTemp(k.dir, "*.keytab")
	if err != nil {
		t.Fatal(err)
	}
	f.Close()
	os.Remove(f.Name()) // an empty file is no keytab
	k.run(t, "kadmin.local", "-r", Realm, "-q", "ktadd -k "+f.Name()+" "+principal)
	if _, err := os.Stat(f.Name()); err != nil {
		t.Fatalf("no keytab of %s: %v", principal, err)
	}
	return f.Name()
}

func (k *KDC) run(t testing.TB, name string, args ...string) {
	t.Helper()
	cmd := exec.Command(program(name), args...)
	cmd.Env = k.env
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("%s: %v (tools/setup.sh installs it)\n%s", name, err, bytes.TrimSpace(out))
	}
}

// program finds one of those that Debian keeps out of the way of users.
func program(name string) string {
	if path, err := exec.LookPath(name); err == nil {
		return path
	}
	return "/usr/sbin/" + name
}
