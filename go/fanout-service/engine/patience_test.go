package engine_test

import (
	"context"
	"testing"
	"testing/synctest"
	"time"

	fanout "rex/fanout-service"
	"rex/fanout-service/engine"
)

func TestOnlyPatienceThatIsFairSpeaksAgainstAProvider(t *testing.T) {
	fair, d := fanout.DefaultTimeouts, time.Millisecond
	cases := []struct {
		name    string
		limits  fanout.Timeouts
		run     script
		breaker string
	}{
		{"fair connect", fair, mute(), "open"},
		{"short connect", fanout.Timeouts{Connect: fair.Connect - d, FirstToken: fair.FirstToken, Stall: fair.Stall, Total: fair.Total}, mute(), "closed"},
		{"fair first token", fair, mute("connected"), "open"},
		{"short first token", fanout.Timeouts{Connect: fair.Connect, FirstToken: fair.FirstToken - d, Stall: fair.Stall, Total: fair.Total}, mute("connected"), "closed"},
		{"fair stall", fair, mute("connected", "data"), "open"},
		{"short stall", fanout.Timeouts{Connect: fair.Connect, FirstToken: fair.FirstToken, Stall: fair.Stall - d, Total: fair.Total}, mute("connected", "data"), "closed"},
	}
	for _, c := range cases {
		t.Run(c.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				e, w := newEngine(c.run, engine.Config{})
				r := request("impatient", 5)
				for i := range r.Calls {
					r.Calls[i].Timeouts = c.limits
				}
				read(t.Context(), t, e, r)
				w.settled(t, e)
				if got := w.limiter.Targets()[0].Breaker; got != c.breaker {
					t.Errorf("after five timeouts the breaker is %s", got)
				}
			})
		})
	}
}

// mute is a provider that comes so far and then says nothing.
func mute(before ...string) script {
	return func(ctx context.Context, _ *fanout.Call, _ fanout.Key, sink fanout.Sink) (fanout.Answer, error) {
		for _, what := range before {
			if what == "connected" {
				sink.Connected()
			} else {
				sink.Progress(true)
			}
		}
		return hang(ctx)
	}
}
