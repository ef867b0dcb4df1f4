// Package redistest runs a real redis-server for tests.
package redistest

import (
	"bytes"
	"context"
	"fmt"
	"net"
	"os"
	"os/exec"
	"sync"
	"syscall"
	"testing"
	"time"
)

// startWithin is generous: a busy machine takes its time to run a program.
const startWithin = 10 * time.Second

// Start runs a redis-server that keeps nothing on disk and ends with the test, and returns its
// address, like 127.0.0.1:54321. The program is the one $REX_REDIS_SERVER names, else the
// redis-server on PATH; a test that finds none fails.
func Start(t testing.TB) string {
	t.Helper()
	return New(t).Addr
}

// Server is a running redis-server.
type Server struct {
	Addr    string
	t       testing.TB
	program string

	mu      sync.Mutex
	process *exec.Cmd
}

// New is Start for tests that pause or kill their server.
func New(t testing.TB) *Server {
	t.Helper()
	s := &Server{t: t, program: find(t), Addr: freeAddress(t)}
	s.Restart()
	t.Cleanup(s.Kill)
	return s
}

// Restart runs the server again at the same address, empty.
func (s *Server) Restart() {
	s.t.Helper()
	s.Kill()
	host, port, _ := net.SplitHostPort(s.Addr)
	output := &bytes.Buffer{}
	process := exec.Command(s.program, //nolint:gosec,noctx // the program a developer named; Kill ends it
		"--bind", host, "--port", port, "--save", "", "--appendonly", "no",
		"--daemonize", "no", "--dir", s.t.TempDir())
	process.Stdout, process.Stderr = output, output
	if err := process.Start(); err != nil {
		s.t.Fatalf("redis-server does not start: %v", err)
	}
	s.mu.Lock()
	s.process = process
	s.mu.Unlock()
	for until := time.Now().Add(startWithin); time.Now().Before(until); time.Sleep(10 * time.Millisecond) {
		if s.answers() {
			return
		}
	}
	s.Kill()
	s.t.Fatalf("redis-server did not answer at %s within %v: %s", s.Addr, startWithin, output)
}

func (s *Server) answers() bool {
	connection, err := (&net.Dialer{Timeout: time.Second}).DialContext(context.Background(), "tcp", s.Addr)
	if err != nil {
		return false
	}
	defer func() { _ = connection.Close() }()
	_ = connection.SetDeadline(time.Now().Add(time.Second))
	if _, err := fmt.Fprint(connection, "PING\r\n"); err != nil {
		return false
	}
	answer := make([]byte, 5)
	_, err = connection.Read(answer)
	return err == nil && string(answer) == "+PONG"
}

// Pause stops the server as if it were frozen: it accepts connections and answers nothing.
func (s *Server) Pause() { s.signal(syscall.SIGSTOP) }

// Resume ends a Pause.
func (s *Server) Resume() { s.signal(syscall.SIGCONT) }

func (s *Server) signal(signal syscall.Signal) {
	s.t.Helper()
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.process == nil {
		s.t.Fatal("the redis-server does not run")
	}
	if err := s.process.Process.Signal(signal); err != nil {
		s.t.Fatal(err)
	}
}

// Kill ends the server with SIGKILL, which ends a paused one as well.
func (s *Server) Kill() {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.process == nil {
		return
	}
	_ = s.process.Process.Kill()
	_ = s.process.Wait()
	s.process = nil
}

func find(t testing.TB) string {
	t.Helper()
	if program := os.Getenv("REX_REDIS_SERVER"); program != "" {
		return program
	}
	program, err := exec.LookPath("redis-server")
	if err != nil {
		t.Fatal("this test needs a real Redis: install redis-server, or name it in REX_REDIS_SERVER")
	}
	return program
}

// freeAddress is free now; that somebody takes it before the server does is possible and rare.
func freeAddress(t testing.TB) string {
	t.Helper()
	listener, err := new(net.ListenConfig).Listen(t.Context(), "tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = listener.Close() }()
	return listener.Addr().String()
}
