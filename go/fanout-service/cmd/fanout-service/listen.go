package main

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"net"
	"net/http"
	"net/http/pprof" // what it adds to the default mux is served by nobody
	"os"
	"runtime/debug"
	"strings"
	"time"
)

// sendBuffer bounds what the kernel holds for a slow reader: megabytes there would hide that it
// is behind.
const sendBuffer = 256 << 10

// listen opens host:port, or the socket file of unix:/path.
func listen(ctx context.Context, address string) (net.Listener, error) {
	var config net.ListenConfig
	path, isFile := strings.CutPrefix(address, "unix:")
	if !isFile {
		return config.Listen(ctx, "tcp", address)
	}
	if err := removeStale(ctx, path); err != nil {
		return nil, err
	}
	return config.Listen(ctx, "unix", path)
}

// removeStale removes the socket file of a process that died. One that answers is left alone, and
// so is a file that is no socket.
func removeStale(ctx context.Context, path string) error {
	about, err := os.Lstat(path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	if about.Mode()&fs.ModeSocket == 0 {
		return fmt.Errorf("%s is no socket", path)
	}
	dialer := net.Dialer{Timeout: time.Second}
	if conn, err := dialer.DialContext(ctx, "unix", path); err == nil {
		_ = conn.Close()
		return fmt.Errorf("another process listens on %s", path)
	}
	return os.Remove(path)
}

// newServer answers with handler; its readers cannot hide that they are slow.
func newServer(handler http.Handler, log *slog.Logger) *http.Server {
	return &http.Server{
		Handler:           guarded(handler, log),
		ReadHeaderTimeout: 10 * time.Second,
		IdleTimeout:       2 * time.Minute,
		ErrorLog:          slog.NewLogLogger(log.Handler(), slog.LevelWarn),
		ConnContext: func(ctx context.Context, conn net.Conn) context.Context {
			if buffered, ok := conn.(interface{ SetWriteBuffer(int) error }); ok {
				_ = buffered.SetWriteBuffer(sendBuffer) // the kernel's default works too, only later
			}
			return ctx
		},
	}
}

// guarded ends the request of a handler that panics. Left to itself the server would log what the
// panic says, which may be a piece of a prompt or an answer.
func guarded(handler http.Handler, log *slog.Logger) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		defer func() {
			caught := recover()
			if caught == nil {
				return
			}
			if caught != http.ErrAbortHandler { //nolint:errorlint // the very value, as net/http compares it
				log.Error("a request panicked", "type", fmt.Sprintf("%T", caught), "stack", string(debug.Stack()))
			}
			panic(http.ErrAbortHandler) // closes the connection, so that nobody takes the answer for whole
		}()
		handler.ServeHTTP(w, r)
	})
}

// serveProfiles serves pprof on an address of its own, which readSettings made sure is loopback.
// The server it returns is to be closed; nil when profiles are off.
func serveProfiles(ctx context.Context, address string, log *slog.Logger) (*http.Server, error) {
	if address == "" {
		return nil, nil //nolint:nilnil // off is no error
	}
	var config net.ListenConfig
	listener, err := config.Listen(ctx, "tcp", address)
	if err != nil {
		return nil, err
	}
	mux := http.NewServeMux()
	mux.HandleFunc("/debug/pprof/", pprof.Index)
	mux.HandleFunc("/debug/pprof/cmdline", pprof.Cmdline)
	mux.HandleFunc("/debug/pprof/profile", pprof.Profile)
	mux.HandleFunc("/debug/pprof/symbol", pprof.Symbol)
	mux.HandleFunc("/debug/pprof/trace", pprof.Trace)
	server := newServer(mux, log)
	log.Info("profiling", "pprof_address", listener.Addr().String())
	go func() { _ = server.Serve(listener) }()
	return server, nil
}
