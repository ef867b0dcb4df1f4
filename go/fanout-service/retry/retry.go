// Package retry decides what follows a failed attempt: another one, the next target, or the end.
// It is the only place of Rex that retries. Everything in it is a function of what it is given;
// nothing sleeps and nothing is sent.
package retry

import (
	"math/rand/v2"
	"time"

	fanout "rex/fanout-service"
)

// Config sets the waits and the budget; zero values mean the defaults.
type Config struct {
	BudgetRatio float64       // retries for each first attempt of the last 10 s; 0.1 by default
	BudgetFloor int           // retries that are always allowed in 10 s; 5 by default, less than 0: none
	Base        time.Duration // the longest first wait; 250 ms by default
	Cap         time.Duration // the longest wait that no provider asked for; 8 s by default
}

// WithDefaults fills in what is not set.
func (c Config) WithDefaults() Config {
	if c.BudgetRatio == 0 {
		c.BudgetRatio = 0.1
	}
	if c.BudgetFloor == 0 {
		c.BudgetFloor = 5
	}
	if c.Base == 0 {
		c.Base = 250 * time.Millisecond
	}
	if c.Cap == 0 {
		c.Cap = 8 * time.Second
	}
	return c
}

// Progress is how far a call has come when an attempt of it fails.
type Progress struct {
	Attempts  int  // allowed at each target
	Restart   bool // allowed after text was given out
	Fallbacks int  // targets that are left after this one
	Tried     int  // attempts at this target, the failed one among them
	Said      bool // text was given out
	Deadline  time.Time
}

// Action is what to do next.
type Action int

// The actions.
const (
	GiveUp   Action = iota
	Retry           // the same target, after Decision.Wait
	Fallback        // the next target, at once
)

// Decision is what follows a failed attempt.
type Decision struct {
	Action Action
	Wait   time.Duration
	Reason fanout.Reason // of the next attempt
}

// Next decides. spend asks for a piece of the provider's budget, and is called only when all
// else allows a retry.
func (c Config) Next(at Progress, failure *fanout.Failure, now time.Time, spend func() bool) Decision {
	if at.Said && !at.Restart || Final(failure.Kind) {
		return Decision{Action: GiveUp}
	}
	wait := c.Wait(at.Tried, failure.RetryAfter)
	if at.Tried < at.Attempts && failure.Retryable() && !lasting(at, failure) &&
		now.Add(wait).Before(at.Deadline) && spend() {
		reason := fanout.Again
		if at.Said {
			reason = fanout.Restart
		}
		return Decision{Action: Retry, Wait: wait, Reason: reason}
	}
	if at.Fallbacks > 0 && now.Before(at.Deadline) {
		return Decision{Action: Fallback, Reason: fanout.Fallback}
	}
	return Decision{Action: GiveUp}
}

// lasting says whether waiting for a target is worse than asking the next one: an open circuit
// stays so for seconds, and the next target is asked at once.
func lasting(at Progress, failure *fanout.Failure) bool {
	return failure.Kind == fanout.CircuitOpen && at.Fallbacks > 0
}

// Final says whether nothing may follow a failure of this kind: the call was stopped, its time is
// over, nobody reads it, or the fault is ours.
func Final(kind fanout.Kind) bool {
	switch kind {
	case fanout.StopUser, fanout.StopSuperseded, fanout.Deadline, fanout.TimeoutTotal,
		fanout.SlowReader, fanout.Internal:
		return true
	default:
		return false
	}
}

// Wait is the time before another attempt when so many have failed: "full jitter", a random part
// of a bound that doubles each time (M. Brooker, "Exponential Backoff And Jitter", AWS
// Architecture Blog, 2015). What the provider asked for comes on top of it: calls that were told
// the same moment must not come back together.
func (c Config) Wait(tried int, retryAfter time.Duration) time.Duration {
	bound := c.Cap
	// A shift of more than 20 places is over every cap, and could overflow.
	if n := max(tried-1, 0); n <= 20 {
		bound = min(c.Cap, c.Base<<n)
	}
	return max(retryAfter, 0) + rand.N(bound) //nolint:gosec // jitter is no secret
}
