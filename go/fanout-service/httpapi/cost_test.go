package httpapi_test

import (
	"bufio"
	"fmt"
	"strings"
	"testing"

	fanout "rex/fanout-service"
)

// spent is what a call has cost by what it was told: the sum over its attempts. With stopAt it is
// stopped once so much of its text was read and the provider is at work.
func (s *service) spent(body string, stopAt *string) (total fanout.Usage, last event) {
	s.t.Helper()
	response := s.post(s.t.Context(), body)
	defer func() { _ = response.Body.Close() }()
	lines, text := bufio.NewReader(response.Body), ""
	for l, ok := next(s.t, lines); ok; l, ok = next(s.t, lines) {
		for _, e := range l.Ev {
			if text += e.Text; e.Usage != nil && (e.Type != "finished" || e.Age == nil) {
				total = total.Plus(*e.Usage)
			}
			last = e
		}
		if stopAt != nil && text == *stopAt {
			s.wait("the provider to begin", func() bool { log := s.fake.Log(); return len(log) == 1 && log[0].FirstByteAt != nil })
			s.engine.Cancel("r", "A", fanout.StopUser)
		}
	}
	return total, last
}

// Of the prompt "hi there" providers count 2 tokens, and so does the estimate.
func TestEveryEndingThatCostsTellsItsUsage(t *testing.T) {
	fast := timeouts(map[string]int{"stall": 300, "first_token": 300})
	hedge := asks("hedge", map[string]any{"after_ms": 20, "provider": "openrouter", "model": "ok"})
	cases := map[string]struct {
		call   callSpec
		stopAt *string
		spent  fanout.Usage
	}{
		"finished, counted in a chunk without choices":   {call("A", "ok"), nil, *counted(12)},
		"finished, counted in a chunk with choices":      {call("A", "usage-with-finish"), nil, *counted(12)},
		"finished, counted in every chunk":               {call("A", "usage-everywhere"), nil, *counted(12)},
		"finished, not counted":                          {call("A", "usage-missing"), nil, *estimated(18)},
		"finished, counted as zero":                      {call("A", "ok?usage=0"), nil, *estimated(18)},
		"finished after reasoning":                       {call("A", "ok?reasoning=5"), nil, fanout.Usage{InputTokens: 2, OutputTokens: 12, ReasoningTokens: 5}},
		"stopped in the answer":                          {call("A", "stall"), ptr(three), *estimated(5)},
		"stopped before the answer":                      {call("A", "stall-first"), ptr(""), *estimated(0)},
		"broken off":                                     {call("A", "cut"), nil, *estimated(5)},
		"broken off, counted until then":                 {call("A", "cut-at?as=usage-everywhere&how=end&bytes=1300"), nil, fanout.Usage{InputTokens: 2}},
		"timed out in the answer":                        {call("A", "stall", fast), nil, *estimated(5)},
		"timed out before the answer":                    {call("A", "stall-first", fast), nil, *estimated(0)},
		"filtered":                                       {call("A", "content-filter"), nil, *counted(3)},
		"an attempt that failed in its text, and a next": {call("A", "fail-first?as=cut&id=cost", anew), nil, fanout.Usage{InputTokens: 4, OutputTokens: 17, Estimated: true}},
		"a hedge, and what it beat":                      {call("A", "slow-first-token", hedge), nil, fanout.Usage{InputTokens: 4, OutputTokens: 12, Estimated: true}},
		"refused":                                        {call("A", "http-500"), nil, fanout.Usage{}},
		"refused for its key":                            {call("A", "http-401"), nil, fanout.Usage{}},
		"nobody there":                                   {call("A", "ok", asks("provider", "nobody")), nil, fanout.Usage{}},
	}
	for name, c := range cases {
		for _, sharing := range []bool{false, true} {
			t.Run(fmt.Sprintf("%s/shareable %v", name, sharing), func(t *testing.T) {
				s := newService(t)
				if sharing {
					c.call["cache"] = map[string]string{"key": strings.Repeat("0e", 32), "mode": "read_write"}
				} else {
					delete(c.call, "cache")
				}
				got, last := s.spent(bodyWith(t, map[string]any{"id": "r", "workspace": "ws:1"}, c.call), c.stopAt)
				if strings.HasPrefix(name, "broken off, counted") { // by how much had come
					got.OutputTokens = 0
				}
				if got != c.spent {
					t.Errorf("spent %+v, want %+v; %s %s", got, c.spent, last.Type, last.Kind)
				}
			})
		}
	}
}

func ptr[T any](v T) *T { return &v }

// An answer costs the same whether it is streamed or comes in one piece.
func TestAnAnswerInOnePieceCostsWhatItsStreamDoes(t *testing.T) {
	for _, script := range []string{"ok", "ok?usage=0", "usage-missing", "usage-with-finish", "length", "tool-calls", "content-filter", "ok?cached=1&reasoning=4"} {
		s := newService(t)
		streamed, _ := s.spent(body(t, "r", 60_000, call("A", script)), nil)
		whole, last := s.spent(body(t, "r", 60_000, call("A", script, asks("whole", true))), nil)
		if streamed != whole || whole == (fanout.Usage{}) {
			t.Errorf("%s: %+v streamed, %+v in one piece; %s", script, streamed, whole, last.Type)
		}
	}
}

// What a call may cost at most is bounded by its max_tokens: every attempt is sent with them.
func TestEveryAttemptIsSentWithTheBoundOfItsCall(t *testing.T) {
	bounded := asks("params", map[string]any{"max_tokens": 7})
	for name, one := range map[string]struct {
		call     callSpec
		requests int
	}{
		"a retry":    {call("A", "http-500", twice, bounded), 2},
		"a restart":  {call("A", "fail-first?as=cut&id=bound", anew, bounded), 2},
		"a fallback": {call("A", "http-401", fallbackTo("ok"), bounded), 2},
		"a hedge": {call("A", "slow-first-token", bounded,
			asks("hedge", map[string]any{"after_ms": 20, "provider": "openrouter", "model": "ok"})), 2},
		"in one piece": {call("A", "ok", asks("whole", true), bounded), 1},
	} {
		t.Run(name, func(t *testing.T) {
			s := newService(t)
			s.run(body(t, "r", 60_000, one.call))
			log := s.fake.Log()
			if len(log) != one.requests {
				t.Errorf("%d requests, want %d", len(log), one.requests)
			}
			for _, entry := range log {
				if !strings.Contains(string(entry.Params), `"max_tokens":7`) {
					t.Errorf("sent without its bound: %s", entry.Params)
				}
			}
		})
	}
}
