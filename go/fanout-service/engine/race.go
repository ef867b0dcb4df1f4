package engine

import (
	"context"
	"sync"
	"time"

	fanout "rex/fanout-service"
)

// race lets a second attempt run beside a first that says nothing. Whoever says something first
// has the floor, and the other is stopped; what the two say never mixes.
type race struct {
	work  *attempts
	ctx   context.Context
	first *attempt
	idle  chan struct{} // closed when the second is over, or was not made after all

	mu      sync.Mutex
	coming  *attempt // the second, from when it asks whether it may be sent
	second  *attempt // nil until it is sent
	speaker *attempt
	ended   *attempt // the first of the two that is over
	closed  bool     // no second may begin
}

// race runs an admitted attempt, and a hedge beside it if that becomes due. It returns the attempt
// that answered, or the one that failed last.
func (w *attempts) race(ctx context.Context, first *attempt) *attempt {
	r := &race{work: w, ctx: ctx, first: first, idle: make(chan struct{})}
	first.race = r
	w.inputTokens() // both will ask, at the same time
	w.tellStarted(first)
	timer := time.AfterFunc(w.spec.Hedge.After, r.hedge)
	first.stream()
	alone := r.over(first)
	if timer.Stop() {
		return first
	}
	<-r.idle
	if alone || r.second == nil {
		return first
	}
	return r.decider()
}

// hedge sends the second attempt, if it can be sent at once and the budget has room for it.
func (r *race) hedge() {
	defer close(r.idle)
	w := r.work
	at := w.spec.Hedge.Target
	if at == (fanout.Target{}) {
		at = r.first.Target
	}
	second := w.newAttempt(r.ctx, at, fanout.Hedged)
	second.race = r
	if !r.announce(second) || second.admit(nil) != nil {
		second.stop(nil)
		return
	}
	if !r.enter(second) {
		second.permit.Unsent()
		second.stop(nil)
		return
	}
	second.stream()
	r.over(second)
}

// announce lets the second attempt ask, unless the first has spoken or is over; if that happens
// while it asks, it is stopped, so that nothing waits for the answer.
func (r *race) announce(second *attempt) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.closed {
		return false
	}
	r.coming = second
	return true
}

// enter numbers the second attempt and tells of it, unless the first has spoken or is over: behind
// a piece of text, an attempt that starts would mean that the answer starts over.
func (r *race) enter(second *attempt) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.closed || !r.work.engine.targets[second.Target.Provider].budget.Spend(time.Now()) {
		return false
	}
	r.work.made++
	second.Number = r.work.made
	second.observe()
	r.second = second
	r.work.tellStarted(second)
	return true
}

// claim gives the floor to the first who asks, and stops the other.
func (r *race) claim(a *attempt) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.speaker == nil {
		r.speaker, r.closed = a, true
		if a != r.first {
			r.first.stop(errOutspoken)
		} else if r.coming != nil {
			r.coming.stop(errOutspoken)
		}
	}
	return r.speaker == a
}

// over notes that an attempt has ended, and tells of it when the other decides. It returns whether
// there is no other.
func (r *race) over(a *attempt) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.closed = true
	if r.second == nil {
		if r.coming != nil {
			r.coming.stop(errOutspoken)
		}
		return true
	}
	other := r.first
	if a == r.first {
		other = r.second
	}
	if r.ended == nil {
		r.ended = a
	}
	if a.failure != nil && (r.ended == a || other.failure == nil) {
		r.work.tellFailed(a, fanout.Never)
	}
	return false
}

// decider is the attempt that answered, or that failed last; both are over.
func (r *race) decider() *attempt {
	if r.first.failure == nil || r.second.failure != nil && r.ended == r.second {
		return r.first
	}
	return r.second
}
