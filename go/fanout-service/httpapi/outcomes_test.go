package httpapi_test

import (
	"fmt"
	"strings"
	"testing"

	fanout "rex/fanout-service"
)

// counted and estimated are usages of the prompt "hi there": two words, and two times four characters.
func counted(out int64) *fanout.Usage { return &fanout.Usage{InputTokens: 2, OutputTokens: out} }

func estimated(out int64) *fanout.Usage {
	return &fanout.Usage{InputTokens: 2, OutputTokens: out, Estimated: true}
}

const (
	twelve = "result red answer claim tree detail measure red quick tree snow result"
	three  = "result red answer"
	two    = "result red"
)

func TestEveryScriptOfTheUpstreamHasItsOutcome(t *testing.T) {
	short := timeouts(map[string]int{"first_token": 2000, "stall": 300})
	cases := []struct {
		model, text, ending string // ending: a finish reason or a kind
		usage               *fanout.Usage
	}{
		{"ok", twelve, "stop", counted(12)},
		{"echo", "hi there", "stop", counted(2)},
		{"ok?cached=1&reasoning=3&chunks=2", two, "stop", &fanout.Usage{InputTokens: 2, OutputTokens: 2, CachedTokens: 1, ReasoningTokens: 3}},
		{"length", twelve, "length", counted(12)},
		{"tool-calls", three, "tool_calls", counted(3)},
		{"unknown-finish", three, "stop", counted(3)},
		{"content-filter", three, "content_filter", counted(3)},
		{"slow-first-token", "", "timeout.first_token", estimated(0)},
		{"reasoning?thoughts=60", twelve, "stop", counted(12)}, // thinking is no stall
		{"no-headers", "", "timeout.first_token", estimated(0)},
		{"stall?delay_ms=0", three, "timeout.stall", estimated(5)},
		{"cut", three, "incomplete", estimated(5)},
		{"cut-abrupt", three, "incomplete", estimated(5)},
		{"reset", three, "incomplete", estimated(5)},
		{"reset-before", "", "connection", nil},
		{"http-401", "", "auth", nil},
		{"http-500", "", "server_error", nil},
		{"http-529", "", "overloaded", nil},
		{"http-302", "", "bad_upstream_response", nil},
		{"http-204", "", "bad_upstream_response", nil},
		{"rate-limited", "", "rate_limited", nil},
		{"quota-exhausted", "", "auth", nil},
		{"context-too-long", "", "context_too_long", nil},
		{"error-event", two, "server_error", estimated(3)},
		{"error-event?code=rate_limit_exceeded", two, "rate_limited", estimated(3)},
		{"error-event-text", two, "server_error", estimated(3)},
		{"not-json", two, "bad_upstream_response", estimated(3)},
		{"not-an-object", two, "bad_upstream_response", estimated(3)},
		{"html-200", "", "bad_upstream_response", nil},
		{"json-in-stream", "", "bad_upstream_response", nil},
		{"gzip", "", "bad_upstream_response", nil},
		{"no-done", twelve, "stop", estimated(18)},
		{"no-done-open", twelve, "stop", estimated(18)},
		{"done-without-finish", twelve, "incomplete", estimated(18)},
		{"empty", "", "bad_upstream_response", estimated(0)},
		{"empty-body", "", "incomplete", nil},
		{"null-content", "", "bad_upstream_response", estimated(0)},
		{"no-choices", three, "stop", counted(3)},
		{"usage-missing", twelve, "stop", estimated(18)},
		{"usage-late", twelve, "stop", counted(12)},
		{"usage-with-finish", twelve, "stop", counted(12)},
		{"usage-nonsense", twelve, "stop", estimated(18)},
		{"second-finish", three, "stop", estimated(5)},
		{"late-chunks", three, "stop", counted(3)},
		{"crlf", twelve, "stop", counted(12)},
		{"cr", twelve, "stop", counted(12)},
		{"bom", twelve, "stop", counted(12)},
		{"no-space", three, "stop", counted(3)},
		{"named-events", three, "stop", counted(3)},
		{"multi-line-data", three, "stop", counted(3)},
		{"drip", three, "stop", counted(3)},
		{"split-utf8", "naïve — 日本語 🌍 done", "stop", counted(1)},
		{"odd-unicode", "nul:\ufffd high:\ufffd low:\ufffd pair:🌍 end\ufffd", "stop", counted(5)},
		{"invalid-utf8", "bad:\ufffd\ufffd \ufffd(", "stop", counted(1)},
		{"big-line", strings.Repeat("0123456789abcdef", 1<<16), "stop", counted(1)},
		{"huge-line", "", "response_too_large", nil},
		{"no-such-script", "", "invalid_request", nil},
	}
	s := newService(t)
	calls := make([]callSpec, 0, len(cases))
	for i, c := range cases {
		// One of its own each: what the limits learn of one script must not decide another's end.
		with := []map[string]any{{"provider": fmt.Sprintf("lab%d", i)}}
		if strings.HasPrefix(c.ending, "timeout.") { // the others must not depend on the machine's pace
			with = append(with, short)
		}
		calls = append(calls, call(fmt.Sprintf("c%d", i), c.model, with...))
	}
	outcomes := s.run(body(t, "all", 60_000, calls...))
	for i, c := range cases {
		t.Run(c.model, func(t *testing.T) {
			got := outcomes[fmt.Sprintf("c%d", i)]
			if ending := got.last.FinishReason + string(got.last.Kind); ending != c.ending {
				t.Errorf("ended with %q, want %q", ending, c.ending)
			}
			if got.text != c.text {
				t.Errorf("text %.80q, want %.80q", got.text, c.text)
			}
			if show(got.last.Usage) != show(c.usage) {
				t.Errorf("usage %s, want %s", show(got.last.Usage), show(c.usage))
			}
			if strings.Contains(got.last.Message, secretKey) || strings.Contains(got.last.Message, "scripted") {
				t.Errorf("the message tells too much: %s", got.last.Message)
			}
		})
	}
	limited := outcomes["c20"].last
	if limited.Kind != fanout.RateLimited || limited.Status == nil || *limited.Status != 429 || limited.RetryAfter == nil || *limited.RetryAfter != 2000 {
		t.Errorf("rate-limited: %+v", limited)
	}
	for _, entry := range s.fake.Log() {
		if entry.Model == "trap" {
			t.Error("a redirect was followed")
		}
	}
}

func TestAnEndlessAnswerIsCutAtTheLimit(t *testing.T) {
	s := newService(t)
	got := s.run(body(t, "r", 60_000, call("A", "endless")))["A"]
	if got.last.Kind != fanout.ResponseTooLarge || len(got.text) > 2<<20 || len(got.text) < 1<<20 {
		t.Errorf("%s after %d bytes", got.last.Kind, len(got.text))
	}
	s.aborted(1)
}

func TestNobodyThereIsAConnectionFailure(t *testing.T) {
	s := newService(t)
	got := s.run(body(t, "r", 60_000, call("A", "ok", map[string]any{"provider": "nobody"}), call("B", "ok")))
	if got["A"].last.Kind != fanout.Connection || got["B"].last.FinishReason != "stop" {
		t.Errorf("%+v", got)
	}
}
