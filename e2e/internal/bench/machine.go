package bench

import (
	"bufio"
	"context"
	"fmt"
	"os"
	"os/exec"
	"runtime"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// cpuTime is the user and system time that a process has used, ended threads
// among them, by its CPU clock: /proc/PID/stat has the same in steps of 10 ms.
// Neither the gateway nor HAProxy has children.
func cpuTime(pid int) (time.Duration, error) {
	const scheduled = 2 // CPUCLOCK_SCHED, as clock_getcpuclockid(3) has it
	var t unix.Timespec
	if err := unix.ClockGettime(int32(^pid<<3|scheduled), &t); err != nil {
		return 0, fmt.Errorf("CPU clock of process %d: %w", pid, err)
	}
	return time.Duration(t.Nano()), nil
}

// residentBytes is the memory a process holds.
func residentBytes(pid int) (int64, error) {
	text, err := procField(fmt.Sprintf("/proc/%d/status", pid), "VmRSS")
	if err != nil {
		return 0, err
	}
	kib, err := strconv.ParseInt(strings.TrimSuffix(text, " kB"), 10, 64)
	return kib << 10, err
}

// procField reads one "name : value" of a file in /proc.
func procField(path, name string) (string, error) {
	f, err := os.Open(path)
	if err != nil {
		return "", err
	}
	defer f.Close()
	lines := bufio.NewScanner(f)
	for lines.Scan() {
		key, value, ok := strings.Cut(lines.Text(), ":")
		if ok && strings.TrimSpace(key) == name {
			return strings.TrimSpace(value), nil
		}
	}
	return "", fmt.Errorf("no %s in %s", name, path)
}

// machine describes where figures come from, and whether others work there.
func machine(ctx context.Context) (facts [][2]string, busy bool, err error) {
	cpu, err := procField("/proc/cpuinfo", "model name")
	if err != nil {
		cpu = runtime.GOARCH // not every architecture names its processor
	}
	kernel, err := os.ReadFile("/proc/sys/kernel/osrelease")
	if err != nil {
		return nil, false, err
	}
	load, err := os.ReadFile("/proc/loadavg")
	if err != nil {
		return nil, false, err
	}
	bin, err := haproxyCommand()
	if err != nil {
		return nil, false, err
	}
	haproxy, err := exec.CommandContext(ctx, bin, "-v").Output()
	if err != nil {
		return nil, false, fmt.Errorf("haproxy -v: %w", err)
	}
	version := strings.Fields(string(haproxy)) // HAProxy version 2.6.12-… 2026/… - …
	if len(version) < 3 {
		return nil, false, fmt.Errorf("haproxy -v said %q", haproxy)
	}
	averages := strings.Fields(string(load))
	if len(averages) < 3 {
		return nil, false, fmt.Errorf("/proc/loadavg says %q", load)
	}
	lastMinute, err := strconv.ParseFloat(averages[0], 64)
	if err != nil {
		return nil, false, fmt.Errorf("/proc/loadavg: %w", err)
	}
	return [][2]string{
		{"date", time.Now().UTC().Format("2006-01-02 15:04 UTC")},
		{"processor", fmt.Sprintf("%s, %d cores", cpu, runtime.NumCPU())},
		{"kernel", strings.TrimSpace(string(kernel))},
		{"Go", strings.TrimPrefix(runtime.Version(), "go")},
		{"HAProxy", version[2]},
		{"load when it began", strings.Join(averages[:3], " ")},
	}, lastMinute > 1, nil
}
