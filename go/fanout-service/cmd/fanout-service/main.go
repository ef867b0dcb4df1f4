// Command fanout-service sends one request to many language models and brings their answers back
// as one stream. CONTRACT.md says what it speaks; this file wires it and is, with config.go, the
// only place that reads the environment.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"os"
	"os/signal"
	"syscall"
	"time"

	"rex/fanout-service/engine"
	"rex/fanout-service/httpapi"
	"rex/fanout-service/provider"
	"rex/fanout-service/provider/openai"
)

// version is set at build time with -ldflags "-X main.version=…".
var version = "dev"

// sendBuffer bounds what the kernel holds for a slow reader: megabytes there would hide that it
// is behind.
const sendBuffer = 256 << 10

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	context.AfterFunc(ctx, stop) // a second signal ends the process at once
	env := environment{get: os.Getenv, all: os.Environ()}
	err := run(ctx, os.Args[1:], env, os.Stdin, os.Stdout)
	stop()
	if err != nil && !errors.Is(err, flag.ErrHelp) {
		fmt.Fprintln(os.Stderr, "fanout-service:", err)
		os.Exit(1)
	}
}

// run serves until ctx ends, then lets the fan-outs in flight finish, up to the drain time.
func run(ctx context.Context, args []string, env environment, stdin io.Reader, stdout io.Writer) error {
	flags := flag.NewFlagSet("fanout-service", flag.ContinueOnError)
	check := flags.Bool("check-config", false, "read the configuration, say what is configured, and end")
	showVersion := flags.Bool("version", false, "print the version and end")
	watch := flags.Bool("exit-on-stdin-eof", false, "end when standard input closes, so that the service dies with its parent")
	if err := flags.Parse(args); err != nil {
		return err
	}
	if *showVersion {
		_, err := fmt.Fprintln(stdout, version)
		return err
	}
	s, err := readSettings(env)
	if err != nil {
		return err
	}
	if *check {
		return describe(s, stdout)
	}
	ctx, leave := context.WithCancelCause(ctx)
	defer leave(nil)
	if *watch {
		go func() {
			_, _ = io.Copy(io.Discard, stdin)
			leave(errParentGone)
		}()
	}
	return serve(ctx, s, slog.New(slog.NewJSONHandler(stdout, nil)))
}

// errParentGone ends the service at once: nobody is left to read an answer.
var errParentGone = errors.New("standard input closed")

func serve(ctx context.Context, s settings, log *slog.Logger) error {
	client := provider.NewClient()
	defer client.CloseIdleConnections()
	providers := map[string]engine.Upstream{}
	for _, config := range s.providers {
		providers[config.Name] = engine.Upstream{Provider: openai.New(config, client), Keys: config.Keys}
	}
	e := engine.New(engine.Config{}, providers, log)
	server := &http.Server{
		Handler:           httpapi.New(e, httpapi.Options{Version: version, Providers: s.known}),
		ReadHeaderTimeout: 10 * time.Second,
		IdleTimeout:       2 * time.Minute,
		ErrorLog:          slog.NewLogLogger(log.Handler(), slog.LevelWarn),
		ConnContext: func(ctx context.Context, conn net.Conn) context.Context {
			if tcp, ok := conn.(*net.TCPConn); ok {
				_ = tcp.SetWriteBuffer(sendBuffer) // the kernel's default works too, only later
			}
			return ctx
		},
	}
	var config net.ListenConfig
	listener, err := config.Listen(ctx, "tcp", s.listen)
	if err != nil {
		return fmt.Errorf("REX_FANOUT_LISTEN: %w", err)
	}
	log.Info("listening", "address", listener.Addr().String(), "version", version, "providers", len(s.providers))
	failed := make(chan error, 1)
	go func() { failed <- server.Serve(listener) }()
	select {
	case err := <-failed:
		return err
	case <-ctx.Done():
	}
	drain(context.Cause(ctx), s.drain, e, log)
	err = server.Close()
	e.Wait()
	log.Info("stopped")
	return err
}

func drain(why error, limit time.Duration, e *engine.Engine, log *slog.Logger) {
	if errors.Is(why, errParentGone) {
		limit = 0
	}
	log.Info("draining", "in_flight", e.InFlight(), "limit_s", limit.Seconds())
	ctx, cancel := context.WithTimeout(context.Background(), limit)
	defer cancel()
	if err := e.Drain(ctx); err != nil {
		log.Warn("drain cut short", "in_flight", e.InFlight())
	}
}

// describe prints what is configured, without addresses and keys.
func describe(s settings, stdout io.Writer) error {
	for _, p := range s.known {
		state := "not configured"
		if p.Configured {
			state = "configured"
		}
		if _, err := fmt.Fprintf(stdout, "%-12s %s\n", p.Name, state); err != nil {
			return err
		}
	}
	return nil
}
