package engine

import (
	"context"
	"log/slog"
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
}

func newRun(parent context.Context, e *Engine, request fanout.Request, received time.Time) *Run {
	r := &Run{
		engine: e, request: request, received: received,
		ready:  make(chan *call, len(request.Calls)),
		urgent: make(chan struct{}, 1),
		calls:  make([]*call, len(request.Calls)),
	}
	deadline := fanout.Fail(fanout.Deadline, "%d ms", request.Deadline.Milliseconds())
	r.ctx, r.release = context.WithDeadlineCause(parent, received.Add(request.Deadline), deadline)
	r.ctx, r.stop = context.WithCancelCause(r.ctx)
	for i := range request.Calls {
		r.calls[i] = newCall(r, &r.request.Calls[i])
	}
	return r
}

func (r *Run) begin() {
	for _, c := range r.calls {
		go func() {
			defer r.engine.calls.Done()
			c.run()
		}()
	}
}

// discard frees what newRun took.
func (r *Run) discard() {
	r.stop(nil)
	r.release()
}

func (r *Run) cancel(id string, kind fanout.Kind) bool {
	if id == "" {
		r.stop(fanout.Fail(kind, ""))
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

// since is the time from the receipt of the request until now.
func (r *Run) since() time.Duration { return time.Since(r.received) }

// Read passes batches of events to emit until every call has ended; the last batch has an end,
// an empty one is a heartbeat. Events are valid during emit only. When emit fails or the parent
// context ends, every call is stopped and Read returns that error.
//
// Read is the only consumer: no lock is shared between calls, and each dirty call is visited
// once a window.
func (r *Run) Read(parent context.Context, emit func(events []fanout.Event, end *fanout.End) error) (err error) {
	defer func() {
		if err != nil {
			r.stop(ErrReaderGone)
		}
		r.engine.forget(r)
		r.discard()
		r.logEnd(err)
	}()
	window := r.newWindow()
	defer window.timer.Stop()
	var batch batch
	end := fanout.End{Calls: len(r.calls)}
	for end.Finished+end.Failed < end.Calls {
		if err := window.wait(parent, &batch); err != nil {
			return err
		}
		batch.collect(r.ready)
		for _, event := range batch.events {
			switch event.Type {
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

func (r *Run) logEnd(err error) {
	level, outcome := slog.LevelInfo, "done"
	if err != nil {
		level, outcome = slog.LevelWarn, "cut"
	}
	r.engine.log.LogAttrs(context.Background(), level, "fanout",
		slog.String("request_id", r.request.RequestID),
		slog.String("fanout_id", r.request.ID),
		slog.Int("calls", len(r.calls)),
		slog.Int64("latency_ms", r.since().Milliseconds()),
		slog.String("outcome", outcome),
	)
}
