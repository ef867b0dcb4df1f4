package engine

import (
	"context"
	"errors"
	"slices"
	"sync"
	"time"

	fanout "rex/fanout-service"
)

// listener takes what happens to a call: the call itself, or the flight that several calls follow.
// A listener copies what it keeps.
type listener interface {
	// tell takes an event that holds no text.
	tell(event *fanout.Event)
	// offer takes a piece of text or reasoning, unless whoever listens is too far behind.
	// An urgent piece does not wait for the coalescing window.
	offer(event *fanout.Event, urgent bool) bool
	// room waits until an offer may be repeated, or returns the cause of the end of ctx.
	room(ctx context.Context) error
	// startOver drops the text that nobody has taken yet.
	startOver()
}

// call is one call in flight: what waits for its reader, and how it is answered.
type call struct {
	owner *Run
	spec  *fanout.Call
	ctx   context.Context
	stop  context.CancelCauseFunc
	freed chan struct{} // a pending batch was taken: there is room again

	mu        sync.Mutex // guards what the reader takes; held for nanoseconds
	pending   []fanout.Event
	bytes     int           // of pending text
	newest    time.Duration // the moment of the newest event
	queued    bool
	waiting   bool
	abandoned bool // nobody will take anything
	spare     []byte
}

func newCall(r *Run, spec *fanout.Call) *call {
	c := &call{owner: r, spec: spec, freed: make(chan struct{}, 1), pending: make([]fanout.Event, 0, 3)}
	c.ctx, c.stop = context.WithCancelCause(r.ctx)
	return c
}

// run answers the call: with an answer that is known or on its way already, or with attempts.
func (c *call) run() {
	defer c.stop(nil)
	began := c.owner.since()
	ctx, observed := c.owner.engine.observer.Call(c.ctx, &c.owner.request, c.spec)
	record := CallRecord{Cache: CacheBypass, Target: c.spec.Target}
	var last fanout.Event
	if use := c.owner.cacheUse(c.spec); use.Read {
		last = c.follow(ctx, &record)
	} else {
		work := newAttempts(c.owner.engine, &c.owner.request, c.spec, c.owner.received, c)
		work.deadline = c.owner.deadline
		if use.Write {
			defer work.keep(use.Key)()
		}
		last = work.run(ctx)
		record.Attempts, record.Target = work.made, work.target
	}
	record.Outcome, record.Failure, record.Usage = OutcomeFinished, last.Failure, last.Usage
	if last.Failure != nil {
		record.Outcome = outcome(last.Failure, ctx)
	} else {
		record.Target = last.Target
	}
	record.Elapsed = c.owner.since() - began
	observed(&record)
	c.owner.engine.open.Add(-1) // before its reader knows, who may ask for the next
	c.tell(&last)
}

// asFailure names an error. One that is nobody's Failure is our own fault, unless the reader has
// left: then nobody will see it.
func asFailure(err error) *fanout.Failure {
	var failure *fanout.Failure
	if errors.As(err, &failure) {
		return failure
	}
	return fanout.Fail(fanout.Internal, "")
}

// outcome is the kind of a failure, unless it only says that the reader has left.
func outcome(failure *fanout.Failure, ctx context.Context) string { //nolint:revive // ctx is what is judged, not what bounds this
	if failure.Kind == fanout.Internal && ctx.Err() != nil {
		if cause := context.Cause(ctx); errors.Is(cause, ErrReaderGone) || errors.Is(cause, context.Canceled) {
			return OutcomeReaderGone
		}
	}
	return string(failure.Kind)
}

// tell implements listener.
func (c *call) tell(event *fanout.Event) {
	c.mu.Lock()
	c.push(event, true)
}

// offer implements listener: over the bound the call stops reading, so that TCP slows the provider.
// What is pending does not wait for its window then: the bound is also the size of a full batch.
func (c *call) offer(event *fanout.Event, urgent bool) bool {
	c.mu.Lock()
	if c.bytes > 0 && c.bytes+len(event.Text) > c.owner.engine.config.MaxPending {
		c.waiting = true
		c.mu.Unlock()
		c.owner.hurry()
		return false
	}
	c.push(event, urgent)
	return true
}

// room implements listener.
func (c *call) room(ctx context.Context) error {
	select {
	case <-c.freed:
		return nil
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}

// push queues an event for the reader and unlocks. Text joins the text that is already pending.
func (c *call) push(event *fanout.Event, urgent bool) {
	if c.abandoned {
		c.mu.Unlock()
		return
	}
	// Two attempts that race read the clock before they come here: time must not go back.
	c.newest = max(c.newest, event.At)
	if size := len(event.Text); size > 0 {
		c.bytes += size
		c.owner.engine.bytes.Add(int64(size))
	}
	last := len(c.pending) - 1
	if isText(event.Type) && last >= 0 && c.pending[last].Type == event.Type {
		c.pending[last].Text = append(c.pending[last].Text, event.Text...)
	} else {
		c.pending = append(c.pending, *event)
		kept := &c.pending[last+1]
		kept.Call, kept.At = c.spec.ID, c.newest
		if isText(event.Type) {
			kept.Text = append(c.reuse(), event.Text...)
		}
	}
	queued := c.queued
	c.queued = true
	c.mu.Unlock()
	if !queued {
		c.owner.ready <- c
	}
	if urgent { // behind ready: the reader forgets the urgency of what it takes
		c.owner.hurry()
	}
}

func isText(t fanout.EventType) bool { return t == fanout.Chunk || t == fanout.Thought }

// startOver implements listener.
func (c *call) startOver() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.pending = slices.DeleteFunc(c.pending, func(event fanout.Event) bool { return isText(event.Type) })
	c.release()
}

// abandon drops what is pending, and what is still to come.
func (c *call) abandon() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.abandoned = true
	c.pending, c.spare = nil, nil
	c.release()
}

// release takes the pending text off the books. The lock is held.
func (c *call) release() {
	if c.bytes > 0 {
		c.owner.engine.bytes.Add(int64(-c.bytes))
		c.bytes = 0
	}
}

// take moves the pending events to the reader's batch.
func (c *call) take(batch []fanout.Event) []fanout.Event {
	c.mu.Lock()
	batch = append(batch, c.pending...)
	clear(c.pending)
	c.pending = c.pending[:0]
	c.release()
	c.queued = false
	waiting := c.waiting
	c.waiting = false
	c.mu.Unlock()
	if waiting {
		select {
		case c.freed <- struct{}{}:
		default:
		}
	}
	return batch
}

// reuse returns an empty buffer, the one given back if there is one. The lock is held.
func (c *call) reuse() []byte {
	spare := c.spare
	c.spare = nil
	return spare[:0]
}

func (c *call) giveBack(text []byte) {
	c.mu.Lock()
	c.spare = text[:0]
	c.mu.Unlock()
}

// sleep waits, or returns the cause of the end of ctx.
func sleep(ctx context.Context, wait time.Duration) error {
	if wait > 0 {
		timer := time.NewTimer(wait)
		defer timer.Stop()
		select {
		case <-timer.C:
		case <-ctx.Done():
		}
	}
	return context.Cause(ctx)
}
