package engine

import (
	"context"
	"sync/atomic"
	"time"

	fanout "rex/fanout-service"
)

// Run is one fan-out in flight.
type Run struct {
	engine   *Engine
	request  fanout.Request
	received time.Time
	calls    []*call
	ready    chan *call    // calls with pending events; each is queued at most once, so it never blocks
	urgent   chan struct{} // something that must not wait for the coalescing window
	stop     context.CancelCauseFunc
	ctx      context.Context
	release  context.CancelFunc
	observed func(*FanoutRecord)
	slow     atomic.Bool  // it was stopped because nobody read it
	bytes    int64        // of the request
	users    atomic.Int64 // of the request: the reader, the calls, and flights that they started
	held     int64        // bytes that the reader holds
}

func newRun(parent context.Context, e *Engine, request fanout.Request, bytes int64, received time.Time) *Run {
	r := &Run{
		engine: e, request: request, bytes: bytes, received: received,
		ready:  make(chan *call, len(request.Calls)),
		urgent: make(chan struct{}, 1),
		calls:  make([]*call, len(request.Calls)),
	}
	r.users.Store(int64(len(r.calls)) + 1)
	parent, r.observed = e.observer.Fanout(parent, &r.request)
	deadline := fanout.Fail(fanout.Deadline, "%d ms", request.Deadline.Milliseconds())
	r.ctx, r.release = context.WithDeadlineCause(parent, r.deadline(), deadline)
	r.ctx, r.stop = context.WithCancelCause(r.ctx)
	for i := range request.Calls {
		r.calls[i] = newCall(r, &r.request.Calls[i])
	}
	return r
}

func (r *Run) begin() {
	for _, c := range r.calls {
		go func() {
			defer r.engine.works.Done()
			defer r.leave()
			c.run()
		}()
	}
}

func (r *Run) deadline() time.Time { return r.received.Add(r.request.Deadline) }

// leave takes the request off the books when nobody needs it any more.
func (r *Run) leave() {
	if r.users.Add(-1) == 0 {
		r.engine.bytes.Add(-r.bytes)
	}
}

// Hold puts bytes on the engine's books that whoever reads holds until Read returns, or takes them
// off. It is to be called from within emit.
func (r *Run) Hold(bytes int) {
	r.held += int64(bytes)
	r.engine.bytes.Add(int64(bytes))
}

// Stop ends every open call with the given kind. The reader still gets what there is, the failures
// among it.
func (r *Run) Stop(kind fanout.Kind) {
	if kind == fanout.SlowReader {
		r.slow.Store(true)
	}
	r.stop(fanout.Fail(kind, ""))
}

func (r *Run) cancel(id string, kind fanout.Kind) bool {
	if id == "" {
		r.Stop(kind)
		return true
	}
	for _, c := range r.calls {
		if c.spec.ID == id {
			c.stop(fanout.Fail(kind, ""))
			return true
		}
	}
	return false
}

// hurry ends the coalescing window that the reader waits in.
func (r *Run) hurry() {
	select {
	case r.urgent <- struct{}{}:
	default:
	}
}

// since is the time from the receipt of the request until now.
func (r *Run) since() time.Duration { return time.Since(r.received) }

// Read passes batches of events to emit until every call has ended; the last batch has an end,
// an empty one is a heartbeat. Events are valid during emit only. When emit fails or the parent
// context ends, every call is stopped and Read returns that error.
//
// Read is the only consumer: no lock is shared between calls, and each dirty call is visited
// once a window.
func (r *Run) Read(parent context.Context, emit func(events []fanout.Event, end *fanout.End) error) (err error) {
	end := fanout.End{Calls: len(r.calls)}
	defer func() { r.close(err, end) }()
	window := r.newWindow()
	defer window.timer.Stop()
	var batch batch
	for end.Finished+end.Failed < end.Calls {
		if err := window.wait(parent, &batch); err != nil {
			return err
		}
		if parent.Err() != nil { // what came in the same instant says only that the reader has left
			return context.Cause(parent)
		}
		batch.collect(r)
		for i := range batch.events {
			switch batch.events[i].Type {
			case fanout.Finished:
				end.Finished++
			case fanout.Failed:
				end.Failed++
			default:
			}
		}
		last := (*fanout.End)(nil)
		if end.Finished+end.Failed == end.Calls {
			end.Elapsed = r.since()
			last = &end
		}
		err := emit(batch.events, last)
		batch.recycle()
		if err != nil {
			return err
		}
		window.flushed = time.Now()
	}
	return nil
}

// close ends a run that is over or whose reader has left, and tells what came of it.
func (r *Run) close(err error, end fanout.End) {
	record := FanoutRecord{Outcome: OutcomeDone, End: end}
	if err != nil {
		r.stop(ErrReaderGone)
		for _, c := range r.calls {
			c.abandon()
		}
		record.Outcome, record.End.Elapsed = OutcomeReaderGone, r.since()
	}
	if r.slow.Load() {
		record.Outcome = OutcomeSlowReader
	}
	r.Hold(int(-r.held))
	r.leave()
	r.engine.forget(r)
	r.stop(nil)
	r.release()
	r.observed(&record)
}
