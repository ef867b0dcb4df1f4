package httpapi_test

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	fanout "rex/fanout-service"
	"rex/fanout-service/engine"
	"rex/fanout-service/httpapi"
)

type targetRow struct {
	Provider  string `json:"provider"`
	Model     string `json:"model"`
	Key       string `json:"key"`
	InFlight  int    `json:"in_flight"`
	Breaker   string `json:"breaker"`
	Refused   bool   `json:"refused"`
	ResumesMS *int64 `json:"resumes_ms"`
	AskedMS   *int64 `json:"asked_ms"`
}

type targetsAnswer struct {
	Targets []targetRow `json:"targets"`
	LeftOut int         `json:"left_out"`
	Cache   *struct {
		Entries int64 `json:"entries"`
		Bytes   int64 `json:"bytes"`
	} `json:"cache"`
}

// do sends a request without a body, and gives back its answer's.
func (s *service) do(method, path string) (*http.Response, []byte) {
	s.t.Helper()
	request, err := http.NewRequestWithContext(s.t.Context(), method, s.url+path, nil)
	if err != nil {
		s.t.Fatal(err)
	}
	response, err := s.client.Do(request)
	if err != nil {
		s.t.Fatal(err)
	}
	defer func() { _ = response.Body.Close() }()
	raw, err := io.ReadAll(response.Body)
	if err != nil {
		s.t.Fatal(err)
	}
	return response, raw
}

// targets are how the targets stand, held to the schema.
func (s *service) targets() targetsAnswer {
	s.t.Helper()
	response, raw := s.do(http.MethodGet, "/targets")
	if response.StatusCode != http.StatusOK {
		s.t.Fatalf("%d: %s", response.StatusCode, raw)
	}
	fits(s.t, "targets", raw)
	var answer targetsAnswer
	if err := json.Unmarshal(raw, &answer); err != nil {
		s.t.Fatal(err)
	}
	for _, secret := range []string{secretKey, fanout.NewKey(secretKey).ID(), "hi there"} {
		if strings.Contains(string(raw), secret) {
			s.t.Errorf("%q is told: %s", secret, raw)
		}
	}
	return answer
}

func TestTargetsTellHowProvidersStand(t *testing.T) {
	s := newService(t)
	if before := s.targets(); len(before.Targets) != 0 || before.LeftOut != 0 || before.Cache == nil {
		t.Errorf("before any call: %+v", before)
	}
	open, leave := context.WithCancel(t.Context())
	defer leave()
	response := s.post(open, body(t, "open", 60_000, call("A", "no-headers")))
	defer func() { _ = response.Body.Close() }()
	s.run(body(t, "fine", 10_000, call("A", "ok"), call("B", "http-401", map[string]any{"provider": "lab0"}),
		call("C", "rate-limited?retry_after=600", map[string]any{"provider": "lab1"})))
	s.wait("the call to be in flight", func() bool {
		for _, row := range s.targets().Targets {
			if row.Model == "no-headers" && row.InFlight == 1 {
				return true
			}
		}
		return false
	})
	answer := s.targets()
	if n := len(answer.Targets); n != 4 {
		t.Fatalf("%d targets", n)
	}
	for i, row := range answer.Targets {
		troubled := row.Provider == "lab0" || row.Provider == "lab1"
		if troubled != (i < 2) || troubled != (row.ResumesMS != nil && *row.ResumesMS > 100_000) {
			t.Errorf("at place %d: %+v", i, row)
		}
		if row.Refused != (row.Provider == "lab0") || row.Key != "1" || row.Breaker != "closed" || row.AskedMS == nil {
			t.Errorf("%+v", row)
		}
		if (row.InFlight == 1) != (row.Model == "no-headers") {
			t.Errorf("in flight: %+v", row)
		}
	}
}

func TestTargetsAreBoundedInNumber(t *testing.T) {
	s := newService(t)
	for round := range 2 {
		var calls []callSpec
		for n := range 300 {
			calls = append(calls, call(fmt.Sprint(n), fmt.Sprintf("no-such-model-%d-%d", round, n)))
		}
		s.run(body(t, "many", 60_000, calls...))
	}
	s.run(body(t, "last", 60_000, call("A", "rate-limited?retry_after=600", map[string]any{"provider": "lab2"})))
	if answer := s.targets(); len(answer.Targets) != 500 || answer.LeftOut != 101 || answer.Targets[0].Provider != "lab2" {
		t.Errorf("%d targets, %d left out, first %+v", len(answer.Targets), answer.LeftOut, answer.Targets[0])
	}
}

func TestAPurgeForgetsTheAnswersOfOneWorkspace(t *testing.T) {
	s := newService(t)
	ask := func(id, workspace string) bool {
		one := call("A", "ok", map[string]any{"cache": map[string]string{"key": strings.Repeat("0c", 32), "mode": "read_write"}})
		got := s.run(bodyWith(t, map[string]any{"id": id, "workspace": workspace}, one))
		return got["A"].last.Age != nil
	}
	for _, workspace := range []string{"ws:1", "ws:2"} {
		if ask("first", workspace) || !ask("again", workspace) {
			t.Fatalf("%s: no answer was kept", workspace)
		}
	}
	for range 2 { // again, and there is nothing any more
		if response, raw := s.do(http.MethodDelete, "/cache/ws:1"); response.StatusCode != http.StatusNoContent || len(raw) > 0 {
			t.Fatalf("%d: %s", response.StatusCode, raw)
		}
	}
	if held := s.targets().Cache; held.Entries != 1 {
		t.Errorf("%d answers are held", held.Entries)
	}
	if ask("after", "ws:1") || !ask("after", "ws:2") {
		t.Error("the purge forgot too little, or too much")
	}
}

func TestAnAnswerOnItsWayIsNeitherKeptNorSharedAfterAPurge(t *testing.T) {
	for _, mode := range []string{"read_write", "write"} {
		t.Run(mode, func(t *testing.T) {
			s := newService(t)
			one := func(mode string) callSpec {
				return call("A", "ok?delay_ms=50", map[string]any{"cache": map[string]string{"key": strings.Repeat("0d", 32), "mode": mode}})
			}
			before := make(chan outcome, 1)
			go func() {
				before <- s.run(bodyWith(t, map[string]any{"id": "before", "workspace": "ws:1"}, one(mode)))["A"]
			}()
			s.wait("the call to be upstream", func() bool { return len(s.fake.Log()) == 1 })
			if response, raw := s.do(http.MethodDelete, "/cache/ws:1"); response.StatusCode != http.StatusNoContent {
				t.Fatalf("%d: %s", response.StatusCode, raw)
			}
			after := s.run(bodyWith(t, map[string]any{"id": "after", "workspace": "ws:1"}, one("read")))["A"]
			if first := <-before; first.last.FinishReason != "stop" {
				t.Errorf("who waited for it got %+v", first.last)
			}
			if after.last.Age != nil || s.targets().Cache.Entries != 0 || len(s.fake.Log()) != 2 {
				t.Errorf("%+v, %d requests", after.last, len(s.fake.Log()))
			}
		})
	}
}

func TestAPurgeThatCannotBeDoneIsRefused(t *testing.T) {
	s := newService(t)
	for path, status := range map[string]int{
		"/cache/a%20b": 400, "/cache/a%2Fb": 400, "/cache/" + strings.Repeat("w", 129): 400, "/cache/": 404,
	} {
		response, raw := s.do(http.MethodDelete, path)
		fits(t, "error", raw)
		if response.StatusCode != status {
			t.Errorf("%s: %d", path, response.StatusCode)
		}
	}
}

func TestWithoutACacheThereIsNothingToForget(t *testing.T) {
	handler := httpapi.New(engine.New(engine.Config{}, engine.Parts{}), httpapi.Options{})
	forget, tell := httptest.NewRecorder(), httptest.NewRecorder()
	handler.ServeHTTP(forget, httptest.NewRequest(http.MethodDelete, "/cache/ws:1", nil))
	handler.ServeHTTP(tell, httptest.NewRequest(http.MethodGet, "/targets", nil))
	fits(t, "targets", tell.Body.Bytes())
	if forget.Code != http.StatusNoContent || !strings.Contains(tell.Body.String(), `"cache":null`) {
		t.Errorf("%d, then %s", forget.Code, tell.Body)
	}
}
