package engine

import (
	"context"
	"sync"
	"time"

	fanout "rex/fanout-service"
)

// phase is what a call waits for.
type phase int

const (
	connecting phase = iota
	awaitingFirst
	streaming
	resting // for the reader: no timer runs
)

// watchdog stops a call whose phase takes too long. One timer serves a whole call: data only
// notes the time, and the timer, when it fires, sees whether there was silence.
type watchdog struct {
	mu    sync.Mutex
	stop  context.CancelCauseFunc
	limit [resting]time.Duration
	phase phase
	since time.Time
	timer *time.Timer
}

var phaseKinds = [resting]fanout.Kind{fanout.TimeoutConnect, fanout.TimeoutFirstToken, fanout.TimeoutStall}

func (w *watchdog) start(limits fanout.Timeouts, stop context.CancelCauseFunc) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.stop = stop
	w.limit = [resting]time.Duration{limits.Connect, limits.FirstToken, limits.Stall}
	w.since = time.Now()
	w.timer = time.AfterFunc(limits.Connect, w.fire)
}

func (w *watchdog) connected() { w.enter(awaitingFirst, false) }

func (w *watchdog) rest() { w.enter(resting, false) }

func (w *watchdog) progress(generated bool) { w.enter(streaming, !generated) }

// enter moves to a phase and restarts its clock. Data that holds nothing generated restarts the
// clock of a stream that has begun, and does not begin one.
func (w *watchdog) enter(next phase, onlyIfThere bool) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if onlyIfThere && w.phase != next {
		return
	}
	w.since = time.Now()
	if w.phase != next {
		w.phase = next
		if next != resting {
			w.timer.Reset(w.limit[next])
		}
	}
}

func (w *watchdog) fire() {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.phase == resting {
		return
	}
	limit := w.limit[w.phase]
	if left := limit - time.Since(w.since); left > 0 {
		w.timer.Reset(left)
		return
	}
	fact := "%d ms"
	if w.phase == streaming {
		fact = "%d ms without data"
	}
	w.stop(fanout.Fail(phaseKinds[w.phase], fact, limit.Milliseconds()))
}

func (w *watchdog) end() {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.phase = resting
	w.timer.Stop()
}
