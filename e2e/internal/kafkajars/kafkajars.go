// Package kafkajars brings Apache Kafka's own programs from Maven: brokers,
// command line tools and the Java client, in the versions the tests run with.
//
// Maven is asked once for each version; after that the jars lie in the cache.
package kafkajars

import (
	"bytes"
	"context"
	_ "embed"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"

	"tollgate.internal/e2e/internal/cache"
)

// The versions of Kafka under test: the last of the 3.x line, which old clients
// and MSK still meet, and the newest whose command line tools are published too.
const (
	V3 = "3.9.2"
	V4 = "4.3.1"
)

// Versions are all versions under test, oldest first.
func Versions() []string { return []string{V3, V4} }

//go:embed pom.xml
var pom []byte

// Jars are the jars of one version.
type Jars struct {
	Version string
	dir     string
	files   []string
	archive string // "": there is none
}

// Get returns the jars of a version and downloads them when they are not in the cache.
func Get(ctx context.Context, version string) (*Jars, error) {
	entry := version + "-" + cache.Digest(string(pom))
	dir, err := cache.Folder(ctx, "kafka", entry, func(ctx context.Context, dir string) error {
		return download(ctx, version, dir)
	})
	if err != nil {
		return nil, fmt.Errorf("get Kafka %s: %w", version, err)
	}
	files, err := filepath.Glob(filepath.Join(dir, "*.jar"))
	if err != nil {
		return nil, err
	}
	if len(files) == 0 {
		return nil, fmt.Errorf("get Kafka %s: no jar in %s", version, dir)
	}
	slices.Sort(files) // a class archive fits one order of the class path only
	j := &Jars{Version: version, dir: dir, files: files}
	j.archive = j.findArchive()
	return j, nil
}

// Classpath is the class path, in a fixed order, with what is given after it.
func (j *Jars) Classpath(more ...string) string {
	return strings.Join(slices.Concat(j.files, more), string(os.PathListSeparator))
}

// Modern reports whether the version is 4.0 or later.
func (j *Jars) Modern() bool { return !strings.HasPrefix(j.Version, "3.") }

// Entry names the jars in the cache: it changes with any of them.
func (j *Jars) Entry() string { return filepath.Base(j.dir) }

// SmallJVM are the flags of a JVM that does little and ends soon.
func (j *Jars) SmallJVM() []string {
	flags := []string{"-Xms16m", "-Xmx128m", "-Xss512k", "-XX:+UseSerialGC", "-XX:TieredStopAtLevel=1", "-Djava.awt.headless=true"}
	return append(flags, j.Sharing()...)
}

// Quiet are the flags that leave warnings and worse in the log, on standard error.
func Quiet() []string {
	return []string{
		"-Dorg.slf4j.simpleLogger.defaultLogLevel=warn",
		"-Dorg.slf4j.simpleLogger.showDateTime=true",
		"-Dorg.slf4j.simpleLogger.dateTimeFormat=HH:mm:ss.SSS",
	}
}

// Java is the java command: of JAVA_HOME when that is set, else of PATH.
func Java() (string, error) { return jdk("java") }

func jdk(tool string) (string, error) {
	if home := os.Getenv("JAVA_HOME"); home != "" {
		file := filepath.Join(home, "bin", tool)
		if _, err := os.Stat(file); err == nil {
			return file, nil
		}
	}
	file, err := exec.LookPath(tool)
	if err != nil {
		return "", fmt.Errorf("find %s: %w (tools/setup.sh installs it)", tool, err)
	}
	return file, nil
}

// Compile compiles one Java source against the jars into a jar, once, and returns its path.
func (j *Jars) Compile(ctx context.Context, name string, source []byte) (string, error) {
	entry := name + "-" + cache.Digest(j.Entry(), string(source))
	dir, err := cache.Folder(ctx, "java", entry, func(ctx context.Context, dir string) error {
		javac, err := jdk("javac")
		if err != nil {
			return err
		}
		jar, err := jdk("jar")
		if err != nil {
			return err
		}
		file := filepath.Join(dir, name+".java")
		classes := filepath.Join(dir, "classes")
		if err := os.WriteFile(file, source, 0o644); err != nil {
			return err
		}
		if err := run(ctx, dir, javac, "--release", "17", "-proc:none", "-nowarn",
			"-cp", j.Classpath(), "-d", classes, file); err != nil {
			return err
		}
		return run(ctx, dir, jar, "--create", "--file", filepath.Join(dir, name+".jar"), "-C", classes, ".")
	})
	if err != nil {
		return "", fmt.Errorf("compile %s for Kafka %s: %w", name, j.Version, err)
	}
	return filepath.Join(dir, name+".jar"), nil
}

func download(ctx context.Context, version, dir string) error {
	work, err := os.MkdirTemp("", "tollgate-maven-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(work)
	file := filepath.Join(work, "pom.xml")
	if err := os.WriteFile(file, pom, 0o644); err != nil {
		return err
	}
	args := []string{
		"-q", "-B", "-ntp", "-f", file, "-Dkafka.version=" + version,
		"dependency:copy-dependencies", "-DoutputDirectory=" + dir,
	}
	if err := run(ctx, work, "mvn", args...); err != nil {
		// Maven remembers for a day that a download went wrong; -U asks again.
		return run(ctx, work, "mvn", append(args, "-U")...)
	}
	return nil
}

func run(ctx context.Context, dir, name string, args ...string) error {
	cmd := exec.CommandContext(ctx, name, args...)
	cmd.Dir = dir
	var out bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &out
	if err := cmd.Run(); err != nil {
		text := strings.TrimSpace(out.String())
		if len(text) > 2000 {
			text = text[:2000] + " …"
		}
		return fmt.Errorf("%s: %w\n%s", filepath.Base(name), err, text)
	}
	return nil
}
