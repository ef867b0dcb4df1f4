package engine_test

import (
	"context"
	"fmt"
	"math/rand/v2"
	"regexp"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	fanout "rex/fanout-service"
	"rex/fanout-service/engine"
	"rex/fanout-service/limit"
)

// stage is a provider that behaves at random, and notes what a test wants to know of it.
type stage struct {
	mu     sync.Mutex
	random *rand.Rand
	made   int
	begun  []time.Time
}

var randomKinds = []fanout.Kind{
	fanout.RateLimited, fanout.Overloaded, fanout.ServerError, fanout.Connection, fanout.InvalidRequest, fanout.Auth,
	fanout.ContextTooLong, fanout.BadUpstreamResponse, fanout.Incomplete, fanout.ContentFilter,
}

// Stream says its own number again and again, closed by a full stop when the answer is complete.
func (s *stage) Stream(ctx context.Context, call *fanout.Call, _ fanout.Key, sink fanout.Sink) (fanout.Answer, error) {
	s.mu.Lock()
	s.made++
	me := s.made
	s.begun = append(s.begun, time.Now())
	draw := func(n int) int { return s.random.IntN(n) }
	fails, hangs, panics := draw(2) == 0, draw(12) == 0, draw(30) == 0
	words, pause := draw(6), time.Duration(draw(800))*time.Millisecond
	failure := &fanout.Failure{Kind: randomKinds[draw(len(randomKinds))]}
	if draw(4) == 0 {
		failure.RetryAfter = time.Duration(draw(10_000)) * time.Millisecond
	}
	thinks := call.Thoughts && draw(2) == 0
	s.mu.Unlock()

	if draw := pause; draw > 0 {
		select {
		case <-time.After(pause):
		case <-ctx.Done():
			return fanout.Answer{}, context.Cause(ctx)
		}
	}
	sink.Connected()
	if thinks {
		if err := sink.Thought([]byte("hm"), 2); err != nil {
			return fanout.Answer{}, err
		}
	}
	for range words {
		select {
		case <-time.After(pause):
		case <-ctx.Done():
			return fanout.Answer{}, context.Cause(ctx)
		}
		if err := sink.Text(fmt.Appendf(nil, "%d,", me), 2); err != nil {
			return fanout.Answer{}, err
		}
	}
	switch {
	case panics:
		panic("at random")
	case hangs:
		return hang(ctx)
	case fails:
		return fanout.Answer{}, failure
	}
	return done, sink.Text(fmt.Appendf(nil, "%d.", me), 2)
}

var oneVoice = regexp.MustCompile(`^((\d+),)*(\d+)\.$`)

// whole says whether a text is all that one attempt said.
func whole(text string) bool {
	match := oneVoice.FindStringSubmatch(text)
	return match != nil && strings.Trim(strings.ReplaceAll(text, match[3]+",", ""), "") == match[3]+"."
}

// Whatever providers do and whoever stops what: the events of each call follow the contract, an
// answer is whole and of one attempt, attempts are bounded, none begins behind the deadline, and
// nothing is left behind.
func TestEveryCallObeysTheContractWhateverHappens(t *testing.T) {
	finished, failed, hedged, restarted, shared := 0, 0, 0, 0, 0
	for seed := range uint64(300) {
		synctest.Test(t, func(t *testing.T) {
			random := rand.New(rand.NewPCG(seed, 2))
			s := &stage{random: rand.New(rand.NewPCG(seed, 3))}
			e, w := build(s.Stream, parts{
				cached: true, more: map[string]script{"q": s.Stream, "r": s.Stream},
				config: engine.Config{Retry: generous, MaxPending: 8},
				limits: limit.Config{Default: limit.Rule{MaxConcurrent: 1 + random.IntN(8), Queue: random.IntN(20)}},
			})
			r := request("r", 1+random.IntN(8))
			r.Deadline = time.Duration(1+random.IntN(30)) * time.Second
			for i := range r.Calls {
				call := &r.Calls[i]
				call.Retry = fanout.Retry{Attempts: 1 + random.IntN(3), Restart: random.IntN(2) == 0}
				call.Thoughts = random.IntN(3) == 0
				for _, name := range []string{"q", "r"}[:random.IntN(3)] {
					call.Fallbacks = append(call.Fallbacks, fanout.Target{Provider: name, Model: "m"})
				}
				if random.IntN(3) == 0 {
					call.Hedge = &fanout.Hedge{After: time.Duration(1+random.IntN(1000)) * time.Millisecond}
					if random.IntN(2) == 0 {
						call.Hedge.Target = fanout.Target{Provider: "q", Model: "m"}
					}
				}
				if random.IntN(3) == 0 {
					key := strings.Repeat(string(rune('a'+random.IntN(2))), 64)
					call.Cache = &fanout.CacheUse{Key: key, Read: random.IntN(3) > 0, Write: true}
				}
			}
			deadline := time.Now().Add(r.Deadline)
			var stopping sync.WaitGroup
			for range random.IntN(4) {
				id, at := r.Calls[random.IntN(len(r.Calls))].ID, time.Duration(random.IntN(5000))*time.Millisecond
				stopping.Go(func() {
					time.Sleep(at)
					e.Cancel("r", id, fanout.StopUser)
				})
			}
			tr := read(t.Context(), t, e, r)
			stopping.Wait()
			w.settled(t, e)
			for _, at := range s.begun {
				if at.After(deadline) {
					t.Errorf("seed %d: an attempt began behind the deadline", seed)
				}
			}
			for i := range r.Calls {
				call := &r.Calls[i]
				starts, most, restarts := 0, call.Retry.Attempts*(1+len(call.Fallbacks)), call.Retry.Restart
				if call.Cache != nil && call.Cache.Read { // it may have taken over what another asked for
					most, restarts = 3*3, true
				}
				for _, event := range tr.events(call.ID) {
					switch {
					case event.Type == fanout.Started && event.Reason == fanout.Hedged:
						hedged++
					case event.Type == fanout.Started && event.Reason == fanout.Replay:
						shared++
					case event.Type == fanout.Started:
						starts++
						if event.Reason == fanout.Restart {
							restarted++
						}
						if event.Reason == fanout.Restart && !restarts {
							t.Errorf("seed %d, %s: started over unasked", seed, call.ID)
						}
					}
				}
				if starts > most {
					t.Errorf("seed %d, %s: %d attempts", seed, call.ID, starts)
				}
				if tr.kind(t, call.ID) != "" {
					failed++
					continue
				}
				finished++
				if text := tr.text(call.ID); !whole(text) {
					t.Errorf("seed %d, %s: said %q: %q", seed, call.ID, text, tr.told(call.ID))
				}
			}
			if t.Failed() {
				t.Fatalf("seed %d", seed)
			}
		})
		if t.Failed() {
			return
		}
	}
	if min(finished, failed, hedged, restarted, shared) < 20 {
		t.Errorf("too little happened: %d finished, %d failed, %d hedged, %d started over, %d shared", finished, failed, hedged, restarted, shared)
	}
}
