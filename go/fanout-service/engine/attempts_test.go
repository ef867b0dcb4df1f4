package engine_test

import (
	"context"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	fanout "rex/fanout-service"
	"rex/fanout-service/engine"
	"rex/fanout-service/limit"
	"rex/fanout-service/retry"
)

// outcomeOf is one answer of a scripted provider: text, and then a failure or the end.
type reply struct {
	text string
	kind fanout.Kind
	wait time.Duration // the provider's Retry-After
}

func (r reply) give(sink fanout.Sink) (fanout.Answer, error) {
	sink.Connected()
	if r.text != "" {
		sink.Progress(true)
		if err := sink.Text([]byte(r.text), len(r.text)); err != nil {
			return fanout.Answer{}, err
		}
	}
	if r.kind != "" {
		return fanout.Answer{}, &fanout.Failure{Kind: r.kind, RetryAfter: r.wait}
	}
	return done, nil
}

// replies gives one reply after the other, the last one again and again.
func replies(all ...reply) script {
	var asked atomic.Int64
	return func(_ context.Context, _ *fanout.Call, _ fanout.Key, sink fanout.Sink) (fanout.Answer, error) {
		return all[min(int(asked.Add(1)), len(all))-1].give(sink)
	}
}

var generous = retry.Config{BudgetFloor: 100}

func TestAnAttemptFollowsAFailureThatMayPass(t *testing.T) {
	fails := func(kind fanout.Kind) reply { return reply{kind: kind} }
	answer := reply{text: "yes"}
	q, r := fanout.Target{Provider: "q", Model: "m"}, fanout.Target{Provider: "r", Model: "m"}
	cases := []struct {
		name      string
		retry     fanout.Retry
		fallbacks []fanout.Target
		p, q, r   script
		want      []string
		text      string
	}{
		{
			"none is asked for", fanout.Retry{Attempts: 1}, nil, replies(fails(fanout.ServerError)), nil, nil,
			[]string{"started 1 first p", "failed 1 server_error"}, "",
		},
		{
			"until it answers", fanout.Retry{Attempts: 3}, nil,
			replies(fails(fanout.Overloaded), fails(fanout.Connection), answer), nil, nil,
			[]string{"started 1 first p", "attempt_failed 1 overloaded", "started 2 retry p", "attempt_failed 2 connection", "started 3 retry p", "chunk", "finished 3 p"}, "yes",
		},
		{
			"until there are none left", fanout.Retry{Attempts: 2}, nil, replies(fails(fanout.ServerError)), nil, nil,
			[]string{"started 1 first p", "attempt_failed 1 server_error", "started 2 retry p", "failed 2 server_error"}, "",
		},
		{
			"but none a failure that lasts", fanout.Retry{Attempts: 3}, nil, replies(fails(fanout.InvalidRequest)), nil, nil,
			[]string{"started 1 first p", "failed 1 invalid_request"}, "",
		},
		{
			"at the next target, which has its own attempts", fanout.Retry{Attempts: 2}, []fanout.Target{q, r},
			replies(fails(fanout.ServerError)), replies(fails(fanout.ContextTooLong)), replies(fails(fanout.Incomplete), answer),
			[]string{
				"started 1 first p", "attempt_failed 1 server_error", "started 2 retry p", "attempt_failed 2 server_error",
				"started 3 fallback q", "attempt_failed 3 context_too_long",
				"started 4 fallback r", "attempt_failed 4 incomplete", "started 5 retry r", "chunk", "finished 5 r",
			}, "yes",
		},
		{
			"at no target after our own fault", fanout.Retry{Attempts: 3}, []fanout.Target{q},
			func(context.Context, *fanout.Call, fanout.Key, fanout.Sink) (fanout.Answer, error) { panic("oh") }, replies(answer), nil,
			[]string{"started 1 first p", "failed 1 internal"}, "",
		},
		{
			"but none text that was given out", fanout.Retry{Attempts: 3}, []fanout.Target{q},
			replies(reply{text: "ye", kind: fanout.Incomplete}), replies(answer), nil,
			[]string{"started 1 first p", "chunk", "failed 1 incomplete"}, "ye",
		},
		{
			"and starts over where it may", fanout.Retry{Attempts: 2, Restart: true}, []fanout.Target{q},
			replies(reply{text: "ye", kind: fanout.Incomplete}, reply{text: "n", kind: fanout.TimeoutStall}), replies(answer), nil,
			[]string{
				"started 1 first p", "chunk", "attempt_failed 1 incomplete", "started 2 restart p", "chunk",
				"attempt_failed 2 timeout.stall", "started 3 fallback q", "chunk", "finished 3 q",
			}, "yes",
		},
	}
	for _, c := range cases {
		t.Run(c.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				e, w := build(slowly(c.p), parts{config: engine.Config{Retry: generous}, more: map[string]script{"q": slowly(c.q), "r": slowly(c.r)}})
				r := request("r", 1)
				r.Calls[0].Retry, r.Calls[0].Fallbacks = c.retry, c.fallbacks
				tr := read(t.Context(), t, e, r)
				tr.expect(t, "c0", c.want...)
				if tr.text("c0") != c.text {
					t.Errorf("said %q, want %q", tr.text("c0"), c.text)
				}
				w.settled(t, e)
				attempts := 0
				for _, event := range tr.events("c0") {
					if event.Type == fanout.Started {
						attempts++
					}
				}
				if len(w.attempts) != attempts || w.calls[0].Attempts != attempts || w.calls[0].Cache != engine.CacheBypass {
					t.Errorf("%d attempts were told, the observer saw %d: %+v", attempts, len(w.attempts), w.calls[0])
				}
			})
		})
	}
}

// slowly lets the reader take what was said before an attempt ends.
func slowly(s script) script {
	return func(ctx context.Context, call *fanout.Call, key fanout.Key, sink fanout.Sink) (fanout.Answer, error) {
		answer, err := s(ctx, call, key, sink)
		time.Sleep(time.Second)
		return answer, err
	}
}

func TestTheFallbacksModelIsAskedFor(t *testing.T) {
	e, w := build(replies(reply{kind: fanout.Auth}), parts{more: map[string]script{
		"q": func(_ context.Context, call *fanout.Call, _ fanout.Key, sink fanout.Sink) (fanout.Answer, error) {
			return reply{text: call.Provider + " " + call.Model}.give(sink)
		},
	}})
	r := request("r", 1)
	r.Calls[0].Fallbacks = []fanout.Target{{Provider: "q", Model: "other"}}
	tr := read(t.Context(), t, e, r)
	if tr.text("c0") != "q other" {
		t.Errorf("asked %q", tr.text("c0"))
	}
	want := fanout.Target{Provider: "q", Model: "other"}
	if last := tr.last(t, "c0"); last.Target != want || w.calls[0].Target != want {
		t.Errorf("answered by %+v, the observer saw %+v", last.Target, w.calls[0].Target)
	}
}

func TestAWaitIsToldAndKept(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		e, w := build(replies(reply{kind: fanout.Overloaded, wait: 20 * time.Second}, reply{text: "yes"}), parts{
			config: engine.Config{Retry: generous}, limits: limit.Config{Default: limit.Rule{MaxConcurrent: 1}},
		})
		r := request("r", 1)
		r.Calls[0].Retry.Attempts = 2
		go func() {
			time.Sleep(10 * time.Second)
			for _, state := range w.limiter.Targets() {
				if state.InFlight != 0 {
					t.Error("a call that sleeps holds its place")
				}
			}
		}()
		tr := read(t.Context(), t, e, r)
		events := tr.events("c0")
		failed, again := events[1], events[2]
		if failed.Wait < 20*time.Second || failed.Wait > 20*time.Second+250*time.Millisecond || again.At-failed.At < failed.Wait {
			t.Errorf("waited %v, told %v", again.At-failed.At, failed.Wait)
		}
		if len(w.attempts) != 2 || w.attempts[0].Wait != failed.Wait || w.attempts[1].Wait != fanout.Never {
			t.Errorf("the observer saw %+v", w.attempts)
		}
	})
}

func TestAWaitBeyondTheDeadlineIsNotBegun(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		e, _ := build(replies(reply{kind: fanout.RateLimited, wait: time.Minute}), parts{config: engine.Config{Retry: generous}})
		r := request("r", 1)
		r.Deadline = 30 * time.Second
		r.Calls[0].Retry.Attempts = 3
		tr := read(t.Context(), t, e, r)
		last := tr.last(t, "c0")
		if tr.kind(t, "c0") != fanout.RateLimited || last.Failure.RetryAfter < time.Minute-time.Second || last.At != 0 {
			t.Errorf("%+v, %v", last, last.Failure)
		}
	})
}

func TestTextNobodyHasTakenIsDroppedWhenTheAnswerStartsOver(t *testing.T) {
	e, w := build(replies(reply{text: "first", kind: fanout.Incomplete}, reply{text: "second"}),
		parts{config: engine.Config{Retry: retry.Config{Base: 1, Cap: 1}}})
	r := request("r", 1)
	r.Calls[0].Retry = fanout.Retry{Attempts: 2, Restart: true}
	run, err := e.Start(t.Context(), r, time.Now())
	if err != nil {
		t.Fatal(err)
	}
	e.Wait() // the call is over before anything is read
	tr := &trace{}
	if err := run.Read(t.Context(), func(events []fanout.Event, end *fanout.End) error {
		tr.add(time.Now(), events, end)
		return nil
	}); err != nil {
		t.Fatal(err)
	}
	tr.expect(t, "c0", "started 1 first p", "attempt_failed 1 incomplete", "started 2 restart p", "chunk", "finished 2 p")
	if tr.text("c0") != "second" {
		t.Errorf("said %q", tr.text("c0"))
	}
	w.settled(t, e)
}

func TestEachAttemptHasItsOwnUsageAndMoments(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		e, w := build(slowly(replies(reply{text: "12345678", kind: fanout.Incomplete}, reply{text: "1234"})), parts{config: engine.Config{Retry: generous}})
		r := request("r", 1)
		r.Calls[0].Retry = fanout.Retry{Attempts: 2, Restart: true}
		tr := read(t.Context(), t, e, r)
		var failed fanout.Event
		for _, event := range tr.events("c0") {
			if event.Type == fanout.AttemptFailed {
				failed = event
			}
		}
		last := tr.last(t, "c0")
		if failed.Usage.OutputTokens != 2 || last.Usage.OutputTokens != 1 {
			t.Errorf("usage %+v and %+v", failed.Usage, last.Usage)
		}
		if failed.Timing.FirstToken != 0 || last.Timing.Admitted < time.Second || last.Timing.FirstToken < last.Timing.Admitted {
			t.Errorf("moments %+v and %+v", failed.Timing, last.Timing)
		}
		w.settled(t, e)
	})
}

func TestThoughtsAreApartFromTheAnswer(t *testing.T) {
	e, w := newEngine(func(_ context.Context, _ *fanout.Call, _ fanout.Key, sink fanout.Sink) (fanout.Answer, error) {
		sink.Connected()
		for _, word := range []string{"hm", " hm"} {
			if err := sink.Thought([]byte(word), 1); err != nil {
				return fanout.Answer{}, err
			}
		}
		return reply{text: "yes"}.give(sink)
	}, engine.Config{})
	tr := read(t.Context(), t, e, request("r", 1))
	tr.expect(t, "c0", "started 1 first p", "thought", "chunk", "finished 1 p")
	if tr.text("c0") != "yes" || tr.last(t, "c0").Usage.OutputTokens != 1 {
		t.Errorf("%q, %+v", tr.text("c0"), tr.last(t, "c0").Usage)
	}
	w.settled(t, e)
}

func TestAnAnswerSpeaksForItsProviderFromItsFirstWord(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		for _, say := range []func(fanout.Sink) error{
			func(sink fanout.Sink) error { return sink.Text([]byte("yes"), 3) },
			func(sink fanout.Sink) error { return sink.Thought([]byte("hm"), 2) },
		} {
			speaks := false
			e, w := newEngine(func(_ context.Context, _ *fanout.Call, _ fanout.Key, sink fanout.Sink) (fanout.Answer, error) {
				if !speaks {
					return fanout.Answer{}, fanout.Fail(fanout.Connection, "")
				}
				if err := say(sink); err != nil {
					return fanout.Answer{}, err
				}
				time.Sleep(10 * time.Second)
				return done, nil
			}, engine.Config{})
			read(t.Context(), t, e, request("fails", 5))
			if got := w.limiter.Targets()[0].Breaker; got != "open" {
				t.Fatal("after five failures the breaker is ", got)
			}
			time.Sleep(20 * time.Second)
			speaks = true
			go func() {
				time.Sleep(5 * time.Second)
				if got := w.limiter.Targets()[0].Breaker; got != "closed" {
					t.Error("in the middle of the answer the breaker is ", got)
				}
			}()
			read(t.Context(), t, e, request("speaks", 1))
			w.settled(t, e)
		}
	})
}
