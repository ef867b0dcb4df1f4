package engine_test

import (
	"context"
	"fmt"
	"net/http"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	fanout "rex/fanout-service"
	"rex/fanout-service/engine"
	"rex/fanout-service/limit"
	"rex/fanout-service/retry"
)

func TestWaitingForATurnIsToldAndCountsAgainstTheDeadlineAlone(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		e, w := build(func(ctx context.Context, _ *fanout.Call, _ fanout.Key, sink fanout.Sink) (fanout.Answer, error) {
			select {
			case <-time.After(2 * time.Second):
				return reply{text: "yes"}.give(sink)
			case <-ctx.Done():
				return fanout.Answer{}, context.Cause(ctx)
			}
		}, parts{limits: limit.Config{Default: limit.Rule{MaxConcurrent: 1, Queue: 10}}})
		r := request("r", 4)
		r.Deadline = 5 * time.Second
		for i := range r.Calls {
			r.Calls[i].Timeouts.Connect, r.Calls[i].Timeouts.Total = 2500*time.Millisecond, 2500*time.Millisecond
		}
		tr := read(t.Context(), t, e, r)
		w.settled(t, e)
		queued, finished, late := 0, 0, 0
		for i := range r.Calls {
			id := fmt.Sprintf("c%d", i)
			last := tr.last(t, id)
			if tr.events(id)[0].Type == fanout.Queued {
				queued++
			}
			switch {
			case last.Type == fanout.Finished:
				finished++
			case last.Failure.Kind == fanout.Deadline:
				late++
			}
			if last.Type == fanout.Finished && last.Timing.Connect-last.Timing.Admitted != 2*time.Second {
				t.Errorf("%s: %+v", id, last.Timing)
			}
		}
		if queued != 3 || finished != 2 || finished+late > 4 {
			t.Errorf("%d queued, %d finished, %d late", queued, finished, late)
		}
	})
}

func TestARefusalToSendIsAnAttemptThatWasNotAdmitted(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		e, w := build(func(_ context.Context, _ *fanout.Call, _ fanout.Key, sink fanout.Sink) (fanout.Answer, error) {
			time.Sleep(2 * time.Second)
			return reply{text: "yes"}.give(sink)
		}, parts{limits: limit.Config{Rules: []limit.Rule{{Provider: "p", MaxConcurrent: 1, Queue: 1}}}, more: map[string]script{"q": replies(reply{text: "no"})}})
		r := request("r", 4)
		for i := range r.Calls {
			r.Calls[i].Fallbacks = []fanout.Target{{Provider: "q", Model: "m"}}
		}
		tr := read(t.Context(), t, e, r)
		w.settled(t, e)
		refused := 0
		for i := range r.Calls {
			id := fmt.Sprintf("c%d", i)
			if tr.text(id) != "no" {
				continue
			}
			refused++
			tr.expect(t, id, "started 1 first p", "attempt_failed 1 queue_full", "started 2 fallback q", "chunk", "finished 2 q")
			if timing := tr.events(id)[1].Timing; timing.Admitted != fanout.Never || timing.Queued == fanout.Never {
				t.Errorf("%+v", timing)
			}
		}
		if refused != 2 {
			t.Errorf("%d were refused", refused)
		}
	})
}

func TestARefusedKeyCostsNoAttempt(t *testing.T) {
	keys := fanout.NewKeys("dead", "dead too", "alive")
	provider := func(dead int) script {
		return func(_ context.Context, _ *fanout.Call, key fanout.Key, sink fanout.Sink) (fanout.Answer, error) {
			for _, refused := range keys[:dead] {
				if key.ID() == refused.ID() {
					return reply{kind: fanout.Auth}.give(sink)
				}
			}
			return reply{text: "yes"}.give(sink)
		}
	}
	for dead := range 4 {
		t.Run(fmt.Sprintf("%d dead", dead), func(t *testing.T) {
			e, w := build(provider(dead), parts{keys: keys, config: engine.Config{Retry: retry.Config{BudgetFloor: -1}}})
			tr := read(t.Context(), t, e, request("r", 1))
			w.settled(t, e)
			want := fanout.Kind("")
			if dead == 3 {
				want = fanout.Auth
			}
			if kind := tr.kind(t, "c0"); kind != want {
				t.Errorf("%q, want %q: %q", kind, want, tr.told("c0"))
			}
			if len(w.attempts) > dead+1 {
				t.Errorf("%d attempts with %d dead keys", len(w.attempts), dead)
			}
			seen := map[string]bool{}
			for _, record := range w.attempts {
				if seen[record.KeyID] {
					t.Errorf("key %s was asked twice", record.KeyID)
				}
				seen[record.KeyID] = true
			}
		})
	}
}

func TestACallIsNotSentAgainWithAKeyThatRefusedIt(t *testing.T) {
	keys := fanout.NewKeys("idle", "busy")
	synctest.Test(t, func(t *testing.T) {
		var asked atomic.Int64
		e, w := build(func(_ context.Context, _ *fanout.Call, key fanout.Key, sink fanout.Sink) (fanout.Answer, error) {
			switch n := asked.Add(1); {
			case n == 2: // keeps its key busy: the other is the better choice from then on
				time.Sleep(10 * time.Second)
			case n > 2 && key.ID() == keys[0].ID(): // not taken for dead after one 403
				return fanout.Answer{}, &fanout.Failure{Kind: fanout.Auth, Status: http.StatusForbidden}
			}
			return reply{text: "yes"}.give(sink)
		}, parts{keys: keys})
		read(t.Context(), t, e, request("before", 1))
		var all sync.WaitGroup
		all.Go(func() { read(t.Context(), t, e, request("long", 1)) })
		synctest.Wait()
		tr := read(t.Context(), t, e, request("forbidden", 1))
		tr.expect(t, "c0", "started 1 first p", "attempt_failed 1 auth", "started 2 retry p", "chunk", "finished 2 p")
		all.Wait()
		w.settled(t, e)
	})
}

func TestTheBudgetOfAProviderBoundsItsRetries(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const calls = 200
		var asked, others atomic.Int64
		e, w := build(func(context.Context, *fanout.Call, fanout.Key, fanout.Sink) (fanout.Answer, error) {
			asked.Add(1)
			return fanout.Answer{}, fanout.Fail(fanout.ContentFilter, "")
		}, parts{more: map[string]script{"q": func(context.Context, *fanout.Call, fanout.Key, fanout.Sink) (fanout.Answer, error) {
			others.Add(1)
			return fanout.Answer{}, &fanout.Failure{Kind: fanout.RateLimited} // moves no circuit breaker
		}}, limits: limit.Config{Default: limit.Rule{Adaptive: new(bool)}}})
		r := request("r", calls)
		for i := range r.Calls {
			r.Calls[i].Retry.Attempts = 3
			if i%2 == 0 {
				r.Calls[i].Provider = "q"
			}
		}
		read(t.Context(), t, e, r)
		w.settled(t, e)
		if n := others.Load(); n <= calls/2 || n > calls/2+calls/20+5 {
			t.Errorf("%d requests of %d calls", n, calls/2)
		}
		if asked.Load() != calls/2 {
			t.Errorf("%d requests that nothing can help", asked.Load())
		}
	})
}
