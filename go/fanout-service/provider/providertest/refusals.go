package providertest

import (
	"bytes"
	"encoding/json"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	fanout "rex/fanout-service"
)

func (s Subject) statuses(t *testing.T) {
	body := `{"error":{"message":"` + Canary + " " + Key + `"}}`
	for status := 201; status < 600; status++ {
		for _, call := range []*fanout.Call{Call(), wholeCall()} {
			_, _, err := s.ask(t.Context(), t, call, reply(status, "application/json", body, "Retry-After", "3"))
			failure := failureOf(t, err)
			if failure.Kind != fanout.StatusKind(status) || failure.Status != status {
				t.Errorf("%d: %s of %d, want %s", status, failure.Kind, failure.Status, fanout.StatusKind(status))
			}
			if status >= 400 && failure.RetryAfter != 3*time.Second {
				t.Errorf("%d: Retry-After read as %v", status, failure.RetryAfter)
			}
		}
	}
}

func (s Subject) noUse(t *testing.T) {
	for _, word := range []string{"false", "true", ""} {
		_, _, err := s.ask(t.Context(), t, Call(), reply(500, "application/json", "{}", "X-Should-Retry", word))
		if failure := failureOf(t, err); failure.Retryable() != (word != "false") {
			t.Errorf("x-should-retry %q: retryable %v", word, failure.Retryable())
		}
	}
}

func (s Subject) errorBodies(t *testing.T) {
	file := golden[struct {
		Rows []struct {
			Name        string      `json:"name"`
			Status      int         `json:"status"`
			ContentType string      `json:"content_type"`
			Body        string      `json:"body"`
			Kind        fanout.Kind `json:"kind"`
		} `json:"rows"`
	}](t, "upstream_errors.json")
	for _, row := range file.Rows {
		_, _, err := s.ask(t.Context(), t, Call(), reply(row.Status, row.ContentType, row.Body))
		if kind := kindOf(t, err); kind != row.Kind {
			t.Errorf("%s: %s, want %s", row.Name, kind, row.Kind)
		}
	}
	// What the providers' own pages and answers show beyond the contract's examples.
	for _, row := range []struct {
		status int
		body   string
		kind   fanout.Kind
	}{
		{400, `{"type":"error","error":{"type":"invalid_request_error","message":"prompt is too long: 208310 tokens > 200000 maximum"}}`, fanout.ContextTooLong},
		{400, `{"type":"error","error":{"type":"invalid_request_error","message":"input length and max_tokens exceed context limit: 199000 + 4096 > 200000"}}`, fanout.ContextTooLong},
		{400, `{"type":"error","error":{"type":"invalid_request_error","message":"Output blocked by content filtering policy"}}`, fanout.ContentFilter},
		{400, `{"type":"error","error":{"type":"invalid_request_error","message":"Your credit balance is too low to access the API."}}`, fanout.Auth},
		{429, `{"type":"error","error":{"type":"rate_limit_error","message":"` + Canary + `"}}`, fanout.RateLimited},
		{529, `{"type":"error","error":{"type":"overloaded_error","message":"Overloaded"}}`, fanout.Overloaded},
		{400, `{"error":{"code":400,"message":"API key not valid.","status":"INVALID_ARGUMENT","details":[{"reason":"API_KEY_INVALID"}]}}`, fanout.Auth},
		{400, `{"error":{"code":400,"message":"The input token count (1200000) exceeds the maximum number of tokens allowed (1048576).","status":"INVALID_ARGUMENT"}}`, fanout.ContextTooLong},
		{503, `[{"error":{"code":503,"message":"The model is overloaded.","status":"UNAVAILABLE"}}]`, fanout.Overloaded},
		{429, `{"error":{"code":429,"message":"You exceeded your current quota, please check your plan and billing details.","status":"RESOURCE_EXHAUSTED"}}`, fanout.RateLimited},
	} {
		_, _, err := s.ask(t.Context(), t, Call(), reply(row.status, "application/json", row.body))
		if kind := kindOf(t, err); kind != row.kind {
			t.Errorf("%d %s: %s, want %s", row.status, row.body, kind, row.kind)
		}
	}
}

func (s Subject) errorEvents(t *testing.T) {
	file := golden[struct {
		Rows []struct {
			Name string          `json:"name"`
			Data json.RawMessage `json:"data"`
			Kind fanout.Kind     `json:"kind"`
		} `json:"rows"`
	}](t, "upstream_error_events.json")
	for _, row := range file.Rows {
		var object bytes.Buffer // on one line
		if err := json.Compact(&object, row.Data); err != nil {
			t.Fatal(err)
		}
		for _, before := range []string{"", s.TextEvent("x")} {
			_, _, err := s.ask(t.Context(), t, Call(), stream(before+s.ErrorEvent(object.Bytes()), 0))
			if kind := kindOf(t, err); kind != row.Kind {
				t.Errorf("%s: %s, want %s", row.Name, kind, row.Kind)
			}
		}
		_, _, err := s.ask(t.Context(), t, wholeCall(), reply(http.StatusOK, "application/json", object.String()))
		if kind := kindOf(t, err); kind != row.Kind {
			t.Errorf("%s, instead of an answer in one piece: %s, want %s", row.Name, kind, row.Kind)
		}
		_, _, err = s.ask(t.Context(), t, Call(), reply(http.StatusOK, "application/json", object.String()))
		if kind := kindOf(t, err); kind != row.Kind {
			t.Errorf("%s, instead of a stream: %s, want %s", row.Name, kind, row.Kind)
		}
	}
}

// strayErrors are objects in no event: Google's, over many lines, and proxies' on one.
func (s Subject) strayErrors(t *testing.T) {
	const pretty = "{\n  \"error\": {\n    \"code\": 503,\n    \"message\": \"" + Canary + "\",\n    \"status\": \"UNAVAILABLE\"\n  }\n}"
	for _, body := range []string{pretty, pretty + "\n", "[" + pretty + "\n]\n", `{"error":{"code":503}}` + "\n\n"} {
		for _, before := range []string{"", s.TextEvent("x")} {
			for _, step := range []int{0, 1} {
				_, _, err := s.ask(t.Context(), t, Call(), stream(before+body, step))
				if kind := kindOf(t, err); kind != fanout.Overloaded {
					t.Errorf("%q: %s, want overloaded", before+body, kind)
				}
			}
		}
	}
	sink, _, err := s.ask(t.Context(), t, Call(), stream(pretty+"\n\n"+s.TextEvent("x")+s.EndEvents, 0))
	if err != nil || sink.Texts.String() != "x" {
		t.Errorf("a complete answer behind it: %q, %v", sink.Texts.String(), err)
	}
}

func (s Subject) retryAfters(t *testing.T) {
	const info = `{"error":{"code":429,"status":"RESOURCE_EXHAUSTED","details":[{"@type":"type.googleapis.com/google.rpc.QuotaFailure","violations":[{}]},` +
		`{"@type":"type.googleapis.com/google.rpc.RetryInfo","retryDelay":"17.5s"}]}}`
	for _, row := range []struct {
		header, value, body string
		want                time.Duration
	}{
		{"Retry-After", "2", "", 2 * time.Second},
		{"Retry-After", "0.5", "", 500 * time.Millisecond},
		{"Retry-After-Ms", "1500", "", 1500 * time.Millisecond},
		{"Retry-After", "abc", "", 0},
		{"Retry-After", "-5", "", 0},
		{"X-None", "1", info, 17500 * time.Millisecond},
		{"Retry-After", "2", info, 2 * time.Second},
		{"X-None", "1", `{"error":{"details":"none"}}`, 0},
	} {
		_, _, err := s.ask(t.Context(), t, Call(), reply(http.StatusTooManyRequests, "application/json", row.body, row.header, row.value))
		if failure := failureOf(t, err); failure.RetryAfter != row.want || failure.Kind != fanout.RateLimited {
			t.Errorf("%s: %s, %s: %s after %v, want %v", row.header, row.value, row.body, failure.Kind, failure.RetryAfter, row.want)
		}
	}
	date := time.Now().Add(30 * time.Second).UTC().Format(http.TimeFormat)
	_, _, err := s.ask(t.Context(), t, Call(), reply(http.StatusServiceUnavailable, "text/html", "", "Retry-After", date))
	if failure := failureOf(t, err); failure.RetryAfter <= 0 || failure.RetryAfter > 30*time.Second {
		t.Errorf("a date half a minute ahead: %v", failure.RetryAfter)
	}
	// No header can come with an error inside the stream.
	_, _, err = s.ask(t.Context(), t, Call(), stream(s.ErrorEvent(json.RawMessage(info)), 0))
	if failure := failureOf(t, err); failure.RetryAfter != 17500*time.Millisecond || failure.Kind != fanout.RateLimited {
		t.Errorf("inside a stream: %s after %v", failure.Kind, failure.RetryAfter)
	}
}

func (s Subject) crowded(t *testing.T) {
	for body, want := range map[string]bool{
		`{"error":{"type":"rate_limit_error","message":"Number of concurrent connections has exceeded your rate limit."}}`: true,
		`{"error":{"code":"concurrency_limit_exceeded","message":"x"}}`:                                                    true,
		`{"error":{"code":"rate_limit_exceeded","message":"Rate limit reached for requests per minute."}}`:                 false,
	} {
		_, _, err := s.ask(t.Context(), t, Call(), reply(http.StatusTooManyRequests, "application/json", body))
		if failure := failureOf(t, err); failure.Crowded != want || failure.Kind != fanout.RateLimited {
			t.Errorf("%s: crowded %v, %s", body, failure.Crowded, failure.Kind)
		}
	}
}

func (s Subject) allowances(t *testing.T) {
	want := fanout.Allowance{
		Requests: fanout.Bucket{Limit: 60, Remaining: 59, Reset: time.Second},
		Tokens:   fanout.Bucket{Limit: 150000, Remaining: 0, Reset: 6 * time.Minute},
	}
	header := []string{
		"x-ratelimit-limit-requests", "60", "x-ratelimit-remaining-requests", "59", "x-ratelimit-reset-requests", "1s",
		"x-ratelimit-limit-tokens", "150000", "x-ratelimit-remaining-tokens", "0", "x-ratelimit-reset-tokens", "6m0s",
	}
	for status, body := range map[int]string{http.StatusOK: s.Recorded[0].Stream, http.StatusTooManyRequests: ""} {
		sink, _, _ := s.ask(t.Context(), t, Call(), reply(status, "text/event-stream", body, header...))
		if sink.Allowance == nil || *sink.Allowance != want {
			t.Errorf("%d: %v, want %v", status, sink.Allowance, want)
		}
	}
	sink, _, _ := s.ask(t.Context(), t, Call(), stream(s.Recorded[0].Stream, 0))
	if sink.Allowance != nil {
		t.Errorf("headers that say nothing were told of: %v", sink.Allowance)
	}
}

func (s Subject) wrongForms(t *testing.T) {
	for _, row := range []struct {
		name  string
		call  *fanout.Call
		reply http.HandlerFunc
	}{
		{"a page", Call(), reply(200, "text/html", "<!doctype html><title>Sign in</title>")},
		{"a page for an answer in one piece", wholeCall(), reply(200, "text/html", "<!doctype html>")},
		{"an answer in one piece for a stream", Call(), reply(200, "application/json", s.Whole[0].Body)},
		{"a stream for an answer in one piece", wholeCall(), stream(s.Recorded[0].Stream, 0)},
		{"a list for an answer in one piece", wholeCall(), reply(200, "application/json", "["+s.Whole[0].Body+"]")},
		{"a compressed stream", Call(), reply(200, "text/event-stream", "\x1f\x8b", "Content-Encoding", "gzip")},
		{"an encoding nobody knows", wholeCall(), reply(200, "application/json", s.Whole[0].Body, "Content-Encoding", "x")},
		{"an event that is no JSON", Call(), stream("data: this is not JSON\n\n", 0)},
		{"an event that is no object", Call(), stream("data: [1]\n\n", 0)},
	} {
		sink, _, err := s.ask(t.Context(), t, row.call, row.reply)
		if err == nil || kindOf(t, err) != fanout.BadUpstreamResponse || sink.Count != 0 {
			t.Errorf("%s: %v", row.name, err)
		}
	}
}

func (s Subject) endlessError(t *testing.T) {
	_, _, err := s.ask(t.Context(), t, Call(), func(w http.ResponseWriter, r *http.Request) {
		_, _ = io.Copy(io.Discard, r.Body)
		w.WriteHeader(http.StatusBadRequest)
		for r.Context().Err() == nil {
			if _, err := io.WriteString(w, strings.Repeat("x", 8<<10)); err != nil {
				return
			}
		}
	})
	if kind := kindOf(t, err); kind != fanout.InvalidRequest {
		t.Errorf("%s, want invalid_request", kind)
	}
}

func (s Subject) redirect(t *testing.T) {
	visited := false
	elsewhere := httptest.NewServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) { visited = true }))
	defer elsewhere.Close()
	for _, status := range []int{301, 302, 303, 307, 308} {
		_, _, err := s.ask(t.Context(), t, Call(), func(w http.ResponseWriter, r *http.Request) {
			http.Redirect(w, r, elsewhere.URL, status)
		})
		if kind := kindOf(t, err); kind != fanout.BadUpstreamResponse {
			t.Errorf("%d: %s, want bad_upstream_response", status, kind)
		}
	}
	if visited {
		t.Error("a redirect was followed")
	}
}

func (s Subject) refused(t *testing.T) {
	upstream := httptest.NewServer(http.NotFoundHandler())
	upstream.Close()
	_, err := s.at(upstream.URL).Stream(t.Context(), Call(), fanout.NewKey(Key), &Sink{T: t})
	checkSecrets(t, err)
	if kind := kindOf(t, err); kind != fanout.Connection {
		t.Errorf("%s, want connection", kind)
	}
}
