package cache_test

import (
	"context"
	"fmt"
	"math/rand/v2"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	fanout "rex/fanout-service"
	"rex/fanout-service/cache"
)

// TestEveryFollowerReadsTheWholeStoryInOrder tells random stories to followers that come, read and
// pause at random.
func TestEveryFollowerReadsTheWholeStoryInOrder(t *testing.T) {
	for seed := range uint64(30) {
		synctest.Test(t, func(t *testing.T) {
			random := rand.New(rand.NewPCG(seed, 3))
			var told []string
			for n := range 200 {
				switch random.IntN(10) {
				case 0:
					told = append(told, "attempt_failed")
				case 1, 2:
					told = append(told, fmt.Sprintf("thought:%d.%s", n, strings.Repeat("t", random.IntN(9000))))
				default:
					told = append(told, fmt.Sprintf("chunk:%d.%s", n, strings.Repeat("c", random.IntN(9000))))
				}
			}
			told = append(told, "finished")
			c := newFlights()
			pauses := rand.New(rand.NewPCG(seed, 4))
			lead := func(_ context.Context, f *cache.Flight) {
				bytes := 0
				for _, line := range told {
					publish(f, line)
					_, text, _ := strings.Cut(line, ":")
					if bytes += len(text); f.Bytes() != bytes {
						t.Errorf("%d bytes, want %d", f.Bytes(), bytes)
					}
					time.Sleep(time.Duration(pauses.IntN(10)) * time.Millisecond)
				}
			}
			var events []fanout.Event
			for _, line := range told {
				kind, text, _ := strings.Cut(line, ":")
				events = append(events, fanout.Event{Type: fanout.EventType(kind), Text: []byte(text)})
			}
			want := story(events)
			var all sync.WaitGroup
			for range 8 {
				comes, pace := time.Duration(random.IntN(400))*time.Millisecond, random.IntN(100)
				all.Go(func() {
					time.Sleep(comes)
					w := join(c, lead)
					defer w.Leave()
					var got []fanout.Event
					for {
						more, err := w.Next(t.Context(), got)
						got = more
						if err != nil {
							break
						}
						time.Sleep(time.Duration(pace) * time.Millisecond)
					}
					if story(got) != want {
						t.Errorf("seed %d: a follower that came after %v at pace %d ms read something else", seed, comes, pace)
					}
				})
			}
			all.Wait()
		})
	}
}

// TestComingsAndGoingsLeaveNothingBehind lets many follow, read and leave at random, on real
// threads: whoever reads to the end has read a whole story, and whoever leaves has read its start.
func TestComingsAndGoingsLeaveNothingBehind(t *testing.T) {
	c := newFlights()
	const whole = "chunk:0123456789abcdefghij finished"
	lead := func(ctx context.Context, f *cache.Flight) {
		for _, letter := range "0123456789abcdefghij" {
			if err := f.WaitForRoom(ctx, 1, 4); err != nil {
				return // nobody follows: nobody is owed an end
			}
			publish(f, "chunk:"+string(letter))
		}
		publish(f, "finished")
	}
	var all sync.WaitGroup
	for worker := range uint64(16) {
		all.Go(func() {
			random := rand.New(rand.NewPCG(worker, 5))
			for range 300 {
				w := c.Join(context.Background(), "w", digest(random.IntN(3)), time.Time{}, lead)
				var events []fanout.Event
				var err error
				for patience := random.IntN(30); patience > 0 && err == nil; patience-- {
					events, err = w.Next(context.Background(), events)
				}
				w.Leave()
				got := story(events)
				if err == nil && !strings.HasPrefix(whole, got) || err != nil && got != whole {
					t.Errorf("read %q, %v", got, err)
				}
			}
		})
	}
	all.Wait()
	closeCache(t, c)
	if stats := c.Stats(); stats.Flights != 0 || stats.Followers != 0 || stats.FlightBytes != 0 {
		t.Errorf("something is left: %+v", stats)
	}
}

func BenchmarkPublishAndNext(b *testing.B) {
	for _, followers := range []int{1, 10} {
		b.Run(fmt.Sprintf("followers=%d", followers), func(b *testing.B) {
			c := newFlights()
			piece := fanout.Event{Type: fanout.Chunk, Text: []byte(" twenty bytes of text")}
			begin := make(chan struct{})
			var all sync.WaitGroup
			for range followers {
				w := join(c, func(_ context.Context, f *cache.Flight) {
					<-begin
					for range b.N {
						f.Publish(&piece)
					}
					publish(f, "finished")
				})
				all.Go(func() {
					defer w.Leave()
					var events []fanout.Event
					var err error
					for err == nil {
						events, err = w.Next(context.Background(), events[:0])
					}
				})
			}
			b.ReportAllocs()
			b.ResetTimer()
			close(begin)
			all.Wait()
		})
	}
}
