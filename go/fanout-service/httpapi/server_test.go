package httpapi_test

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/santhosh-tekuri/jsonschema/v6"
	"go.uber.org/goleak"

	fanout "rex/fanout-service"
	"rex/fanout-service/cache"
	"rex/fanout-service/engine"
	"rex/fanout-service/fakeprovider"
	"rex/fanout-service/httpapi"
	"rex/fanout-service/provider"
	"rex/fanout-service/provider/openai"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

const secretKey = "sk-canary-key-91c2"

// service is the whole service on a real socket, in front of the scripted upstream.
type service struct {
	t      *testing.T
	url    string
	engine *engine.Engine
	fake   *fakeprovider.Server
	log    *lockedBuffer
	ends   *endings
	client *http.Client
}

// endings keeps the outcomes of fan-outs.
type endings struct {
	mu       sync.Mutex
	outcomes []string
}

func (e *endings) Fanout(ctx context.Context, _ *fanout.Request) (context.Context, func(*engine.FanoutRecord)) {
	return ctx, func(record *engine.FanoutRecord) {
		e.mu.Lock()
		defer e.mu.Unlock()
		e.outcomes = append(e.outcomes, record.Outcome)
	}
}

func (e *endings) Call(ctx context.Context, _ *fanout.Request, _ *fanout.Call) (context.Context, func(*engine.CallRecord)) {
	return ctx, func(*engine.CallRecord) {}
}

func (e *endings) Attempt(ctx context.Context, _ *fanout.Request, _ *fanout.Call, _ *engine.Attempt) (context.Context, func(*engine.AttemptRecord)) {
	return ctx, func(*engine.AttemptRecord) {}
}

// last is how the newest fan-out that is over ended.
func (e *endings) last() string {
	e.mu.Lock()
	defer e.mu.Unlock()
	if len(e.outcomes) == 0 {
		return ""
	}
	return e.outcomes[len(e.outcomes)-1]
}

type lockedBuffer struct {
	mu  sync.Mutex
	buf bytes.Buffer
}

func (b *lockedBuffer) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.buf.Write(p)
}

func (b *lockedBuffer) String() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.buf.String()
}

func newService(t *testing.T) *service {
	t.Helper()
	s := &service{t: t, fake: fakeprovider.New(), log: &lockedBuffer{}, client: &http.Client{Transport: &http.Transport{}}}
	upstream := httptest.NewServer(s.fake)
	nobody := httptest.NewServer(http.NotFoundHandler())
	nobody.Close()
	out := provider.NewClient(provider.NewGuard([]netip.Prefix{netip.MustParsePrefix("127.0.0.0/8")}, nil))
	at := func(url string) engine.Upstream {
		keys := []fanout.Key{fanout.NewKey(secretKey)}
		return engine.Upstream{Provider: openai.New(provider.Config{BaseURL: url + "/v1", Keys: keys}, out), Keys: keys}
	}
	log := slog.New(slog.NewJSONHandler(s.log, &slog.HandlerOptions{Level: slog.LevelDebug}))
	s.ends = &endings{}
	s.engine = engine.New(engine.Config{MaxAnswer: 2 << 20, MaxCalls: 600}, engine.Parts{
		Upstreams: map[string]engine.Upstream{"local": at(upstream.URL), "openrouter": at(upstream.URL), "nobody": at(nobody.URL)},
		Cache:     cache.New(cache.Config{MaxBytes: 8 << 20, TTL: time.Minute}, nil, log),
		Observer:  s.ends,
		Log:       log,
	})
	server := httptest.NewUnstartedServer(httpapi.New(s.engine, httpapi.Options{
		Version: "test", Patience: time.Second, Providers: []httpapi.ProviderInfo{{Name: "local", Title: "Local", Configured: true}},
	}))
	server.Config.ConnContext = func(ctx context.Context, conn net.Conn) context.Context {
		_ = conn.(*net.TCPConn).SetWriteBuffer(32 << 10)
		return ctx
	}
	server.Config.ErrorLog = slog.NewLogLogger(slog.NewJSONHandler(s.log, nil), slog.LevelWarn)
	server.Start()
	s.url = server.URL
	t.Cleanup(func() {
		server.Close()
		s.engine.Wait()
		upstream.Close()
		out.CloseIdleConnections()
		s.client.CloseIdleConnections()
		for _, secret := range []string{secretKey, "hi there", "result red answer"} {
			if strings.Contains(s.log.String(), secret) {
				t.Errorf("the log tells %q", secret)
			}
		}
	})
	return s
}

type callSpec map[string]any

func call(id, model string, more ...map[string]any) callSpec {
	c := callSpec{"id": id, "provider": "local", "model": model, "messages": []map[string]string{{"role": "user", "content": "hi there"}}}
	for _, fields := range more {
		for name, value := range fields {
			c[name] = value
		}
	}
	return c
}

func timeouts(ms map[string]int) map[string]any { return map[string]any{"timeouts_ms": ms} }

func body(t *testing.T, id string, deadlineMS int, calls ...callSpec) string {
	t.Helper()
	raw, err := json.Marshal(map[string]any{"v": 2, "id": id, "request_id": "req-1", "deadline_ms": deadlineMS, "calls": calls})
	if err != nil {
		t.Fatal(err)
	}
	return string(raw)
}

func (s *service) post(ctx context.Context, body string) *http.Response {
	s.t.Helper()
	request, err := http.NewRequestWithContext(ctx, http.MethodPost, s.url+"/fanout", strings.NewReader(body))
	if err != nil {
		s.t.Fatal(err)
	}
	request.Header.Set("Content-Type", "application/json")
	response, err := s.client.Do(request)
	if err != nil {
		s.t.Fatal(err)
	}
	return response
}

type event struct {
	Type         string        `json:"type"`
	Call         string        `json:"call"`
	Text         string        `json:"text"`
	FinishReason string        `json:"finish_reason"`
	Kind         fanout.Kind   `json:"kind"`
	Message      string        `json:"message"`
	Status       *int          `json:"status"`
	RetryAfter   *int          `json:"retry_after_ms"`
	Usage        *fanout.Usage `json:"usage"`
}

type line struct {
	N   int             `json:"n"`
	Ev  []event         `json:"ev"`
	End json.RawMessage `json:"end"`
}

var lineSchema = sync.OnceValues(func() (*jsonschema.Schema, error) {
	return jsonschema.NewCompiler().Compile("../api/schema/line.schema.json")
})

// next reads a line and checks it against the schema; false at the end of the body.
func next(t *testing.T, lines *bufio.Reader) (line, bool) {
	t.Helper()
	raw, err := lines.ReadBytes('\n')
	if err != nil {
		return line{}, false
	}
	schema, err := lineSchema()
	if err != nil {
		t.Fatal(err)
	}
	value, err := jsonschema.UnmarshalJSON(bytes.NewReader(raw))
	if err != nil {
		t.Fatalf("%s: %v", raw, err)
	}
	if err := schema.Validate(value); err != nil {
		t.Errorf("%.200s: %v", raw, err)
	}
	var l line
	if err := json.Unmarshal(raw, &l); err != nil {
		t.Fatal(err)
	}
	return l, true
}

// outcome is what became of a call.
type outcome struct {
	text string
	last event
}

// run sends a fan-out, reads it to its end line, and returns what became of each call.
func (s *service) run(body string) map[string]outcome {
	s.t.Helper()
	response := s.post(s.t.Context(), body)
	defer func() { _ = response.Body.Close() }()
	if response.StatusCode != http.StatusOK {
		raw, _ := io.ReadAll(response.Body)
		s.t.Fatalf("%d %s", response.StatusCode, raw)
	}
	lines := bufio.NewReader(response.Body)
	result := map[string]outcome{}
	for n := 1; ; n++ {
		l, ok := next(s.t, lines)
		if !ok {
			s.t.Fatal("no end line")
		}
		if l.N != n {
			s.t.Errorf("line %d is numbered %d", n, l.N)
		}
		for _, e := range l.Ev {
			o := result[e.Call]
			o.text += e.Text
			o.last = e
			result[e.Call] = o
		}
		if l.End != nil {
			break
		}
	}
	if _, more := next(s.t, lines); more {
		s.t.Error("a line after the end")
	}
	return result
}

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
	short := timeouts(map[string]int{"first_token": 300, "stall": 300})
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
		{"content-filter", three, "content_filter", estimated(5)},
		{"slow-first-token", "", "timeout.first_token", nil},
		{"reasoning?thoughts=60", twelve, "stop", counted(12)}, // thinking is no stall
		{"no-headers", "", "timeout.first_token", nil},
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
		{"empty", "", "bad_upstream_response", nil},
		{"empty-body", "", "incomplete", nil},
		{"null-content", "", "bad_upstream_response", nil},
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
		spec := call(fmt.Sprintf("c%d", i), c.model)
		if strings.HasPrefix(c.ending, "timeout.") { // the others must not depend on the machine's pace
			spec = call(fmt.Sprintf("c%d", i), c.model, short)
		}
		calls = append(calls, spec)
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

func show(v any) string {
	raw, err := json.Marshal(v)
	if err != nil {
		return err.Error()
	}
	return string(raw)
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

// aborted waits until the upstream has seen n clients leave.
func (s *service) aborted(n int) {
	s.t.Helper()
	s.wait(fmt.Sprintf("%d aborts", n), func() bool {
		left := 0
		for _, entry := range s.fake.Log() {
			if entry.AbortedAt != nil {
				left++
			}
		}
		return left >= n
	})
}

func (s *service) wait(what string, done func() bool) {
	s.t.Helper()
	for range 1000 {
		if done() {
			return
		}
		time.Sleep(10 * time.Millisecond)
	}
	s.t.Errorf("waited in vain for %s; the upstream's log: %s", what, show(s.fake.Log()))
}

// phases are models that stay in one phase of a call.
var phases = map[string]string{
	"before the headers":     "no-headers",
	"before the first token": "slow-first-token",
	"in the stream":          "stall",
	"while text flows":       "ok?chunks=100000&delay_ms=1",
}

func TestTheDeadlineEndsACallInEveryPhase(t *testing.T) {
	s := newService(t)
	calls := make([]callSpec, 0, len(phases))
	for _, model := range phases {
		calls = append(calls, call(fmt.Sprintf("c%d", len(calls)), model))
	}
	for id, got := range s.run(body(t, "r", 300, calls...)) {
		if got.last.Kind != fanout.Deadline {
			t.Errorf("%s: %+v", id, got.last)
		}
	}
	s.aborted(len(calls))
}

func TestClosingTheConnectionStopsEveryPhase(t *testing.T) {
	for phase, model := range phases {
		t.Run(phase, func(t *testing.T) {
			s := newService(t)
			ctx, leave := context.WithCancel(t.Context())
			defer leave()
			response := s.post(ctx, body(t, "r", 60_000, call("A", model), call("B", model)))
			defer func() { _ = response.Body.Close() }()
			s.wait("two calls upstream", func() bool { return len(s.fake.Log()) == 2 })
			leave()
			s.aborted(2)
			s.wait("the end of the fan-out", func() bool { return s.engine.InFlight() == 0 })
		})
	}
}

func TestDeleteStopsOneCallOrTheFanOut(t *testing.T) {
	remove := func(s *service, path string) int {
		request, err := http.NewRequestWithContext(t.Context(), http.MethodDelete, s.url+path, nil)
		if err != nil {
			t.Fatal(err)
		}
		response, err := s.client.Do(request)
		if err != nil {
			t.Fatal(err)
		}
		_ = response.Body.Close()
		return response.StatusCode
	}
	for phase, model := range phases {
		t.Run(phase, func(t *testing.T) {
			s := newService(t)
			ended := make(chan map[string]outcome)
			go func() {
				ended <- s.run(body(t, "run-1", 60_000, call("A", model), call("B", model), call("C", "ok?delay_ms=30")))
			}()
			s.wait("three calls upstream", func() bool { return len(s.fake.Log()) == 3 })
			for path, want := range map[string]int{
				"/fanout/other":                                404,
				"/fanout/run-1/calls/Z":                        404,
				"/fanout/run-1?reason=because":                 400,
				"/fanout/run-1/calls/A?reason=stop.superseded": 204,
			} {
				if got := remove(s, path); got != want {
					t.Errorf("DELETE %s: %d, want %d", path, got, want)
				}
			}
			s.aborted(1)
			if got := remove(s, "/fanout/run-1/calls/B"); got != 204 {
				t.Errorf("DELETE of B: %d", got)
			}
			got := <-ended
			for id, want := range map[string]string{"A": "stop.superseded", "B": "stop.user", "C": "stop"} {
				if ending := got[id].last.FinishReason + string(got[id].last.Kind); ending != want {
					t.Errorf("%s: %s, want %s", id, ending, want)
				}
			}
			if got := remove(s, "/fanout/run-1"); got != 404 {
				t.Errorf("DELETE after the end: %d", got)
			}
		})
	}
}

func TestAReaderThatTakesNothingIsCutOff(t *testing.T) {
	s := newService(t)
	conn, err := (&net.Dialer{}).DialContext(t.Context(), "tcp", strings.TrimPrefix(s.url, "http://"))
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = conn.Close() }()
	_ = conn.(*net.TCPConn).SetReadBuffer(4 << 10)
	request := body(t, "r", 60_000, call("A", "ok?chunks=10000000&delay_ms=0"), call("B", "endless"), call("C", "endless"), call("D", "endless"))
	_, err = fmt.Fprintf(conn, "POST /fanout HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n%s", len(request), request)
	if err != nil {
		t.Fatal(err)
	}
	s.wait("four calls upstream", func() bool { return len(s.fake.Log()) == 4 })
	s.wait("the end of the fan-out", func() bool { return s.engine.InFlight() == 0 })
	s.wait("the end of every call upstream", func() bool {
		for _, entry := range s.fake.Log() {
			if entry.EndedAt == nil {
				return false
			}
		}
		return true
	})
	if outcome := s.ends.last(); outcome != engine.OutcomeSlowReader {
		t.Errorf("the fan-out ended as %q", outcome)
	}
}

func TestGoldenRequestsAreTakenOrRefused(t *testing.T) {
	s := newService(t)
	files, err := filepath.Glob("../api/golden/requests/*/*.json")
	if err != nil || len(files) == 0 {
		t.Fatal("no golden requests", err)
	}
	for _, file := range files {
		t.Run(filepath.Base(file), func(t *testing.T) {
			raw, err := os.ReadFile(file)
			if err != nil {
				t.Fatal(err)
			}
			if filepath.Base(filepath.Dir(file)) == "valid" {
				response := s.post(t.Context(), string(raw))
				defer func() { _ = response.Body.Close() }()
				if response.StatusCode != http.StatusOK {
					t.Errorf("refused with %d", response.StatusCode)
				}
				_, _ = io.Copy(io.Discard, response.Body)
				return
			}
			var example struct {
				Status  int             `json:"status"`
				Field   string          `json:"field"`
				Request json.RawMessage `json:"request"`
			}
			if err := json.Unmarshal(raw, &example); err != nil {
				t.Fatal(err)
			}
			s.refused(string(example.Request), example.Status, example.Field)
		})
	}
}

// refused posts a body and checks the refusal.
func (s *service) refused(body string, status int, field string) {
	s.t.Helper()
	response := s.post(s.t.Context(), body)
	defer func() { _ = response.Body.Close() }()
	s.isRefusal(response, status, field)
}

func (s *service) isRefusal(response *http.Response, status int, field string) {
	s.t.Helper()
	raw, err := io.ReadAll(response.Body)
	if err != nil {
		s.t.Fatal(err)
	}
	schema, err := jsonschema.NewCompiler().Compile("../api/schema/error.schema.json")
	if err != nil {
		s.t.Fatal(err)
	}
	value, err := jsonschema.UnmarshalJSON(bytes.NewReader(raw))
	if err == nil {
		err = schema.Validate(value)
	}
	if err != nil {
		s.t.Errorf("%s: %v", raw, err)
	}
	var answer struct {
		Error struct {
			Field string `json:"field"`
		} `json:"error"`
	}
	if err := json.Unmarshal(raw, &answer); err != nil {
		s.t.Error(err)
	}
	if response.StatusCode != status || answer.Error.Field != field {
		s.t.Errorf("%d in field %q, want %d in %q: %s", response.StatusCode, answer.Error.Field, status, field, raw)
	}
	if n := len(s.fake.Log()); field != "" && n > 4 {
		s.t.Errorf("%d calls went upstream", n)
	}
}

func TestMalformedBodiesAreRefused(t *testing.T) {
	s := newService(t)
	valid := body(t, "r", 1000, call("A", "ok"))
	cases := []struct {
		name, body string
		status     int
		field      string
	}{
		{"empty", "", 400, ""},
		{"not JSON", "hello", 400, ""},
		{"a list", "[]", 400, ""},
		{"null", "null", 400, ""},
		{"cut off", valid[:len(valid)-2], 400, ""},
		{"something after", valid + "{}", 400, ""},
		{"a field twice", strings.Replace(valid, `"v":2`, `"v":2,"v":2`, 1), 400, "v"},
		{"very deep", `{"v":` + strings.Repeat("[", 100_000), 400, "v"},
		{"very deep inside", strings.Replace(valid, `"calls":[{`, `"calls":[{"params":{"response_format":{"a":`+strings.Repeat("[", 100_000)+`}},`, 1), 400, ""},
		{"a huge number", strings.Replace(valid, `"deadline_ms":1000`, `"deadline_ms":1e400`, 1), 400, "deadline_ms"},
		{"a long unknown name", `{"` + strings.Repeat("x", 1000) + `":1}`, 400, strings.Repeat("x", 64) + "…"},
		{"too large", `{"v":"` + strings.Repeat("x", 17<<20) + `"}`, 413, ""},
		{"too many messages", strings.Replace(valid, `"messages":[`, `"messages":[`+strings.Repeat(`{"role":"user","content":""},`, 1024), 1), 413, "calls[0].messages"},
	}
	for _, c := range cases {
		t.Run(c.name, func(*testing.T) { s.refused(c.body, c.status, c.field) })
	}
	if n := len(s.fake.Log()); n != 0 {
		t.Errorf("%d calls went upstream", n)
	}
}

func TestOtherRoadsAreRefusedInTheSameForm(t *testing.T) {
	s := newService(t)
	cases := []struct {
		method, path, contentType string
		status                    int
	}{
		{"GET", "/fanout", "", 405},
		{"POST", "/fanout", "text/plain", 415},
		{"POST", "/fanout", "", 415},
		{"POST", "/fanout/x", "application/json", 405},
		{"GET", "/nothing", "", 404},
		{"POST", "/healthz", "", 405},
	}
	for _, c := range cases {
		t.Run(c.method+" "+c.path, func(*testing.T) {
			request, err := http.NewRequestWithContext(t.Context(), c.method, s.url+c.path, strings.NewReader("{}"))
			if err != nil {
				t.Fatal(err)
			}
			request.Header.Set("Content-Type", c.contentType)
			response, err := s.client.Do(request)
			if err != nil {
				t.Fatal(err)
			}
			defer func() { _ = response.Body.Close() }()
			s.isRefusal(response, c.status, "")
		})
	}
}

func TestAnIdInFlightIsRefused(t *testing.T) {
	s := newService(t)
	ctx, leave := context.WithCancel(t.Context())
	defer leave()
	response := s.post(ctx, body(t, "r", 60_000, call("A", "no-headers")))
	defer func() { _ = response.Body.Close() }()
	s.refused(body(t, "r", 60_000, call("A", "ok")), 409, "id")
}

func TestHealthAndProviders(t *testing.T) {
	s := newService(t)
	get := func(path string) (*http.Response, string) {
		request, err := http.NewRequestWithContext(t.Context(), http.MethodGet, s.url+path, nil)
		if err != nil {
			t.Fatal(err)
		}
		response, err := s.client.Do(request)
		if err != nil {
			t.Fatal(err)
		}
		defer func() { _ = response.Body.Close() }()
		raw, err := io.ReadAll(response.Body)
		if err != nil {
			t.Fatal(err)
		}
		return response, strings.TrimSpace(string(raw))
	}
	if response, raw := get("/healthz"); response.StatusCode != http.StatusOK || raw != `{"in_flight":0,"status":"ok","version":"test"}` {
		t.Errorf("%d %s", response.StatusCode, raw)
	}
	if response, raw := get("/readyz"); response.StatusCode != http.StatusOK || raw != `{"status":"ready"}` {
		t.Errorf("%d %s", response.StatusCode, raw)
	}
	if _, raw := get("/providers"); raw != `{"providers":[{"name":"local","title":"Local","configured":true}]}` {
		t.Error(raw)
	}
	if err := s.engine.Drain(t.Context()); err != nil {
		t.Fatal(err)
	}
	if response, raw := get("/healthz"); response.StatusCode != http.StatusOK || !strings.Contains(raw, `"status":"draining"`) {
		t.Errorf("%d %s", response.StatusCode, raw)
	}
	if response, raw := get("/readyz"); response.StatusCode != http.StatusServiceUnavailable || response.Header.Get("Retry-After") == "" || !strings.Contains(raw, "overloaded") {
		t.Errorf("%d %s", response.StatusCode, raw)
	}
	response := s.post(t.Context(), body(t, "r", 1000, call("A", "ok")))
	defer func() { _ = response.Body.Close() }()
	if response.Header.Get("Retry-After") == "" {
		t.Error("no Retry-After")
	}
	s.isRefusal(response, 503, "")
}
