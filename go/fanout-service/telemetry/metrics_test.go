package telemetry_test

import (
	"encoding/json"
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus/testutil/promlint"

	fanout "rex/fanout-service"
	"rex/fanout-service/engine"
	"rex/fanout-service/telemetry"
)

// scrape reads the metrics as Prometheus would, strictly, by their lines' names and labels.
func scrape(t *testing.T, m *telemetry.Metrics) map[string]float64 {
	t.Helper()
	response := httptest.NewRecorder()
	m.ServeHTTP(response, httptest.NewRequest(http.MethodGet, "/metrics", nil))
	samples := map[string]float64{}
	described := ""
	for line := range strings.Lines(response.Body.String()) {
		line = strings.TrimSuffix(line, "\n")
		if rest, ok := strings.CutPrefix(line, "# "); ok {
			described = strings.Fields(rest)[1]
			continue
		}
		match := sampleLine.FindStringSubmatch(line)
		if match == nil || !strings.HasPrefix(match[1], described) {
			t.Fatalf("not a sample of %s: %s", described, line)
		}
		value, err := strconv.ParseFloat(match[3], 64)
		if _, twice := samples[match[1]+match[2]]; twice || err != nil {
			t.Errorf("twice, or no number: %s", line)
		}
		samples[match[1]+match[2]] = value
	}
	return samples
}

var (
	sampleLine = regexp.MustCompile(`^([a-z_]+)((?:\{(?:[a-z_]+="(?:[^"\\\n]|\\["\\n])*",?)+\})?) (\S+)$`)
	labelPair  = regexp.MustCompile(`([a-z_]+)="((?:[^"\\]|\\.)*)"`)
)

func TestAnAttemptIsCountedWithItsTimesAndTokens(t *testing.T) {
	m := telemetry.NewMetrics(nil)
	failed := refused(fanout.Overloaded, 529)
	failed.Wait = time.Second
	observe(t.Context(), m, newRequest("m", 3), failed, answered())
	got := scrape(t, m)
	for sample, want := range map[string]float64{
		`rex_fanout_calls_total{model="m",outcome="finished",provider="google"}`:                     3,
		`rex_fanout_attempts_total{model="m",outcome="finished",provider="google",reason="retry"}`:   3,
		`rex_fanout_attempts_total{model="m",outcome="overloaded",provider="google",reason="first"}`: 3,
		`rex_fanout_retries_total{kind="overloaded",provider="google"}`:                              3,
		`rex_fanout_tokens_total{direction="input",model="m",provider="google"}`:                     21,
		`rex_fanout_tokens_total{direction="reasoning",model="m",provider="google"}`:                 9,
		`rex_fanout_workspace_tokens_total{direction="output",workspace="w"}`:                        36,
		`rex_fanout_workspace_calls_total{outcome_class="finished",workspace="w"}`:                   3,
		`rex_fanout_fanouts_total{outcome="done"}`:                                                   1,
		`rex_fanout_cache_total{result="bypass"}`:                                                    3,
		`rex_fanout_width_bucket{le="2"}`:                                                            0,
		`rex_fanout_width_bucket{le="3"}`:                                                            1,
		`rex_fanout_call_seconds_sum{model="m",provider="google"}`:                                   .267,
		`rex_fanout_queue_seconds_sum{model="m",provider="google"}`:                                  .015,
		`rex_fanout_connect_seconds_sum{model="m",provider="google"}`:                                .012,
		`rex_fanout_first_token_seconds_sum{model="m",provider="google"}`:                            .12,
		`rex_fanout_first_token_seconds_bucket{model="m",provider="google",le="0.025"}`:              0,
		`rex_fanout_first_token_seconds_bucket{model="m",provider="google",le="0.05"}`:               3,
		`rex_fanout_first_token_seconds_bucket{model="m",provider="google",le="+Inf"}`:               3,
		`rex_fanout_inter_token_seconds_sum{model="m",provider="google"}`:                            .03,
		`rex_fanout_inter_token_seconds_count{model="m",provider="google"}`:                          3,
		`rex_fanout_workspace_folded_total`:                                                          0,
	} {
		if value, ok := got[sample]; value != want || !ok {
			t.Errorf("%s is %v, want %v", sample, value, want)
		}
	}
	if got["go_goroutines"] < 1 || got["process_resident_memory_bytes"] < 1<<20 || got["process_open_fds"] < 3 {
		t.Error("the process does not tell of itself")
	}
}

func TestAWorkspacePaysForEveryAttemptAndForNoCachedAnswer(t *testing.T) {
	m := telemetry.NewMetrics([]string{"acme"})
	brokenOff := refused(fanout.TimeoutStall, 0)
	brokenOff.Usage = &fanout.Usage{InputTokens: 100, OutputTokens: 30}
	r := newRequest("m", 1)
	for _, r.Workspace = range []string{"acme", "beta"} { // one with a label of its own, one without
		observe(t.Context(), m, r, brokenOff, refused(fanout.Overloaded, 529), answered())
		for _, from := range []engine.CacheResult{engine.CacheHit, engine.CacheShared} {
			_, ended := m.Call(t.Context(), r, &r.Calls[0])
			ended(&engine.CallRecord{Outcome: engine.OutcomeFinished, Cache: from, Target: r.Calls[0].Target, Usage: answered().Usage})
		}
	}
	got := scrape(t, m)
	for _, shown := range []string{"acme", "other"} {
		for direction, want := range map[string]float64{"input": 107, "output": 42} {
			if n := got[`rex_fanout_workspace_tokens_total{direction="`+direction+`",workspace="`+shown+`"}`]; n != want {
				t.Errorf("%s: %v %s tokens, want %v", shown, n, direction, want)
			}
		}
	}
	if n := got["rex_fanout_workspace_folded_total"]; n != 3 {
		t.Errorf("%v calls were folded, want 3", n)
	}
}

// kinds are those of the contract.
func kinds(t *testing.T) []string {
	t.Helper()
	raw, err := os.ReadFile("../api/kinds.json")
	var file struct {
		Kinds []struct {
			Kind string `json:"kind"`
		} `json:"kinds"`
	}
	if err != nil || json.Unmarshal(raw, &file) != nil {
		t.Fatal(err)
	}
	var names []string
	for _, row := range file.Kinds {
		names = append(names, row.Kind)
	}
	return names
}

func TestLabelsAreClosedSetsWhateverIsAsked(t *testing.T) {
	m := telemetry.NewMetrics(nil)
	contract := kinds(t)
	var requests sync.WaitGroup
	for i := range 2000 {
		requests.Go(func() {
			r := newRequest(fmt.Sprintf("model \"%d\"\n\\", i), 1)
			r.Workspace = fmt.Sprintf("workspace-%d", i)
			record := refused(fanout.Kind(contract[i%len(contract)]), 500)
			if i%100 == 0 {
				record = refused(fanout.Kind("kind-"+r.Workspace), 500)
			}
			record.Wait = 0
			observe(t.Context(), m, r, record)
			_, ended := m.Call(t.Context(), r, &r.Calls[0])
			ended(&engine.CallRecord{Outcome: r.Workspace, Cache: engine.CacheResult(r.Workspace), Target: r.Calls[0].Target})
			_, done := m.Attempt(t.Context(), r, &r.Calls[0], &engine.Attempt{Reason: fanout.Reason(r.Workspace), Target: r.Calls[0].Target})
			done(&record)
			_, over := m.Fanout(t.Context(), r)
			over(&engine.FanoutRecord{Outcome: r.Workspace})
		})
	}
	requests.Wait()
	allowed := map[string][]string{
		"provider":      {"google"},
		"outcome":       append(slices.Clone(contract), "finished", "reader_gone", "done", "slow_reader", "other"),
		"kind":          append(slices.Clone(contract), "other"),
		"reason":        {"first", "retry", "restart", "fallback", "hedge", "other"},
		"result":        {"bypass", "miss", "hit", "shared", "other"},
		"direction":     {"input", "output", "cached", "reasoning"},
		"outcome_class": {"finished", "failed", "stopped"},
	}
	seen := map[string]map[string]bool{"model": {}, "workspace": {}}
	calls, folded := 0.0, 0.0
	for sample, value := range scrape(t, m) {
		if !strings.HasPrefix(sample, "rex_") {
			continue
		}
		for _, pair := range labelPair.FindAllStringSubmatch(sample, -1) {
			label, text := pair[1], pair[2]
			switch {
			case seen[label] != nil:
				seen[label][text] = true
			case label != "le" && !slices.Contains(allowed[label], text):
				t.Errorf("an open label: %s", sample)
			}
		}
		if strings.HasPrefix(sample, "rex_fanout_calls_total") {
			calls += value
		}
		if sample == "rex_fanout_workspace_folded_total" {
			folded = value
		}
	}
	if len(seen["model"]) != 201 || !seen["model"]["other"] {
		t.Errorf("%d models, want 200 and other", len(seen["model"]))
	}
	if len(seen["workspace"]) != 101 || !seen["workspace"]["other"] {
		t.Errorf("%d workspaces, want 100 and other", len(seen["workspace"]))
	}
	if calls != 4000 || folded != 3800 {
		t.Errorf("%v calls, %v of them folded: want 4000 and 3800", calls, folded)
	}
}

func TestEveryKindOfTheContractHasItsOwnOutcome(t *testing.T) {
	m := telemetry.NewMetrics(nil)
	for _, kind := range kinds(t) {
		observe(t.Context(), m, newRequest("m", 1), refused(fanout.Kind(kind), 0))
	}
	got := scrape(t, m)
	for _, kind := range kinds(t) {
		if got[`rex_fanout_calls_total{model="m",outcome="`+kind+`",provider="google"}`] != 1 {
			t.Errorf("%s is not told apart", kind)
		}
	}
}

func TestTheOperatorsWorkspacesAreToldApartAndNoOthers(t *testing.T) {
	m := telemetry.NewMetrics([]string{"acme"})
	for _, name := range []string{"acme", "beta", ""} {
		r := newRequest("m", 1)
		r.Workspace = name
		observe(t.Context(), m, r, refused(fanout.StopUser, 0))
	}
	got := scrape(t, m)
	for _, shown := range []string{"acme", "other", "none"} {
		if got[`rex_fanout_workspace_calls_total{outcome_class="stopped",workspace="`+shown+`"}`] != 1 {
			t.Errorf("%s is not counted", shown)
		}
	}
}

func TestAHedgeIsCountedByWhetherItWon(t *testing.T) {
	m := telemetry.NewMetrics(nil)
	r := newRequest("m", 1)
	for _, record := range []engine.AttemptRecord{answered(), refused(fanout.StopSuperseded, 0), refused(fanout.StopSuperseded, 0)} {
		_, done := m.Attempt(t.Context(), r, &r.Calls[0], &engine.Attempt{Number: 2, Reason: fanout.Hedged, Target: r.Calls[0].Target})
		done(&record)
	}
	got := scrape(t, m)
	if got[`rex_fanout_hedges_total{provider="google",won="true"}`] != 1 || got[`rex_fanout_hedges_total{provider="google",won="false"}`] != 2 {
		t.Error("hedges are not told apart")
	}
}

func TestNamesThatAreNoTextAreShownAllTheSame(t *testing.T) {
	m := telemetry.NewMetrics(nil)
	r := newRequest("m\xff", 1)
	r.Workspace = "w\xff"
	observe(t.Context(), m, r, answered())
	got := scrape(t, m)
	if got["rex_fanout_calls_total{model=\"m\uFFFD\",outcome=\"finished\",provider=\"google\"}"] != 1 ||
		got["rex_fanout_workspace_calls_total{outcome_class=\"finished\",workspace=\"w\uFFFD\"}"] != 1 {
		t.Error("not counted")
	}
}

func TestWhoIsCalledOtherIsCountedWithTheOthers(t *testing.T) {
	m := telemetry.NewMetrics(nil)
	r := newRequest("other", 1)
	r.Workspace = "other"
	observe(t.Context(), m, r, answered())
	for i := range 201 {
		r := newRequest(fmt.Sprint(i), 1)
		r.Workspace = fmt.Sprint(i)
		observe(t.Context(), m, r, answered())
	}
	got := scrape(t, m)
	// 200 models and 100 workspaces have labels, "other" itself is one of them.
	if models := got[`rex_fanout_calls_total{model="other",outcome="finished",provider="google"}`]; models != 3 {
		t.Errorf("%v calls of other models, want 3", models)
	}
	if workspaces := got[`rex_fanout_workspace_calls_total{outcome_class="finished",workspace="other"}`]; workspaces != 103 {
		t.Errorf("%v calls of other workspaces, want 103", workspaces)
	}
}

func TestNamesAndHelpAreAsPrometheusWantsThem(t *testing.T) {
	m := telemetry.NewMetrics(nil)
	failed := refused(fanout.Overloaded, 529)
	failed.Wait = time.Second
	observe(t.Context(), m, newRequest("m", 1), failed, answered())
	response := httptest.NewRecorder()
	m.ServeHTTP(response, httptest.NewRequest(http.MethodGet, "/metrics", nil))
	problems, err := promlint.New(response.Body).Lint()
	if err != nil {
		t.Error(err)
	}
	for _, problem := range problems {
		if strings.HasPrefix(problem.Metric, "rex_") {
			t.Errorf("%s: %s", problem.Metric, problem.Text)
		}
	}
}

func TestOpenMetricsAreGivenToWhoeverAsksForThem(t *testing.T) {
	m := telemetry.NewMetrics(nil)
	request := httptest.NewRequest(http.MethodGet, "/metrics", nil)
	request.Header.Set("Accept", "application/openmetrics-text; version=1.0.0")
	response := httptest.NewRecorder()
	m.ServeHTTP(response, request)
	if kind := response.Header().Get("Content-Type"); !strings.HasPrefix(kind, "application/openmetrics-text") ||
		!strings.HasSuffix(response.Body.String(), "# EOF\n") {
		t.Errorf("%s: %s", kind, response.Body)
	}
}
