package engine

import (
	"context"
	"errors"
	"fmt"
	"runtime/debug"
	"time"

	fanout "rex/fanout-service"
	"rex/fanout-service/cache"
	"rex/fanout-service/limit"
)

// attempt is one try at one target, and the sink its provider fills.
type attempt struct {
	Attempt
	work     *attempts
	race     *race // nil when it runs alone
	ctx      context.Context
	stop     context.CancelCauseFunc
	observed func(*AttemptRecord)
	permit   *limit.Permit
	sent     bool // it was admitted
	told     bool // its start was
	watch    watchdog
	piece    fanout.Event // what the listener is given, kept here so that a piece of text allocates nothing

	speaks     bool
	timing     fanout.Timing
	characters int // of the answer so far
	size       int // of the answer so far, in escaped bytes
	chunks     int

	answer  fanout.Answer
	failure *fanout.Failure // nil: answer is complete
	usage   *fanout.Usage   // nil: the attempt gave nothing
}

func (w *attempts) newAttempt(ctx context.Context, at fanout.Target, reason fanout.Reason) *attempt {
	a := &attempt{Attempt: Attempt{Reason: reason, Target: at}, work: w, timing: fanout.NoTiming}
	a.ctx, a.stop = context.WithCancelCause(ctx)
	a.timing.Queued = w.since()
	return a
}

func (a *attempt) observe() {
	a.ctx, a.observed = a.work.engine.observer.Attempt(a.ctx, a.work.request, a.work.spec, &a.Attempt)
}

// admit waits until the attempt may be sent; waiting is called when that is not at once, and nil
// means that it is then of no use. Where it was refused for a deadline that has moved meanwhile,
// because a call joined that has more time, it asks again.
func (a *attempt) admit(waiting func()) error {
	ask := limit.Ask{
		Target: a.Target, Keys: a.work.keys(a.Target.Provider), Workspace: a.work.request.Workspace,
		Deadline: a.work.deadline(), Tokens: a.work.tokens(), Waiting: waiting, NoWait: waiting == nil,
	}
	for {
		permit, err := a.work.engine.limiter.Admit(a.ctx, ask)
		if err == nil {
			a.permit, a.sent = permit, true
			a.timing.Admitted = a.work.since()
			return nil
		}
		deadline := a.work.deadline()
		if !tooLate(err) || !deadline.After(ask.Deadline) {
			return err
		}
		ask.Deadline = deadline
	}
}

// tooLate says whether an attempt was not admitted because of its deadline: that passed in the queue,
// or the provider asked to be left alone for longer.
func tooLate(err error) bool {
	kind := failureOf(err).Kind
	return kind == fanout.Deadline || kind == fanout.RateLimited
}

// stream sends the attempt and returns when it is over and its permit given back.
func (a *attempt) stream() {
	limits := a.work.spec.Timeouts
	if a.work.spec.Whole { // it is silent until it is over
		limits.FirstToken, limits.Stall = limits.Total, limits.Total
	}
	a.watch.start(&limits, a.stop)
	answer, err := a.ask()
	a.watch.end()
	a.answer = answer
	if err == nil && !a.speak() {
		err = errOutspoken
	}
	if err != nil {
		a.failure = failureOf(err)
	}
	a.usage = a.count()
	a.giveBack()
}

// ask turns a panic of a provider into a failure of its attempt alone.
func (a *attempt) ask() (answer fanout.Answer, err error) {
	defer func() {
		if caught := recover(); caught != nil {
			// Not the value: it may hold a piece of the prompt or the answer.
			a.work.engine.log.Error("a provider panicked", "provider", a.Target.Provider,
				"type", fmt.Sprintf("%T", caught), "stack", string(debug.Stack()))
			err = fanout.Fail(fanout.Internal, "")
		}
	}()
	spec := a.work.spec
	if spec.Target != a.Target {
		other := *spec
		other.Target = a.Target
		spec = &other
	}
	return a.work.engine.targets[a.Target.Provider].Provider.Stream(a.ctx, spec, a.permit.Key(), a)
}

// errOutspoken ends an attempt that lost a race.
var errOutspoken = fanout.Fail(fanout.StopSuperseded, "")

// failureOf names the error of an attempt.
func failureOf(err error) *fanout.Failure {
	if errors.Is(err, cache.ErrDeserted) {
		return fanout.Fail(fanout.StopSuperseded, "")
	}
	return asFailure(err)
}

// giveBack returns the permit, with what came of the attempt: the limits know what that tells them.
func (a *attempt) giveBack() {
	outcome := limit.Outcome{Failure: a.failure, Neutral: a.failure == errLeaving}
	if a.counted() {
		outcome.Tokens = a.usage.InputTokens + a.usage.OutputTokens
	}
	a.permit.Done(outcome)
}

// close frees what the attempt holds and tells what came of it.
func (a *attempt) close(wait time.Duration) {
	record := AttemptRecord{
		Outcome: OutcomeFinished, Failure: a.failure, Timing: a.timing, Elapsed: a.work.since() - a.timing.Queued,
		Chunks: a.chunks, Usage: a.usage, Wait: wait,
	}
	if a.sent {
		record.KeyID = a.permit.Key().Handle()
	}
	if a.failure != nil {
		record.Outcome = outcome(a.failure, a.ctx)
	}
	a.observed(&record)
	a.stop(nil)
}

// decisive is the failure that says what may follow. When two raced and both failed it is that of
// the first: what follows goes to its target.
func (a *attempt) decisive() *fanout.Failure {
	if a.race == nil || final(a.failure) {
		return a.failure
	}
	if first := a.race.first.failure; first != nil && first.Kind != fanout.StopSuperseded {
		return first
	}
	return a.failure
}

// count returns what the provider counted, and an estimate of a token per four characters where it
// did not; nil when the attempt failed before it can have cost anything. Reasoning that used up all
// its tokens gives no text, and is paid for; so is a prompt that was read when the attempt was given
// up.
func (a *attempt) count() *fanout.Usage {
	answer := &a.answer
	if a.failure != nil && !a.counted() && !a.givenUp() {
		return nil
	}
	usage := fanout.Usage{CachedTokens: answer.CachedTokens, ReasoningTokens: answer.ReasoningTokens}
	if answer.InputTokens != nil {
		usage.InputTokens = *answer.InputTokens
	} else {
		usage.InputTokens, usage.Estimated = a.work.inputTokens(), true
	}
	if answer.OutputTokens != nil {
		usage.OutputTokens = *answer.OutputTokens
	} else {
		usage.OutputTokens, usage.Estimated = estimate(a.characters), true
	}
	return &usage
}

// counted says whether there is more to count than a prompt.
func (a *attempt) counted() bool {
	return a.failure == nil || a.characters > 0 || a.answer.InputTokens != nil || a.answer.OutputTokens != nil
}

// givenUp says whether the attempt was ended here while the provider was at work on it.
func (a *attempt) givenUp() bool {
	if a.timing.Connect == fanout.Never || a.failure == nil || a.failure.Status != 0 {
		return false
	}
	switch a.failure.Kind {
	case fanout.StopUser, fanout.StopSuperseded, fanout.Deadline, fanout.SlowReader,
		fanout.TimeoutFirstToken, fanout.TimeoutStall, fanout.TimeoutTotal:
		return true
	default:
		return a.failure == errLeaving
	}
}

// Connected implements fanout.Sink.
func (a *attempt) Connected() {
	a.timing.Connect = a.work.since()
	a.watch.connected()
}

// Allowed implements fanout.Sink.
func (a *attempt) Allowed(allowance fanout.Allowance) { a.permit.Allowed(allowance) }

// Progress implements fanout.Sink.
func (a *attempt) Progress(generated bool) { a.watch.progress(generated) }

// Text implements fanout.Sink.
func (a *attempt) Text(escaped []byte, characters int) error {
	if !a.speak() {
		return errOutspoken
	}
	at := a.work.since()
	first := a.timing.FirstToken == fanout.Never
	if first {
		a.timing.FirstToken = at
	}
	a.timing.LastToken = at
	a.characters += characters
	a.chunks++
	if err := a.say(fanout.Chunk, escaped, at, first); err != nil {
		return err
	}
	a.work.said = true
	a.work.collect(fanout.Chunk, escaped, characters)
	return nil
}

// Thought implements fanout.Sink.
func (a *attempt) Thought(escaped []byte, _ int) error {
	if !a.speak() {
		return errOutspoken
	}
	if err := a.say(fanout.Thought, escaped, a.work.since(), false); err != nil {
		return err
	}
	a.work.collect(fanout.Thought, escaped, 0)
	return nil
}

// speak takes the floor, which an attempt that runs alone has anyway. It returns false when
// another has it.
func (a *attempt) speak() bool {
	if !a.speaks && (a.race == nil || a.race.claim(a)) {
		a.speaks = true
	}
	return a.speaks
}

// say gives a piece to the listener. It blocks while that is behind by more than the bound, and the
// stall timer rests meanwhile: it is not the provider that stalls.
func (a *attempt) say(as fanout.EventType, escaped []byte, at time.Duration, urgent bool) error {
	if a.size == 0 {
		a.permit.Alive()
	}
	a.size += len(escaped)
	if most := a.work.engine.config.MaxAnswer; a.size > most {
		return fanout.Fail(fanout.ResponseTooLarge, "over %d bytes", most)
	}
	a.piece = fanout.Event{Type: as, Text: escaped, At: at, Timing: a.timing}
	for !a.work.listener.offer(&a.piece, urgent) {
		a.watch.rest()
		if err := a.work.listener.room(a.ctx); err != nil {
			return err
		}
		a.watch.progress(true)
	}
	return nil
}
