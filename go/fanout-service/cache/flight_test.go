package cache_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"math/rand/v2"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	fanout "rex/fanout-service"
	"rex/fanout-service/cache"
)

// publish is how tests tell a story: "chunk:text", "thought:text", or the name of another event.
func publish(f *cache.Flight, story ...string) {
	for _, line := range story {
		kind, text, _ := strings.Cut(line, ":")
		e := fanout.Event{Type: fanout.EventType(kind), Text: []byte(text)}
		if e.Type == fanout.Failed {
			e.Failure = fanout.Fail(fanout.Kind(text), "")
			e.Text = nil
		}
		f.Publish(&e)
		clear(e.Text) // whatever is kept must have been copied
	}
}

// read follows to the end and returns the story, neighbouring texts joined.
func read(ctx context.Context, w *cache.Follower) (string, error) {
	var events []fanout.Event
	for {
		more, err := w.Next(ctx, nil)
		events = append(events, more...)
		if errors.Is(err, io.EOF) {
			return story(events), nil
		}
		if err != nil {
			return story(events), err
		}
	}
}

func story(events []fanout.Event) string {
	var lines []string
	for i, e := range events {
		text := string(e.Text)
		if e.Failure != nil {
			text = string(e.Failure.Kind)
		}
		if i > 0 && len(e.Text) > 0 && events[i-1].Type == e.Type {
			lines[len(lines)-1] += text
			continue
		}
		lines = append(lines, strings.TrimSuffix(string(e.Type)+":"+text, ":"))
	}
	return strings.Join(lines, " ")
}

func join(c *cache.Cache, lead func(context.Context, *cache.Flight)) *cache.Follower {
	return c.Join(context.Background(), "w", digest(1), time.Time{}, lead)
}

func nobodyLeads(t *testing.T) func(context.Context, *cache.Flight) {
	return func(context.Context, *cache.Flight) { t.Error("a second lead began") }
}

// closeCache waits for the leads.
func closeCache(t *testing.T, c *cache.Cache) {
	t.Helper()
	if err := c.Close(t.Context()); err != nil {
		t.Error(err)
	}
}

type spanKey struct{}

func newFlights() *cache.Cache { return cache.New(cache.Config{}, nil, quiet) }

func TestTwoHundredWhoAskTheSameShareOneLead(t *testing.T) {
	c := newFlights()
	const followers = 200
	var leads atomic.Int32
	var leaders atomic.Int32
	all := make(chan struct{})
	var joined, done sync.WaitGroup
	joined.Add(followers)
	for range followers {
		done.Go(func() {
			w := join(c, func(_ context.Context, f *cache.Flight) {
				leads.Add(1)
				publish(f, "started", "chunk:one ", "chunk:two ")
				<-all
				publish(f, "thought:hm", "chunk:three", "finished")
			})
			defer w.Leave()
			if w.Leads() {
				leaders.Add(1)
			}
			joined.Done()
			got, err := read(context.Background(), w)
			if want := "started chunk:one two  thought:hm chunk:three finished"; got != want || err != nil {
				t.Errorf("got %q, %v", got, err)
			}
		})
	}
	joined.Wait()
	if stats := c.Stats(); stats.Flights != 1 || stats.Followers != followers {
		t.Errorf("%+v", stats)
	}
	close(all)
	done.Wait()
	if leads.Load() != 1 || leaders.Load() != 1 {
		t.Errorf("%d leads by %d leaders", leads.Load(), leaders.Load())
	}
	if stats := c.Stats(); stats.Flights != 0 || stats.Followers != 0 || stats.FlightBytes != 0 {
		t.Errorf("something is left: %+v", stats)
	}
}

func TestWhoStartedItMayLeaveAndTheOthersGetAll(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := newFlights()
		ctx, cancel := context.WithCancel(context.WithValue(t.Context(), spanKey{}, "7"))
		first := c.Join(ctx, "w", digest(1), time.Time{}, func(ctx context.Context, f *cache.Flight) {
			time.Sleep(time.Second)
			if ctx.Err() != nil || ctx.Value(spanKey{}) != "7" {
				t.Errorf("the lead's context: %v, value %v", ctx.Err(), ctx.Value(spanKey{}))
			}
			publish(f, "chunk:all", "finished")
		})
		second := join(c, nobodyLeads(t))
		cancel()
		first.Leave()
		if got, err := read(t.Context(), second); got != "chunk:all finished" || err != nil {
			t.Errorf("got %q, %v", got, err)
		}
		second.Leave()
	})
}

func TestTheLastOneOutEndsTheLead(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := newFlights()
		ended := make(chan error, 1)
		lead := func(ctx context.Context, f *cache.Flight) {
			publish(f, "chunk:x")
			<-ctx.Done()
			publish(f, "chunk:y")
			ended <- context.Cause(ctx)
		}
		first, second := join(c, lead), join(c, nobodyLeads(t))
		first.Leave()
		first.Leave() // a second time is not another one's
		synctest.Wait()
		select {
		case <-ended:
			t.Fatal("the lead ended while somebody followed")
		default:
		}
		second.Leave()
		synctest.Wait() // no time passes
		select {
		case err := <-ended:
			if !errors.Is(err, cache.ErrDeserted) {
				t.Errorf("cause %v", err)
			}
		default:
			t.Fatal("the lead goes on for nobody")
		}
		if stats := c.Stats(); stats.Flights != 0 || stats.FlightBytes != 0 {
			t.Errorf("a flight of nobody: %+v", stats)
		}
		if _, err := second.Next(t.Context(), nil); !errors.Is(err, io.EOF) {
			t.Errorf("who left reads on: %v", err)
		}
	})
}

func TestADesertedFlightIsNotJoined(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := newFlights()
		first := join(c, func(ctx context.Context, _ *cache.Flight) {
			<-ctx.Done()
			time.Sleep(time.Second) // closing what it has open takes its time
		})
		first.Leave()
		second := join(c, func(_ context.Context, f *cache.Flight) { publish(f, "chunk:fresh", "finished") })
		if !second.Leads() {
			t.Error("joined a flight that is being given up")
		}
		if got, _ := read(t.Context(), second); got != "chunk:fresh finished" {
			t.Errorf("got %q", got)
		}
		second.Leave()
		closeCache(t, c)
	})
}

func TestWhoComesLateReadsFromTheStart(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := newFlights()
		first := join(c, func(_ context.Context, f *cache.Flight) {
			publish(f, "started", "thought:hm", "chunk:a", "chunk:b", "attempt_failed", "started")
			f.Publish(&fanout.Event{Type: fanout.Chunk, Text: []byte("c"), At: 1})
			f.Publish(&fanout.Event{Type: fanout.Chunk, Text: []byte("c"), At: 2})
			time.Sleep(time.Minute)
			publish(f, "chunk:d", "finished")
		})
		defer first.Leave()
		time.Sleep(time.Second)
		late := join(c, nobodyLeads(t))
		defer late.Leave()
		events, err := late.Next(t.Context(), nil)
		if got := story(events); got != "started thought:hm chunk:ab attempt_failed started chunk:cc" || err != nil {
			t.Errorf("at once: %q, %v", got, err)
		}
		if last := events[len(events)-1]; last.At != 2 {
			t.Errorf("joined text came at %d", last.At)
		}
		if got, err := read(t.Context(), late); got != "chunk:d finished" || err != nil {
			t.Errorf("then: %q, %v", got, err)
		}
	})
}

func TestBehindTheEndTheNextOneStartsAnother(t *testing.T) {
	for _, last := range []string{"finished", "failed:overloaded"} {
		t.Run(last, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				c := newFlights()
				lead := func(_ context.Context, f *cache.Flight) {
					publish(f, last, "chunk:too late")
					time.Sleep(time.Second)
				}
				first, same := join(c, lead), join(c, nobodyLeads(t))
				synctest.Wait()
				second := join(c, lead)
				for _, w := range []*cache.Follower{first, same, second} {
					if got, err := read(t.Context(), w); got != last || err != nil {
						t.Errorf("got %q, %v", got, err)
					}
					w.Leave()
				}
				if !second.Leads() {
					t.Error("joined a flight that was over")
				}
				closeCache(t, c)
			})
		})
	}
}

func TestALeadThatPanicsOrForgetsItsEndFailsForAll(t *testing.T) {
	for name, lead := range map[string]func(context.Context, *cache.Flight){
		"panics":  func(_ context.Context, f *cache.Flight) { publish(f, "chunk:x"); panic("secret answer") },
		"forgets": func(_ context.Context, f *cache.Flight) { publish(f, "chunk:x") },
	} {
		t.Run(name, func(t *testing.T) {
			log := &bytes.Buffer{}
			c := cache.New(cache.Config{}, nil, slog.New(slog.NewJSONHandler(log, nil)))
			begin := make(chan struct{})
			lead := func(ctx context.Context, f *cache.Flight) { <-begin; lead(ctx, f) }
			first, second := join(c, lead), join(c, nobodyLeads(t))
			close(begin)
			for _, w := range []*cache.Follower{first, second} {
				if got, err := read(t.Context(), w); got != "chunk:x failed:internal" || err != nil {
					t.Errorf("got %q, %v", got, err)
				}
				w.Leave()
			}
			closeCache(t, c) // the log is written by then
			if panicked := log.Len() > 0; panicked != (name == "panics") || strings.Contains(log.String(), "secret") {
				t.Errorf("log: %s", log)
			}
		})
	}
}

func TestASlowFollowerDelaysNobody(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := newFlights()
		first := join(c, func(ctx context.Context, f *cache.Flight) {
			for range 100 {
				if err := f.WaitForRoom(ctx, 4, 8); err != nil {
					t.Error(err)
				}
				publish(f, "chunk:abcd")
			}
			publish(f, "finished")
		})
		slow := join(c, nobodyLeads(t))
		if got, err := read(t.Context(), first); len(got) != len("chunk: finished")+400 || err != nil {
			t.Errorf("got %q, %v", got, err)
		}
		first.Leave()
		if got, err := read(t.Context(), slow); len(got) != len("chunk: finished")+400 || err != nil {
			t.Errorf("the slow one got %q, %v", got, err)
		}
		slow.Leave()
	})
}

func TestWhereEveryFollowerIsSlowTheLeaderWaits(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := newFlights()
		var published atomic.Int32
		ended := make(chan error, 1)
		w := join(c, func(ctx context.Context, f *cache.Flight) {
			for {
				if err := f.WaitForRoom(ctx, 4, 10); err != nil {
					ended <- err
					return
				}
				publish(f, "chunk:abcd")
				published.Add(4)
			}
		})
		synctest.Wait()
		if got := published.Load(); got != 8 {
			t.Fatalf("%d bytes wait for a reader that may hold up 10", got)
		}
		if events, err := w.Next(t.Context(), nil); story(events) != "chunk:abcdabcd" || err != nil {
			t.Errorf("got %q, %v", story(events), err)
		}
		synctest.Wait()
		if got := published.Load(); got != 16 {
			t.Errorf("%d bytes after the reader read 8", got)
		}
		w.Leave()
		if err := <-ended; !errors.Is(err, cache.ErrDeserted) {
			t.Errorf("the wait ended with %v", err)
		}
	})
}

func TestAPieceLargerThanTheRoomGoesThroughAlone(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := newFlights()
		w := join(c, func(ctx context.Context, f *cache.Flight) {
			for range 3 {
				if err := f.WaitForRoom(ctx, 26, 10); err != nil {
					t.Error(err)
				}
				publish(f, "chunk:abcdefghijklmnopqrstuvwxyz")
			}
			publish(f, "finished")
		})
		for range 3 {
			synctest.Wait()
			if events, _ := w.Next(t.Context(), nil); len(events[0].Text) != 26 {
				t.Errorf("got %q", story(events))
			}
		}
		w.Leave()
	})
}

func TestWhatIsPublishedIsACopy(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := newFlights()
		w := join(c, func(_ context.Context, f *cache.Flight) {
			e := fanout.Event{
				Type: fanout.Failed, Failure: fanout.Fail(fanout.Overloaded, ""),
				Usage: &fanout.Usage{InputTokens: 1}, Target: fanout.Target{Provider: "p", Model: "m"},
			}
			f.Publish(&e)
			e.Failure.Kind, e.Usage.InputTokens = fanout.Internal, 2
		})
		defer w.Leave()
		synctest.Wait()
		events, err := w.Next(t.Context(), nil)
		if err != nil || len(events) != 1 || events[0].Failure.Kind != fanout.Overloaded || events[0].Usage.InputTokens != 1 ||
			events[0].Target.Model != "m" {
			t.Errorf("got %+v, %v", events, err)
		}
	})
}

func TestCloseWaitsForTheLeadsAsLongAsItMay(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := newFlights()
		w := join(c, func(_ context.Context, f *cache.Flight) {
			time.Sleep(time.Second)
			publish(f, "finished")
		})
		short, cancel := context.WithTimeout(t.Context(), time.Second-1)
		defer cancel()
		if err := c.Close(short); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("closed with %v while a lead ran", err)
		}
		closeCache(t, c)
		if got, _ := read(t.Context(), w); got != "finished" {
			t.Errorf("got %q", got)
		}
	})
}

func TestAFollowerWhoseTimeIsOverStopsWaiting(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := newFlights()
		w := join(c, func(ctx context.Context, _ *cache.Flight) { <-ctx.Done() })
		tooLong := errors.New("too long")
		ctx, cancel := context.WithTimeoutCause(t.Context(), time.Second, tooLong)
		defer cancel()
		if _, err := w.Next(ctx, nil); !errors.Is(err, tooLong) {
			t.Errorf("%v", err)
		}
		w.Leave()
	})
}

func TestTheFlightHasTheLatestDeadlineOfThoseWhoFollow(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := newFlights()
		flight := make(chan *cache.Flight, 1)
		now := time.Now()
		lead := func(ctx context.Context, f *cache.Flight) { flight <- f; <-ctx.Done() }
		var followers []*cache.Follower
		for _, seconds := range []time.Duration{2, 9, 5} {
			followers = append(followers, c.Join(t.Context(), "w", digest(1), now.Add(seconds*time.Second), lead))
		}
		f := <-flight
		for _, want := range []time.Duration{9, 5} {
			if got := f.Deadline().Sub(now); got != want*time.Second {
				t.Errorf("%v, want %v s", got, want)
			}
			followers[1].Leave()
		}
		followers[2].Leave()
		followers[0].Leave()
		if got := f.Deadline(); !got.IsZero() {
			t.Errorf("%v of nobody", got)
		}
	})
}

func TestFlightsOfTwoWorkspacesAreTwo(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := newFlights()
		for _, workspace := range []string{"a", "b"} {
			w := c.Join(t.Context(), workspace, digest(1), time.Time{}, func(ctx context.Context, f *cache.Flight) {
				publish(f, "chunk:"+workspace)
				<-ctx.Done()
			})
			defer w.Leave()
			if events, _ := w.Next(t.Context(), nil); story(events) != "chunk:"+workspace {
				t.Errorf("%s got %q", workspace, story(events))
			}
		}
		if stats := c.Stats(); stats.Flights != 2 || stats.FlightBytes != 2 {
			t.Errorf("%+v", stats)
		}
	})
}

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
