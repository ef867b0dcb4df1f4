package httpapi_test

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"log/slog"
	"maps"
	"net"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"os"
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
	"rex/fanout-service/internal/testlog"
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
	log    *testlog.Buffer
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

// newService starts it; configure may change how.
func newService(t *testing.T, configure ...func(*engine.Config, *httpapi.Options)) *service {
	t.Helper()
	config := engine.Config{MaxAnswer: 2 << 20}
	options := httpapi.Options{
		Version: "test", Patience: time.Second, Providers: []httpapi.ProviderInfo{{Name: "local", Title: "Local", Configured: true}},
	}
	for _, change := range configure {
		change(&config, &options)
	}
	s := &service{t: t, fake: fakeprovider.New(), log: &testlog.Buffer{}, client: &http.Client{Transport: &http.Transport{}}}
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
	upstreams := map[string]engine.Upstream{"local": at(upstream.URL), "openrouter": at(upstream.URL), "nobody": at(nobody.URL)}
	for i := range 64 { // for tests whose calls must not learn of each other's failures
		upstreams[fmt.Sprintf("lab%d", i)] = at(upstream.URL)
	}
	s.engine = engine.New(config, engine.Parts{
		Upstreams: upstreams,
		Cache:     cache.New(cache.Config{MaxBytes: 8 << 20, TTL: time.Minute}, nil, log),
		Observer:  s.ends,
		Log:       log,
	})
	server := httptest.NewUnstartedServer(httpapi.New(s.engine, options))
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
	return bodyWith(t, map[string]any{"id": id, "deadline_ms": deadlineMS}, calls...)
}

// bodyWith has other fields beside the calls.
func bodyWith(t *testing.T, fields map[string]any, calls ...callSpec) string {
	t.Helper()
	whole := map[string]any{"v": 2, "id": "r", "request_id": "req-1", "deadline_ms": 60_000, "calls": calls}
	maps.Copy(whole, fields)
	raw, err := json.Marshal(whole)
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
	Type         string          `json:"type"`
	Call         string          `json:"call"`
	Attempt      *int            `json:"attempt"`
	Reason       string          `json:"reason"`
	Model        string          `json:"model"`
	Text         string          `json:"text"`
	FinishReason string          `json:"finish_reason"`
	Kind         fanout.Kind     `json:"kind"`
	Message      string          `json:"message"`
	Status       *int            `json:"status"`
	RetryAfter   *int            `json:"retry_after_ms"`
	Wait         *int            `json:"wait_ms"`
	Age          *int            `json:"cached_age_ms"`
	Usage        *fanout.Usage   `json:"usage"`
	Timing       map[string]*int `json:"timing_ms"`
}

type line struct {
	N   int             `json:"n"`
	Ev  []event         `json:"ev"`
	End json.RawMessage `json:"end"`
}

// schema is the contract's own; whole answers refer to lines.
func schema(t *testing.T, name string) *jsonschema.Schema {
	t.Helper()
	all, err := schemas()
	if err != nil {
		t.Fatal(err)
	}
	return all[name]
}

var schemas = sync.OnceValues(func() (map[string]*jsonschema.Schema, error) {
	compiler := jsonschema.NewCompiler()
	all := map[string]*jsonschema.Schema{}
	for _, name := range []string{"line", "whole", "error", "request", "targets"} {
		raw, err := os.ReadFile("../api/schema/" + name + ".schema.json")
		if err != nil {
			return nil, err
		}
		document, err := jsonschema.UnmarshalJSON(bytes.NewReader(raw))
		if err != nil {
			return nil, err
		}
		if err := compiler.AddResource("rex:fanout/v2/"+name, document); err != nil {
			return nil, err
		}
		if all[name], err = compiler.Compile("rex:fanout/v2/" + name); err != nil {
			return nil, err
		}
	}
	return all, nil
})

// fits holds JSON to a schema of the contract.
func fits(t *testing.T, name string, raw []byte) {
	t.Helper()
	value, err := jsonschema.UnmarshalJSON(bytes.NewReader(raw))
	if err == nil {
		err = schema(t, name).Validate(value)
	}
	if err != nil {
		t.Errorf("%.200s: %v", raw, err)
	}
}

// next reads a line and checks it against the schema; false at the end of the body.
func next(t *testing.T, lines *bufio.Reader) (line, bool) {
	t.Helper()
	raw, err := lines.ReadBytes('\n')
	if err != nil {
		return line{}, false
	}
	fits(t, "line", raw)
	var l line
	if err := json.Unmarshal(raw, &l); err != nil {
		t.Fatal(err)
	}
	return l, true
}

// outcome is what became of a call.
type outcome struct {
	story          []string // what happened, pieces of text as one
	text, thoughts string   // since the last attempt began
	last           event
}

// add takes the call's next event, as CONTRACT.md tells a reader to.
func (o *outcome) add(t *testing.T, e event) {
	t.Helper()
	if o.last.Type == "finished" || o.last.Type == "failed" {
		t.Errorf("%s behind the end of its call", e.Type)
	}
	word := e.Type
	switch e.Type {
	case "started":
		o.text, o.thoughts = "", ""
		word = fmt.Sprintf("started %d %s", *e.Attempt, e.Reason)
	case "chunk":
		o.text += e.Text
	case "thought":
		o.thoughts += e.Text
	case "attempt_failed", "failed":
		word = fmt.Sprintf("%s %d %s", e.Type, *e.Attempt, e.Kind)
	case "finished":
		word = fmt.Sprintf("finished %d", *e.Attempt)
	}
	if n := len(o.story); n == 0 || o.story[n-1] != word || e.Type != "chunk" && e.Type != "thought" {
		o.story = append(o.story, word)
	}
	o.last = e
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
	return s.read(response)
}

// read reads an answer to its end line.
func (s *service) read(response *http.Response) map[string]outcome {
	s.t.Helper()
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
			o.add(s.t, e)
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

func show(v any) string {
	raw, err := json.Marshal(v)
	if err != nil {
		return err.Error()
	}
	return string(raw)
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
	for range 3000 {
		if done() {
			return
		}
		time.Sleep(10 * time.Millisecond)
	}
	s.t.Errorf("waited in vain for %s; the upstream's log: %s", what, show(s.fake.Log()))
}
