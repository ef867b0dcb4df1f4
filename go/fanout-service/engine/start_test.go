package engine_test

import (
	"context"
	"errors"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	fanout "rex/fanout-service"
	"rex/fanout-service/engine"
)

func TestAnIdIsTakenWhileInFlight(t *testing.T) {
	release := make(chan struct{})
	e, _ := newEngine(func(context.Context, *fanout.Call, fanout.Key, fanout.Sink) (fanout.Answer, error) {
		<-release
		return done, nil
	}, engine.Config{})
	run, err := e.Start(t.Context(), request("r", 1), time.Now())
	if err != nil {
		t.Fatal(err)
	}
	if _, err := e.Start(t.Context(), request("r", 1), time.Now()); !errors.Is(err, engine.ErrDuplicate) {
		t.Errorf("the same id again: %v", err)
	}
	close(release)
	if err := run.Read(t.Context(), func([]fanout.Event, *fanout.End) error { return nil }); err != nil {
		t.Fatal(err)
	}
	read(t.Context(), t, e, request("r", 1)) // free again
}

func TestDrainWaitsForWhatIsInFlight(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		e, _ := newEngine(func(context.Context, *fanout.Call, fanout.Key, fanout.Sink) (fanout.Answer, error) {
			time.Sleep(3 * time.Second)
			return done, nil
		}, engine.Config{})
		go read(t.Context(), t, e, request("r", 1))
		time.Sleep(time.Second)
		short, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		if err := e.Drain(short); err == nil {
			t.Error("drained in one second what takes two")
		}
		if _, err := e.Start(t.Context(), request("s", 1), time.Now()); !errors.Is(err, engine.ErrDraining) {
			t.Errorf("a new fan-out while draining: %v", err)
		}
		if err := e.Drain(t.Context()); err != nil {
			t.Error(err)
		}
	})
}

// promptBytes is what a call of a test's request holds: a message and its text.
const promptBytes = 64 + 20

func TestTooMuchInFlightIsRefused(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		release := make(chan struct{})
		e, w := newEngine(func(_ context.Context, _ *fanout.Call, _ fanout.Key, sink fanout.Sink) (fanout.Answer, error) {
			_, err := reply{text: "0123456789"}.give(sink)
			<-release
			return done, err
		}, engine.Config{MaxConnections: 5, MaxBytes: 3*promptBytes + 15})
		first, err := e.Start(t.Context(), request("a", 2), time.Now())
		if err != nil {
			t.Fatal(err)
		}
		if _, err := e.Start(t.Context(), request("b", 2), time.Now()); !errors.Is(err, engine.ErrBusy) {
			t.Errorf("a sixth connection: %v", err)
		}
		if _, err := e.Start(t.Context(), request("b", 5), time.Now()); !errors.Is(err, engine.ErrTooWide) {
			t.Errorf("more calls than ever fit: %v", err)
		}
		if _, err := e.Start(t.Context(), request("b", 4), time.Now()); !errors.Is(err, engine.ErrTooWide) {
			t.Errorf("more text than ever fits: %v", err)
		}
		synctest.Wait()
		if stats := e.Stats(); stats.Calls != 2 || stats.Bytes != 2*promptBytes+20 || stats.Fanouts != 1 {
			t.Errorf("%+v", stats)
		}
		if _, err := e.Start(t.Context(), request("b", 1), time.Now()); !errors.Is(err, engine.ErrBusy) {
			t.Errorf("with 20 bytes waiting: %v", err)
		}
		close(release)
		if err := first.Read(t.Context(), func([]fanout.Event, *fanout.End) error { return nil }); err != nil {
			t.Error(err)
		}
		read(t.Context(), t, e, request("b", 3))
		w.settled(t, e)
	})
}

func TestARequestIsOnTheBooksUntilNobodyNeedsIt(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var asked, open atomic.Int64
		e, w := build(letters(100, &asked, &open), parts{cached: true})
		prompt := strings.Repeat("x", 1000)
		r := cachedRequest("leads")
		r.Calls[0].Messages = []fanout.Message{{Role: "user", Parts: []fanout.Part{{Text: prompt}, {Data: prompt}, {URL: prompt}}}}
		r.Calls[0].Params.ResponseFormat = []byte(prompt)
		ctx, leave := context.WithCancel(t.Context())
		first, err := e.Start(ctx, r, time.Now())
		if err != nil {
			t.Fatal(err)
		}
		var all sync.WaitGroup
		all.Go(func() { _ = first.Read(ctx, func([]fanout.Event, *fanout.End) error { return nil }) })
		synctest.Wait()
		all.Go(func() { read(t.Context(), t, e, cachedRequest("follows")) })
		time.Sleep(100 * time.Millisecond)
		if n := e.Stats().Bytes; n < 4000+promptBytes || n > 5000 {
			t.Errorf("%d bytes are held for requests of 4000 and %d", n, promptBytes)
		}
		leave()
		synctest.Wait()
		if n := e.Stats().Bytes; n < 4000 {
			t.Errorf("%d bytes: who asked has left, but the answer for another is made of its request", n)
		}
		all.Wait()
		w.settled(t, e)
	})
}

func TestWhatIsHeldElsewhereIsOnTheBooks(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		e, w := newEngine(replies(reply{text: "yes"}), engine.Config{MaxBytes: 10_000})
		run, err := e.Start(t.Context(), request("r", 1), time.Now())
		if err != nil {
			t.Fatal(err)
		}
		if err := run.Read(t.Context(), func(_ []fanout.Event, end *fanout.End) error {
			run.Hold(6000)
			run.Hold(-1000)
			if n := e.Stats().Bytes; end != nil && n < 5000 {
				t.Errorf("the reader holds 5000 bytes, %d are on the books", n)
			}
			return nil
		}); err != nil {
			t.Error(err)
		}
		w.settled(t, e)

		if err := e.Hold(9950); err != nil {
			t.Errorf("room for 10 000: %v", err)
		}
		if _, err := e.Start(t.Context(), request("r", 1), time.Now()); !errors.Is(err, engine.ErrBusy) {
			t.Errorf("beside bodies that arrive: %v", err)
		}
		if err := e.Hold(100); !errors.Is(err, engine.ErrBusy) {
			t.Errorf("a body too many: %v", err)
		}
		_ = e.Hold(-10_050)
		read(t.Context(), t, e, request("r", 1))
		w.settled(t, e)
	})
}

func TestAnEngineNeedsProvidersAlone(t *testing.T) {
	e := engine.New(engine.Config{}, engine.Parts{Upstreams: map[string]engine.Upstream{
		"p": {Provider: replies(reply{text: "yes"}), Keys: []fanout.Key{fanout.NewKey("")}},
	}})
	if tr := read(t.Context(), t, e, cachedRequest("r")); tr.text("c0") != "yes" {
		t.Errorf("%q", tr.told("c0"))
	}
	if !e.Knows("p") || e.Knows("q") || e.Draining() {
		t.Error("it does not know what it is made of")
	}
	e.Wait()
}
