package engine

import (
	"context"
	"sync"
	"time"

	fanout "rex/fanout-service"
)

// phase is what an attempt waits for.
type phase int

const (
	connecting phase = iota
	awaitingFirst
	streaming
	resting // for the reader: only the time of the whole attempt runs
	over
)

// watchdog stops an attempt whose phase, or the whole of it, takes too long. One timer serves a
// whole attempt: data only notes the time, and the timer, when it fires, sees whether there was
// silence.
type watchdog struct {
	mu    sync.Mutex
	stop  context.CancelCauseFunc
	limit [resting]time.Duration
	total time.Duration
	phase phase
	began time.Time
	since time.Time
	timer *time.Timer
}

var phaseKinds = [resting]fanout.Kind{fanout.TimeoutConnect, fanout.TimeoutFirstToken, fanout.TimeoutStall}

// fairLimits are what a provider must be given before its silence speaks against it: else a client
// that is short of time would close it for all others.
var fairLimits = [resting]time.Duration{
	fanout.DefaultTimeouts.Connect, fanout.DefaultTimeouts.FirstToken, fanout.DefaultTimeouts.Stall,
}

func (w *watchdog) start(limits *fanout.Timeouts, stop context.CancelCauseFunc) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.stop = stop
	w.limit = [resting]time.Duration{limits.Connect, limits.FirstToken, limits.Stall}
	w.total = limits.Total
	w.began = time.Now()
	w.since = w.began
	w.timer = time.AfterFunc(min(limits.Connect, limits.Total), w.fire)
}

func (w *watchdog) connected() { w.enter(awaitingFirst, false) }

func (w *watchdog) rest() { w.enter(resting, false) }

func (w *watchdog) progress(generated bool) { w.enter(streaming, !generated) }

// enter moves to a phase and restarts its clock. Data that holds nothing generated restarts the
// clock of a stream that has begun, and does not begin one.
func (w *watchdog) enter(next phase, onlyIfThere bool) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if onlyIfThere && w.phase != next || w.phase == over {
		return
	}
	w.since = time.Now()
	if w.phase != next {
		w.phase = next
		if next != resting {
			w.timer.Reset(min(w.limit[next], w.total-w.since.Sub(w.began)))
		}
	}
}

func (w *watchdog) fire() {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.phase == over {
		return
	}
	now := time.Now()
	left := w.total - now.Sub(w.began)
	if left <= 0 {
		w.bite(fanout.Fail(fanout.TimeoutTotal, "%d ms", w.total.Milliseconds()))
		return
	}
	if w.phase != resting {
		limit := w.limit[w.phase]
		silent := now.Sub(w.since)
		if silent >= limit {
			fact := "%d ms"
			if w.phase == streaming {
				fact = "%d ms without data"
			}
			failure := fanout.Fail(phaseKinds[w.phase], fact, limit.Milliseconds())
			failure.Blameless = limit < fairLimits[w.phase]
			w.bite(failure)
			return
		}
		left = min(left, limit-silent)
	}
	w.timer.Reset(left)
}

func (w *watchdog) bite(failure *fanout.Failure) {
	w.phase = over
	w.stop(failure)
}

func (w *watchdog) end() {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.phase = over
	w.timer.Stop()
}
