// Command fanout-service sends one request to many language models and brings their answers back
// as one stream. CONTRACT.md says what it speaks. This folder wires it, and is the only place that
// reads the environment.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"log/slog"
	"os"
	"os/signal"
	"syscall"
	"time"

	"rex/fanout-service/engine"
	"rex/fanout-service/telemetry"
)

// version is set at build time with -ldflags "-X main.version=…".
var version = "dev"

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	context.AfterFunc(ctx, stop) // a second signal ends the process at once
	env := environment{get: os.Getenv, all: os.Environ()}
	boundMemory(env)
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
	if flags.NArg() > 0 {
		return fmt.Errorf("it takes no argument %q; settings are variables of the environment", flags.Arg(0))
	}
	if *showVersion {
		_, err := fmt.Fprintln(stdout, version)
		return err
	}
	s, err := readSettings(env)
	if err != nil {
		return err
	}
	if s.maxConnections == 0 {
		s.maxConnections = connectionsFor(descriptors())
	}
	if *check {
		_, err := io.WriteString(stdout, s.describe())
		return err
	}
	ctx, leave := context.WithCancelCause(ctx)
	defer leave(nil)
	if *watch {
		go func() {
			_, _ = io.Copy(io.Discard, stdin)
			leave(errParentGone)
		}()
	}
	out := telemetry.NewWriter(stdout)
	defer func() { _ = out.Close() }()
	return serve(ctx, s, out)
}

// errParentGone ends the service at once: nobody is left to read an answer.
var errParentGone = errors.New("standard input closed")

func serve(ctx context.Context, s settings, out *telemetry.Writer) error {
	log := slog.New(slog.NewJSONHandler(out, &slog.HandlerOptions{Level: s.level}))
	service, err := newService(ctx, s, out, log)
	if err != nil {
		return err
	}
	defer service.Close(log)
	defer returnMemory(func() int { return service.engine.Stats().Calls }, service.client.CloseIdleConnections, log)()
	listener, err := listen(ctx, s.listen)
	if err != nil {
		return fmt.Errorf("REX_FANOUT_LISTEN: %w", err)
	}
	log.Info("listening", "address", listener.Addr().String(), "version", version, "providers", len(s.providers.configs))
	profiles, err := serveProfiles(ctx, s.pprof, log)
	if err != nil {
		_ = listener.Close()
		return fmt.Errorf("REX_FANOUT_PPROF_LISTEN: %w", err)
	}
	if profiles != nil {
		defer func() { _ = profiles.Close() }()
	}
	server := newServer(service.handler, log)
	failed := make(chan error, 1)
	go func() { failed <- server.Serve(listener) }()
	select {
	case err := <-failed:
		return err
	case <-ctx.Done():
	}
	drain(context.Cause(ctx), s.drain, service.engine, log)
	err = server.Close()
	service.engine.Wait()
	log.Info("stopped")
	return err
}

// lastWords is how long readers may take for the failures of what a drain had no more time for.
const lastWords = time.Second

// drain lets the fan-outs in flight finish. The service says at once that it is not ready, and
// goes on answering until they are over. What is left when the limit has passed is ended with a
// failure, which its readers still get.
func drain(why error, limit time.Duration, e *engine.Engine, log *slog.Logger) {
	if errors.Is(why, errParentGone) {
		limit = 0
	}
	log.Info("draining", "in_flight", e.InFlight(), "limit_s", limit.Seconds())
	ctx, cancel := context.WithTimeout(context.Background(), limit)
	defer cancel()
	if e.Drain(ctx) == nil {
		return
	}
	log.Warn("drain cut short", "in_flight", e.InFlight())
	if errors.Is(why, errParentGone) {
		return
	}
	e.StopAll()
	ctx, cancel = context.WithTimeout(context.Background(), lastWords)
	defer cancel()
	if e.Drain(ctx) != nil {
		log.Warn("readers left without the end", "in_flight", e.InFlight())
	}
}
