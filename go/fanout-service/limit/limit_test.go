package limit

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/redis/go-redis/v9/logging"
	"go.uber.org/goleak"

	fanout "rex/fanout-service"
)

func TestMain(m *testing.M) {
	logging.Disable() // the Redis client writes to standard error by itself
	goleak.VerifyTestMain(m)
}

var (
	oneKey  = []fanout.Key{fanout.NewKey("first")}
	twoKeys = fanout.NewKeys("first", "second")
)

// askFor is an ask of workspace w for model m at provider p.
func askFor(workspace string) Ask {
	return Ask{Target: fanout.Target{Provider: "p", Model: "m"}, Keys: oneKey, Workspace: workspace}
}

func atMost(n int) Config { return Config{Default: Rule{MaxConcurrent: n}} }

func fixed(n int) Config {
	no := false
	return Config{Default: Rule{MaxConcurrent: n, Adaptive: &no}}
}

func admit(t *testing.T, l *Limiter, ask Ask) *Permit {
	t.Helper()
	p, err := l.Admit(t.Context(), ask)
	if err != nil {
		t.Fatalf("not admitted: %v", err)
	}
	return p
}

// refused is the failure of an ask that must not be admitted.
func refused(t *testing.T, l *Limiter, ask Ask) *fanout.Failure {
	t.Helper()
	p, err := l.Admit(t.Context(), ask)
	if err == nil {
		p.Done(Outcome{Neutral: true})
		t.Fatal("admitted")
	}
	var failure *fanout.Failure
	if !errors.As(err, &failure) {
		t.Fatalf("not a failure: %v", err)
	}
	return failure
}

func failed(kind fanout.Kind) Outcome { return Outcome{Failure: fanout.Fail(kind, "")} }

// wish is a 429 that names a time to wait.
func wish(wait time.Duration) Outcome {
	return Outcome{Failure: &fanout.Failure{Kind: fanout.RateLimited, Status: 429, RetryAfter: wait}}
}

// state is how model m at p stands with the first key.
func state(t *testing.T, l *Limiter) TargetState {
	t.Helper()
	for _, s := range l.Targets() {
		if s.KeyID == oneKey[0].Handle() && s.Model == "m" {
			return s
		}
	}
	t.Fatal("no such target")
	return TargetState{}
}

func TestACallWaitsWhileAllPlacesAreTaken(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := New(atMost(2), nil, nil)
		first, second := admit(t, l, askFor("a")), admit(t, l, askFor("a"))
		told := 0
		ask := askFor("a")
		ask.Waiting = func() { told++ }
		var third *Permit
		go func() { third = admit(t, l, ask) }()
		synctest.Wait()
		if third != nil || told != 1 {
			t.Fatalf("admitted: %v, told %d times", third != nil, told)
		}
		if s := state(t, l); s.InFlight != 2 || s.Limit != 2 || s.Queued != 1 || s.Breaker != "closed" {
			t.Errorf("%+v", s)
		}
		noWait := askFor("a")
		noWait.NoWait = true
		if f := refused(t, l, noWait); f.Kind != fanout.QueueFull {
			t.Error(f)
		}
		first.Done(Outcome{})
		first.Done(Outcome{}) // gives nothing back a second time
		synctest.Wait()
		if third == nil {
			t.Fatal("not admitted")
		}
		if s := state(t, l); s.InFlight != 2 || s.Queued != 0 {
			t.Errorf("%+v", s)
		}
		second.Done(Outcome{})
		third.Done(Outcome{Neutral: true})
		if s := state(t, l); s.InFlight != 0 {
			t.Errorf("%+v", s)
		}
	})
}

func TestAWaiterLeavesWithItsContextOrAtItsDeadline(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := New(atMost(1), nil, nil)
		holder := admit(t, l, askFor("a"))
		cause := fanout.Fail(fanout.StopUser, "")
		ctx, cancel := context.WithCancelCause(t.Context())
		results := make(chan error, 2)
		go func() {
			_, err := l.Admit(ctx, askFor("a"))
			results <- err
		}()
		synctest.Wait()
		cancel(cause)
		if err := <-results; err != cause { //nolint:errorlint // the very cause
			t.Error(err)
		}
		if _, err := l.Admit(ctx, askFor("a")); err != cause { //nolint:errorlint // the very cause
			t.Error(err)
		}
		ask := askFor("a")
		ask.Deadline = time.Now().Add(3 * time.Second)
		begun := time.Now()
		if f := refused(t, l, ask); f.Kind != fanout.Deadline || time.Since(begun) != 3*time.Second {
			t.Error(f, time.Since(begun))
		}
		if s := state(t, l); s.Queued != 0 {
			t.Errorf("%+v", s)
		}
		holder.Done(Outcome{})
		admit(t, l, askFor("a")).Done(Outcome{})
	})
}

// lineUp starts an ask and waits until it waits.
func lineUp(t *testing.T, l *Limiter, ask Ask, served chan<- string, name string) {
	go func() {
		p, err := l.Admit(t.Context(), ask)
		if err != nil {
			served <- name + ": " + err.Error()
			return
		}
		served <- name
		time.Sleep(time.Second)
		p.Done(Outcome{})
	}()
	synctest.Wait()
}

func TestTheWorkspacesTakeTurns(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := New(atMost(1), nil, nil)
		holder := admit(t, l, askFor("crowd"))
		served := make(chan string, 600)
		for range 500 {
			lineUp(t, l, askFor("crowd"), served, "crowd")
		}
		lineUp(t, l, askFor("alone"), served, "alone")
		lineUp(t, l, askFor("other"), served, "other")
		holder.Done(Outcome{})
		turns := map[string]int{}
		for turn := 1; turn <= 502; turn++ {
			if name := <-served; turns[name] == 0 {
				turns[name] = turn
			}
		}
		if turns["alone"] > 3 || turns["other"] > 3 {
			t.Errorf("first turns: %v", turns)
		}
		time.Sleep(2 * time.Second)
	})
}

func TestInAWorkspaceTheEarliestDeadlineGoesFirst(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := New(atMost(1), nil, nil)
		holder := admit(t, l, askFor("a"))
		served := make(chan string, 5)
		for _, seconds := range []int{0, 50, 10, 40, 20} {
			ask := askFor("a")
			if seconds > 0 {
				ask.Deadline = time.Now().Add(time.Duration(seconds) * time.Second)
			}
			lineUp(t, l, ask, served, fmt.Sprint(seconds))
		}
		holder.Done(Outcome{})
		for _, want := range []string{"10", "20", "40", "50", "0"} {
			if name := <-served; name != want {
				t.Errorf("%s, want %s", name, want)
			}
		}
		time.Sleep(2 * time.Second)
	})
}

func TestAFullQueueTakesFromTheLongestLine(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := New(Config{Default: Rule{MaxConcurrent: 1, Queue: 4}}, nil, nil)
		holder := admit(t, l, askFor("crowd"))
		served := make(chan string, 9)
		for i := range 4 {
			ask := askFor("crowd")
			ask.Deadline = time.Now().Add(time.Hour + time.Duration(i)*time.Second)
			lineUp(t, l, ask, served, fmt.Sprint("crowd ", i))
		}
		if f := refused(t, l, askFor("crowd")); f.Kind != fanout.QueueFull {
			t.Error(f)
		}
		lineUp(t, l, askFor("alone"), served, "alone")
		if told := <-served; told != "crowd 3: queue_full: Too many calls wait for the provider (4 wait)." {
			t.Error(told)
		}
		if s := state(t, l); s.Queued != 4 {
			t.Errorf("%+v", s)
		}
		holder.Done(Outcome{})
		for _, want := range []string{"crowd 0", "alone", "crowd 1", "crowd 2"} {
			if name := <-served; name != want {
				t.Errorf("%s, want %s", name, want)
			}
		}
		time.Sleep(2 * time.Second)
	})
}

func TestAModelThatIsFullHoldsNobodyElseUp(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := New(Config{Rules: []Rule{
			{Provider: "p", MaxConcurrent: 3},
			{Provider: "p", Model: "m", MaxConcurrent: 1},
		}}, nil, nil)
		first := admit(t, l, askFor("a"))
		served := make(chan string, 9)
		lineUp(t, l, askFor("a"), served, "m")
		other := askFor("a")
		other.Target.Model = "other"
		second, third := admit(t, l, other), admit(t, l, other)
		lineUp(t, l, other, served, "other") // the key is full
		first.Done(Outcome{})
		if one, two := <-served, <-served; one == two {
			t.Errorf("%s went twice", one)
		}
		if s := state(t, l); s.Limit != 1 || s.Queued != 0 {
			t.Errorf("%+v", s)
		}
		second.Done(Outcome{})
		third.Done(Outcome{})
		time.Sleep(2 * time.Second)
	})
}

func TestTheMostSpecificRuleWinsFieldByField(t *testing.T) {
	yes, no := true, false
	c := Config{
		Default: Rule{MaxConcurrent: 1, Queue: 7, RequestsPerMinute: 9},
		Rules: []Rule{
			{Provider: "p", Model: "m", MaxConcurrent: 3, TokensPerMinute: 30},
			{Provider: "p", MaxConcurrent: 2, Adaptive: &no},
			{Queue: 8, Adaptive: &yes},
			{Provider: "q", Queue: 99},
		},
	}
	if got, want := c.forKey("p"), (Rule{Provider: "p", MaxConcurrent: 2, Adaptive: &no, Queue: 8, RequestsPerMinute: 9}); got != want {
		t.Errorf("%+v", got)
	}
	if got, want := c.forModel("p", "m"), (Rule{Provider: "p", Model: "m", MaxConcurrent: 3, Adaptive: &no, TokensPerMinute: 30}); got != want {
		t.Errorf("%+v", got)
	}
	if got := c.forModel("p", "other"); got.MaxConcurrent != 0 || got.RequestsPerMinute != 0 {
		t.Errorf("the bounds of a key count for each model once more: %+v", got)
	}
	if got := c.forKey("other"); got.MaxConcurrent != 1 || !got.adaptive() {
		t.Errorf("%+v", got)
	}
	if got := (&Config{}).forKey("p"); got.Queue != queueByDefault {
		t.Errorf("%+v", got)
	}
}

func TestRacingCallsNeverExceedTheBound(t *testing.T) {
	l := New(fixed(7), nil, nil)
	race(t, []*Limiter{l}, 7, 500)
	if s := state(t, l); s.InFlight != 0 || s.Queued != 0 {
		t.Errorf("%+v", s)
	}
}

// race sends calls over 8 goroutines for each limiter and watches how many are in flight.
func race(t *testing.T, limiters []*Limiter, bound, calls int) {
	t.Helper()
	var mu sync.Mutex
	inFlight, most, over := 0, 0, 0
	var wg sync.WaitGroup
	work := make(chan int, calls)
	for i := range calls {
		work <- i
	}
	close(work)
	for g := range 8 * len(limiters) {
		wg.Go(func() {
			for i := range work {
				p, err := limiters[g%len(limiters)].Admit(t.Context(), askFor(fmt.Sprint(i%5)))
				if err != nil {
					t.Error(err)
					return
				}
				mu.Lock()
				inFlight++
				most = max(most, inFlight)
				if inFlight > bound {
					over++
				}
				mu.Unlock()
				time.Sleep(time.Duration(i%4) * time.Millisecond)
				mu.Lock()
				inFlight--
				mu.Unlock()
				p.Done(Outcome{Neutral: i%3 == 0})
			}
		})
	}
	wg.Wait()
	if over > 0 || most < bound {
		t.Errorf("%d times over the bound; %d in flight at most, want %d", over, most, bound)
	}
}
