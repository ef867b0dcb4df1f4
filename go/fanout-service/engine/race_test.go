package engine_test

import (
	"context"
	"fmt"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/redis/go-redis/v9"

	fanout "rex/fanout-service"
	"rex/fanout-service/engine"
	"rex/fanout-service/internal/redistest"
	"rex/fanout-service/limit"
	"rex/fanout-service/retry"
)

// runner is a scripted competitor of a race: when it speaks, and how it ends.
type runner struct {
	speaks time.Duration // after it was sent; 0: never
	ends   time.Duration
	kind   fanout.Kind // "" answers
}

func (r runner) run(name string, stopped *atomic.Int64) script {
	return func(ctx context.Context, _ *fanout.Call, _ fanout.Key, sink fanout.Sink) (fanout.Answer, error) {
		sink.Connected()
		wait := func(until time.Duration) error {
			select {
			case <-time.After(until):
				return nil
			case <-ctx.Done():
				stopped.Add(1)
				return context.Cause(ctx)
			}
		}
		if r.speaks > 0 {
			for i := range 3 { // text on both sides of the moment when the other would have spoken
				if err := wait(r.speaks); err != nil {
					return fanout.Answer{}, err
				}
				if err := sink.Text(fmt.Appendf(nil, "%s%d ", name, i), 3); err != nil {
					stopped.Add(1)
					return fanout.Answer{}, err
				}
			}
		}
		if err := wait(r.ends); err != nil {
			return fanout.Answer{}, err
		}
		if r.kind != "" {
			return fanout.Answer{}, fanout.Fail(r.kind, "")
		}
		return done, nil
	}
}

// The hedge is due after 2 s.
func TestTheFirstToSpeakIsTheAnswer(t *testing.T) {
	s := time.Second
	cases := []struct {
		name    string
		p, q    runner
		retries int
		want    []string
		text    string
		stopped int64
	}{
		{
			"the first speaks in time", runner{speaks: s, ends: s}, runner{}, 1,
			[]string{"started 1 first p", "chunk", "finished 1 p"}, "p0 p1 p2 ", 0,
		},
		{
			"the first fails before the hedge is due", runner{ends: s, kind: fanout.ServerError}, runner{}, 1,
			[]string{"started 1 first p", "failed 1 server_error"}, "", 0,
		},
		{
			"both answer, the first sooner", runner{speaks: 3 * s, ends: s}, runner{speaks: 2 * s, ends: s}, 1,
			[]string{"started 1 first p", "started 2 hedge q", "chunk", "attempt_failed 2 stop.superseded", "chunk", "finished 1 p"}, "p0 p1 p2 ", 1,
		},
		{
			"both answer, the hedge sooner", runner{speaks: 5 * s, ends: s}, runner{speaks: 2 * s, ends: s}, 1,
			[]string{"started 1 first p", "started 2 hedge q", "chunk", "attempt_failed 1 stop.superseded", "chunk", "finished 2 q"}, "q0 q1 q2 ", 1,
		},
		{
			"the first fails, the hedge answers", runner{ends: 3 * s, kind: fanout.ServerError}, runner{speaks: 2 * s, ends: s}, 1,
			[]string{"started 1 first p", "started 2 hedge q", "attempt_failed 1 server_error", "chunk", "finished 2 q"}, "q0 q1 q2 ", 0,
		},
		{
			"the hedge fails, the first answers", runner{speaks: 5 * s, ends: s}, runner{ends: s, kind: fanout.Auth}, 1,
			[]string{"started 1 first p", "started 2 hedge q", "attempt_failed 2 auth", "chunk", "finished 1 p"}, "p0 p1 p2 ", 0,
		},
		{
			"both fail, the first sooner", runner{ends: 3 * s, kind: fanout.ServerError}, runner{ends: 3 * s, kind: fanout.Auth}, 1,
			[]string{"started 1 first p", "started 2 hedge q", "attempt_failed 1 server_error", "failed 2 auth"}, "", 0,
		},
		{
			"both fail, the hedge sooner", runner{ends: 5 * s, kind: fanout.ServerError}, runner{ends: s, kind: fanout.Auth}, 1,
			[]string{"started 1 first p", "started 2 hedge q", "attempt_failed 2 auth", "failed 1 server_error"}, "", 0,
		},
		{
			"both fail, and what the first failed of may pass", runner{ends: 3 * s, kind: fanout.ServerError}, runner{ends: 3 * s, kind: fanout.Auth}, 2,
			[]string{
				"started 1 first p", "started 2 hedge q", "attempt_failed 1 server_error", "attempt_failed 2 auth",
				"started 3 retry p", "failed 3 server_error",
			}, "", 0,
		},
		{
			"the winner breaks off", runner{speaks: 20 * s}, runner{speaks: s, ends: s, kind: fanout.Incomplete}, 2,
			[]string{"started 1 first p", "started 2 hedge q", "chunk", "attempt_failed 1 stop.superseded", "chunk", "failed 2 incomplete"}, "q0 q1 q2 ", 1,
		},
	}
	for _, c := range cases {
		t.Run(c.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				var stopped atomic.Int64
				e, w := build(c.p.run("p", &stopped), parts{
					config: engine.Config{Retry: generous}, more: map[string]script{"q": c.q.run("q", &stopped)},
				})
				r := request("r", 1)
				r.Calls[0].Retry.Attempts = c.retries
				r.Calls[0].Hedge = &fanout.Hedge{After: 2 * s, Target: fanout.Target{Provider: "q", Model: "m"}}
				tr := read(t.Context(), t, e, r)
				tr.expect(t, "c0", c.want...)
				if tr.text("c0") != c.text || stopped.Load() != c.stopped {
					t.Errorf("said %q, %d were stopped", tr.text("c0"), stopped.Load())
				}
				w.settled(t, e)
				if n := strings.Count(strings.Join(c.want, "\n"), "started"); len(w.attempts) != n {
					t.Errorf("the observer saw %d attempts, want %d", len(w.attempts), n)
				}
			})
		})
	}
}

func TestALostHedgeIsStoppedAtOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var closed atomic.Int64
		began := time.Now()
		e, w := newEngine(func(ctx context.Context, _ *fanout.Call, _ fanout.Key, sink fanout.Sink) (fanout.Answer, error) {
			sink.Connected()
			if time.Since(began) > 0 { // the hedge
				defer func() { closed.Store(int64(time.Since(began))) }()
				return hang(ctx)
			}
			time.Sleep(3 * time.Second)
			if err := sink.Text([]byte("yes"), 3); err != nil {
				return fanout.Answer{}, err
			}
			time.Sleep(time.Minute)
			return done, nil
		}, engine.Config{})
		r := request("r", 1)
		r.Calls[0].Hedge = &fanout.Hedge{After: time.Second}
		r.Calls[0].Timeouts.Stall = time.Hour
		read(t.Context(), t, e, r)
		if at := time.Duration(closed.Load()); at != 3*time.Second {
			t.Errorf("closed after %v, the other spoke after 3 s", at)
		}
		w.settled(t, e)
	})
}

func TestAHedgeThatWouldHaveToWaitOrIsOverBudgetIsNotMade(t *testing.T) {
	for name, p := range map[string]parts{
		"limit":  {limits: limit.Config{Default: limit.Rule{MaxConcurrent: 1, Queue: 5}}},
		"budget": {config: engine.Config{Retry: retry.Config{BudgetFloor: -1}}},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				var asked atomic.Int64
				e, w := build(func(_ context.Context, _ *fanout.Call, _ fanout.Key, sink fanout.Sink) (fanout.Answer, error) {
					asked.Add(1)
					time.Sleep(5 * time.Second)
					return reply{text: "yes"}.give(sink)
				}, p)
				r := request("r", 1)
				r.Calls[0].Timeouts.Connect = time.Minute
				r.Calls[0].Hedge = &fanout.Hedge{After: time.Second}
				tr := read(t.Context(), t, e, r)
				tr.expect(t, "c0", "started 1 first p", "chunk", "finished 1 p")
				if asked.Load() != 1 || len(w.attempts) != 1 {
					t.Errorf("%d requests, %d attempts", asked.Load(), len(w.attempts))
				}
				w.settled(t, e)
			})
		})
	}
}

// Two attempts that speak in the same instant, many times over, with real time and the race
// detector: whoever wins, the answer is whole and of one of them.
func TestAHedgeThatWasNotSentCostsNothing(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		e, w := build(func(_ context.Context, _ *fanout.Call, _ fanout.Key, sink fanout.Sink) (fanout.Answer, error) {
			time.Sleep(2 * time.Second)
			return reply{text: "yes"}.give(sink)
		}, parts{
			config: engine.Config{Retry: retry.Config{BudgetFloor: -1}}, // the budget has no room for it
			limits: limit.Config{Default: limit.Rule{RequestsPerMinute: 2}},
		})
		r := request("hedged", 1)
		r.Calls[0].Hedge = &fanout.Hedge{After: time.Second}
		read(t.Context(), t, e, r).expect(t, "c0", "started 1 first p", "chunk", "finished 1 p")
		read(t.Context(), t, e, request("next", 1)).expect(t, "c0", "started 1 first p", "chunk", "finished 1 p")
		w.settled(t, e)
	})
}

func TestAnAnswerDoesNotWaitForAHedgeThatAsksForItsTurn(t *testing.T) {
	for name, text := range map[string]string{"it speaks": "yes", "it is over": ""} {
		t.Run(name, func(t *testing.T) {
			// On a machine that stands still Redis may be found to be gone for another reason.
			for range 5 {
				if asksInVain(t, text) {
					return
				}
			}
			t.Error("the answer waited until the hedge had found out that Redis is gone")
		})
	}
}

// asksInVain lets a call answer while its hedge waits for a Redis that has stopped to answer. It
// returns whether the call was over before that was noticed.
func asksInVain(t *testing.T, text string) bool {
	t.Helper()
	server := redistest.New(t)
	client := redis.NewClient(&redis.Options{Addr: server.Addr, ReadTimeout: time.Minute, MaxRetries: -1})
	defer func() { _ = client.Close() }()
	shared := limit.NewShared(client, "t", nil)
	e, w := build(func(context.Context, *fanout.Call, fanout.Key, fanout.Sink) (fanout.Answer, error) {
		return done, nil
	}, parts{limits: limit.Config{Default: limit.Rule{MaxConcurrent: 9}}, shared: shared, more: map[string]script{
		"q": func(_ context.Context, _ *fanout.Call, _ fanout.Key, sink fanout.Sink) (fanout.Answer, error) {
			server.Pause()
			time.Sleep(20 * time.Millisecond)
			return reply{text: text}.give(sink)
		},
	}})
	r := request("r", 1)
	r.Calls[0].Provider = "q"
	r.Calls[0].Hedge = &fanout.Hedge{After: 10 * time.Millisecond, Target: fanout.Target{Provider: "p", Model: "m"}}
	if tr := read(t.Context(), t, e, r); tr.kind(t, "c0") != "" || tr.text("c0") != text {
		t.Errorf("%q", tr.told("c0"))
	}
	inTime := shared.Up()
	server.Resume()
	w.settled(t, e)
	return inTime
}

func TestTextsOfARaceNeverMix(t *testing.T) {
	var number atomic.Int64
	e, w := newEngine(func(_ context.Context, _ *fanout.Call, _ fanout.Key, sink fanout.Sink) (fanout.Answer, error) {
		me := number.Add(1)
		sink.Connected()
		if me%2 == 1 {
			time.Sleep(time.Millisecond)
		}
		for range 20 {
			if err := sink.Text(fmt.Appendf(nil, "%d,", me), 2); err != nil {
				return fanout.Answer{}, err
			}
		}
		return done, nil
	}, engine.Config{Retry: retry.Config{BudgetFloor: 10_000}})
	for n := range 30 {
		r := request(fmt.Sprintf("r%d", n), 10)
		for i := range r.Calls {
			r.Calls[i].Hedge = &fanout.Hedge{After: time.Millisecond}
		}
		tr := read(t.Context(), t, e, r)
		for i := range r.Calls {
			id := fmt.Sprintf("c%d", i)
			text := tr.text(id)
			if name, _, _ := strings.Cut(text, ","); text != strings.Repeat(name+",", 20) {
				t.Fatalf("%q: %q", text, tr.told(id))
			}
		}
	}
	w.settled(t, e)
}
