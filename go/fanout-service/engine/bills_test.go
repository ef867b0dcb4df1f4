package engine_test

import (
	"context"
	"fmt"
	"math/rand/v2"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	fanout "rex/fanout-service"
	"rex/fanout-service/engine"
)

// The answer costs once: who leads when it ends pays for it, and who led before pays nothing.
func TestTheEndOfTheCallThatLeadsIsNobodyElses(t *testing.T) {
	ways := map[string]func(e *engine.Engine, leave context.CancelFunc){
		"leaves":    func(_ *engine.Engine, leave context.CancelFunc) { leave() },
		"cancelled": func(e *engine.Engine, _ context.CancelFunc) { e.Cancel("leader", "c0", fanout.StopUser) },
		"late":      nil,
	}
	for name, end := range ways {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				var asked, open, paid atomic.Int64
				e, w := build(letters(50, &asked, &open), parts{cached: true})
				ctx, leave := context.WithCancel(t.Context())
				defer leave()
				var all sync.WaitGroup
				all.Go(func() {
					r := cachedRequest("leader")
					if end == nil {
						r.Deadline = 50 * time.Millisecond
					}
					run, err := e.Start(ctx, r, time.Now())
					if err != nil {
						t.Error(err)
						return
					}
					tr := &trace{}
					_ = run.Read(ctx, func(events []fanout.Event, end *fanout.End) error { // it may have left
						tr.add(time.Now(), events, end)
						return nil
					})
					if name != "leaves" && tr.last(t, "c0").Usage != nil {
						t.Errorf("who left pays %+v, and so does another", tr.last(t, "c0").Usage)
					}
				})
				synctest.Wait()
				for n := range 20 {
					all.Go(func() {
						tr := read(t.Context(), t, e, cachedRequest(fmt.Sprintf("r%d", n)))
						if last := tr.last(t, "c0"); last.CachedAge == fanout.Never {
							paid.Add(last.Usage.OutputTokens)
							tr.expect(t, "c0", "started 0 cache p", "chunk", "finished 1 p")
						} else {
							tr.expect(t, "c0", "started 0 cache p", "chunk", "finished 0 p")
						}
						if len(tr.text("c0")) != 50 {
							t.Errorf("said %q", tr.text("c0"))
						}
					})
				}
				time.Sleep(50 * time.Millisecond)
				if end != nil {
					end(e, leave)
				}
				all.Wait()
				w.settled(t, e)
				if asked.Load() != 1 || paid.Load() != 13 {
					t.Errorf("asked %d times, %d tokens were paid for, want the 13 of the answer", asked.Load(), paid.Load())
				}
			})
		})
	}
}

// Whoever leads an answer, and however often that changes: each attempt is paid for by one call.
func TestEachAttemptOfASharedAnswerIsPaidForOnce(t *testing.T) {
	for seed := range uint64(60) {
		synctest.Test(t, func(t *testing.T) {
			random := rand.New(rand.NewPCG(seed, 1))
			var spent atomic.Int64
			e, w := build(func(ctx context.Context, _ *fanout.Call, _ fanout.Key, sink fanout.Sink) (fanout.Answer, error) {
				sink.Connected()
				for range 20 {
					select {
					case <-time.After(5 * time.Millisecond):
					case <-ctx.Done():
						return fanout.Answer{}, context.Cause(ctx)
					}
					if err := sink.Text([]byte("word"), 4); err != nil {
						return fanout.Answer{}, err
					}
				}
				one := int64(1000)
				spent.Add(one)
				answer := fanout.Answer{FinishReason: fanout.FinishStop, InputTokens: &one, OutputTokens: &one}
				if spent.Load() < 3*one {
					return answer, fanout.Fail(fanout.Incomplete, "")
				}
				return answer, nil
			}, parts{cached: true, config: engine.Config{Retry: generous}})
			var paid atomic.Int64
			var all sync.WaitGroup
			for n := range 12 {
				wait, stay := time.Duration(random.IntN(80))*time.Millisecond, time.Duration(20+random.IntN(300))*time.Millisecond
				all.Go(func() {
					time.Sleep(wait)
					r := cachedRequest(fmt.Sprintf("r%d", n))
					r.Calls[0].Retry = fanout.Retry{Attempts: 3, Restart: true}
					if r.Deadline = stay; n == 0 {
						r.Deadline = time.Hour // one stays, so that the answer is finished
					}
					tr := read(t.Context(), t, e, r)
					for _, event := range tr.events("c0") {
						replayed := event.Type == fanout.Finished && event.CachedAge != fanout.Never
						if event.Usage != nil && !replayed {
							paid.Add(event.Usage.OutputTokens)
						}
					}
				})
			}
			all.Wait()
			w.settled(t, e)
			if spent.Load() != 3000 || paid.Load() != spent.Load() {
				t.Errorf("seed %d: %d tokens were spent, %d paid for", seed, spent.Load(), paid.Load())
			}
		})
	}
}

// What a call has taken from the flight and cannot pass on to its slow reader any more is paid for too.
func TestWhatASlowReaderWasNotToldIsPaidFor(t *testing.T) {
	for name, ends := range map[string]bool{"of an answer that is complete": true, "of an attempt under way": false} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				e, w := build(func(ctx context.Context, _ *fanout.Call, _ fanout.Key, sink fanout.Sink) (fanout.Answer, error) {
					sink.Connected()
					for range 4 { // reasoning and text in turn: pieces that are not joined
						if err := sink.Thought([]byte(strings.Repeat("t", 80)), 80); err != nil {
							return fanout.Answer{}, err
						}
						if err := sink.Text([]byte(strings.Repeat("x", 80)), 80); err != nil {
							return fanout.Answer{}, err
						}
					}
					if !ends {
						return hang(ctx)
					}
					tokens := int64(1000)
					return fanout.Answer{FinishReason: fanout.FinishStop, InputTokens: &tokens, OutputTokens: &tokens}, nil
				}, parts{cached: true, config: engine.Config{MaxPending: 100}})
				slow := cachedRequest("slow")
				slow.Calls[0].Thoughts = true
				run, err := e.Start(t.Context(), slow, time.Now())
				if err != nil {
					t.Fatal(err)
				}
				synctest.Wait()
				var other sync.WaitGroup
				other.Go(func() { // reads all there is, so that the provider goes on
					r := cachedRequest("fast")
					r.Deadline = time.Second
					r.Calls[0].Thoughts = true
					read(t.Context(), t, e, r)
				})
				other.Wait()
				tr, batches := &trace{}, 0
				if err := run.Read(t.Context(), func(events []fanout.Event, end *fanout.End) error {
					tr.add(time.Now(), events, end)
					if batches++; batches == 3 {
						synctest.Wait() // the call has taken the rest, and has no room for it
						e.Cancel("slow", "c0", fanout.StopUser)
					}
					return nil
				}); err != nil {
					t.Fatal(err)
				}
				last := tr.last(t, "c0")
				if last.Failure == nil || last.Usage == nil {
					t.Fatalf("%q, usage %+v", tr.told("c0"), last.Usage)
				}
				want := int64(1000)
				if !ends {
					want = 80 // estimated of all four texts
				}
				if last.Usage.OutputTokens != want {
					t.Errorf("%d tokens were paid for, want %d", last.Usage.OutputTokens, want)
				}
				w.settled(t, e)
			})
		})
	}
}
