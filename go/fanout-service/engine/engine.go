// Package engine runs fan-outs: one goroutine a call, timers that know the phase, cancellation
// with a reason, and one reader for all calls. It knows no HTTP and no provider by name.
package engine

import (
	"context"
	"errors"
	"log/slog"
	"sync"
	"time"

	fanout "rex/fanout-service"
)

// Errors of Start.
var (
	ErrDuplicate = errors.New("a fan-out with this id is in flight")
	ErrDraining  = errors.New("the service is shutting down")
)

// ErrReaderGone is why calls end whose reader has left.
var ErrReaderGone = errors.New("the reader left")

// Config bounds an engine; zero values mean the defaults of the contract.
type Config struct {
	MaxPending int           // bytes of text a call may hold for a slow reader; then it stops reading
	MaxAnswer  int           // bytes of escaped text of one answer
	Heartbeat  time.Duration // silence after which an empty batch is sent
}

func (c Config) withDefaults() Config {
	if c.MaxPending == 0 {
		c.MaxPending = 64 << 10
	}
	if c.MaxAnswer == 0 {
		c.MaxAnswer = 8 << 20
	}
	if c.Heartbeat == 0 {
		c.Heartbeat = 10 * time.Second
	}
	return c
}

// Engine holds the fan-outs in flight.
type Engine struct {
	config    Config
	providers map[string]Upstream
	log       *slog.Logger

	mu       sync.Mutex
	running  map[string]*Run
	draining bool
	calls    sync.WaitGroup
}

// Upstream is a provider and the keys it may be asked with, at least one.
type Upstream struct {
	Provider fanout.Provider
	Keys     []fanout.Key
}

// New returns an engine that reaches the given providers.
func New(config Config, providers map[string]Upstream, log *slog.Logger) *Engine {
	return &Engine{config: config.withDefaults(), providers: providers, log: log, running: map[string]*Run{}}
}

// Knows says whether calls to a provider can be made.
func (e *Engine) Knows(provider string) bool {
	_, ok := e.providers[provider]
	return ok
}

// InFlight counts the fan-outs that are not over.
func (e *Engine) InFlight() int {
	e.mu.Lock()
	defer e.mu.Unlock()
	return len(e.running)
}

// Draining says whether new fan-outs are refused.
func (e *Engine) Draining() bool {
	e.mu.Lock()
	defer e.mu.Unlock()
	return e.draining
}

// Start begins every call of a request, whose providers must all be known, and returns its run;
// the caller must Read it, and ends it by ending ctx. received is when the request came:
// the deadline and all moments count from it.
func (e *Engine) Start(ctx context.Context, request fanout.Request, received time.Time) (*Run, error) {
	run := newRun(ctx, e, request, received)
	if err := e.register(run); err != nil {
		run.discard()
		return nil, err
	}
	run.begin()
	return run, nil
}

func (e *Engine) register(run *Run) error {
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.draining {
		return ErrDraining
	}
	if e.running[run.request.ID] != nil {
		return ErrDuplicate
	}
	e.running[run.request.ID] = run
	e.calls.Add(len(run.calls))
	return nil
}

// Cancel stops a call, or all calls when call is "", with the given kind. It returns false when
// no such fan-out is in flight, or it has no such call.
func (e *Engine) Cancel(id, call string, kind fanout.Kind) bool {
	e.mu.Lock()
	run := e.running[id]
	e.mu.Unlock()
	return run != nil && run.cancel(call, kind)
}

// Drain refuses new fan-outs and waits until those in flight are over, or ctx ends.
func (e *Engine) Drain(ctx context.Context) error {
	e.mu.Lock()
	e.draining = true
	e.mu.Unlock()
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	for e.InFlight() > 0 {
		select {
		case <-tick.C:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
	return nil
}

// Wait returns when every call's goroutine has ended.
func (e *Engine) Wait() { e.calls.Wait() }

func (e *Engine) forget(run *Run) {
	e.mu.Lock()
	defer e.mu.Unlock()
	delete(e.running, run.request.ID)
}
