package limit

import (
	"time"

	fanout "rex/fanout-service"
)

// account is a key at a provider.
type account struct {
	key   fanout.Key
	bound bound
	gate  gate
	death death
	rates rates
	lines map[string]*line // by model
	names names
}

// line is a model with a key.
type line struct {
	account *account
	model   string
	bound   bound
	gate    gate // a 503 with a moment to come back at is about the model
	death   death
	breaker breaker
	rates   rates // of the operator's rule
	learned rates // from headers, which count by model where it matters
	names   names
	asked   time.Time // when the last call was let through
	scopes  []scope   // with an operator's bound, the key's first: other processes count in them too
}

// lane is a model at a provider with the keys that may be used for it: what waits for it waits for
// any of its lines.
type lane struct {
	keys    []fanout.Key
	lines   []*line
	first   int    // where the next search among equals begins
	waiting int    // in the queue
	stuck   uint64 // the pump that found that it cannot go
}

func newAccount(key fanout.Key, rule Rule, prefix string, now time.Time) *account {
	return &account{
		key: key, lines: map[string]*line{},
		bound: bound{max: rule.MaxConcurrent, adaptive: rule.adaptive()},
		rates: rates{requests: perMinute(rule.RequestsPerMinute, now), tokens: perMinute(rule.TokensPerMinute, now)},
		names: namesOf(prefix, rule.Provider, key),
	}
}

func (a *account) line(rule Rule, now time.Time) *line {
	if l := a.lines[rule.Model]; l != nil {
		return l
	}
	l := &line{
		account: a, model: rule.Model, death: death{enough: forbiddenInARow},
		bound: bound{max: rule.MaxConcurrent, adaptive: rule.adaptive()},
		rates: rates{requests: perMinute(rule.RequestsPerMinute, now), tokens: perMinute(rule.TokensPerMinute, now)},
		names: a.names.of(rule.Model),
	}
	for _, s := range []scope{{a.names.slots, a.bound.max}, {l.names.slots, l.bound.max}} {
		if s.max > 0 {
			l.scopes = append(l.scopes, s)
		}
	}
	a.lines[rule.Model] = l
	return l
}

// scope is an operator's bound and where Redis counts in it.
type scope struct {
	slots string
	max   int
}

func (l *line) allRates() [3]*rates { return [3]*rates{&l.account.rates, &l.rates, &l.learned} }

// idle says that the line may be forgotten: nothing of its own keeps a call back now, and what would
// be lost are counts. One with rates of an operator's rule stays, since they would come back full.
func (l *line) idle(now time.Time) bool {
	revived, known := l.death.over()
	return l.bound.inUse == 0 && l.breaker.rest(now) == 0 && known && !revived.After(now) &&
		l.gate.wish(now).IsZero() && !l.learned.holds(1, now).After(now) &&
		!l.rates.requests.known && !l.rates.tokens.known
}

// standing is whether a line can take a call now and, if not, why.
type standing struct {
	dead   bool          // the key was refused
	broken time.Duration // the breaker is open, for so long
	// notBefore is the moment before which nothing is sent for sure, zero when there is none.
	notBefore time.Time
	// again is when to look again, at the latest, zero when something must end first.
	again time.Time
	free  bool
}

func (l *line) stands(tokens float64, now time.Time) standing {
	key, keyKnown := l.account.death.over()
	model, modelKnown := l.death.over()
	if revived := later(key, model); !keyKnown || !modelKnown || revived.After(now) {
		return standing{dead: true, again: revived}
	}
	if rest := l.breaker.rest(now); rest > 0 {
		return standing{broken: rest, again: now.Add(rest)}
	}
	s := standing{notBefore: later(l.account.gate.wish(now), l.gate.wish(now))}
	for _, r := range l.allRates() {
		s.notBefore = later(s.notBefore, r.holds(tokens, now))
	}
	s.again = later(s.notBefore, later(l.account.gate.opens(now), l.gate.opens(now)))
	s.again = later(s.again, later(l.account.bound.shared.until, l.bound.shared.until))
	if s.again.After(now) {
		return s
	}
	s.again = time.Time{}
	s.free = !l.account.bound.full() && !l.bound.full()
	return s
}

// choice is the line a call should take, or why there is none.
type choice struct {
	line      *line
	failure   *fanout.Failure // no call can go, and waiting is no use
	notBefore time.Time       // no call can go before, zero when that is not known
	again     time.Time       // when to look again, zero when something must end first
}

// choose finds the least loaded line that can take a call of so many tokens.
func (l *lane) choose(tokens float64, now time.Time) choice {
	var c choice
	var open, unknown, blocked bool
	var rest time.Duration
	for i := range l.lines {
		candidate := l.lines[(l.first+i)%len(l.lines)]
		s := candidate.stands(tokens, now)
		switch {
		case s.free:
			if c.line == nil || candidate.account.bound.inUse < c.line.account.bound.inUse {
				c.line = candidate
			}
			continue
		case s.dead:
		case s.broken > 0:
			if !open || s.broken < rest {
				rest = s.broken
			}
			open = true
		case !blocked:
			blocked, c.notBefore = true, s.notBefore
		default:
			c.notBefore = earlier(c.notBefore, s.notBefore)
		}
		if s.again.After(now) && (!unknown || s.again.Before(c.again)) {
			unknown, c.again = true, s.again
		}
	}
	switch {
	case c.line != nil:
		l.first++
		return choice{line: c.line}
	case open && !blocked:
		failure := fanout.Fail(fanout.CircuitOpen, "")
		failure.RetryAfter = rest
		return choice{failure: failure}
	case !blocked:
		return choice{failure: l.refused(now)}
	}
	return c
}

// refused is the failure of a call when the provider has refused every key. It says when the next of
// them is tried again.
func (l *lane) refused(now time.Time) *fanout.Failure {
	fact := "no key is left"
	if len(l.keys) == 1 && l.keys[0].Reveal() == "" {
		fact = "the provider refuses calls without a key"
	}
	failure := fanout.Fail(fanout.Auth, "%s", fact)
	for i, each := range l.lines {
		rest := probeRest // it is being tried now
		if s := each.stands(0, now); s.again.After(now) {
			rest = s.again.Sub(now)
		}
		if i == 0 || rest < failure.RetryAfter {
			failure.RetryAfter = rest
		}
	}
	return failure
}

// tooEarly is the failure of a call that may not be sent before its deadline.
func tooEarly(notBefore, now time.Time) *fanout.Failure {
	failure := fanout.Fail(fanout.RateLimited, "not before the deadline")
	failure.RetryAfter = notBefore.Sub(now)
	return failure
}

// state is the line for a gauge.
func (l *line) state(provider, model string, now time.Time) TargetState {
	places := l.bound.places()
	if key := l.account.bound.places(); places == 0 || key > 0 && key < places {
		places = key
	}
	wish := later(l.account.gate.wish(now), l.gate.wish(now))
	resumes := wish
	if rest := l.breaker.rest(now); rest > 0 {
		resumes = later(resumes, now.Add(rest))
	}
	for _, d := range []*death{&l.account.death, &l.death} {
		if d.dead && d.until.After(now) {
			resumes = later(resumes, d.until)
		}
	}
	return TargetState{
		Provider: provider, KeyID: l.account.key.Handle(), Model: model,
		InFlight: l.bound.inUse, Limit: places, Breaker: l.breaker.state.String(),
		NotBefore: wish, Refused: l.account.death.dead || l.death.dead,
		Resumes: resumes, Asked: l.asked,
	}
}
