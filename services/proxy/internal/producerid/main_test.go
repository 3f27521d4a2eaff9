package producerid

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"os/signal"
	"syscall"
	"testing"
)

// A test that needs a process of its own runs this binary again, with what to do
// in the environment.
const (
	childDoes = "TOLLGATE_PRODUCERID_CHILD"
	childFrom = "TOLLGATE_PRODUCERID_SOURCE"
)

func TestMain(m *testing.M) {
	switch os.Getenv(childDoes) {
	case "":
		os.Exit(m.Run())
	case "take": // leases, for ever, and say each once it is held
		err := takeForever(os.Getenv(childFrom))
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	case "take without room": // as on a full disk
		signal.Ignore(syscall.SIGXFSZ)
		limit := syscall.Rlimit{Cur: uint64(fileBytes / 2), Max: uint64(fileBytes / 2)}
		err := syscall.Setrlimit(syscall.RLIMIT_FSIZE, &limit)
		if err == nil {
			_, err = openFile(os.Getenv(childFrom)).Take(context.Background())
		}
		fmt.Println(err)
		os.Exit(0)
	}
}

func takeForever(ref string) error {
	source, err := Open(ref, "", 0)
	if err != nil {
		return err
	}
	for {
		l, err := source.Take(context.Background())
		if err != nil {
			return err
		}
		fmt.Println(l)
	}
}

func child(does, source string) *exec.Cmd {
	cmd := exec.Command(os.Args[0])
	cmd.Env = append(os.Environ(), childDoes+"="+does, childFrom+"="+source)
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	return cmd
}
