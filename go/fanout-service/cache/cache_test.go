package cache_test

import (
	"context"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"go.uber.org/goleak"

	fanout "rex/fanout-service"
	"rex/fanout-service/cache"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

var quiet = slog.New(slog.DiscardHandler)

// digest is the n-th digest: 64 hex digits.
func digest(n int) string { return fmt.Sprintf("%064x", n) }

func answer(text string) *cache.Entry {
	return &cache.Entry{
		Text: []byte(text), Characters: len([]rune(text)), FinishReason: fanout.FinishStop,
		Usage:  fanout.Usage{InputTokens: 7, OutputTokens: int64(len(text))},
		Target: fanout.Target{Provider: "p", Model: "m"},
	}
}

func get(c *cache.Cache, workspace, digest string) (string, bool) {
	entry, _, ok := c.Get(context.Background(), workspace, digest)
	if !ok {
		return "", false
	}
	return string(entry.Text), true
}

func put(c *cache.Cache, workspace, digest, text string) {
	c.Put(workspace, digest, answer(text), c.Mark(workspace))
}

func TestWhatIsPutIsGotWithItsAgeUntilItExpires(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := cache.New(cache.Config{MaxBytes: 1 << 20, TTL: time.Minute}, nil, quiet)
		put(c, "w", digest(1), "hello")
		time.Sleep(time.Minute - time.Nanosecond)
		entry, age, ok := c.Get(context.Background(), "w", digest(1))
		if !ok || string(entry.Text) != "hello" || age != time.Minute-time.Nanosecond {
			t.Fatalf("got %v %v %v", entry, age, ok)
		}
		if entry.Characters != 5 || entry.Usage.OutputTokens != 5 || entry.Target.Model != "m" || entry.FinishReason != fanout.FinishStop {
			t.Errorf("fields were lost: %+v", entry)
		}
		time.Sleep(time.Nanosecond)
		if _, ok := get(c, "w", digest(1)); ok {
			t.Error("served at the end of its time")
		}
		if stats := c.Stats(); stats.Entries != 0 || stats.Bytes != 0 || stats.MemoryHits != 1 || stats.Misses != 1 {
			t.Errorf("%+v", stats)
		}
	})
}

func TestTheTimeToLiveRunsFromTheMomentTheAnswerWasMade(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := cache.New(cache.Config{MaxBytes: 1 << 20, TTL: time.Minute}, nil, quiet)
		for n, stored := range []time.Duration{-time.Minute, -59 * time.Second, time.Hour} {
			e := answer("x")
			e.StoredAt = time.Now().Add(stored)
			c.Put("w", digest(n), e, c.Mark("w"))
		}
		if stats := c.Stats(); stats.Entries != 2 {
			t.Errorf("kept an answer that was over already: %+v", stats)
		}
		if _, age, ok := c.Get(context.Background(), "w", digest(1)); !ok || age != 59*time.Second {
			t.Errorf("age %v, %v", age, ok)
		}
		// Whose clock is ahead by an hour must not make the answer live longer.
		if _, age, ok := c.Get(context.Background(), "w", digest(2)); !ok || age != 0 {
			t.Errorf("age %v, %v", age, ok)
		}
		time.Sleep(time.Minute)
		if _, ok := get(c, "w", digest(2)); ok {
			t.Error("an answer from the future outlived its time")
		}
	})
}

func TestWhatIsPutIsACopy(t *testing.T) {
	c := cache.New(cache.Config{MaxBytes: 1 << 20}, nil, quiet)
	e := answer("hello")
	e.Thoughts = []byte("hm")
	c.Put("w", digest(1), e, c.Mark("w"))
	e.Text[0], e.Thoughts[0] = 'X', 'X'
	kept, _, _ := c.Get(context.Background(), "w", digest(1))
	if string(kept.Text) != "hello" || string(kept.Thoughts) != "hm" {
		t.Errorf("the entry changed with the caller's buffer: %q %q", kept.Text, kept.Thoughts)
	}
}

func TestNobodysAnswersAreNotKept(t *testing.T) {
	c := cache.New(cache.Config{MaxBytes: 1 << 20}, nil, quiet)
	put(c, "", digest(1), "x")
	put(c, "w", "", "x")
	if stats := c.Stats(); stats.Entries != 0 {
		t.Errorf("%+v", stats)
	}
}

func TestWithoutMemoryNothingIsKeptAndNothingFails(t *testing.T) {
	c := cache.New(cache.Config{}, nil, quiet)
	put(c, "w", digest(1), "x")
	if _, ok := get(c, "w", digest(1)); ok {
		t.Error("kept")
	}
	if err := c.Purge(context.Background(), "w"); err != nil {
		t.Error(err)
	}
}

func TestPurgeForgetsOneWorkspaceAndNoOther(t *testing.T) {
	c := cache.New(cache.Config{MaxBytes: 64 << 20}, nil, quiet)
	for n := range 200 {
		put(c, "w", digest(n), "x")
		put(c, "w2", digest(n), "x")
	}
	if err := c.Purge(context.Background(), "w"); err != nil {
		t.Fatal(err)
	}
	for n := range 200 {
		if _, ok := get(c, "w", digest(n)); ok {
			t.Fatal("still there")
		}
		if _, ok := get(c, "w2", digest(n)); !ok {
			t.Fatal("another workspace's is gone")
		}
	}
}

// TestNoWorkspaceReadsWhatAnotherStored takes workspaces and digests that run into each other when
// they are joined, and puts and gets at random.
func TestNoWorkspaceReadsWhatAnotherStored(t *testing.T) {
	parts := []string{"a", "b", "ab", "ba", "a:b", ":", "a:", ":a", "aa", "0", "00", strings.Repeat("0", 64)}
	for seed := range uint64(20) {
		random := rand.New(rand.NewPCG(seed, 0))
		c := cache.New(cache.Config{MaxBytes: 1 << 20}, nil, quiet)
		stored := map[[2]string]bool{}
		for range 2000 {
			k := [2]string{parts[random.IntN(len(parts))], parts[random.IntN(len(parts))]}
			want := k[0] + " | " + k[1]
			if random.IntN(3) == 0 {
				put(c, k[0], k[1], want)
				stored[k] = true
			}
			if text, ok := get(c, k[0], k[1]); ok != stored[k] || ok && text != want {
				t.Fatalf("seed %d: %q got %q, %v", seed, want, text, ok)
			}
		}
	}
}

// TestAnyHistoryKeepsTheBoundsAndServesOnlyWhatIsFresh compares the cache with the plain truth:
// what was put last, and when.
func TestAnyHistoryKeepsTheBoundsAndServesOnlyWhatIsFresh(t *testing.T) {
	for seed := range uint64(10) {
		synctest.Test(t, func(t *testing.T) {
			random := rand.New(rand.NewPCG(seed, 1))
			maxBytes := int64(1) << (12 + random.IntN(12)) // 4 KiB to 8 MiB: one shard to eight
			c := cache.New(cache.Config{MaxBytes: maxBytes, TTL: time.Minute}, nil, quiet)
			type truth struct {
				text string
				at   time.Time
			}
			last := map[string]truth{}
			for step := range 1500 {
				k := digest(random.IntN(60))
				if random.IntN(2) == 0 {
					text := fmt.Sprint(step) + strings.Repeat("x", random.IntN(1<<random.IntN(16)))
					put(c, "w", k, text)
					last[k] = truth{text, time.Now()}
				}
				if entry, age, ok := c.Get(context.Background(), "w", k); ok {
					want := last[k]
					if string(entry.Text) != want.text || age != time.Since(want.at) || age >= time.Minute {
						t.Fatalf("seed %d, step %d: an older or expired answer of age %v", seed, step, age)
					}
				}
				stats := c.Stats()
				if stats.Bytes > maxBytes || stats.Bytes < 0 || stats.Entries > 60 {
					t.Fatalf("seed %d, step %d: %+v of %d bytes", seed, step, stats, maxBytes)
				}
				time.Sleep(time.Duration(random.IntN(3000)) * time.Millisecond)
			}
			if err := c.Purge(context.Background(), "w"); err != nil {
				t.Fatal(err)
			}
			if stats := c.Stats(); stats.Bytes != 0 || stats.Entries != 0 {
				t.Errorf("seed %d: an empty cache counts %+v", seed, stats)
			}
		})
	}
}

// TestTheLeastRecentlyUsedGoesFirst compares a cache of one shard with a list.
func TestTheLeastRecentlyUsedGoesFirst(t *testing.T) {
	text := strings.Repeat("x", 1000)
	full := cache.New(cache.Config{MaxBytes: 64 << 10}, nil, quiet)
	for n := range 200 {
		put(full, "w", digest(n), text)
	}
	room := int(full.Stats().Entries)
	if room < 30 || room > 65 {
		t.Fatalf("64 KiB hold %d answers of 1000 bytes", room)
	}
	for seed := range uint64(8) {
		random := rand.New(rand.NewPCG(seed, 2))
		c := cache.New(cache.Config{MaxBytes: 64 << 10}, nil, quiet)
		var list []string // the newest last
		for range 3000 {
			k := digest(random.IntN(2 * room))
			at := slices.Index(list, k)
			if at >= 0 {
				list = slices.Delete(list, at, at+1)
			}
			if random.IntN(2) == 0 {
				put(c, "w", k, text)
				list = append(list, k)
			} else {
				if _, ok := get(c, "w", k); ok != (at >= 0) {
					t.Fatalf("seed %d: held %v, want %v", seed, ok, at >= 0)
				}
				if at >= 0 {
					list = append(list, k)
				}
			}
			list = list[max(0, len(list)-room):]
		}
		if c.Stats().Evicted == 0 {
			t.Error("nothing was pushed out")
		}
	}
}

func TestAnAnswerTooLargeForItsPartLeavesTheOthersAlone(t *testing.T) {
	c := cache.New(cache.Config{MaxBytes: 1 << 20}, nil, quiet)
	put(c, "w", digest(1), "small")
	put(c, "w", digest(2), "before")
	put(c, "w", digest(2), strings.Repeat("x", 1<<17))
	if _, ok := get(c, "w", digest(1)); !ok {
		t.Error("the small one is gone")
	}
	if text, ok := get(c, "w", digest(2)); ok {
		t.Errorf("%.10q… is served where a newer answer was put", text)
	}
	put(c, "w", digest(2), strings.Repeat("x", 1<<17-1024))
	if _, ok := get(c, "w", digest(2)); !ok {
		t.Error("an answer that fits is not kept")
	}
}

func BenchmarkGetHit(b *testing.B) {
	c := cache.New(cache.Config{MaxBytes: 64 << 20}, nil, quiet)
	var digests []string
	for n := range 1000 {
		digests = append(digests, digest(n))
		put(c, "w", digest(n), strings.Repeat("x", 2000))
	}
	b.ReportAllocs()
	b.RunParallel(func(p *testing.PB) {
		for n := 0; p.Next(); n++ {
			if _, _, ok := c.Get(context.Background(), "w", digests[n%len(digests)]); !ok {
				b.Fail()
			}
		}
	})
}

func BenchmarkPut(b *testing.B) {
	c := cache.New(cache.Config{MaxBytes: 64 << 20}, nil, quiet)
	e := answer(strings.Repeat("x", 2000))
	b.ReportAllocs()
	for n := 0; b.Loop(); n++ {
		c.Put("w", digest(n), e, c.Mark("w"))
	}
}
