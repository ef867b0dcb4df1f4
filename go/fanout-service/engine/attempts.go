package engine

import (
	"context"
	"slices"
	"time"

	fanout "rex/fanout-service"
	"rex/fanout-service/retry"
)

// attempts is the work of answering one call: attempts that follow or race each other until one
// gives a complete answer or nothing may follow. It does not know whether one reader listens or
// many calls follow.
type attempts struct {
	engine   *Engine
	request  *fanout.Request
	spec     *fanout.Call
	epoch    time.Time        // all moments count from it
	deadline func() time.Time // may move while calls join and leave
	listener listener

	made      int           // attempts that were numbered
	told      int           // the newest attempt that was told of
	queued    int           // the newest attempt that was told to wait
	target    fanout.Target // asked last
	fallbacks []fanout.Target
	tried     int          // attempts at target that count
	refused   []fanout.Key // those of target's provider that refused this call
	said      bool
	kept      *kept // nil when the answer is not kept
	input     int64 // estimated tokens of the messages, -1 until somebody asks
}

func newAttempts(e *Engine, request *fanout.Request, spec *fanout.Call, epoch time.Time, out listener) *attempts {
	return &attempts{
		engine: e, request: request, spec: spec, epoch: epoch, listener: out,
		target: spec.Target, fallbacks: spec.Fallbacks, input: -1,
	}
}

func (w *attempts) since() time.Duration { return time.Since(w.epoch) }

// run makes attempts until the call is over, and returns its last event, which it does not tell.
func (w *attempts) run(ctx context.Context) fanout.Event {
	for reason := fanout.First; ; {
		a := w.try(ctx, reason)
		if a.failure == nil {
			w.put(a)
			a.close(fanout.Never)
			return w.finished(a)
		}
		next := w.next(a)
		if next.Action == retry.GiveUp {
			a.close(fanout.Never)
			return w.failed(a)
		}
		w.startOver()
		w.tellFailed(a, next.Wait)
		if err := sleep(ctx, next.Wait); err != nil {
			return fanout.Event{
				Type: fanout.Failed, At: w.since(), Attempt: w.told, Failure: failureOf(err), Timing: a.timing,
			}
		}
		reason = next.Reason
	}
}

// next decides what follows a failed attempt, and turns to the next target if that is asked.
func (w *attempts) next(a *attempt) retry.Decision {
	now := time.Now()
	failure := a.decisive()
	if final(failure) {
		return retry.Decision{Action: retry.GiveUp}
	}
	if w.anotherKey(a, failure, now) {
		return retry.Decision{Action: retry.Retry, Reason: fanout.Again}
	}
	if failure.Kind == fanout.RateLimited && a.sent && len(w.engine.targets[w.target.Provider].Keys) > 1 {
		// It was this key that was told to wait. The limiter holds it back, and may have another.
		unbound := *failure
		unbound.RetryAfter = 0
		failure = &unbound
	}
	next := w.engine.config.Retry.Next(retry.Progress{
		Attempts: w.spec.Retry.Attempts, Restart: w.spec.Retry.Restart, Said: w.said,
		Fallbacks: len(w.fallbacks), Tried: w.tried, Deadline: w.deadline(),
	}, failure, now, func() bool { return w.engine.targets[w.target.Provider].budget.Spend(now) })
	if next.Action == retry.Fallback {
		w.target, w.fallbacks = w.fallbacks[0], w.fallbacks[1:]
		w.tried, w.refused = 0, nil
	}
	return next
}

// final says whether nothing may follow a failure.
func final(failure *fanout.Failure) bool { return failure == errLeaving || retry.Final(failure.Kind) }

// anotherKey says whether a refused key is all that was wrong, and others are left: the next attempt
// gets one of them. It costs none of the call's attempts and nothing of the provider's budget.
func (w *attempts) anotherKey(a *attempt, failure *fanout.Failure, now time.Time) bool {
	if a.race != nil && a.race.first.failure == failure {
		a = a.race.first
	}
	if failure.Kind != fanout.Auth || !a.sent || w.said {
		return false
	}
	w.refused = append(w.refused, a.permit.Key())
	if len(w.keys(w.target.Provider)) == 0 || !now.Before(w.deadline()) {
		return false
	}
	w.tried--
	return true
}

// keys are those of a provider that have not refused this call. The limiter need not know them for
// dead: one that may not use a model, or takes offence at a prompt, is good for others.
func (w *attempts) keys(provider string) []fanout.Key {
	all := w.engine.targets[provider].Keys
	if len(w.refused) == 0 {
		return all
	}
	return slices.DeleteFunc(slices.Clone(all), func(key fanout.Key) bool {
		return slices.ContainsFunc(w.refused, func(refused fanout.Key) bool { return refused.ID() == key.ID() })
	})
}

// try makes one attempt, or two that race, and returns the one that decides: that answered, or
// failed last.
func (w *attempts) try(ctx context.Context, reason fanout.Reason) *attempt {
	w.made++
	w.tried++
	a := w.newAttempt(ctx, w.target, reason)
	a.Number = w.made
	a.observe()
	if err := a.admit(w.waiting); err != nil {
		a.failure = failureOf(err)
		if !final(a.failure) { // refused; what was stopped while it waited has never begun
			w.tellStarted(a)
		}
		return a
	}
	if reason != fanout.Again && reason != fanout.Restart {
		w.engine.targets[a.Target.Provider].budget.First(time.Now())
	}
	if w.spec.Hedge == nil || reason != fanout.First {
		w.tellStarted(a)
		a.stream()
		return a
	}
	return w.race(ctx, a)
}

// waiting tells that the newest attempt has to wait, once.
func (w *attempts) waiting() {
	if w.queued == w.made {
		return
	}
	w.queued = w.made
	w.listener.tell(&fanout.Event{Type: fanout.Queued, At: w.since()})
}

func (w *attempts) tellStarted(a *attempt) {
	a.told, w.told = true, a.Number
	w.listener.tell(&fanout.Event{
		Type: fanout.Started, At: w.since(), Attempt: a.Number, Reason: a.Reason, Target: a.Target, Timing: a.timing,
	})
}

// tellFailed tells of an attempt that is not the call's last, and closes it.
func (w *attempts) tellFailed(a *attempt, wait time.Duration) {
	a.close(wait)
	w.listener.tell(&fanout.Event{
		Type: fanout.AttemptFailed, At: w.since(), Attempt: a.Number, Failure: a.failure, Wait: wait,
		Usage: a.usage, Timing: a.timing,
	})
}

func (w *attempts) failed(a *attempt) fanout.Event {
	number := w.told
	if a.told {
		number = a.Number
	}
	return fanout.Event{
		Type: fanout.Failed, At: w.since(), Attempt: number, Failure: a.failure, Usage: a.usage, Timing: a.timing,
	}
}

func (w *attempts) finished(a *attempt) fanout.Event {
	return fanout.Event{
		Type: fanout.Finished, At: w.since(), Attempt: a.Number, Target: a.Target,
		FinishReason: a.answer.FinishReason, Usage: a.usage, Timing: a.timing, CachedAge: fanout.Never,
	}
}

// inputTokens estimates the tokens of the messages.
func (w *attempts) inputTokens() int64 {
	if w.input < 0 {
		w.input = estimate(w.spec.Characters())
	}
	return w.input
}

// tokens is an upper estimate of what an attempt uses: for the limits, so bytes will do.
func (w *attempts) tokens() int64 {
	bytes := 0
	for i := range w.spec.Messages {
		bytes += len(w.spec.Messages[i].Content)
		for k := range w.spec.Messages[i].Parts {
			bytes += len(w.spec.Messages[i].Parts[k].Text)
		}
	}
	tokens := estimate(bytes)
	if most := w.spec.Params.MaxTokens; most != nil {
		tokens += *most
	}
	return tokens
}

// estimate is a token per four characters, rounded up.
func estimate(characters int) int64 { return int64(characters+3) / 4 }
