package loadtest_test

import (
	"context"
	"sync"
	"testing"
	"time"

	"rex/fanout-service/loadtest"
)

func TestTheOpenLoopAsksOnWhileNobodyAnswers(t *testing.T) {
	const n = 20
	var mu sync.Mutex
	var all sync.WaitGroup
	all.Add(n)
	meant := make([]time.Time, n)
	loadtest.OpenLoop(t.Context(), 1000, n, func(i int, at time.Time) {
		mu.Lock()
		meant[i] = at
		mu.Unlock()
		all.Done()
		all.Wait() // an answer that comes when all have been asked: a closed loop would wait for ever
	})
	for i := 1; i < n; i++ {
		if gap := meant[i].Sub(meant[i-1]); gap < 999*time.Microsecond || gap > 1001*time.Microsecond {
			t.Errorf("call %d was meant %v after the one before", i, gap)
		}
	}
}

func TestTheOpenLoopCountsFromWhenACallWasMeantHoweverLateItBegins(t *testing.T) {
	begun := time.Now()
	loadtest.OpenLoop(t.Context(), 1e6, 3, func(i int, at time.Time) {
		if late := at.Sub(begun.Add(time.Duration(i) * time.Microsecond)); late < 0 || late > time.Second {
			t.Errorf("call %d was meant %v after the begin", i, late)
		}
	})
}

func TestTheOpenLoopEndsWithItsContext(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	asked := 0
	loadtest.OpenLoop(ctx, .001, 5, func(int, time.Time) {
		asked++
		cancel()
	})
	if asked != 1 {
		t.Errorf("%d calls", asked)
	}
}
