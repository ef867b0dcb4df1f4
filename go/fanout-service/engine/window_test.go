package engine_test

import (
	"context"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	fanout "rex/fanout-service"
	"rex/fanout-service/engine"
)

func TestTextOfAWindowLeavesTogetherAndTheFirstAtOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		e, _ := newEngine(func(_ context.Context, _ *fanout.Call, _ fanout.Key, sink fanout.Sink) (fanout.Answer, error) {
			sink.Connected()
			time.Sleep(5 * time.Millisecond)
			for range 100 {
				if err := sink.Text([]byte("x"), 1); err != nil {
					return fanout.Answer{}, err
				}
				time.Sleep(time.Millisecond)
			}
			return done, nil
		}, engine.Config{})
		tr := read(t.Context(), t, e, request("r", 1))
		if tr.text("c0") != strings.Repeat("x", 100) {
			t.Error("text is missing")
		}
		if first := tr.at[1]; first != 5*time.Millisecond {
			t.Errorf("the first text left after %v", first)
		}
		// The start, the first text, and then one batch a window of 20 ms.
		if n := len(tr.batches); n < 7 || n > 8 { // the last window and the answer end together
			t.Errorf("%d batches: %v", n, tr.at)
		}
	})
}

func TestWhatWasUrgentCutsNoLaterWindowShort(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		e, _ := newEngine(func(_ context.Context, _ *fanout.Call, _ fanout.Key, sink fanout.Sink) (fanout.Answer, error) {
			sink.Connected()
			time.Sleep(30 * time.Millisecond) // behind the window of the start: the first text finds an idle reader
			for range 3 {
				if err := sink.Text([]byte("x"), 1); err != nil {
					return fanout.Answer{}, err
				}
				time.Sleep(5 * time.Millisecond)
			}
			time.Sleep(time.Second)
			return done, nil
		}, engine.Config{})
		tr := read(t.Context(), t, e, request("r", 1))
		if tr.at[1] != 30*time.Millisecond || tr.at[2] != 50*time.Millisecond {
			t.Errorf("batches at %v", tr.at)
		}
	})
}
