package engine_test

import (
	"context"
	"fmt"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	fanout "rex/fanout-service"
	"rex/fanout-service/engine"
	"rex/fanout-service/limit"
)

// letters is a provider that says so many letters, one each 10 ms, and counts who asked.
func letters(n int, asked, open *atomic.Int64) script {
	return func(ctx context.Context, _ *fanout.Call, _ fanout.Key, sink fanout.Sink) (fanout.Answer, error) {
		asked.Add(1)
		open.Add(1)
		defer open.Add(-1)
		sink.Connected()
		for i := range n {
			select {
			case <-time.After(10 * time.Millisecond):
			case <-ctx.Done():
				return fanout.Answer{}, context.Cause(ctx)
			}
			if err := sink.Text([]byte{byte('a' + i%26)}, 1); err != nil {
				return fanout.Answer{}, err
			}
		}
		return done, nil
	}
}

func cachedRequest(id string) fanout.Request {
	r := request(id, 1)
	cached(&r)
	return r
}

func TestCallsThatAskTheSameShareOneAnswer(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var asked, open atomic.Int64
		e, w := build(letters(100, &asked, &open), parts{cached: true})
		want := strings.Repeat("abcdefghijklmnopqrstuvwxyz", 4)[:100]
		leading := 0
		var all sync.WaitGroup
		var mu sync.Mutex
		for n := range 200 {
			time.Sleep(2 * time.Millisecond)
			all.Go(func() {
				tr := read(t.Context(), t, e, cachedRequest(fmt.Sprintf("r%d", n)))
				last := tr.last(t, "c0")
				if tr.text("c0") != want || last.Usage.OutputTokens != 25 {
					t.Errorf("said %q, usage %+v", tr.text("c0"), last.Usage)
				}
				mu.Lock()
				defer mu.Unlock()
				if last.Attempt == 1 {
					leading++
				} else if last.CachedAge < 0 || last.Timing.Queued < 0 {
					t.Errorf("%+v", last)
				}
			})
		}
		all.Wait()
		w.settled(t, e)
		if asked.Load() != 1 || leading != 1 {
			t.Errorf("the provider was asked %d times, %d calls led", asked.Load(), leading)
		}
		results := map[engine.CacheResult]int{}
		for _, record := range w.calls {
			results[record.Cache]++
		}
		if results[engine.CacheMiss] != 1 || results[engine.CacheShared] != 199 || len(w.attempts) != 1 {
			t.Errorf("%v, %d attempts", results, len(w.attempts))
		}
	})
}

func TestAReplayIsTheAnswerWithItsAge(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var asked, open atomic.Int64
		e, w := build(letters(300, &asked, &open), parts{cached: true, config: engine.Config{MaxPending: 50}})
		first := read(t.Context(), t, e, cachedRequest("a"))
		time.Sleep(time.Minute)
		again := read(t.Context(), t, e, cachedRequest("b"))
		again.expect(t, "c0", "started 0 cache p", "chunk", "finished 0 p")
		last, before := again.last(t, "c0"), first.last(t, "c0")
		if again.text("c0") != first.text("c0") || *last.Usage != *before.Usage || last.FinishReason != before.FinishReason {
			t.Errorf("%+v, was %+v", last, before)
		}
		if last.CachedAge != time.Minute || last.At > time.Second || last.Timing.Queued != 0 || last.Timing.Admitted != fanout.Never {
			t.Errorf("%+v", last)
		}
		if asked.Load() != 1 || w.calls[1].Cache != engine.CacheHit || w.calls[1].Age != time.Minute || w.calls[1].Attempts != 0 {
			t.Errorf("asked %d times, %+v", asked.Load(), w.calls[1])
		}
		other := cachedRequest("c")
		other.Workspace = "another"
		read(t.Context(), t, e, other)
		if asked.Load() != 2 {
			t.Error("another workspace got the answer")
		}
		w.settled(t, e)
	})
}

func TestTheModeOfACallIsKept(t *testing.T) {
	cases := []struct {
		first, second fanout.CacheUse
		asked         int64
	}{
		{fanout.CacheUse{Read: true, Write: true}, fanout.CacheUse{Read: true, Write: true}, 1},
		{fanout.CacheUse{Write: true}, fanout.CacheUse{Read: true}, 1},
		{fanout.CacheUse{Read: true}, fanout.CacheUse{Read: true}, 2},
		{fanout.CacheUse{Read: true, Write: true}, fanout.CacheUse{Write: true}, 2},
		{fanout.CacheUse{Write: true}, fanout.CacheUse{Write: true}, 2},
	}
	for _, c := range cases {
		synctest.Test(t, func(t *testing.T) {
			var asked, open atomic.Int64
			e, w := build(letters(3, &asked, &open), parts{cached: true})
			for n, use := range []fanout.CacheUse{c.first, c.second} {
				r := cachedRequest(fmt.Sprintf("r%d", n))
				use.Key = r.Calls[0].Cache.Key
				r.Calls[0].Cache = &use
				read(t.Context(), t, e, r)
			}
			if asked.Load() != c.asked {
				t.Errorf("%+v then %+v: asked %d times, want %d", c.first, c.second, asked.Load(), c.asked)
			}
			w.settled(t, e)
		})
	}
}

func TestOnlyACompleteAnswerIsKept(t *testing.T) {
	for _, reason := range []fanout.FinishReason{fanout.FinishStop, fanout.FinishLength, fanout.FinishToolCalls} {
		var asked atomic.Int64
		e, w := build(func(_ context.Context, _ *fanout.Call, _ fanout.Key, sink fanout.Sink) (fanout.Answer, error) {
			asked.Add(1)
			_, err := reply{text: "yes"}.give(sink)
			return fanout.Answer{FinishReason: reason}, err
		}, parts{cached: true})
		read(t.Context(), t, e, cachedRequest("a"))
		read(t.Context(), t, e, cachedRequest("b"))
		if kept := asked.Load() == 1; kept != (reason == fanout.FinishStop) {
			t.Errorf("%s: kept: %v", reason, kept)
		}
		w.settled(t, e)
	}
}

func TestAKeptAnswerHoldsNothingOfAttemptsThatFailed(t *testing.T) {
	e, w := build(replies(reply{text: "half", kind: fanout.Incomplete}, reply{text: "whole"}), parts{cached: true, config: engine.Config{Retry: generous}})
	r := cachedRequest("a")
	r.Calls[0].Retry = fanout.Retry{Attempts: 2, Restart: true}
	read(t.Context(), t, e, r)
	if tr := read(t.Context(), t, e, cachedRequest("b")); tr.text("c0") != "whole" {
		t.Errorf("kept %q: %q", tr.text("c0"), tr.told("c0"))
	}
	w.settled(t, e)
}

func TestAFailureReachesAllWhoShareItAndIsNotKept(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var asked atomic.Int64
		e, w := build(func(_ context.Context, _ *fanout.Call, _ fanout.Key, sink fanout.Sink) (fanout.Answer, error) {
			if asked.Add(1) > 1 {
				return reply{text: "yes"}.give(sink)
			}
			if _, err := (reply{text: "ye"}).give(sink); err != nil {
				return fanout.Answer{}, err
			}
			time.Sleep(time.Second)
			return fanout.Answer{}, fanout.Fail(fanout.Incomplete, "")
		}, parts{cached: true})
		var all sync.WaitGroup
		var paid atomic.Int64
		for n := range 20 {
			all.Go(func() {
				tr := read(t.Context(), t, e, cachedRequest(fmt.Sprintf("r%d", n)))
				if tr.kind(t, "c0") != fanout.Incomplete || tr.text("c0") != "ye" {
					t.Errorf("%q", tr.told("c0"))
				}
				if tr.last(t, "c0").Usage != nil {
					paid.Add(1)
				}
			})
		}
		all.Wait()
		if asked.Load() != 1 || paid.Load() != 1 {
			t.Errorf("asked %d times, paid for by %d", asked.Load(), paid.Load())
		}
		if tr := read(t.Context(), t, e, cachedRequest("again")); tr.text("c0") != "yes" {
			t.Errorf("afterwards: %q", tr.told("c0"))
		}
		w.settled(t, e)
	})
}

func TestWhoHasTimeIsNotKeptFromItsTurnByWhoHadLess(t *testing.T) {
	cases := []struct {
		name   string
		before reply // what the provider says to the call before
		after  time.Duration
		turn   time.Duration // when the turn comes, after the follower
	}{
		{"in a queue", reply{text: "before"}, 5 * time.Second, 4500 * time.Millisecond},
		{"that was asked to wait", reply{kind: fanout.Overloaded, wait: 10 * time.Second}, 800 * time.Millisecond, 10300 * time.Millisecond},
	}
	for _, c := range cases {
		t.Run(c.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				var asked atomic.Int64
				e, w := build(func(_ context.Context, _ *fanout.Call, _ fanout.Key, sink fanout.Sink) (fanout.Answer, error) {
					if asked.Add(1) > 1 {
						return reply{text: "yes"}.give(sink)
					}
					time.Sleep(c.after)
					return c.before.give(sink)
				}, parts{cached: true, limits: limit.Config{Default: limit.Rule{MaxConcurrent: 1, Queue: 9}}})
				var all sync.WaitGroup
				all.Go(func() { read(t.Context(), t, e, request("before", 1)) })
				synctest.Wait()
				all.Go(func() {
					r := cachedRequest("leader")
					r.Deadline = time.Second
					read(t.Context(), t, e, r)
				})
				time.Sleep(500 * time.Millisecond)
				all.Go(func() {
					r := cachedRequest("follower")
					r.Deadline = 30 * time.Second
					tr := read(t.Context(), t, e, r)
					tr.expect(t, "c0", "queued", "started 1 first p", "chunk", "finished 1 p") // who left has handed it over
					if at := tr.last(t, "c0").At; at < c.turn || at > c.turn+time.Second {
						t.Errorf("answered after %v, its turn came after %v", at, c.turn)
					}
				})
				all.Wait()
				w.settled(t, e)
			})
		})
	}
}

func TestTheLastWhoSharesAnAnswerClosesIt(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var asked, open atomic.Int64
		e, w := build(letters(1000, &asked, &open), parts{cached: true})
		var all sync.WaitGroup
		for n := range 10 {
			all.Go(func() {
				r := cachedRequest(fmt.Sprintf("r%d", n))
				r.Deadline = time.Duration(n+1) * 100 * time.Millisecond
				if tr := read(t.Context(), t, e, r); tr.kind(t, "c0") != fanout.Deadline || tr.last(t, "c0").At != r.Deadline {
					t.Errorf("%+v", tr.last(t, "c0"))
				}
			})
		}
		time.Sleep(950 * time.Millisecond)
		if open.Load() != 1 {
			t.Error("closed while one still listens")
		}
		time.Sleep(60 * time.Millisecond)
		synctest.Wait()
		if open.Load() != 0 {
			t.Error("open though nobody listens")
		}
		all.Wait()
		w.settled(t, e)
		if w.attempts[0].Outcome != string(fanout.StopSuperseded) {
			t.Errorf("the attempt ended with %q", w.attempts[0].Outcome)
		}
	})
}

func TestASlowReaderSlowsWhatItSharesOnlyAsLongAsItIsAlone(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var produced atomic.Int64
		e, w := build(func(_ context.Context, _ *fanout.Call, _ fanout.Key, sink fanout.Sink) (fanout.Answer, error) {
			sink.Connected()
			for range 1000 {
				if err := sink.Text([]byte("0123456789"), 10); err != nil {
					return fanout.Answer{}, err
				}
				produced.Add(10)
			}
			return done, nil
		}, parts{cached: true, config: engine.Config{MaxPending: 100}})
		run, err := e.Start(t.Context(), cachedRequest("slow"), time.Now())
		if err != nil {
			t.Fatal(err)
		}
		synctest.Wait()
		if n := produced.Load(); n > 500 {
			t.Errorf("%d bytes are ahead of a reader that reads nothing", n)
		}
		if tr := read(t.Context(), t, e, cachedRequest("fast")); len(tr.text("c0")) != 10_000 {
			t.Errorf("the other reader got %d bytes", len(tr.text("c0")))
		}
		text := 0
		if err := run.Read(t.Context(), func(events []fanout.Event, _ *fanout.End) error {
			for _, event := range events {
				text += len(event.Text)
			}
			return nil
		}); err != nil || text != 10_000 {
			t.Errorf("%v, %d bytes", err, text)
		}
		w.settled(t, e)
	})
}

func TestWhatIsSharedIsOnTheBooksUntilTheLastHasLeft(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		e, w := build(func(_ context.Context, _ *fanout.Call, _ fanout.Key, sink fanout.Sink) (fanout.Answer, error) {
			sink.Connected()
			time.Sleep(time.Second)
			for range 100 {
				if err := sink.Text([]byte("0123456789"), 10); err != nil {
					return fanout.Answer{}, err
				}
			}
			return done, nil
		}, parts{cached: true, config: engine.Config{MaxPending: 100}})
		slow, err := e.Start(t.Context(), cachedRequest("slow"), time.Now())
		if err != nil {
			t.Fatal(err)
		}
		if tr := read(t.Context(), t, e, cachedRequest("fast")); len(tr.text("c0")) != 1000 {
			t.Errorf("the fast reader got %d bytes", len(tr.text("c0")))
		}
		synctest.Wait()
		// The answer, and of it what waits in the call of the slow reader.
		if bytes := e.Stats().Bytes; bytes < 1000 || bytes >= 2000 {
			t.Errorf("%d bytes on the books, 1000 are held for who has not read them", bytes)
		}
		if err := slow.Read(t.Context(), func([]fanout.Event, *fanout.End) error { return nil }); err != nil {
			t.Error(err)
		}
		w.settled(t, e)
	})
}

func TestAnAnswerThatStartsOverIsOnTheBooksOnce(t *testing.T) {
	for name, mode := range map[string]fanout.CacheUse{"alone": {Write: true}, "shared": {Read: true, Write: true}} {
		t.Run(name, func(t *testing.T) {
			var e *engine.Engine
			var most atomic.Int64
			e, w := build(func(_ context.Context, _ *fanout.Call, _ fanout.Key, sink fanout.Sink) (fanout.Answer, error) {
				sink.Connected()
				if err := sink.Text([]byte(strings.Repeat("x", 1000)), 1000); err != nil {
					return fanout.Answer{}, err
				}
				most.Store(max(most.Load(), e.Stats().Bytes))
				return fanout.Answer{}, fanout.Fail(fanout.Incomplete, "")
			}, parts{cached: true, config: engine.Config{Retry: generous}})
			r := cachedRequest("a")
			mode.Key = r.Calls[0].Cache.Key
			r.Calls[0].Cache = &mode
			r.Calls[0].Retry = fanout.Retry{Attempts: 3, Restart: true}
			if tr := read(t.Context(), t, e, r); tr.kind(t, "c0") != fanout.Incomplete || tr.last(t, "c0").Attempt != 3 {
				t.Errorf("%q", tr.told("c0"))
			}
			// Held for the cache, for those who may share it, and for the reader.
			if n := most.Load(); n < 1000 || n > 3100 {
				t.Errorf("%d bytes on the books for an answer of 1000", n)
			}
			w.settled(t, e)
		})
	}
}
