package limit

import (
	"slices"
	"sync"
	"time"

	fanout "rex/fanout-service"
)

// maxLanes is how many models of a provider are remembered before idle ones are forgotten: names
// of models come with requests.
const maxLanes = 1024

// room is a provider: its keys, its models, and the calls that wait for them. One lock guards all
// of it, taken a few times per call.
type room struct {
	limiter *Limiter
	rule    Rule

	mu       sync.Mutex
	accounts map[string]*account // by key ID
	lanes    map[string][]*lane  // by model; of several only when asks name different keys
	known    int                 // lanes
	keep     time.Time           // nothing is forgotten before
	queue    waitingRoom
	pumps    uint64
	timer    *time.Timer // pumps when a moment comes that waiters wait for
}

func newRoom(l *Limiter, provider string) *room {
	return &room{
		limiter: l, rule: l.config.forKey(provider),
		accounts: map[string]*account{}, lanes: map[string][]*lane{},
	}
}

// lane finds the lane of an ask. The lock is held, as in all that follows.
func (r *room) lane(model string, keys []fanout.Key, now time.Time) *lane {
	for _, l := range r.lanes[model] {
		if slices.Equal(l.keys, keys) {
			return l
		}
	}
	if r.known >= maxLanes && !now.Before(r.keep) {
		r.forget(now)
	}
	rule := r.limiter.config.forModel(r.rule.Provider, model)
	l := &lane{keys: slices.Clone(keys)}
	for _, key := range keys {
		a := r.accounts[key.ID()]
		if a == nil {
			a = newAccount(key, r.rule, r.limiter.prefix(), now)
			r.accounts[key.ID()] = a
		}
		l.lines = append(l.lines, a.line(rule, now))
	}
	r.lanes[model] = append(r.lanes[model], l)
	r.known++
	return l
}

// forget forgets the models that are idle. Where most are not it rests for a while: to look at them
// all for every new name would hold everybody up who waits for the lock.
func (r *room) forget(now time.Time) {
	for model, lanes := range r.lanes {
		idle := true
		for _, l := range lanes {
			idle = idle && l.waiting == 0 && !slices.ContainsFunc(l.lines, func(l *line) bool { return !l.idle(now) })
		}
		if !idle {
			continue
		}
		r.known -= len(lanes)
		delete(r.lanes, model)
		for _, a := range r.accounts {
			delete(a.lines, model)
		}
	}
	if r.known > maxLanes/2 {
		r.keep = now.Add(time.Second)
	}
}

// ask gives a permit at once, or a place in the queue, or an error. again is for an attempt that
// was let through here and turned away by the bounds shared with other processes.
func (r *room) ask(ask *Ask, again bool) (*Permit, *waiter, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	now := time.Now()
	if !ask.Deadline.IsZero() && !now.Before(ask.Deadline) {
		return nil, nil, fanout.Fail(fanout.Deadline, "")
	}
	lane := r.lane(ask.Target.Model, ask.Keys, now)
	c := lane.choose(float64(ask.Tokens), now)
	switch {
	case c.failure != nil:
		return nil, nil, c.failure
	case c.line != nil && lane.waiting == 0:
		return r.admit(c.line, ask.Tokens, now), nil, nil
	case unreachable(ask.Deadline, c.notBefore, now):
		return nil, nil, tooEarly(c.notBefore, now)
	case ask.NoWait:
		return nil, nil, fanout.Fail(fanout.QueueFull, "")
	}
	if r.queue.size >= r.rule.Queue && !again {
		surplus := r.queue.surplus(ask.Workspace)
		if surplus == nil {
			return nil, nil, fanout.Fail(fanout.QueueFull, "%d wait", r.queue.size)
		}
		r.fail(surplus, fanout.Fail(fanout.QueueFull, "%d wait", r.queue.size))
	}
	w := &waiter{
		lane: lane, workspace: ask.Workspace, deadline: ask.Deadline, tokens: float64(ask.Tokens),
		ready: make(chan struct{}),
	}
	r.queue.add(w, again)
	r.pump(now)
	return nil, w, nil
}

func unreachable(deadline, notBefore, now time.Time) bool {
	return !deadline.IsZero() && notBefore.After(now) && notBefore.After(deadline)
}

// admit counts a call in.
func (r *room) admit(l *line, tokens int64, now time.Time) *Permit {
	a := l.account
	l.asked = now
	p := &Permit{room: r, line: l, tokens: float64(tokens)}
	p.keyTrial, p.modelTrial = a.gate.enter(now), l.gate.enter(now)
	p.keyProbe, p.modelProbe = a.death.enter(), l.death.enter()
	p.pass = l.breaker.enter()
	p.askedKey, p.askedModel = a.bound.enter(), l.bound.enter()
	for _, rates := range l.allRates() {
		rates.take(p.tokens)
	}
	return p
}

// pump gives out what can be given: after every change that may let a waiter go, and when a moment
// has come that one waits for.
func (r *room) pump(now time.Time) {
	if r.queue.size == 0 {
		return
	}
	r.pumps++
	var next time.Time
	may := func(l *lane) bool { return l.stuck != r.pumps }
	for w := r.queue.next(may); w != nil; w = r.queue.next(may) {
		switch c := w.lane.choose(w.tokens, now); {
		case c.line != nil:
			r.queue.remove(w, true)
			w.permit = r.admit(c.line, int64(w.tokens), now)
			close(w.ready)
		case c.failure != nil:
			r.queue.each(w.lane, func(w *waiter) { r.fail(w, c.failure) })
		case unreachable(w.deadline, c.notBefore, now):
			r.fail(w, tooEarly(c.notBefore, now))
		default:
			w.lane.stuck = r.pumps
			r.failEarly(w.lane, now)
			if next.IsZero() || c.again.After(now) && c.again.Before(next) {
				next = c.again
			}
		}
	}
	r.wakeAt(next, now)
}

// failEarly fails the waiters of a lane that cannot go before their deadline: a provider's wish to
// be left alone reaches those who wait as it reaches those who come.
func (r *room) failEarly(l *lane, now time.Time) {
	notBefore := l.choose(0, now).notBefore
	if !notBefore.After(now) {
		return
	}
	r.queue.each(l, func(w *waiter) {
		if unreachable(w.deadline, notBefore, now) {
			r.fail(w, tooEarly(notBefore, now))
		}
	})
}

func (r *room) fail(w *waiter, failure *fanout.Failure) {
	r.queue.remove(w, false)
	w.err = failure
	close(w.ready)
}

func (r *room) wakeAt(at, now time.Time) {
	if at.IsZero() {
		return
	}
	if r.timer == nil {
		r.timer = time.AfterFunc(at.Sub(now), func() {
			r.mu.Lock()
			defer r.mu.Unlock()
			r.pump(time.Now())
		})
		return
	}
	r.timer.Reset(at.Sub(now))
}

// leave ends a wait for which there is no reason any more. It returns the permit that came at the
// same moment, to be given back.
func (r *room) leave(w *waiter) *Permit {
	r.mu.Lock()
	defer r.mu.Unlock()
	if !w.waits() {
		return w.permit
	}
	r.queue.remove(w, false)
	r.pump(time.Now())
	return nil
}

// shut keeps calls back for as long as the provider asked, in all processes.
func (r *room) shut(g *gate, n names, wait time.Duration, now time.Time) {
	wait = min(wait, waitAtMost)
	g.shut(wait, now)
	if r.limiter.shared != nil {
		r.limiter.shared.shut(n.gate, wait)
	}
}

func (r *room) targets(states []TargetState) []TargetState {
	r.mu.Lock()
	defer r.mu.Unlock()
	now := time.Now()
	for model, lanes := range r.lanes {
		told := map[*line]int{}
		for _, l := range lanes {
			for i, line := range l.lines {
				at, ok := told[line]
				if !ok {
					at = len(states)
					told[line] = at
					states = append(states, line.state(r.rule.Provider, model, now))
				}
				if i == 0 {
					states[at].Queued += l.waiting
				}
			}
		}
	}
	return states
}
