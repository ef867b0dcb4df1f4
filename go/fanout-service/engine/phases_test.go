package engine_test

import (
	"context"
	"fmt"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	fanout "rex/fanout-service"
	"rex/fanout-service/engine"
	"rex/fanout-service/limit"
)

// phase is a state that a call can be in for long.
type phase struct {
	name    string
	p, q    func(streams *atomic.Int64) script
	change  func(*fanout.Request)
	parts   parts
	streams int64 // open upstream while the phase lasts
	text    bool  // was given out before
	sent    bool  // the provider has the prompt, and costs may have come of it
	slow    bool  // the reader takes the first text and then nothing until the end
	sleeps  bool  // a wait that would pass the deadline is never begun: see TestAWaitBeyondTheDeadlineIsNotBegun
}

// counted notes how many streams are open, so that a test sees them close.
func counted(streams *atomic.Int64, s script) script {
	return func(ctx context.Context, call *fanout.Call, key fanout.Key, sink fanout.Sink) (fanout.Answer, error) {
		streams.Add(1)
		defer streams.Add(-1)
		return s(ctx, call, key, sink)
	}
}

func hanging(connected bool, text string) func(*atomic.Int64) script {
	return func(streams *atomic.Int64) script {
		return counted(streams, func(ctx context.Context, _ *fanout.Call, _ fanout.Key, sink fanout.Sink) (fanout.Answer, error) {
			if connected {
				sink.Connected()
			}
			if text != "" {
				if err := sink.Text([]byte(text), len(text)); err != nil {
					return fanout.Answer{}, err
				}
			}
			return hang(ctx)
		})
	}
}

func failing(kind fanout.Kind, wait time.Duration) func(*atomic.Int64) script {
	return func(*atomic.Int64) script { return replies(reply{kind: kind, wait: wait}) }
}

func cached(r *fanout.Request) {
	for i := range r.Calls {
		r.Calls[i].Cache = &fanout.CacheUse{Key: strings.Repeat("a", 64), Read: true, Write: true}
	}
}

// phases are all that a call can be in. The call c0 is in the phase from the first second on.
var phases = []phase{
	{name: "queued", p: hanging(false, ""), streams: 1, change: func(r *fanout.Request) {
		r.Calls = append(r.Calls, r.Calls[0])
		r.Calls[1].ID = "c1"
	}, parts: parts{limits: limit.Config{Default: limit.Rule{MaxConcurrent: 1, Queue: 9}}}},
	{name: "connecting", p: hanging(false, ""), streams: 1},
	{name: "before headers", p: hanging(true, ""), streams: 1, sent: true},
	{name: "mid-stream", p: hanging(true, "text"), streams: 1, text: true},
	{name: "waiting for the reader", p: func(streams *atomic.Int64) script {
		return counted(streams, func(_ context.Context, _ *fanout.Call, _ fanout.Key, sink fanout.Sink) (fanout.Answer, error) {
			for {
				if err := sink.Text([]byte("text"), 4); err != nil {
					return fanout.Answer{}, err
				}
			}
		})
	}, streams: 1, text: true, parts: parts{config: engine.Config{MaxPending: 100}}, slow: true},
	{name: "back-off", sleeps: true, p: failing(fanout.Overloaded, 30*time.Minute), change: func(r *fanout.Request) { r.Calls[0].Retry.Attempts = 2 }},
	{name: "hedging", p: hanging(true, ""), q: hanging(true, ""), streams: 2, sent: true, change: func(r *fanout.Request) {
		r.Calls[0].Hedge = &fanout.Hedge{After: 500 * time.Millisecond, Target: fanout.Target{Provider: "q", Model: "m"}}
	}},
	{name: "falling back", p: failing(fanout.Auth, 0), q: hanging(true, ""), streams: 1, sent: true, change: func(r *fanout.Request) {
		r.Calls[0].Fallbacks = []fanout.Target{{Provider: "q", Model: "m"}}
	}},
	{name: "sharing", p: hanging(true, "text"), streams: 1, text: true, change: cached, parts: parts{cached: true}},
	{name: "sharing, before text", p: hanging(true, ""), streams: 1, sent: true, change: cached, parts: parts{cached: true}},
	{name: "sharing, in back-off", sleeps: true, p: failing(fanout.Overloaded, 30*time.Minute), parts: parts{cached: true}, change: func(r *fanout.Request) {
		cached(r)
		r.Calls[0].Retry.Attempts = 2
	}},
}

// ends are the ways in which a call can be ended from outside, at 2 s.
var ends = []struct {
	name string
	end  func(e *engine.Engine, run *engine.Run, leave context.CancelFunc)
	want fanout.Kind // "": the reader is gone, and gets nothing
}{
	{"cancel the call", func(e *engine.Engine, _ *engine.Run, _ context.CancelFunc) { e.Cancel("r", "c0", fanout.StopUser) }, fanout.StopUser},
	{"cancel all", func(e *engine.Engine, _ *engine.Run, _ context.CancelFunc) {
		e.Cancel("r", "", fanout.StopSuperseded)
	}, fanout.StopSuperseded},
	{"stop a slow reader's", func(_ *engine.Engine, run *engine.Run, _ context.CancelFunc) { run.Stop(fanout.SlowReader) }, fanout.SlowReader},
	{"the service leaves", func(e *engine.Engine, _ *engine.Run, _ context.CancelFunc) { e.StopAll() }, fanout.Overloaded},
	{"deadline", nil, fanout.Deadline},
	{"disconnect", func(_ *engine.Engine, _ *engine.Run, leave context.CancelFunc) { leave() }, ""},
}

func TestACallEndsAtOnceInEveryPhase(t *testing.T) {
	for _, p := range phases {
		for _, way := range ends {
			if way.end == nil && p.sleeps {
				continue
			}
			t.Run(p.name+"/"+way.name, func(t *testing.T) {
				synctest.Test(t, func(t *testing.T) {
					var streams atomic.Int64
					made := p.parts
					made.config.Retry, made.config.Heartbeat = generous, time.Hour
					if p.q != nil {
						made.more = map[string]script{"q": p.q(&streams)}
					}
					e, w := build(p.p(&streams), made)
					r := request("r", 1)
					r.Calls[0].Timeouts = fanout.Timeouts{Connect: time.Hour, FirstToken: time.Hour, Stall: time.Hour, Total: 2 * time.Hour}
					if p.change != nil {
						p.change(&r)
					}
					if way.end == nil {
						r.Deadline = 2 * time.Second
					}
					ctx, leave := context.WithCancel(t.Context())
					defer leave()
					received := time.Now()
					run, err := e.Start(ctx, r, received)
					if err != nil {
						t.Fatal(err)
					}
					looked := make(chan struct{})
					go func() {
						defer close(looked)
						time.Sleep(time.Second)
						synctest.Wait()
						if streams.Load() != p.streams {
							t.Errorf("%d streams are open, want %d", streams.Load(), p.streams)
						}
						time.Sleep(time.Second)
						if way.end != nil {
							way.end(e, run, leave)
						}
						time.Sleep(100 * time.Millisecond)
						synctest.Wait()
						if way.name != "cancel the call" && streams.Load() != 0 {
							t.Errorf("%d streams are open 100 ms later", streams.Load())
						}
						if len(r.Calls) > 1 { // the call that the other waited for
							e.Cancel("r", "c1", fanout.StopUser)
						}
					}()
					tr := &trace{}
					err = run.Read(ctx, func(events []fanout.Event, end *fanout.End) error {
						tr.add(received, events, end)
						if p.slow && tr.text("c0") != "" {
							time.Sleep(time.Until(received.Add(2050 * time.Millisecond)))
						}
						return nil
					})
					<-looked
					w.settled(t, e)
					if way.want == "" {
						if err == nil || w.outcomes()[0] != engine.OutcomeReaderGone || w.fanouts[0].Outcome != engine.OutcomeReaderGone {
							t.Errorf("%v, calls ended with %q, the fan-out with %q", err, w.outcomes(), w.fanouts[0].Outcome)
						}
						return
					}
					last := tr.last(t, "c0")
					if kind := tr.kind(t, "c0"); err != nil || kind != way.want {
						t.Errorf("%v, %q: %q", err, kind, tr.told("c0"))
					}
					if last.At < 2*time.Second || last.At > 2100*time.Millisecond {
						t.Errorf("ended after %v", last.At)
					}
					if (last.Usage != nil) != (p.text || p.sent) {
						t.Errorf("usage %+v", last.Usage)
					}
					if (w.fanouts[0].Outcome == engine.OutcomeSlowReader) != (way.want == fanout.SlowReader) {
						t.Errorf("the fan-out ended with %q", w.fanouts[0].Outcome)
					}
				})
			})
		}
	}
}

func TestAWaitThatWouldPassTheDeadlineLeavesTimeForNothing(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		e, w := build(func(ctx context.Context, _ *fanout.Call, _ fanout.Key, _ fanout.Sink) (fanout.Answer, error) {
			return hang(ctx)
		}, parts{config: engine.Config{Retry: generous}})
		r := request("r", 50)
		r.Deadline = 10 * time.Second
		for i := range r.Calls {
			r.Calls[i].Retry.Attempts = 3
			r.Calls[i].Timeouts.Connect = 3 * time.Second
		}
		tr := read(t.Context(), t, e, r)
		for i := range r.Calls {
			last := tr.last(t, fmt.Sprintf("c%d", i))
			if last.At > 10*time.Second {
				t.Errorf("over after %v", last.At)
			}
		}
		w.settled(t, e)
	})
}
