package engine_test

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	fanout "rex/fanout-service"
	"rex/fanout-service/engine"
)

func TestEveryCallEndsOnceWithItsTextInOrder(t *testing.T) {
	e, watched := newEngine(func(_ context.Context, call *fanout.Call, _ fanout.Key, sink fanout.Sink) (fanout.Answer, error) {
		sink.Connected()
		for i := range 500 {
			if err := sink.Text(fmt.Appendf(nil, "%s-%d ", call.ID, i), 1); err != nil {
				return fanout.Answer{}, err
			}
		}
		return done, nil
	}, engine.Config{})
	tr := read(t.Context(), t, e, request("r", 8))
	for i := range 8 {
		id := fmt.Sprintf("c%d", i)
		want := ""
		for k := range 500 {
			want += fmt.Sprintf("%s-%d ", id, k)
		}
		if tr.text(id) != want {
			t.Errorf("%s: text differs", id)
		}
		if last := tr.last(t, id); last.Type != fanout.Finished || last.Usage == nil || !last.Usage.Estimated {
			t.Errorf("%s: %+v", id, last)
		}
	}
	if tr.end == nil || tr.end.Calls != 8 || tr.end.Finished != 8 || tr.end.Failed != 0 {
		t.Errorf("end: %+v", tr.end)
	}
	if e.InFlight() != 0 {
		t.Error("the fan-out is still in flight")
	}
	if strings.Contains(watched.log.String(), "secret prompt") || strings.Contains(watched.log.String(), "c0-1") {
		t.Error("the log tells content")
	}
}

func TestEachTimeoutHasItsName(t *testing.T) {
	limits := fanout.Timeouts{Connect: 2 * time.Second, FirstToken: 5 * time.Second, Stall: 3 * time.Second, Total: time.Minute}
	cases := []struct {
		name string
		want fanout.Kind
		at   time.Duration
		run  script
	}{
		{"connect", fanout.TimeoutConnect, 2 * time.Second, func(ctx context.Context, _ *fanout.Call, _ fanout.Key, _ fanout.Sink) (fanout.Answer, error) {
			return hang(ctx)
		}},
		{"first token", fanout.TimeoutFirstToken, 6 * time.Second, func(ctx context.Context, _ *fanout.Call, _ fanout.Key, sink fanout.Sink) (fanout.Answer, error) {
			time.Sleep(time.Second)
			sink.Connected()
			time.Sleep(time.Second)
			sink.Progress(false) // data without anything generated does not count
			return hang(ctx)
		}},
		{"stall", fanout.TimeoutStall, 9 * time.Second, func(ctx context.Context, _ *fanout.Call, _ fanout.Key, sink fanout.Sink) (fanout.Answer, error) {
			sink.Connected()
			time.Sleep(4 * time.Second)
			sink.Progress(true) // reasoning counts as the first token
			time.Sleep(2 * time.Second)
			sink.Progress(false) // any data keeps a stream alive
			return hang(ctx)
		}},
		{"total of a whole answer", fanout.TimeoutTotal, time.Minute, func(ctx context.Context, _ *fanout.Call, _ fanout.Key, sink fanout.Sink) (fanout.Answer, error) {
			sink.Connected()
			return hang(ctx)
		}},
		{"total", fanout.TimeoutTotal, time.Minute, func(ctx context.Context, _ *fanout.Call, _ fanout.Key, sink fanout.Sink) (fanout.Answer, error) {
			sink.Connected()
			for {
				sink.Progress(true)
				select {
				case <-time.After(time.Second):
				case <-ctx.Done():
					return fanout.Answer{}, context.Cause(ctx)
				}
			}
		}},
		{"none", "", 4 * time.Second, func(_ context.Context, _ *fanout.Call, _ fanout.Key, sink fanout.Sink) (fanout.Answer, error) {
			sink.Connected()
			time.Sleep(4 * time.Second)
			return done, sink.Text([]byte("x"), 1)
		}},
	}
	for _, c := range cases {
		t.Run(c.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				e, _ := newEngine(c.run, engine.Config{})
				r := request("r", 1)
				r.Calls[0].Timeouts = limits
				r.Calls[0].Whole = strings.Contains(c.name, "whole")
				tr := read(t.Context(), t, e, r)
				if kind := tr.kind(t, "c0"); kind != c.want {
					t.Errorf("%s, want %s", kind, c.want)
				}
				if at := tr.last(t, "c0").At.Round(time.Second); at != c.at {
					t.Errorf("after %v, want %v", at, c.at)
				}
			})
		})
	}
}

func TestTheDeadlineEndsWhatIsOpen(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		e, _ := newEngine(func(ctx context.Context, call *fanout.Call, _ fanout.Key, sink fanout.Sink) (fanout.Answer, error) {
			sink.Connected()
			if err := sink.Text([]byte("abcde"), 5); err != nil {
				return fanout.Answer{}, err
			}
			if call.ID == "c0" {
				return done, nil
			}
			return hang(ctx)
		}, engine.Config{})
		r := request("r", 3)
		r.Deadline = 2 * time.Second
		tr := read(t.Context(), t, e, r)
		if kind := tr.kind(t, "c0"); kind != "" {
			t.Errorf("a finished call failed with %s", kind)
		}
		for _, id := range []string{"c1", "c2"} {
			last := tr.last(t, id)
			if tr.kind(t, id) != fanout.Deadline || last.At != 2*time.Second {
				t.Errorf("%s: %+v", id, last)
			}
			if last.Usage == nil || last.Usage.OutputTokens != 2 || last.Usage.InputTokens != 4 || !last.Usage.Estimated {
				t.Errorf("%s: usage %+v", id, last.Usage)
			}
		}
		if tr.end == nil || tr.end.Finished != 1 || tr.end.Failed != 2 {
			t.Errorf("end: %+v", tr.end)
		}
	})
}

func TestCancelStopsOneCallOrAll(t *testing.T) {
	cases := []struct {
		call string
		want map[string]fanout.Kind
	}{
		{"c1", map[string]fanout.Kind{"c0": "", "c1": fanout.StopSuperseded, "c2": ""}},
		{"", map[string]fanout.Kind{"c0": fanout.StopSuperseded, "c1": fanout.StopSuperseded, "c2": fanout.StopSuperseded}},
	}
	for _, c := range cases {
		t.Run("call "+c.call, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				e, _ := newEngine(func(ctx context.Context, _ *fanout.Call, _ fanout.Key, sink fanout.Sink) (fanout.Answer, error) {
					sink.Connected()
					select {
					case <-time.After(2 * time.Second):
						return done, nil
					case <-ctx.Done():
						return fanout.Answer{}, context.Cause(ctx)
					}
				}, engine.Config{})
				go func() {
					time.Sleep(time.Second)
					if e.Cancel("other", c.call, fanout.StopUser) || e.Cancel("r", "other", fanout.StopUser) {
						t.Error("something unknown was cancelled")
					}
					if !e.Cancel("r", c.call, fanout.StopSuperseded) {
						t.Error("not found")
					}
				}()
				tr := read(t.Context(), t, e, request("r", 3))
				for id, want := range c.want {
					if kind := tr.kind(t, id); kind != want {
						t.Errorf("%s: %q, want %q", id, kind, want)
					}
				}
				if e.Cancel("r", "", fanout.StopUser) {
					t.Error("a fan-out that is over was cancelled")
				}
			})
		})
	}
}

func TestSilenceIsFilledWithHeartbeats(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		e, _ := newEngine(func(_ context.Context, _ *fanout.Call, _ fanout.Key, sink fanout.Sink) (fanout.Answer, error) {
			sink.Connected()
			time.Sleep(25 * time.Second)
			return done, nil
		}, engine.Config{})
		tr := read(t.Context(), t, e, request("r", 1))
		if len(tr.batches) != 4 || len(tr.batches[1]) != 0 || len(tr.batches[2]) != 0 {
			t.Errorf("batches: %v", tr.batches)
		}
	})
}

func TestASlowReaderSlowsItsCallsAndIsNoStall(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const pieces = 10_000
		var produced, taken, most atomic.Int64
		e, _ := newEngine(func(_ context.Context, _ *fanout.Call, _ fanout.Key, sink fanout.Sink) (fanout.Answer, error) {
			sink.Connected()
			for range pieces {
				if err := sink.Text([]byte("0123456789"), 10); err != nil {
					return fanout.Answer{}, err
				}
				most.Store(max(most.Load(), produced.Add(10)-taken.Load()))
			}
			return done, nil
		}, engine.Config{MaxPending: 1000})
		run, err := e.Start(t.Context(), request("r", 1), time.Now())
		if err != nil {
			t.Fatal(err)
		}
		ended := fanout.Kind("")
		err = run.Read(t.Context(), func(events []fanout.Event, _ *fanout.End) error {
			for _, event := range events {
				if event.Failure != nil {
					ended = event.Failure.Kind
				}
			}
			time.Sleep(25 * time.Second) // longer than the stall timeout
			for _, event := range events {
				taken.Add(int64(len(event.Text)))
			}
			return nil
		})
		// What waits for the reader: one batch being written, and one pending.
		if err != nil || taken.Load() == 0 || most.Load() > 2010 {
			t.Errorf("%v, %d bytes read, at most %d ahead", err, taken.Load(), most.Load())
		}
		if ended != fanout.TimeoutTotal {
			t.Errorf("ended by %q; a slow reader is no stall", ended)
		}
	})
}

func TestAnAnswerHasALimit(t *testing.T) {
	e, _ := newEngine(func(_ context.Context, _ *fanout.Call, _ fanout.Key, sink fanout.Sink) (fanout.Answer, error) {
		for {
			if err := sink.Text([]byte("0123456789"), 10); err != nil {
				return fanout.Answer{}, err
			}
		}
	}, engine.Config{MaxAnswer: 95})
	tr := read(t.Context(), t, e, request("r", 1))
	if tr.kind(t, "c0") != fanout.ResponseTooLarge || len(tr.text("c0")) != 90 {
		t.Errorf("%s after %d bytes", tr.kind(t, "c0"), len(tr.text("c0")))
	}
}

func TestAReaderThatFailsOrLeavesStopsEveryCall(t *testing.T) {
	broken := errors.New("broken pipe")
	for _, how := range []string{"fails", "leaves"} {
		t.Run(how, func(t *testing.T) {
			ctx, leave := context.WithCancel(t.Context())
			defer leave()
			e, watched := newEngine(func(ctx context.Context, _ *fanout.Call, _ fanout.Key, sink fanout.Sink) (fanout.Answer, error) {
				sink.Connected()
				return hang(ctx)
			}, engine.Config{})
			run, err := e.Start(ctx, request("r", 5), time.Now())
			if err != nil {
				t.Fatal(err)
			}
			err = run.Read(ctx, func([]fanout.Event, *fanout.End) error {
				if how == "fails" {
					return broken
				}
				leave()
				return nil
			})
			if err == nil {
				t.Error("Read returned no error")
			}
			e.Wait() // a call that went on would hang here
			if e.InFlight() != 0 {
				t.Errorf("%d in flight", e.InFlight())
			}
			for _, outcome := range watched.outcomes() {
				if outcome != engine.OutcomeReaderGone {
					t.Errorf("ended with %q", outcome)
				}
			}
		})
	}
}

func TestAPanicOrAForeignErrorFailsOneCallOnly(t *testing.T) {
	e, watched := newEngine(func(_ context.Context, call *fanout.Call, _ fanout.Key, _ fanout.Sink) (fanout.Answer, error) {
		switch call.ID {
		case "c0":
			panic("secret of a panic")
		case "c1":
			return fanout.Answer{}, errors.New("dial tcp 10.0.0.1: secret")
		}
		return done, nil
	}, engine.Config{})
	tr := read(t.Context(), t, e, request("r", 3))
	for id, want := range map[string]fanout.Kind{"c0": fanout.Internal, "c1": fanout.Internal, "c2": ""} {
		if kind := tr.kind(t, id); kind != want {
			t.Errorf("%s: %q, want %q", id, kind, want)
		}
	}
	if last := tr.last(t, "c1"); strings.Contains(last.Failure.Message(), "secret") || strings.Contains(watched.log.String(), "secret") {
		t.Errorf("an error told too much: %s\n%s", last.Failure.Message(), watched.log.String())
	}
	watched.settled(t, e) // what panicked gave its permit back
}
