package limit

import (
	"context"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"
)

func TestACallThatLeavesInTheMomentOfItsTurnTakesNoPlaceAlong(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := New(atMost(1), nil, nil)
		for i := range 200 {
			holder := admit(t, l, askFor("a"))
			ctx, cancel := context.WithCancel(t.Context())
			var wg sync.WaitGroup
			wg.Go(func() {
				if p, err := l.Admit(ctx, askFor("a")); err == nil {
					p.Done(Outcome{})
				}
			})
			synctest.Wait()
			if i%2 == 0 { // whatever wakes it first
				holder.Done(Outcome{})
				cancel()
			} else {
				cancel()
				holder.Done(Outcome{})
			}
			wg.Wait()
			if s := state(t, l); s.InFlight != 0 || s.Queued != 0 {
				t.Fatalf("%+v", s)
			}
		}
	})
}

func TestALargeCallThatLeavesLetsTheSmallOnesBehindItGo(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := New(Config{Default: Rule{TokensPerMinute: 600}}, nil, nil)
		large := askFor("a")
		large.Tokens = 590
		admit(t, l, large).Done(Outcome{})
		ctx, cancel := context.WithCancel(t.Context())
		var wg sync.WaitGroup
		wg.Go(func() { _, _ = l.Admit(ctx, large) })
		synctest.Wait()
		begun := time.Now()
		small := askFor("b")
		small.Tokens = 5
		served := make(chan string, 1)
		lineUp(t, l, small, served, "small")
		if len(served) > 0 {
			t.Error("a small call went past a large one, which then may wait for ever")
		}
		cancel()
		wg.Wait()
		if <-served; time.Since(begun) > 0 {
			t.Errorf("it went after %v", time.Since(begun))
		}
		time.Sleep(2 * time.Second)
	})
}

func TestACancelledTrialSaysNothingAboutTheGate(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := New(Config{}, nil, nil)
		admit(t, l, askFor("a")).Done(wish(10 * time.Second))
		trial := admit(t, l, askFor("a"))
		var went atomic.Int64
		var wg sync.WaitGroup
		for range 10 {
			wg.Go(func() {
				p := admit(t, l, askFor("a"))
				went.Add(1)
				time.Sleep(5 * time.Second)
				p.Done(Outcome{})
			})
		}
		synctest.Wait()
		trial.Done(Outcome{Neutral: true})
		time.Sleep(trialPatience / 2)
		synctest.Wait()
		if n := went.Load(); n != 1 {
			t.Errorf("%d went, want the next trial alone", n)
		}
		wg.Wait()
	})
}
