package limit

import (
	"fmt"
	"math/rand/v2"
	"net/http"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	fanout "rex/fanout-service"
)

func TestNothingIsSentBeforeTheMomentAProviderNamed(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := New(Config{}, nil, nil)
		first, second := admit(t, l, askFor("a")), admit(t, l, askFor("a"))
		first.Done(wish(20 * time.Second))
		second.Done(wish(5 * time.Second)) // an earlier moment does not hold
		opens := time.Now().Add(20 * time.Second)
		if s := state(t, l); s.NotBefore.Before(opens) {
			t.Errorf("%+v", s)
		}
		other := askFor("a")
		other.Target.Model = "other" // the key was told to wait, not the model
		other.Deadline = time.Now().Add(19 * time.Second)
		if f := refused(t, l, other); f.Kind != fanout.RateLimited || f.RetryAfter < 20*time.Second {
			t.Error(f)
		}
		other.Deadline = time.Time{}
		admit(t, l, other).Done(Outcome{})
		if early := time.Until(opens); early > 0 {
			t.Errorf("sent %v early", early)
		}
		elsewhere := askFor("a")
		elsewhere.Target.Provider = "q"
		admit(t, l, elsewhere).Done(Outcome{})
	})
}

func TestAWishReachesThoseWhoWaitAlready(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := New(fixed(2), nil, nil)
		first, second := admit(t, l, askFor("a")), admit(t, l, askFor("a"))
		served := make(chan string, 3)
		for _, seconds := range []int{10, 3600, 20} {
			ask := askFor(fmt.Sprint(seconds))
			ask.Deadline = time.Now().Add(time.Duration(seconds) * time.Second)
			lineUp(t, l, ask, served, fmt.Sprint(seconds))
		}
		begun := time.Now()
		first.Done(wish(time.Minute))
		synctest.Wait()
		if len(served) != 2 {
			t.Errorf("%d know that they cannot go", len(served))
		}
		second.Done(Outcome{})
		<-served
		<-served
		if name := <-served; name != "3600" || time.Since(begun) < time.Minute {
			t.Error(name, time.Since(begun))
		}
		time.Sleep(2 * time.Second)
	})
}

func TestAnEmptyAllowancePacesTheModelThatUsedItUpAndNoOther(t *testing.T) {
	for name, of := range map[string]struct {
		requests, tokens fanout.Bucket
		wait             time.Duration
	}{
		"tokens":                    {fanout.Bucket{Limit: 10, Remaining: 4, Reset: time.Minute}, fanout.Bucket{Limit: 1000, Reset: 10 * time.Second}, 5 * time.Second},
		"requests of a day":         {fanout.Bucket{Limit: 1000, Reset: 6 * time.Hour}, fanout.Bucket{}, 21600 * time.Millisecond},
		"requests, nobody says how": {fanout.Bucket{Limit: fanout.Unknown, Reset: 7 * time.Second}, fanout.Bucket{}, 7 * time.Second},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				l := New(Config{}, nil, nil)
				p := admit(t, l, askFor("a"))
				p.Allowed(fanout.Allowance{Requests: of.requests, Tokens: of.tokens})
				p.Done(Outcome{})
				begun := time.Now()
				ask := askFor("a")
				ask.Tokens = 500
				other := ask
				other.Target.Model = "other"
				admit(t, l, other).Done(Outcome{})
				if time.Since(begun) > 0 {
					t.Errorf("another model waited %v", time.Since(begun))
				}
				ask.Deadline = begun.Add(of.wait - time.Second)
				if f := refused(t, l, ask); f.Kind != fanout.RateLimited {
					t.Error(f)
				}
				ask.Deadline = time.Time{}
				admit(t, l, ask).Done(Outcome{})
				if took := time.Since(begun); took < of.wait || took > of.wait+10*time.Millisecond {
					t.Errorf("sent after %v, want %v", took, of.wait)
				}
			})
		})
	}
}

func TestA503WithAMomentToComeBackAtShutsTheModelAlone(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := New(Config{}, nil, nil)
		p := admit(t, l, askFor("a"))
		p.Done(Outcome{Failure: &fanout.Failure{Kind: fanout.Overloaded, Status: http.StatusServiceUnavailable, RetryAfter: 30 * time.Second}})
		begun := time.Now()
		other := askFor("a")
		other.Target.Model = "other"
		admit(t, l, other).Done(Outcome{})
		if time.Since(begun) > 0 {
			t.Errorf("another model waited %v", time.Since(begun))
		}
		admit(t, l, askFor("a")).Done(Outcome{})
		if time.Since(begun) < 30*time.Second {
			t.Errorf("sent after %v", time.Since(begun))
		}
	})
}

// TestAStormOfRefusalsMeetsShutDoors lets a provider refuse with every kind of wish, and counts what
// reaches it inside a window it named.
func TestAStormOfRefusalsMeetsShutDoors(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := New(Config{Default: Rule{Queue: 5000}}, nil, nil)
		var mu sync.Mutex
		var notBefore, told time.Time
		sent, early, atOnce, most := 0, 0, 0, 0
		var moment time.Time
		wishes := []func() time.Duration{
			func() time.Duration { return 0 },
			func() time.Duration { return 2 * time.Second },
			func() time.Duration { return time.Until(time.Now().Truncate(time.Second).Add(7 * time.Second)) }, // a date
			func() time.Duration { return 40 * time.Second },
		}
		provider := func() Outcome {
			mu.Lock()
			sent++
			// In the very moment of a refusal a call may have been let through before Done told of
			// it. The clock of the test stands still until all that is over, so later is later.
			if time.Now().Before(notBefore) && time.Now().After(told) {
				early++
			}
			if !time.Now().Equal(moment) {
				moment, atOnce = time.Now(), 0
			}
			if atOnce++; !notBefore.IsZero() {
				most = max(most, atOnce)
			}
			refuse := sent%3 == 0 && sent < 400
			named := wishes[sent/3%len(wishes)]
			mu.Unlock()
			if !refuse {
				time.Sleep(time.Duration(500+rand.IntN(1000)) * time.Millisecond)
				return Outcome{}
			}
			time.Sleep(50 * time.Millisecond) // for the refusal to travel
			mu.Lock()
			defer mu.Unlock()
			wait := named()
			if until := time.Now().Add(wait); until.After(notBefore) {
				notBefore, told = until, time.Now()
			}
			return wish(wait)
		}
		var wg sync.WaitGroup
		refusals := atomic.Int64{}
		for i := range 1000 {
			wg.Go(func() {
				time.Sleep(time.Duration(rand.IntN(200)) * time.Second)
				ask := askFor(fmt.Sprint(i % 7))
				for {
					p, err := l.Admit(t.Context(), ask)
					if err != nil {
						t.Error(err)
						return
					}
					o := provider()
					p.Done(o)
					if o.Failure == nil {
						return
					}
					refusals.Add(1)
				}
			})
		}
		wg.Wait()
		if early > 0 || refusals.Load() < 20 {
			t.Errorf("%d of %d were sent before the named moment; %d refusals", early, sent, refusals.Load())
		}
		if most > 50 {
			t.Errorf("%d at one moment", most)
		}
		last := askFor("a")
		admit(t, l, last).Done(wish(time.Hour))
		last.Deadline = time.Now().Add(time.Minute)
		if f := refused(t, l, last); f.Kind != fanout.RateLimited || f.RetryAfter < time.Hour {
			t.Error(f)
		}
		if s := state(t, l); s.InFlight != 0 || s.Queued != 0 {
			t.Errorf("%+v", s)
		}
	})
}

func TestBehindAGateOneGoesFirstAndTheRestFollowInSteps(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := New(Config{}, nil, nil)
		admit(t, l, askFor("a")).Done(wish(10 * time.Second))
		var mu sync.Mutex
		var moments []time.Time
		var wg sync.WaitGroup
		for range 100 {
			wg.Go(func() {
				p := admit(t, l, askFor("a"))
				mu.Lock()
				moments = append(moments, time.Now())
				mu.Unlock()
				time.Sleep(3 * time.Second)
				p.Allowed(fanout.Allowance{})
				time.Sleep(5 * time.Second)
				p.Done(Outcome{})
			})
		}
		wg.Wait()
		first := moments[0]
		within := func(d time.Duration) (n int) {
			for _, m := range moments {
				if m.Sub(first) < d {
					n++
				}
			}
			return n
		}
		if n := within(trialPatience); n != 1 {
			t.Errorf("%d went before word of the first could be awaited", n)
		}
		if n := within(trialPatience + 3*rampStep); n < 4 || n > 10 {
			t.Errorf("%d went in the first steps", n)
		}
		if n := within(trialPatience + rampFor); n != 100 {
			t.Errorf("%d of 100 went in the time of the ramp", n)
		}
	})
}

func TestAnOpenBreakerAnswersAtOnceAndOneProbeGoesThrough(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := New(Config{}, nil, nil)
		for range faultsInARow {
			admit(t, l, askFor("a")).Done(failed(fanout.ServerError))
		}
		begun := time.Now()
		f := refused(t, l, askFor("a"))
		if f.Kind != fanout.CircuitOpen || f.RetryAfter < openAtFirst || time.Since(begun) > 0 {
			t.Error(f, time.Since(begun))
		}
		if s := state(t, l); s.Breaker != "open" {
			t.Errorf("%+v", s)
		}
		other := askFor("a")
		other.Target.Model = "other"
		admit(t, l, other).Done(Outcome{})
		time.Sleep(f.RetryAfter)
		admit(t, l, askFor("a")).Done(Outcome{Neutral: true}) // a probe that was cancelled: another may go

		var probes, turnedAway atomic.Int64
		var wg sync.WaitGroup
		for range 100 {
			wg.Go(func() {
				p, err := l.Admit(t.Context(), askFor("a"))
				if err != nil {
					turnedAway.Add(1)
					return
				}
				probes.Add(1)
				if s := state(t, l); s.Breaker != "half_open" {
					t.Errorf("%+v", s)
				}
				time.Sleep(time.Second)
				p.Done(Outcome{})
			})
		}
		wg.Wait()
		if probes.Load() != 1 || turnedAway.Load() != 99 {
			t.Errorf("%d probes, %d turned away", probes.Load(), turnedAway.Load())
		}
		if s := state(t, l); s.Breaker != "closed" {
			t.Errorf("%+v", s)
		}
	})
}

func TestWhoWaitsForAModelThatFailsIsToldAtOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := New(fixed(5), nil, nil)
		var permits []*Permit
		for range 5 {
			permits = append(permits, admit(t, l, askFor("a")))
		}
		served := make(chan string, 1)
		ask := askFor("a")
		lineUp(t, l, ask, served, "m")
		other := askFor("a")
		other.Target.Model = "other"
		lineUp(t, l, other, served, "other")
		// Both wait for the key; the faults of m give five places back and open the breaker of m.
		for range faultsInARow - 1 {
			permits[0].line.breaker.end(true, time.Now())
		}
		permits[0].Done(failed(fanout.Connection))
		told := map[string]bool{<-served: true, <-served: true}
		if !told["other"] || len(told) != 2 || told["m"] {
			t.Error(told)
		}
		for _, p := range permits[1:] {
			p.Done(Outcome{})
		}
		time.Sleep(2 * time.Second)
	})
}

func TestAnImpatientWorkspaceOpensTheBreakerForNobody(t *testing.T) {
	impatient := failed(fanout.TimeoutFirstToken)
	impatient.Failure.Blameless = true
	synctest.Test(t, func(t *testing.T) {
		l := New(Config{}, nil, nil)
		for range 2 * faultsInARow {
			admit(t, l, askFor("impatient")).Done(impatient)
		}
		admit(t, l, askFor("another")).Done(Outcome{})
		for range faultsInARow {
			admit(t, l, askFor("patient")).Done(failed(fanout.TimeoutFirstToken))
		}
		f := refused(t, l, askFor("another"))
		if f.Kind != fanout.CircuitOpen {
			t.Error(f)
		}
		time.Sleep(f.RetryAfter)
		admit(t, l, askFor("impatient")).Done(impatient) // as a probe it says as little
		if s := state(t, l); s.Breaker != "half_open" {
			t.Errorf("%+v", s)
		}
		admit(t, l, askFor("another")).Done(Outcome{})
	})
}

func TestARefusedKeyIsLeftAloneAndTriedAgain(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := New(Config{}, nil, nil)
		ask := askFor("a")
		ask.Keys = twoKeys
		p := admit(t, l, ask)
		dead := p.Key()
		p.Done(Outcome{Failure: &fanout.Failure{Kind: fanout.Auth, Status: http.StatusUnauthorized}})
		for range 10 {
			p = admit(t, l, ask)
			if p.Key() == dead {
				t.Fatal("a refused key was used")
			}
			p.Done(Outcome{})
		}
		admit(t, l, ask).Done(Outcome{Failure: &fanout.Failure{Kind: fanout.Auth, Status: http.StatusUnauthorized}})
		if f := refused(t, l, ask); f.Kind != fanout.Auth {
			t.Error(f)
		}
		time.Sleep(deadFor)
		probe, second := admit(t, l, ask), admit(t, l, ask)
		if probe.Key() == second.Key() {
			t.Error("two probes of one key")
		}
		if f := refused(t, l, ask); f.Kind != fanout.Auth {
			t.Error(f)
		}
		probe.Done(Outcome{})
		for _, p := range []*Permit{admit(t, l, ask), admit(t, l, ask)} { // alive: no longer one at a time
			p.Done(Outcome{})
		}
		second.Done(Outcome{Failure: &fanout.Failure{Kind: fanout.Auth, Status: http.StatusUnauthorized}})
		for range 10 {
			p = admit(t, l, ask)
			if p.Key() != probe.Key() {
				t.Fatal("a refused key was used")
			}
			p.Done(Outcome{})
		}
	})
}

func TestAForbiddenModelTakesTheKeyFromNobodyElse(t *testing.T) {
	l := New(Config{}, nil, nil)
	for range forbiddenInARow {
		admit(t, l, askFor("a")).Done(forbidden())
	}
	if f := refused(t, l, askFor("a")); f.Kind != fanout.Auth {
		t.Error(f)
	}
	other := askFor("b")
	other.Target.Model = "other"
	admit(t, l, other).Done(Outcome{})
}

func forbidden() Outcome {
	return Outcome{Failure: &fanout.Failure{Kind: fanout.Auth, Status: http.StatusForbidden}}
}

func TestAForbiddenPromptTakesTheModelFromNobody(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := New(Config{}, nil, nil)
		long := admit(t, l, askFor("long"))
		for range 5 {
			admit(t, l, askFor("a")).Done(forbidden())
			admit(t, l, askFor("another")).Done(Outcome{})
		}
		admit(t, l, askFor("a")).Done(forbidden())
		long.Alive() // an answer that begins says as much as one that is over
		admit(t, l, askFor("a")).Done(forbidden())
		admit(t, l, askFor("a")).Done(forbidden())
		if f := refused(t, l, askFor("another")); f.Kind != fanout.Auth {
			t.Error(f)
		}
		long.Done(Outcome{})
		time.Sleep(deadFor)
		admit(t, l, askFor("a")).Done(forbidden()) // it was tried again: now one suffices
		if f := refused(t, l, askFor("another")); f.Kind != fanout.Auth {
			t.Error(f)
		}
		time.Sleep(deadFor)
		admit(t, l, askFor("another")).Done(Outcome{})
		admit(t, l, askFor("a")).Done(forbidden())
		admit(t, l, askFor("another")).Done(Outcome{})
	})
}

func TestTheLeastLoadedKeyThatIsNotToldToWaitIsUsed(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := New(fixed(3), nil, nil)
		ask := askFor("a")
		ask.Keys = twoKeys
		used := map[string][]*Permit{}
		for range 6 {
			p := admit(t, l, ask)
			used[p.Key().ID()] = append(used[p.Key().ID()], p)
		}
		first, second := used[twoKeys[0].ID()], used[twoKeys[1].ID()]
		if len(first) != 3 || len(second) != 3 {
			t.Fatalf("%d and %d", len(first), len(second))
		}
		for range 3 {
			second[0].Done(wish(time.Hour))
			second = second[1:]
		}
		first[0].Done(Outcome{})
		p := admit(t, l, ask)
		if p.Key() != twoKeys[0] {
			t.Error("a key was used that was told to wait")
		}
		served := make(chan string, 1)
		lineUp(t, l, ask, served, "next")
		queued := 0
		for _, s := range l.Targets() {
			queued += s.Queued
		}
		if queued != 1 || len(l.Targets()) != 2 {
			t.Errorf("%+v", l.Targets())
		}
		p.Done(Outcome{})
		if name := <-served; name != "next" {
			t.Error(name)
		}
		first[1].Done(Outcome{})
		first[2].Done(Outcome{})
		time.Sleep(2 * time.Second)
	})
}

func TestWhatIsNotSentAfterAllCostsNothing(t *testing.T) {
	for name, giveBack := range map[string]func(*Permit){
		"unsent":    (*Permit).Unsent,
		"twice":     func(p *Permit) { p.Unsent(); p.Unsent(); p.Done(Outcome{}) },
		"cancelled": func(p *Permit) { p.Done(Outcome{Neutral: true}) }, // it was sent: who knows how far it came
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				l := New(Config{Default: Rule{MaxConcurrent: 1, RequestsPerMinute: 2, TokensPerMinute: 200}}, nil, nil)
				ask := askFor("a")
				ask.Tokens = 100
				admit(t, l, ask).Done(Outcome{})
				giveBack(admit(t, l, ask))
				begun := time.Now()
				admit(t, l, ask).Done(Outcome{})
				if waited := time.Since(begun) > 0; waited != (name == "cancelled") {
					t.Errorf("waited %v", time.Since(begun))
				}
				if s := state(t, l); s.InFlight != 0 {
					t.Errorf("%+v", s)
				}
			})
		})
	}
}

func TestRatesSpreadCallsAndTokensAreCorrected(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := New(Config{Default: Rule{RequestsPerMinute: 10}}, nil, nil)
		begun := time.Now()
		for range 20 {
			admit(t, l, askFor("a")).Done(Outcome{})
		}
		if took := time.Since(begun); took < 59*time.Second || took > 61*time.Second {
			t.Errorf("10 and 10 more took %v, want a minute", took)
		}

		l = New(Config{Default: Rule{TokensPerMinute: 6000}}, nil, nil)
		ask := askFor("a")
		ask.Tokens = 6000
		begun = time.Now()
		p := admit(t, l, ask)
		ask.Deadline = time.Now().Add(10 * time.Second)
		if f := refused(t, l, ask); f.Kind != fanout.RateLimited || f.RetryAfter < 59*time.Second {
			t.Error(f)
		}
		p.Done(Outcome{Tokens: 1000}) // far fewer than estimated: 5000 are left
		ask.Deadline = time.Time{}
		admit(t, l, ask).Done(Outcome{Failure: &fanout.Failure{Kind: fanout.InvalidRequest, Status: 400}})
		if took := time.Since(begun); took < 9*time.Second || took > 11*time.Second {
			t.Errorf("%v, want the 10 s in which 1000 tokens come", took)
		}
		admit(t, l, ask).Done(Outcome{}) // the refused call cost nothing
		if took := time.Since(begun); took > 11*time.Second {
			t.Errorf("%v", took)
		}
	})
}
