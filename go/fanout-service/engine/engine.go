// Package engine runs fan-outs: one goroutine a call, attempts that follow or race each other,
// timers that know the phase, cancellation with a reason, and one reader for all calls. It knows
// no HTTP and no provider by name.
package engine

import (
	"context"
	"errors"
	"log/slog"
	"sync"
	"sync/atomic"
	"time"

	fanout "rex/fanout-service"
	"rex/fanout-service/cache"
	"rex/fanout-service/limit"
	"rex/fanout-service/retry"
)

// Errors of Start.
var (
	ErrDuplicate = errors.New("a fan-out with this id is in flight")
	ErrDraining  = errors.New("the service is shutting down")
	ErrBusy      = errors.New("too many calls, or too much text, are in flight")
	ErrTooWide   = errors.New("the fan-out has more calls, or more text, than may be in flight") // also while nothing else is
)

// ErrReaderGone is why calls end whose reader has left.
var ErrReaderGone = errors.New("the reader left")

// Config bounds an engine; zero values mean the defaults.
type Config struct {
	MaxPending int           // bytes of text a call may hold for a slow reader, 64 KiB by default; then it stops reading
	MaxAnswer  int           // bytes of escaped text of one answer, reasoning included; 8 MiB by default
	Heartbeat  time.Duration // silence after which an empty batch is sent; 10 s by default
	// MaxConnections bounds what is in flight, a connection of each call and of each fan-out's
	// reader; no fan-out that would exceed it begins. 0: no bound.
	MaxConnections int
	// MaxBytes bounds the bytes that are held: requests, and text that waits for readers or followers.
	// Over it no fan-out begins; answers that are on their way may exceed it. 256 MiB by default.
	MaxBytes int64
	Retry    retry.Config
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
	if c.MaxBytes == 0 {
		c.MaxBytes = 256 << 20
	}
	c.Retry = c.Retry.WithDefaults()
	return c
}

// Upstream is a provider and the keys it may be asked with, at least one.
type Upstream struct {
	Provider fanout.Provider
	Keys     []fanout.Key
}

// Parts are what an engine works with. Only Upstreams must be given.
type Parts struct {
	Upstreams map[string]Upstream
	Limiter   *limit.Limiter // nil: no limits
	Cache     *cache.Cache   // nil: no answer is kept or shared
	Observer  Observer       // nil: nobody is told
	Log       *slog.Logger   // of faults of our own; nil: slog's default
}

// Engine holds the fan-outs in flight.
type Engine struct {
	config   Config
	targets  map[string]*target
	limiter  *limit.Limiter
	cache    *cache.Cache
	observer Observer
	log      *slog.Logger
	epoch    time.Time // the moments of what calls share count from here

	mu       sync.Mutex
	running  map[string]*Run // nil while a Start is still under way
	draining bool
	leaving  bool // StopAll was called

	open  atomic.Int64 // calls
	bytes atomic.Int64 // that are held, without the text of flights
	works sync.WaitGroup
}

// target is a provider with what the engine knows of it.
type target struct {
	Upstream
	budget *retry.Budget
}

// New returns an engine made of the given parts.
func New(config Config, parts Parts) *Engine {
	e := &Engine{
		config: config.withDefaults(), targets: map[string]*target{},
		limiter: parts.Limiter, cache: parts.Cache, observer: parts.Observer, log: parts.Log,
		epoch: time.Now(), running: map[string]*Run{},
	}
	if e.log == nil {
		e.log = slog.Default()
	}
	if e.limiter == nil {
		e.limiter = limit.New(limit.Config{}, nil, e.log)
	}
	if e.observer == nil {
		e.observer = nobody{}
	}
	for name, upstream := range parts.Upstreams {
		e.targets[name] = &target{upstream, e.config.Retry.NewBudget(e.epoch)}
	}
	return e
}

// Knows says whether calls to a provider can be made.
func (e *Engine) Knows(provider string) bool { return e.targets[provider] != nil }

// InFlight counts the fan-outs that are not over.
func (e *Engine) InFlight() int {
	e.mu.Lock()
	defer e.mu.Unlock()
	return len(e.running)
}

// Stats is what is in flight.
type Stats struct {
	Fanouts int
	Calls   int
	Bytes   int64 // of requests, and of text that waits for a reader, or is kept for followers and the cache
}

// Stats returns what is in flight now.
func (e *Engine) Stats() Stats {
	return Stats{Fanouts: e.InFlight(), Calls: int(e.open.Load()), Bytes: e.held()}
}

// MaxBytes is how many bytes may be held.
func (e *Engine) MaxBytes() int64 { return e.config.MaxBytes }

// Hold puts bytes on the books, or takes them off: those of a body that is being read, which nobody
// else counts. It returns ErrBusy when more are held than may be.
func (e *Engine) Hold(bytes int64) error {
	e.bytes.Add(bytes)
	if e.held() > e.config.MaxBytes {
		return ErrBusy
	}
	return nil
}

// held is how much is on the books. What calls share is on the cache's, until the last of them has
// left.
func (e *Engine) held() int64 {
	bytes := e.bytes.Load()
	if e.cache != nil {
		bytes += e.cache.FlightBytes()
	}
	return bytes
}

// Draining says whether new fan-outs are refused.
func (e *Engine) Draining() bool {
	e.mu.Lock()
	defer e.mu.Unlock()
	return e.draining
}

// Start begins every call of a request and returns its run; the caller must Read it, and ends it
// by ending ctx. The providers of all its calls, their fallbacks and hedges must be known.
// received is when the request came: the deadline and all moments count from it.
func (e *Engine) Start(ctx context.Context, request fanout.Request, received time.Time) (*Run, error) {
	bytes := bytesOf(&request)
	if err := e.reserve(&request, bytes); err != nil {
		return nil, err
	}
	run := newRun(ctx, e, request, bytes, received)
	e.mu.Lock()
	e.running[request.ID] = run
	if e.leaving { // since its place was reserved
		run.stop(errLeaving)
	}
	e.mu.Unlock()
	run.begin()
	return run, nil
}

// reserve takes the id, the places of a request's calls and room for its bytes, or nothing.
func (e *Engine) reserve(request *fanout.Request, bytes int64) error {
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.draining {
		return ErrDraining
	}
	if _, taken := e.running[request.ID]; taken {
		return ErrDuplicate
	}
	calls := int64(len(request.Calls))
	if !e.fits(calls+1, bytes) {
		return ErrTooWide
	}
	if !e.fits(e.open.Load()+calls+int64(len(e.running))+1, e.held()+bytes) {
		return ErrBusy
	}
	e.running[request.ID] = nil
	e.open.Add(calls)
	e.bytes.Add(bytes)
	e.works.Add(len(request.Calls))
	return nil
}

// fits says whether so much may be in flight.
func (e *Engine) fits(connections, bytes int64) bool {
	most := int64(e.config.MaxConnections)
	return (most <= 0 || connections <= most) && bytes <= e.config.MaxBytes
}

// messageSize is what a message or a part takes in memory besides its text, in bytes.
const messageSize = 64

// bytesOf is how much a request holds.
func bytesOf(request *fanout.Request) int64 {
	bytes := 0
	for i := range request.Calls {
		call := &request.Calls[i]
		bytes += len(call.Params.ResponseFormat)
		for k := range call.Messages {
			message := &call.Messages[k]
			bytes += messageSize + len(message.Content)
			for p := range message.Parts {
				part := &message.Parts[p]
				bytes += messageSize + len(part.Text) + len(part.Data) + len(part.URL)
			}
		}
	}
	return int64(bytes)
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

// StopAll takes no more, and ends every open call because the service is shutting down. Readers still get what there
// is, the failures among it: to come again, elsewhere, is of use.
func (e *Engine) StopAll() {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.draining, e.leaving = true, true
	for _, run := range e.running {
		if run != nil {
			run.stop(errLeaving)
		}
	}
}

// errLeaving is why calls end that a drain had no more time for. Its kind asks their client to come
// again; here it is as final as a stop, and says nothing of a provider.
var errLeaving = &fanout.Failure{Kind: fanout.Overloaded, Blameless: true, Fact: "the service is shutting down"}

// Wait returns when every goroutine of a call, or of what calls share, has ended.
func (e *Engine) Wait() { e.works.Wait() }

func (e *Engine) forget(run *Run) {
	e.mu.Lock()
	defer e.mu.Unlock()
	delete(e.running, run.request.ID)
}
