package limit

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"net/http"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	fanout "rex/fanout-service"
)

// TestWhateverComesEveryCallEndsAndEveryPlaceComesBack sends calls of all kinds in random order:
// each is admitted, failed, or leaves with its context; and nothing is in use behind them.
func TestWhateverComesEveryCallEndsAndEveryPlaceComesBack(t *testing.T) {
	for range 60 {
		seed := rand.Uint64()
		t.Run(fmt.Sprint(seed), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) { randomly(t, seed) })
		})
	}
}

func FuzzWhateverComesEveryCallEndsAndEveryPlaceComesBack(f *testing.F) {
	f.Add(uint64(1))
	f.Fuzz(func(t *testing.T, seed uint64) {
		synctest.Test(t, func(t *testing.T) { randomly(t, seed) })
	})
}

func randomly(t *testing.T, seed uint64) {
	random := rand.New(rand.NewPCG(seed, 0))
	l := New(Config{
		Default: Rule{MaxConcurrent: random.IntN(6), Queue: 1 + random.IntN(40), RequestsPerMinute: int64(random.IntN(2) * 600)},
		Rules:   []Rule{{Provider: "p0", Model: "m0", MaxConcurrent: 1 + random.IntN(3), TokensPerMinute: 50_000}},
	}, nil, nil)
	keys := [][]fanout.Key{oneKey, twoKeys}[random.IntN(2)]
	var mu sync.Mutex
	admitted := map[string]int{}
	var wg sync.WaitGroup
	for range 200 {
		ask := Ask{
			Target:    fanout.Target{Provider: fmt.Sprint("p", random.IntN(2)), Model: fmt.Sprint("m", random.IntN(3))},
			Keys:      keys,
			Workspace: fmt.Sprint("w", random.IntN(4)),
			Tokens:    int64(random.IntN(3000)),
			NoWait:    random.IntN(10) == 0,
		}
		start, patience := time.Duration(random.IntN(20_000))*time.Millisecond, time.Duration(random.IntN(30_000))*time.Millisecond
		work := time.Duration(random.IntN(3000)) * time.Millisecond
		hasDeadline := random.IntN(2) == 0
		outcome, allowance, begins := anyOutcome(random), anyAllowance(random), random.IntN(2) == 0
		wg.Go(func() {
			time.Sleep(start)
			if hasDeadline {
				ask.Deadline = time.Now().Add(patience)
			}
			ctx, cancel := context.WithTimeout(t.Context(), patience+time.Hour)
			if !hasDeadline {
				cancel()
				ctx, cancel = context.WithTimeout(t.Context(), patience)
			}
			defer cancel()
			asked := time.Now()
			p, err := l.Admit(ctx, ask)
			var failure *fanout.Failure
			if err != nil && !errors.As(err, &failure) && !errors.Is(err, context.DeadlineExceeded) {
				t.Errorf("neither a failure nor the context's cause: %v", err)
			}
			if waited := time.Since(asked); waited > patience || ask.NoWait && waited > 0 {
				t.Errorf("waited %v of %v, NoWait %v", waited, patience, ask.NoWait)
			}
			if err != nil {
				return
			}
			mu.Lock()
			admitted[ask.Target.Provider]++
			mu.Unlock()
			time.Sleep(work / 4)
			p.Allowed(allowance)
			time.Sleep(work / 2)
			if begins {
				p.Alive()
			}
			time.Sleep(work / 2)
			p.Done(outcome)
		})
	}
	wg.Wait()
	if len(admitted) == 0 {
		t.Error("nobody was admitted")
	}
	for _, s := range l.Targets() {
		if s.InFlight != 0 || s.Queued != 0 {
			t.Errorf("%+v", s)
		}
	}
	l.rooms.Range(func(_, value any) bool {
		r := value.(*room)
		if r.queue.size != 0 || r.queue.turns.Len() != 0 || len(r.queue.of) != 0 {
			t.Errorf("a waiter is left: %+v", r.queue)
		}
		for _, a := range r.accounts {
			if a.bound.inUse != 0 || a.rates.requests.pending != 0 || a.rates.tokens.pending != 0 || a.death.probing {
				t.Errorf("a key is not free: %+v", a)
			}
			for _, line := range a.lines {
				if line.breaker.speaking != 0 {
					t.Errorf("%d answers are taken to come in", line.breaker.speaking)
				}
				if line.breaker.probing || line.gate.phase == gateTrial && line.gate.rampFrom.After(time.Now().Add(time.Minute)) {
					t.Errorf("a probe is left: %+v", line)
				}
			}
		}
		return true
	})
	// And it can be asked on, once all wishes and refusals are over.
	time.Sleep(25 * time.Hour)
	for i := range 2 {
		admit(t, l, Ask{Target: fanout.Target{Provider: fmt.Sprint("p", i), Model: "m0"}, Keys: keys}).Done(Outcome{})
	}
}

func anyOutcome(random *rand.Rand) Outcome {
	wait := time.Duration(random.IntN(4)) * time.Second
	outcomes := []Outcome{
		{}, {}, {}, {Tokens: 100}, {Tokens: 10_000}, {Neutral: true},
		failed(fanout.StopUser), failed(fanout.TimeoutStall), failed(fanout.InvalidRequest), failed(fanout.Connection),
		{Failure: &fanout.Failure{Kind: fanout.Overloaded, Status: http.StatusServiceUnavailable, RetryAfter: wait}},
		{Failure: &fanout.Failure{Kind: fanout.RateLimited, Status: http.StatusTooManyRequests, RetryAfter: wait, Crowded: wait == 0}},
	}
	if random.IntN(50) == 0 {
		return Outcome{Failure: &fanout.Failure{Kind: fanout.Auth, Status: http.StatusUnauthorized}}
	}
	return outcomes[random.IntN(len(outcomes))]
}

func anyAllowance(random *rand.Rand) (a fanout.Allowance) {
	for _, b := range []*fanout.Bucket{&a.Requests, &a.Tokens} {
		switch random.IntN(4) {
		case 0:
			*b = fanout.Bucket{Limit: 100, Remaining: int64(random.IntN(100)), Reset: time.Duration(random.IntN(5000)) * time.Millisecond}
		case 1:
			*b = fanout.Bucket{Limit: fanout.Unknown, Remaining: int64(random.IntN(10)), Reset: time.Second}
		case 2:
			*b = fanout.Bucket{Limit: fanout.Unknown, Remaining: fanout.Unknown}
		}
	}
	return a
}

func TestModelsNobodyUsesAreForgotten(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := New(Config{}, nil, nil)
		held := admit(t, l, askFor("a"))
		broken := askFor("a")
		broken.Target.Model = "broken"
		for range faultsInARow {
			admit(t, l, broken).Done(failed(fanout.ServerError))
		}
		for i := range 5 * maxLanes {
			ask := askFor("a")
			ask.Target.Model = fmt.Sprint("made up ", i)
			admit(t, l, ask).Done(Outcome{})
		}
		if n := len(l.Targets()); n > maxLanes {
			t.Errorf("%d models are remembered", n)
		}
		if s := state(t, l); s.InFlight != 1 {
			t.Errorf("%+v", s)
		}
		if f := refused(t, l, broken); f.Kind != fanout.CircuitOpen {
			t.Error(f)
		}
		held.Done(Outcome{})
	})
}

func TestModelsThatFailedAreForgottenWhenTheyMayBeAskedAgain(t *testing.T) {
	const failures = 3 * maxLanes
	synctest.Test(t, func(t *testing.T) {
		l := New(Config{Rules: []Rule{{Provider: "p", Model: "m", RequestsPerMinute: 1}}}, nil, nil)
		of := func(model string) Ask {
			ask := askFor("a")
			ask.Target.Model = model
			return ask
		}
		for i := range failures {
			failing, times := forbidden(), forbiddenInARow
			switch i % 3 {
			case 1:
				failing, times = failed(fanout.ServerError), faultsInARow
			case 2:
				failing, times = Outcome{Failure: &fanout.Failure{Kind: fanout.Overloaded, RetryAfter: time.Hour}}, 1
			}
			for range times {
				admit(t, l, of(fmt.Sprint("failing ", i))).Done(failing)
			}
		}
		admit(t, l, askFor("a")).Done(Outcome{}) // its rate is used up
		if n := len(l.Targets()); n != failures+1 {
			t.Errorf("%d of %d models are remembered while they fail", n, failures+1)
		}
		time.Sleep(30 * time.Second)
		admit(t, l, of("another")).Done(Outcome{})
		if n, want := len(l.Targets()), failures/3*2+2; n != want {
			t.Errorf("%d models are remembered behind their breakers' rest, want %d", n, want)
		}
		at := askFor("a")
		at.Deadline = time.Now().Add(time.Second)
		if f := refused(t, l, at); f.Kind != fanout.RateLimited {
			t.Error(f) // the rate of a rule comes back by and by, however many models there are
		}
		time.Sleep(deadFor)
		admit(t, l, of("and another")).Done(Outcome{})
		time.Sleep(time.Hour)
		admit(t, l, of("the last")).Done(Outcome{})
		if n := len(l.Targets()); n != 2 {
			t.Errorf("%d models are remembered in the end, want those of a rule and the last", n)
		}
	})
}
