package httpapi_test

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"

	"rex/fanout-service/engine"
	"rex/fanout-service/httpapi"
)

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
	fits(s.t, "error", raw)
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
		{"very deep", `{"v":` + strings.Repeat("[", 100_000), 400, ""},
		{"very deep inside", strings.Replace(valid, `"calls":[{`, `"calls":[{"params":{"response_format":{"a":`+strings.Repeat("[", 100_000)+`}},`, 1), 400, ""},
		{"a huge number", strings.Replace(valid, `"deadline_ms":1000`, `"deadline_ms":1e400`, 1), 400, "deadline_ms"},
		{"a long unknown name", `{"` + strings.Repeat("x", 1000) + `":1}`, 400, strings.Repeat("x", 64) + "…"},
		{"invalid UTF-8", strings.Replace(valid, `"content":"`, `"content":"a`+"\xff", 1), 400, "calls[0].messages[0].content"},
		{"invalid UTF-8 in a schema", strings.Replace(valid, `"calls":[{`, `"calls":[{"params":{"response_format":{"a":"`+"\xc3"+`"}},`, 1), 400, "calls[0].params.response_format"},
		{"halves in the wrong order", strings.Replace(valid, `"content":"`, `"content":"\udf0d\ud83c`, 1), 400, "calls[0].messages[0].content"},
		{"two first halves", strings.Replace(valid, `"content":"`, `"content":"\ud83c\ud83c\udf0d`, 1), 400, "calls[0].messages[0].content"},
		{"half a pair before another escape", strings.Replace(valid, `"content":"`, `"content":"\ud83c\n`, 1), 400, "calls[0].messages[0].content"},
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

func TestBodiesThatArriveAreOnTheBooks(t *testing.T) {
	s := newService(t, func(config *engine.Config, _ *httpapi.Options) { config.MaxBytes = 1 << 20 })
	arriving, err := net.Dial("tcp", strings.TrimPrefix(s.url, "http://"))
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = arriving.Close() }()
	if _, err := fmt.Fprintf(arriving, "POST /fanout HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nContent-Length: 1000000\r\n\r\n%s",
		strings.Repeat(" ", 900_000)); err != nil {
		t.Fatal(err)
	}
	s.wait("the body", func() bool { return s.engine.Stats().Bytes == 900_000 })
	valid := body(t, "r", 1000, call("A", "ok"))
	s.refused(strings.Repeat(" ", 200_000)+valid, 503, "")
	_ = arriving.Close()
	s.wait("the end of it", func() bool { return s.engine.Stats().Bytes == 0 })
	s.refused(strings.Repeat(" ", 1<<20)+valid, 413, "")
	s.run(strings.Repeat(" ", 200_000) + valid)
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
		{"DELETE", "/targets", "", 405},
		{"GET", "/cache/ws:1", "", 405},
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

func TestMoreThanTheServiceTakesIsRefusedForNow(t *testing.T) {
	s := newService(t, func(config *engine.Config, _ *httpapi.Options) { config.MaxConnections = 3 })
	ctx, leave := context.WithCancel(t.Context())
	defer leave()
	first := s.post(ctx, body(t, "first", 60_000, call("A", "stall"), call("B", "stall")))
	defer func() { _ = first.Body.Close() }()
	second := s.post(t.Context(), body(t, "second", 60_000, call("A", "ok")))
	defer func() { _ = second.Body.Close() }()
	if second.Header.Get("Retry-After") == "" {
		t.Error("no Retry-After")
	}
	s.isRefusal(second, 503, "")
	tooWide := s.post(t.Context(), body(t, "third", 60_000, call("A", "ok"), call("B", "ok"), call("C", "ok")))
	defer func() { _ = tooWide.Body.Close() }()
	if tooWide.Header.Get("Retry-After") != "" {
		t.Error("what will never fit is asked to come again")
	}
	s.isRefusal(tooWide, 413, "calls")
	leave()
	s.wait("room", func() bool { return s.engine.Stats().Calls == 0 })
	if got := s.run(body(t, "second", 60_000, call("A", "ok")))["A"]; got.text != twelve {
		t.Errorf("%+v", got.last)
	}
}

func TestAServiceIsNotReadyUntilItSaysSo(t *testing.T) {
	isReady := atomic.Bool{}
	s := newService(t, func(_ *engine.Config, options *httpapi.Options) {
		options.Ready = isReady.Load
		options.MaxBody = 100
		options.Metrics = http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { _, _ = io.WriteString(w, "rex 1\n") })
	})
	get := func(path string, status int) *http.Response {
		response, err := s.client.Get(s.url + path)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = response.Body.Close() })
		if response.StatusCode != status {
			t.Errorf("%s: %d", path, response.StatusCode)
		}
		return response
	}
	before := get("/readyz", 503)
	if before.Header.Get("Retry-After") == "" {
		t.Error("no Retry-After")
	}
	s.isRefusal(before, 503, "")
	isReady.Store(true)
	get("/readyz", 200)
	get("/metrics", 200)
	s.refused(body(t, "r", 1000, call("A", "ok")), 413, "")
}
