package limit

import (
	"time"

	fanout "rex/fanout-service"
)

// Permit is the right to send one attempt. It is used by one goroutine at a time.
type Permit struct {
	room   *room
	line   *line
	slot   string // in Redis; "" when it has none
	tokens float64

	// What the attempt was let through as.
	pass                 pass   // of the breaker
	keyTrial, modelTrial uint64 // of the gates
	keyProbe, modelProbe bool   // of refused keys
	askedKey, askedModel bool   // for a slot in Redis while it gives out none

	heard bool // headers came
	alive bool // the answer has begun
	done  bool
}

// Key is the key to send with.
func (p *Permit) Key() fanout.Key { return p.line.account.key }

// Allowed takes what the headers of the response said about the key. They set the pace of the model
// alone: where providers count by model, one that has used up its day says nothing about the others.
// An empty bucket is no wish to wait either; it fills again from now on.
func (p *Permit) Allowed(allowance fanout.Allowance) {
	r := p.room
	r.mu.Lock()
	defer r.mu.Unlock()
	if p.done {
		return
	}
	now := time.Now()
	p.see()
	p.line.learned.learn(allowance, now)
	p.line.account.gate.heard(p.keyTrial, now)
	p.line.gate.heard(p.modelTrial, now)
	r.pump(now)
}

// see stops counting the call as one whose response has not been seen.
func (p *Permit) see() {
	if p.heard {
		return
	}
	p.heard = true
	for _, rates := range p.line.allRates() {
		rates.seen(p.tokens)
	}
}

// Alive says that the answer has begun, for the breaker and for a key that was refused: a provider
// whose answers take minutes is known to live long before Done. Only the first of several counts,
// and a failure after it is still one.
func (p *Permit) Alive() {
	if p.alive {
		return
	}
	p.alive = true
	before, after := p.begin()
	p.tell(before, after, nil)
}

func (p *Permit) begin() (before, after health) {
	r := p.room
	r.mu.Lock()
	defer r.mu.Unlock()
	l := p.line
	before = l.health()
	if !p.done {
		now := time.Now()
		l.breaker.speak(&p.pass, now)
		l.account.death.settle(p.keyProbe, false, lives, now)
		l.death.settle(p.modelProbe, false, lives, now)
		p.keyProbe, p.modelProbe = false, false
	}
	after = l.health()
	if before != after {
		r.pump(time.Now())
	}
	return before, after
}

// Done gives the permit back and tells what came of the attempt. It must be called exactly once,
// before any wait for another attempt; what is called after that has no effect.
func (p *Permit) Done(o Outcome) {
	if before, after, ok := p.end(&o); ok {
		p.tell(before, after, o.Failure)
	}
}

// Unsent gives the permit of an attempt back that was not sent after all, instead of Done: it took
// no part of any rate, and says nothing.
func (p *Permit) Unsent() { p.turnedAway(sharedAnswer{outcome: sharedEnded}) }

// tell logs what changed. It is called outside the lock: writing a line may take a while.
func (p *Permit) tell(before, after health, failure *fanout.Failure) {
	if before == after {
		return
	}
	log := p.room.limiter.log.With("provider", p.room.rule.Provider, "model", p.line.model, "key", p.Key())
	switch {
	case after.dead && !before.dead:
		log.Warn("a key was refused and is left alone", "status", failure.Status, "seconds", deadFor.Seconds())
	case before.dead && !after.dead:
		log.Info("a key that was refused works again")
	}
	switch {
	case after.breaker == open && before.breaker != open:
		log.Warn("a model fails and is left alone", "kind", failure.Kind)
	case before.breaker != closed && after.breaker == closed:
		log.Info("a model that failed answers again")
	}
}

// health is what operators are told of when it changes.
type health struct {
	dead    bool
	breaker breakerState
}

func (l *line) health() health {
	return health{dead: l.account.death.dead || l.death.dead, breaker: l.breaker.state}
}

// end does what Done says; ok is false for a second call.
func (p *Permit) end(o *Outcome) (before, after health, ok bool) {
	r := p.room
	r.mu.Lock()
	defer r.mu.Unlock()
	if p.done {
		return before, after, false
	}
	p.done = true
	now := time.Now()
	before = p.line.health()
	p.learn(o, now)
	after = p.line.health()
	p.account(o)
	p.giveBack(now)
	r.pump(now)
	return before, after, true
}

// learn teaches the bounds, gates, keys and the breaker.
func (p *Permit) learn(o *Outcome, now time.Time) {
	l, a, said := p.line, p.line.account, o.says()
	switch {
	case said == nothing:
	case o.Failure == nil:
		a.bound.finish()
		l.bound.finish()
	case o.Failure.Kind == fanout.Overloaded:
		l.bound.complain(now)
	case o.Failure.Kind == fanout.RateLimited && o.Failure.Crowded:
		a.bound.complain(now)
	case o.Failure.Kind == fanout.RateLimited && o.Failure.RetryAfter == 0:
		l.bound.complain(now)
	}
	if said != nothing && o.Failure != nil && o.Failure.RetryAfter > 0 {
		switch o.Failure.Kind {
		case fanout.RateLimited:
			p.room.shut(&a.gate, a.names, o.Failure.RetryAfter, now)
		case fanout.Overloaded, fanout.ServerError:
			p.room.shut(&l.gate, l.names, o.Failure.RetryAfter, now)
		default:
		}
	}
	a.gate.settle(p.keyTrial, said != nothing, now)
	l.gate.settle(p.modelTrial, said != nothing, now)
	key, model := o.refused()
	a.death.settle(p.keyProbe, key, said, now)
	l.death.settle(p.modelProbe, model, said, now)
	if said == nothing {
		l.breaker.abandon(&p.pass)
	} else {
		l.breaker.record(&p.pass, said == faulty, now)
	}
}

// account corrects the tokens that were taken on an estimate. What headers taught is left alone
// once they were seen: then the provider's own count is in it.
func (p *Permit) account(o *Outcome) {
	used := p.tokens
	switch {
	case o.Tokens > 0:
		used = float64(o.Tokens)
	case o.Failure != nil && o.Failure.Status != 0: // refused: nothing was generated
		used = 0
	}
	p.line.rates.tokens.level += p.tokens - used
	p.line.account.rates.tokens.level += p.tokens - used
	if !p.heard {
		p.line.learned.tokens.level += p.tokens - used
	}
	p.see()
}

// giveBack returns the places the call took.
func (p *Permit) giveBack(now time.Time) {
	p.line.account.bound.leave(p.askedKey, now)
	p.line.bound.leave(p.askedModel, now)
	if p.slot != "" {
		p.room.limiter.shared.release(p.slot, p.line)
	}
}

// confirm says that Redis gave a slot; the next may ask.
func (p *Permit) confirm() {
	if !p.askedKey && !p.askedModel {
		return
	}
	r := p.room
	r.mu.Lock()
	defer r.mu.Unlock()
	last := r.queue.size == 0
	p.line.account.bound.shared.granted(p.askedKey, last)
	p.line.bound.shared.granted(p.askedModel, last)
	p.askedKey, p.askedModel = false, false
	r.pump(time.Now())
}

// turnedAway takes back an attempt that was never sent, and learns from the answer that was the
// reason.
func (p *Permit) turnedAway(answer sharedAnswer) {
	r := p.room
	r.mu.Lock()
	defer r.mu.Unlock()
	if p.done {
		return
	}
	p.done = true
	now := time.Now()
	l, a := p.line, p.line.account
	p.learn(&Outcome{Neutral: true}, now)
	for _, rates := range l.allRates() {
		rates.untake(p.tokens)
	}
	p.giveBack(now)
	bound, gate := &a.bound, &a.gate
	if answer.model {
		bound, gate = &l.bound, &l.gate
	}
	switch answer.outcome {
	case sharedFull:
		bound.shared.refuse(now)
	case sharedGated:
		gate.shut(answer.wait, now)
	default:
	}
	r.pump(now)
}
