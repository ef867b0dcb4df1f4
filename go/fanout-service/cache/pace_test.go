package cache_test

import (
	"context"
	"errors"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"rex/fanout-service/cache"
)

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

func TestTextThatIsVoidPutsNobodyAheadOrBehind(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		for _, reads := range []bool{true, false} {
			c := newFlights()
			begin, went := make(chan struct{}), atomic.Bool{}
			w := join(c, func(ctx context.Context, f *cache.Flight) {
				publish(f, "started", "chunk:12345678")
				<-begin
				publish(f, "started", "chunk:abcdef")
				if err := f.WaitForRoom(ctx, 4, 10); err != nil {
					t.Error(err)
				}
				if err := f.WaitForRoom(ctx, 5, 10); err != nil {
					t.Error(err)
				}
				went.Store(true)
				publish(f, "finished")
			})
			synctest.Wait()
			if reads {
				if _, err := w.Next(t.Context(), nil); err != nil {
					t.Error(err)
				}
			}
			close(begin)
			synctest.Wait()
			if went.Load() {
				t.Errorf("read: %v: the leader is 6 bytes ahead of a bound of 10, and 5 more have room", reads)
			}
			if got, err := read(t.Context(), w); err != nil || !went.Load() {
				t.Errorf("got %q, %v", got, err)
			}
			w.Leave()
		}
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
