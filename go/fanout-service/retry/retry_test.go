package retry_test

import (
	"math/rand/v2"
	"testing"
	"time"

	fanout "rex/fanout-service"
	"rex/fanout-service/retry"
)

var config = retry.Config{}.WithDefaults()

func yes() bool { return true }

func no() bool { return false }

func TestWhatFollowsAFailedAttempt(t *testing.T) {
	now := time.Now()
	later := now.Add(time.Hour)
	fail := func(kind fanout.Kind) *fanout.Failure { return &fanout.Failure{Kind: kind} }
	limited := func(after time.Duration) *fanout.Failure {
		return &fanout.Failure{Kind: fanout.RateLimited, RetryAfter: after}
	}
	cases := []struct {
		name    string
		at      retry.Progress
		failure *fanout.Failure
		spend   func() bool
		want    retry.Action
		reason  fanout.Reason
	}{
		{"a transient failure with attempts left", retry.Progress{Attempts: 3, Tried: 1, Deadline: later}, fail(fanout.ServerError), yes, retry.Retry, fanout.Again},
		{"the last attempt", retry.Progress{Attempts: 3, Tried: 3, Deadline: later}, fail(fanout.ServerError), yes, retry.GiveUp, ""},
		{"the last attempt, with a fallback", retry.Progress{Attempts: 3, Tried: 3, Fallbacks: 1, Deadline: later}, fail(fanout.ServerError), yes, retry.Fallback, fanout.Fallback},
		{"the provider says it is of no use", retry.Progress{Attempts: 3, Tried: 1, Deadline: later}, &fanout.Failure{Kind: fanout.ServerError, Lasting: true}, yes, retry.GiveUp, ""},
		{"a lasting failure", retry.Progress{Attempts: 3, Tried: 1, Deadline: later}, fail(fanout.Auth), yes, retry.GiveUp, ""},
		{"a lasting failure, with a fallback", retry.Progress{Attempts: 3, Tried: 1, Fallbacks: 1, Deadline: later}, fail(fanout.ContextTooLong), yes, retry.Fallback, fanout.Fallback},
		{"after text", retry.Progress{Attempts: 3, Tried: 1, Fallbacks: 2, Said: true, Deadline: later}, fail(fanout.Incomplete), yes, retry.GiveUp, ""},
		{"after text that may start over", retry.Progress{Attempts: 3, Tried: 1, Said: true, Restart: true, Deadline: later}, fail(fanout.Incomplete), yes, retry.Retry, fanout.Restart},
		{"after text that may start over, elsewhere", retry.Progress{Attempts: 1, Tried: 1, Fallbacks: 1, Said: true, Restart: true, Deadline: later}, fail(fanout.Incomplete), yes, retry.Fallback, fanout.Fallback},
		{"the budget is used up", retry.Progress{Attempts: 3, Tried: 1, Deadline: later}, fail(fanout.Overloaded), no, retry.GiveUp, ""},
		{"the budget is used up, with a fallback", retry.Progress{Attempts: 3, Tried: 1, Fallbacks: 1, Deadline: later}, fail(fanout.Overloaded), no, retry.Fallback, fanout.Fallback},
		{"the provider asks for more time than is left", retry.Progress{Attempts: 3, Tried: 1, Deadline: now.Add(time.Minute)}, limited(time.Hour), yes, retry.GiveUp, ""},
		{"the provider asks for less time than is left", retry.Progress{Attempts: 3, Tried: 1, Deadline: now.Add(time.Minute)}, limited(2 * time.Second), yes, retry.Retry, fanout.Again},
		{"an open circuit is waited for", retry.Progress{Attempts: 2, Tried: 1, Deadline: later}, fail(fanout.CircuitOpen), yes, retry.Retry, fanout.Again},
		{"an open circuit with a fallback is not", retry.Progress{Attempts: 2, Tried: 1, Fallbacks: 1, Deadline: later}, fail(fanout.CircuitOpen), yes, retry.Fallback, fanout.Fallback},
		{"the deadline has passed", retry.Progress{Attempts: 3, Tried: 1, Fallbacks: 3, Deadline: now}, fail(fanout.ServerError), yes, retry.GiveUp, ""},
	}
	for _, c := range cases {
		t.Run(c.name, func(t *testing.T) {
			got := config.Next(c.at, c.failure, now, c.spend)
			if got.Action != c.want || got.Reason != c.reason {
				t.Errorf("%+v, want %v for %q", got, c.want, c.reason)
			}
			if got.Action != retry.Retry && got.Wait != 0 {
				t.Errorf("waits %v for nothing", got.Wait)
			}
			if got.Action == retry.Retry && got.Wait < c.failure.RetryAfter {
				t.Errorf("waits %v where the provider asked for %v", got.Wait, c.failure.RetryAfter)
			}
		})
	}
}

func TestNothingFollowsAStopOrTheEndOfTheTime(t *testing.T) {
	for _, kind := range []fanout.Kind{fanout.StopUser, fanout.StopSuperseded, fanout.Deadline, fanout.TimeoutTotal, fanout.SlowReader, fanout.Internal} {
		at := retry.Progress{Attempts: 3, Tried: 1, Fallbacks: 3, Restart: true, Deadline: time.Now().Add(time.Hour)}
		if got := config.Next(at, &fanout.Failure{Kind: kind}, time.Now(), yes); got.Action != retry.GiveUp {
			t.Errorf("%s: %+v", kind, got)
		}
	}
}

func TestTheBudgetIsAskedOnlyForARetry(t *testing.T) {
	never := func() bool { t.Error("the budget was asked"); return true }
	now := time.Now()
	config.Next(retry.Progress{Attempts: 1, Tried: 1, Fallbacks: 1, Deadline: now.Add(time.Hour)}, &fanout.Failure{Kind: fanout.ServerError}, now, never)
	config.Next(retry.Progress{Attempts: 3, Tried: 1, Deadline: now}, &fanout.Failure{Kind: fanout.ServerError}, now, never)
	config.Next(retry.Progress{Attempts: 3, Tried: 1, Deadline: now.Add(time.Hour)}, &fanout.Failure{Kind: fanout.Auth}, now, never)
}

func TestTheWaitIsARandomPartOfABoundThatDoubles(t *testing.T) {
	for tried, bound := range map[int]time.Duration{
		1: 250 * time.Millisecond, 2: 500 * time.Millisecond, 3: time.Second, 6: 8 * time.Second, 100: 8 * time.Second,
	} {
		shortest, longest := bound, time.Duration(0)
		for range 2000 {
			wait := config.Wait(tried, 0)
			shortest, longest = min(shortest, wait), max(longest, wait)
		}
		if longest >= bound || longest < bound*9/10 || shortest > bound/10 {
			t.Errorf("after %d: %v to %v, want 0 to %v", tried, shortest, longest, bound)
		}
	}
	seen := map[time.Duration]bool{}
	for range 100 {
		wait := config.Wait(1, 2*time.Second)
		if wait < 2*time.Second || wait >= 2250*time.Millisecond {
			t.Errorf("%v is not within the jitter behind 2 s", wait)
		}
		seen[wait] = true
	}
	if len(seen) < 50 {
		t.Error("calls that were told the same moment come back together")
	}
}

// Whatever happens, no retry is granted that makes more of them in the window than a tenth of the
// first attempts and the floor; the expectation is counted anew from every moment on record.
func TestRetriesStayWithinTheBudget(t *testing.T) {
	for seed := range uint64(50) {
		random := rand.New(rand.NewPCG(seed, 1))
		start := time.Now()
		budget := config.NewBudget(start)
		var firsts, retries []int64 // the seconds in which they happened
		within := func(all []int64, second int64) (n int) {
			for _, at := range all {
				if second-at < 10 {
					n++
				}
			}
			return n
		}
		now := start
		for range 1000 {
			now = now.Add(time.Duration(random.IntN(100)) * time.Millisecond)
			if random.IntN(50) == 0 {
				now = now.Add(time.Duration(random.IntN(30)) * time.Second)
			}
			second := int64(now.Sub(start) / time.Second)
			if random.IntN(2) == 0 {
				budget.First(now)
				firsts = append(firsts, second)
				continue
			}
			want := float64(within(retries, second)+1) <= float64(within(firsts, second))/10+5
			if got := budget.Spend(now); got != want {
				t.Fatalf("seed %d, second %d: %v with %d first attempts and %d retries", seed, second, got, within(firsts, second), within(retries, second))
			}
			if want {
				retries = append(retries, second)
			}
		}
		if len(retries) == 0 || len(retries) == 1000-len(firsts) {
			t.Errorf("seed %d tells nothing: %d of %d were granted", seed, len(retries), 1000-len(firsts))
		}
	}
}
