package cache_test

import (
	"bytes"
	"context"
	"errors"
	"io"
	"log/slog"
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
		if got := story(events); got != "started attempt_failed started chunk:cc" || err != nil {
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

func TestTextThatIsVoidIsDropped(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := newFlights()
		read := make(chan struct{})
		w := join(c, func(_ context.Context, f *cache.Flight) {
			for _, text := range []string{"abcd", "efgh", "ijkl"} {
				publish(f, "started", "thought:hm", "chunk:"+text)
				if f.Bytes() != 6 || c.FlightBytes() != 6 {
					t.Errorf("%d bytes are held of an answer of 6, %d by all", f.Bytes(), c.FlightBytes())
				}
				<-read
			}
			publish(f, "finished")
		})
		late := join(c, nobodyLeads(t))
		synctest.Wait()
		var got []fanout.Event
		for len(got) == 0 || got[len(got)-1].Type != fanout.Finished {
			var err error
			if got, err = w.Next(t.Context(), got); err != nil {
				t.Fatal(err)
			}
			select {
			case read <- struct{}{}:
			default:
			}
			synctest.Wait()
		}
		want := "started thought:hm chunk:abcd started thought:hm chunk:efgh started thought:hm chunk:ijkl finished"
		if story(got) != want {
			t.Errorf("who reads along got %q", story(got))
		}
		w.Leave()
		if c.FlightBytes() != 6 {
			t.Errorf("the flight is over and followed by one: %d bytes", c.FlightBytes())
		}
		events, err := late.Next(t.Context(), nil)
		if got := story(events); got != "started started started thought:hm chunk:ijkl finished" || err != nil {
			t.Errorf("who comes late got %q, %v", got, err)
		}
		late.Leave()
		if stats := c.Stats(); stats.FlightBytes != 0 {
			t.Errorf("left: %+v", stats)
		}
	})
}

func TestAFlightThatIsOverIsCountedUntilTheLastHasLeft(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := newFlights()
		lead := func(_ context.Context, f *cache.Flight) { publish(f, "chunk:abcd", "finished") }
		slow := join(c, lead)
		synctest.Wait()
		next := join(c, lead) // takes the place of what is over
		synctest.Wait()
		if stats := c.Stats(); stats.Flights != 1 || stats.FlightBytes != 8 {
			t.Errorf("two answers of 4 bytes are held: %+v", stats)
		}
		next.Leave()
		slow.Leave()
		slow.Leave()
		if stats := c.Stats(); stats.Flights != 0 || stats.FlightBytes != 0 {
			t.Errorf("left: %+v", stats)
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
