package engine_test

import (
	"context"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	fanout "rex/fanout-service"
	"rex/fanout-service/engine"
	"rex/fanout-service/provider"
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
		if first := tr.at[0]; first != 5*time.Millisecond || tr.batches[0][0].Type != fanout.Started {
			t.Errorf("after %v came %v", first, tr.batches[0])
		}
		// The first text, and then one batch a window of 20 ms.
		if n := len(tr.batches); n < 6 || n > 7 { // the last window and the answer end together
			t.Errorf("%d batches: %v", n, tr.at)
		}
	})
}

// The reader is told of a start with what comes first: the last request that was written, the end of the
// window, of 20 ms at most because the headers wait too, the first text (above), or the end of an attempt.
func TestAStartDoesNotLeaveAtOnce(t *testing.T) {
	for name, c := range map[string]struct {
		window, sent, fails, want time.Duration // sent: until the last request is written, 0 for never
	}{
		"no window":                 {0, 0, time.Second, 0},
		"a window":                  {5 * time.Millisecond, 0, time.Second, 5 * time.Millisecond},
		"a long window":             {time.Second, 0, time.Second, 20 * time.Millisecond},
		"requests in the window":    {20 * time.Millisecond, 3 * time.Millisecond, time.Second, 3 * time.Millisecond},
		"a failure in the window":   {20 * time.Millisecond, 0, 3 * time.Millisecond, 3 * time.Millisecond},
		"a failure at once":         {20 * time.Millisecond, 0, 0, 0},
		"a failure at the very end": {20 * time.Millisecond, 0, 20 * time.Millisecond, 20 * time.Millisecond},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				e, _ := newEngine(func(_ context.Context, call *fanout.Call, _ fanout.Key, sink fanout.Sink) (fanout.Answer, error) {
					sink.Connected()
					if call.ID == "c0" && c.sent > 0 {
						time.Sleep(c.sent)
					}
					if c.sent > 0 {
						sink.(provider.Awaiter).Sent()
						sink.(provider.Awaiter).Sent() // on another connection
					}
					time.Sleep(c.fails)
					return fanout.Answer{}, fanout.Fail(fanout.ServerError, "")
				}, engine.Config{})
				r := request("r", 2)
				r.Coalesce = c.window
				tr := read(t.Context(), t, e, r)
				if tr.at[0] != c.want || tr.batches[0][0].Type != fanout.Started {
					t.Errorf("after %v came %v", tr.at[0], tr.batches[0])
				}
				if failed := tr.at[len(tr.at)-1]; failed != c.sent+c.fails {
					t.Errorf("the failure left after %v", failed)
				}
			})
		})
	}
}
