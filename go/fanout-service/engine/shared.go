package engine

import (
	"context"
	"time"

	fanout "rex/fanout-service"
	"rex/fanout-service/cache"
)

// Calls that read the cache follow a flight: the first to ask for a key starts it, the others read
// along. The flight looks into the cache itself, so that the calls of one key look once, and that
// none asks a provider for what was stored a moment ago. Its moments count from the engine's epoch.

// replayPiece bounds the pieces in which a known answer is given out, in bytes.
const replayPiece = 64 << 10

// cacheUse says how a call uses the cache: not at all where there is none, or nobody's answers to
// keep apart from others.
func (r *Run) cacheUse(spec *fanout.Call) fanout.CacheUse {
	if r.engine.cache == nil || spec.Cache == nil || r.request.Workspace == "" {
		return fanout.CacheUse{}
	}
	return *spec.Cache
}

// lead does the work of a flight for the call that started it.
func (r *Run) lead(ctx context.Context, spec *fanout.Call, flight *cache.Flight) {
	e, use := r.engine, spec.Cache
	out := &shared{engine: e, flight: flight}
	if entry, age, ok := e.cache.Get(ctx, r.request.Workspace, use.Key); ok {
		last := replay(ctx, e, spec, entry, age, out)
		flight.Publish(&last)
		return
	}
	work := newAttempts(e, &r.request, spec, e.epoch, out)
	work.deadline = flight.Deadline
	if use.Write {
		defer work.keep(use.Key)()
	}
	last := work.run(ctx)
	flight.Publish(&last)
}

// replay gives a known answer out, and returns its last event.
func replay(ctx context.Context, e *Engine, spec *fanout.Call, entry *cache.Entry, age time.Duration, out listener) fanout.Event {
	since := func() time.Duration { return time.Since(e.epoch) }
	timing := fanout.NoTiming
	timing.Queued = since()
	out.tell(&fanout.Event{Type: fanout.Started, At: timing.Queued, Reason: fanout.Replay, Target: entry.Target, Timing: timing})
	give := func(as fanout.EventType, text []byte) error {
		for len(text) > 0 {
			size := cut(text, replayPiece)
			piece := &fanout.Event{Type: as, At: since(), Text: text[:size], Timing: timing}
			for !out.offer(piece, true) {
				if err := out.room(ctx); err != nil {
					return err
				}
			}
			text = text[size:]
		}
		return nil
	}
	var err error
	if spec.Thoughts {
		err = give(fanout.Thought, entry.Thoughts)
	}
	if err == nil {
		timing.FirstToken = since()
		err = give(fanout.Chunk, entry.Text)
		timing.LastToken = since()
	}
	if err != nil {
		return fanout.Event{Type: fanout.Failed, At: since(), Failure: failureOf(err), Timing: timing}
	}
	usage := entry.Usage
	return fanout.Event{
		Type: fanout.Finished, At: since(), Target: entry.Target, FinishReason: entry.FinishReason,
		Usage: &usage, Timing: timing, CachedAge: max(age, 0),
	}
}

// shared is a flight as the listener of what leads it.
type shared struct {
	engine *Engine
	flight *cache.Flight
	wanted int // by the piece that was refused
}

// gone is a context that has ended: with it, waiting for room is asking for it.
var gone = func() context.Context {
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	return ctx
}()

func (s *shared) tell(event *fanout.Event) { s.flight.Publish(event) }

// offer refuses when even the follower that is furthest is too far behind.
func (s *shared) offer(event *fanout.Event, _ bool) bool {
	s.wanted = len(event.Text)
	if s.room(gone) != nil {
		return false
	}
	s.flight.Publish(event)
	return true
}

func (s *shared) room(ctx context.Context) error {
	return s.flight.WaitForRoom(ctx, s.wanted, s.engine.config.MaxPending)
}

// startOver does nothing: each follower drops what its own reader has not taken.
func (s *shared) startOver() {}
