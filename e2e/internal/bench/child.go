package bench

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/rpc"
	"os"
	"os/exec"
	"time"

	"tollgate.internal/e2e/internal/proc"
)

// roleVariable makes a process of this program a child with that role.
const roleVariable = "TOLLGATE_BENCH_ROLE"

const (
	roleStub = "stub"
	roleLoad = "load"
)

// Child runs the role this process was started for and reports true, or reports
// false in the process that the user started. Whoever may call [Run], a main or a
// TestMain, calls Child first: broker and clients run in processes of their own,
// so that their time is not the gateway's, and these are the same program.
func Child() bool {
	role := os.Getenv(roleVariable)
	if role == "" {
		return false
	}
	in := bufio.NewReader(os.Stdin)
	config, err := in.ReadBytes('\n')
	if err == nil {
		stdio := readWriteCloser{in, os.Stdout}
		switch role {
		case roleStub:
			err = serveStub(config, stdio)
		case roleLoad:
			err = serveRPC("Load", newLoad(), stdio)
		default:
			err = fmt.Errorf("no role %q", role)
		}
	}
	if err != nil {
		fmt.Fprintf(os.Stderr, "bench %s: %v\n", role, err)
		os.Exit(1)
	}
	return true
}

type readWriteCloser struct {
	io.Reader
	io.WriteCloser
}

// serveRPC answers the parent until it closes the pipe.
func serveRPC(name string, service any, stdio io.ReadWriteCloser) error {
	server := rpc.NewServer()
	if err := server.RegisterName(name, service); err != nil {
		return err
	}
	server.ServeConn(stdio)
	return nil
}

// child is the parent's end of one.
type child struct {
	role    string
	process *proc.Process
	rpc     *rpc.Client
}

func startChild(role string, config any) (*child, error) {
	exe, err := os.Executable()
	if err != nil {
		return nil, err
	}
	cmd := exec.Command(exe)
	cmd.Env = append(os.Environ(), roleVariable+"="+role)
	cmd.Stderr = os.Stderr
	in, err := cmd.StdinPipe()
	if err != nil {
		return nil, err
	}
	// Not StdoutPipe: Wait would close it under the last answer.
	out, childOut, err := os.Pipe()
	if err != nil {
		return nil, err
	}
	cmd.Stdout = childOut
	p, err := proc.Start(cmd)
	childOut.Close()
	if err != nil {
		out.Close()
		return nil, err
	}
	c := &child{role: role, process: p, rpc: rpc.NewClient(readWriteCloser{out, in})}
	if err := json.NewEncoder(in).Encode(config); err != nil {
		return nil, errors.Join(fmt.Errorf("start bench %s: %w", role, err), c.close())
	}
	return c, nil
}

// call asks the child; when ctx ends the child is killed, and the call fails.
func (c *child) call(ctx context.Context, method string, args, reply any) error {
	call := c.rpc.Go(method, args, reply, make(chan *rpc.Call, 1))
	select {
	case <-call.Done:
	case <-ctx.Done():
		return fmt.Errorf("%s: %w", method, errors.Join(context.Cause(ctx), c.process.Kill()))
	}
	if call.Error != nil {
		return fmt.Errorf("%s: %w", method, call.Error)
	}
	return nil
}

func (c *child) close() error {
	c.rpc.Close() // ends its standard input, and so the child
	select {
	case <-c.process.Done():
		return c.process.Wait()
	case <-time.After(10 * time.Second):
		return errors.Join(fmt.Errorf("bench %s did not end", c.role), c.process.Kill())
	}
}
