package engine

import (
	"context"
	"time"

	fanout "rex/fanout-service"
)

// Observer is told of every fan-out, call and attempt, and what came of it: logs, metrics and
// spans are made from nothing else. Its methods are called from many goroutines and must not
// block; what they are given is valid until they return. The context an Observer returns is used
// for what it observes, so that a span can have children; it must descend from the one given.
//
// Nothing in here is called for a piece of text: an answer costs the same however it is cut.
type Observer interface {
	Fanout(ctx context.Context, request *fanout.Request) (context.Context, func(*FanoutRecord))
	Call(ctx context.Context, request *fanout.Request, call *fanout.Call) (context.Context, func(*CallRecord))
	Attempt(ctx context.Context, request *fanout.Request, call *fanout.Call, attempt *Attempt) (context.Context, func(*AttemptRecord))
}

// Attempt is one try of a call at one target; it is told of when it joins the queue.
type Attempt struct {
	Number int // from 1
	Reason fanout.Reason
	Target fanout.Target
}

// The outcomes of a fan-out that its reader did or did not see to its end.
const (
	OutcomeDone       = "done"
	OutcomeReaderGone = "reader_gone"
	OutcomeSlowReader = "slow_reader"
)

// OutcomeFinished is the outcome of a call or attempt that gave a complete answer; the others are
// the kinds of failures, and OutcomeReaderGone.
const OutcomeFinished = "finished"

// FanoutRecord is what came of a fan-out.
type FanoutRecord struct {
	Outcome string
	End     fanout.End
}

// CallRecord is what came of a call.
type CallRecord struct {
	Outcome  string
	Failure  *fanout.Failure // nil when it finished
	Target   fanout.Target   // that answered, or was asked last
	Attempts int
	Elapsed  time.Duration
	Usage    *fanout.Usage
	Cache    CacheResult
	Age      time.Duration // of a cached answer
}

// CacheResult says what the cache did for a call.
type CacheResult string

// The cache results.
const (
	CacheBypass CacheResult = "bypass" // the call does not use it, or it is switched off
	CacheMiss   CacheResult = "miss"
	CacheHit    CacheResult = "hit"
	CacheShared CacheResult = "shared" // another call with the same key was in flight
)

// AttemptRecord is what came of an attempt.
type AttemptRecord struct {
	Outcome string
	Failure *fanout.Failure // nil when it finished
	KeyID   string          // the key's handle, "" when it never got one
	Timing  fanout.Timing
	Elapsed time.Duration // since it joined the queue
	Chunks  int           // pieces of text from the provider
	Usage   *fanout.Usage
	Wait    time.Duration // until the next attempt, fanout.Never when none follows
}

// nobody observes.
type nobody struct{}

func (nobody) Fanout(ctx context.Context, _ *fanout.Request) (context.Context, func(*FanoutRecord)) {
	return ctx, func(*FanoutRecord) {}
}

func (nobody) Call(ctx context.Context, _ *fanout.Request, _ *fanout.Call) (context.Context, func(*CallRecord)) {
	return ctx, func(*CallRecord) {}
}

func (nobody) Attempt(ctx context.Context, _ *fanout.Request, _ *fanout.Call, _ *Attempt) (context.Context, func(*AttemptRecord)) {
	return ctx, func(*AttemptRecord) {}
}
