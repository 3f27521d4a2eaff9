// Package clients runs Kafka clients that nobody here wrote: kcat, Kafka's own
// command line tools, confluent-kafka, kafka-python and kafkajs.
//
// They are processes, configured as their users configure them, and know nothing
// of the tests. [All] lists those that can make a [Client.RoundTrip]; [Tool] runs
// any of Kafka's tools. Go clients need no process and are not here.
package clients

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"strings"

	"tollgate.internal/e2e/internal/proc"
)

// A Target is where a client connects to, and as whom.
type Target struct {
	Bootstrap string
	// CAFile switches TLS on; CertFile and KeyFile are the client's own certificate.
	CAFile, CertFile, KeyFile string
	// Mechanism switches SASL on: PLAIN, SCRAM-SHA-256 or SCRAM-SHA-512.
	Mechanism, User, Password string
	// HostsFile takes the place of /etc/hosts for the client, which then resolves
	// names that exist on no name server.
	HostsFile string
}

// protocol is Kafka's security.protocol.
func (t Target) protocol() string {
	switch {
	case t.Mechanism != "" && t.CAFile != "":
		return "SASL_SSL"
	case t.Mechanism != "":
		return "SASL_PLAINTEXT"
	case t.CAFile != "":
		return "SSL"
	}
	return "PLAINTEXT"
}

// librdkafka are the settings of confluent-kafka and kcat.
func (t Target) librdkafka() map[string]string {
	conf := map[string]string{"bootstrap.servers": t.Bootstrap, "security.protocol": t.protocol()}
	for name, value := range map[string]string{
		"ssl.ca.location": t.CAFile, "ssl.certificate.location": t.CertFile, "ssl.key.location": t.KeyFile,
		"sasl.mechanism": t.Mechanism, "sasl.username": t.User, "sasl.password": t.Password,
	} {
		if value != "" {
			conf[name] = value
		}
	}
	return conf
}

// properties writes the client.properties of Kafka's tools into dir.
func (t Target) properties(dir string) (string, error) {
	var s strings.Builder
	fmt.Fprintf(&s, "security.protocol=%s\n", t.protocol())
	if t.CAFile != "" {
		fmt.Fprintf(&s, "ssl.truststore.type=PEM\nssl.truststore.location=%s\n", t.CAFile)
	}
	if t.CertFile != "" {
		// Kafka wants both in one file, the private one first.
		var keystore []byte
		for _, file := range []string{t.KeyFile, t.CertFile} {
			b, err := os.ReadFile(file)
			if err != nil {
				return "", err
			}
			keystore = append(keystore, b...)
		}
		file := dir + "/keystore.pem"
		if err := os.WriteFile(file, keystore, 0o600); err != nil {
			return "", err
		}
		fmt.Fprintf(&s, "ssl.keystore.type=PEM\nssl.keystore.location=%s\n", file)
	}
	if t.Mechanism != "" {
		module := "scram.ScramLoginModule"
		if t.Mechanism == "PLAIN" {
			module = "plain.PlainLoginModule"
		}
		fmt.Fprintf(&s, "sasl.mechanism=%s\nsasl.jaas.config=org.apache.kafka.common.security.%s required username=%q password=%q;\n",
			t.Mechanism, module, t.User, t.Password)
	}
	file := dir + "/client.properties"
	return file, os.WriteFile(file, []byte(s.String()), 0o600)
}

// run runs a program where the target's names resolve, and returns what it wrote
// to standard output. Its standard error is part of the error.
func (t Target) run(ctx context.Context, stdin io.Reader, env []string, name string, args ...string) (string, error) {
	path, err := exec.LookPath(name)
	if err != nil {
		return "", fmt.Errorf("find %s: %w (tools/setup.sh installs it)", name, err)
	}
	line := append([]string{path}, args...)
	if t.HostsFile != "" {
		wrap := []string{"unshare", "--mount"}
		if os.Getuid() != 0 {
			wrap = append(wrap, "--map-root-user")
		}
		line = append(append(wrap, "sh", "-c", `mount --bind "$0" /etc/hosts && exec "$@"`, t.HostsFile), line...)
	}
	cmd := exec.CommandContext(ctx, line[0], line[1:]...)
	var stdout, stderr bytes.Buffer
	cmd.Stdin, cmd.Stdout, cmd.Stderr = stdin, &stdout, &stderr
	cmd.Env = append(os.Environ(), env...)
	p, err := proc.Start(cmd)
	if err != nil {
		return "", err
	}
	if err := p.Wait(); err != nil {
		if ctx.Err() != nil {
			err = errors.Join(context.Cause(ctx), err)
		}
		return stdout.String(), fmt.Errorf("%s: %w\n%s%s", name, err, end(stdout.String()), end(stderr.String()))
	}
	return stdout.String(), nil
}

// end keeps error texts readable: a client that cannot connect repeats itself.
func end(s string) string {
	const most = 4000
	if len(s) > most {
		return "… " + s[len(s)-most:]
	}
	return s
}
