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
