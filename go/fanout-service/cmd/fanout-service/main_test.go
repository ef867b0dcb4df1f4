package main

import (
	"bufio"
	"context"
	"encoding/json"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"go.uber.org/goleak"

	"rex/fanout-service/fakeprovider"
)

func TestMain(m *testing.M) {
	code := m.Run()
	if binary.dir != "" {
		_ = os.RemoveAll(binary.dir)
	}
	if code == 0 {
		if err := goleak.Find(); err != nil {
			_, _ = os.Stderr.WriteString(err.Error() + "\n")
			code = 1
		}
	}
	os.Exit(code)
}

const canary = "sk-canary-key-55d0"

func env(pairs map[string]string) environment {
	e := environment{get: func(name string) string { return pairs[name] }}
	for name, value := range pairs {
		e.all = append(e.all, name+"="+value)
	}
	return e
}

func TestCheckConfigSaysWhatIsConfiguredAndNoSecret(t *testing.T) {
	pairs := map[string]string{
		"OPENAI_API_KEY": canary, "ANTHROPIC_API_KEY": canary + "-a," + canary + "-b",
		"REX_REDIS_URL": "redis://:" + canary + "@redis.example:6379/0", "REX_CACHE_ENABLED": "0",
	}
	var out strings.Builder
	if err := run(t.Context(), []string{"--check-config"}, env(pairs), strings.NewReader(""), &out); err != nil {
		t.Fatal(err)
	}
	for _, line := range []string{
		"openai       configured\n", "anthropic    configured, 2 keys\n", "groq         not configured\n",
		"cache        off\n", "redis        on\n", "spans        off\n",
	} {
		if !strings.Contains(out.String(), line) {
			t.Errorf("%q is missing in\n%s", line, out.String())
		}
	}
	if strings.Contains(out.String(), canary) || strings.Contains(out.String(), "example") {
		t.Errorf("a key or an address was told:\n%s", out.String())
	}
}

func TestAnArgumentNobodyReadsIsRefused(t *testing.T) {
	for _, args := range [][]string{{"check-config"}, {"--check-config", "more"}} {
		var out strings.Builder
		err := run(t.Context(), args, env(nil), strings.NewReader(""), &out)
		if err == nil || !strings.Contains(err.Error(), args[len(args)-1]) || out.Len() > 0 {
			t.Errorf("%q: %v %s", args, err, out.String())
		}
	}
}

// running is the service in a goroutine of the test.
type running struct {
	t     *testing.T
	url   string
	first map[string]any // its first line of log
	more  *bufio.Reader  // the rest of its log
	stop  context.CancelFunc
	stdin *io.PipeWriter
	ended chan error
}

func start(t *testing.T, pairs map[string]string, args ...string) *running {
	t.Helper()
	ctx, stop := context.WithCancel(context.Background())
	stdin, parent := io.Pipe()
	log, out := io.Pipe()
	if pairs["REX_FANOUT_LISTEN"] == "" {
		pairs["REX_FANOUT_LISTEN"] = "127.0.0.1:0"
	}
	r := &running{t: t, stop: stop, stdin: parent, ended: make(chan error, 1), more: bufio.NewReader(log)}
	go func() {
		err := run(ctx, args, env(pairs), stdin, out)
		_ = out.Close()
		r.ended <- err
	}()
	r.first = r.line()
	address, _ := r.first["address"].(string)
	r.url = "http://" + address
	return r
}

// line is the next line of the log.
func (r *running) line() map[string]any {
	r.t.Helper()
	raw, err := r.more.ReadString('\n')
	var fields map[string]any
	if err != nil || json.Unmarshal([]byte(raw), &fields) != nil {
		r.t.Fatalf("%q %v", raw, err)
	}
	return fields
}

// quiet reads the rest of the log, so that nothing waits for it.
func (r *running) quiet() *running {
	go func() { _, _ = io.Copy(io.Discard, r.more) }()
	return r
}

// end stops the service and waits for it.
func (r *running) end() {
	r.t.Helper()
	r.stop()
	if err := <-r.ended; err != nil {
		r.t.Error(err)
	}
}

func question(id, model string) string {
	return `{"v":2,"id":"` + id + `","workspace":"acme","deadline_ms":60000,"calls":[{"id":"A","provider":"fake","model":"` + model +
		`","messages":[{"role":"user","content":"` + promptCanary + `"}]}]}`
}

const promptCanary = "prompt-canary-90c2"

func post(t *testing.T, client *http.Client, url, body string, headers ...string) (*http.Response, error) {
	t.Helper()
	request, err := http.NewRequestWithContext(t.Context(), http.MethodPost, url+"/fanout", strings.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	request.Header.Set("Content-Type", "application/json")
	for i := 0; i < len(headers); i += 2 {
		request.Header.Set(headers[i], headers[i+1])
	}
	return client.Do(request)
}

func (r *running) ask(model string) *http.Response {
	r.t.Helper()
	response, err := post(r.t, http.DefaultClient, r.url, question("x", model))
	if err != nil {
		r.t.Fatal(err)
	}
	return response
}

// get answers the status and the body of a path.
func get(t *testing.T, url string) (int, string) {
	t.Helper()
	response, err := http.Get(url)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = response.Body.Close() }()
	body, err := io.ReadAll(response.Body)
	if err != nil {
		t.Fatal(err)
	}
	return response.StatusCode, string(body)
}

// fake is the environment of a service whose provider "fake" is the scripted upstream.
func fake(t *testing.T) map[string]string {
	t.Helper()
	upstream := httptest.NewServer(fakeprovider.New())
	t.Cleanup(upstream.Close)
	t.Cleanup(http.DefaultClient.CloseIdleConnections)
	return map[string]string{"REX_PROVIDER_FAKE_BASE_URL": upstream.URL + "/v1", "REX_PROVIDER_FAKE_API_KEY": canary}
}

func TestASignalLetsWhatIsInFlightFinish(t *testing.T) {
	service := start(t, fake(t)).quiet()
	response := service.ask("ok?delay_ms=20")
	defer func() { _ = response.Body.Close() }()
	service.stop()
	raw, err := io.ReadAll(response.Body)
	if err != nil || !strings.Contains(string(raw), `"finish_reason":"stop"`) || !strings.Contains(string(raw), `"end":`) {
		t.Errorf("%v: %s", err, raw)
	}
	if err := <-service.ended; err != nil {
		t.Error(err)
	}
}

func TestTheDrainIsBounded(t *testing.T) {
	pairs := fake(t)
	pairs["REX_FANOUT_DRAIN_SECONDS"] = "0"
	service := start(t, pairs).quiet()
	response := service.ask("no-headers")
	defer func() { _ = response.Body.Close() }()
	service.end()
	raw, err := io.ReadAll(response.Body)
	for _, want := range []string{`"kind":"overloaded"`, `(the service is shutting down)`, `"retryable":true`, `"failed":1`} {
		if err != nil || !strings.Contains(string(raw), want) {
			t.Errorf("%s is missing: %v %s", want, err, raw)
		}
	}
}

func TestAServiceThatDrainsSaysAtOnceThatItIsNotReady(t *testing.T) {
	service := start(t, fake(t)).quiet()
	response := service.ask("no-headers")
	if status, _ := get(t, service.url+"/readyz"); status != http.StatusOK {
		t.Errorf("ready: %d", status)
	}
	service.stop()
	status := 0
	for range 100 {
		if status, _ = get(t, service.url+"/readyz"); status == http.StatusServiceUnavailable {
			break
		}
		time.Sleep(10 * time.Millisecond)
	}
	alive, _ := get(t, service.url+"/healthz")
	if status != http.StatusServiceUnavailable || alive != http.StatusOK {
		t.Errorf("draining: ready %d, alive %d", status, alive)
	}
	_ = response.Body.Close() // the only fan-out: the drain is over
	if err := <-service.ended; err != nil {
		t.Error(err)
	}
}

func TestTheServiceEndsWithItsParent(t *testing.T) {
	service := start(t, fake(t), "--exit-on-stdin-eof").quiet()
	defer service.stop()
	response := service.ask("no-headers")
	defer func() { _ = response.Body.Close() }()
	_ = service.stdin.Close()
	if err := <-service.ended; err != nil {
		t.Error(err)
	}
}

func TestMetricsTellOfCallsAndOfTheStateOfEveryPart(t *testing.T) {
	service := start(t, fake(t)).quiet()
	defer service.end()
	_, _ = io.ReadAll(service.ask("ok").Body)
	_, page := get(t, service.url+"/metrics")
	for _, sample := range []string{
		`rex_fanout_calls_total{model="ok",outcome="finished",provider="fake"} 1`,
		`rex_fanout_workspace_calls_total{outcome_class="finished",workspace="acme"} 1`,
		`rex_fanout_first_token_seconds_count{model="ok",provider="fake"} 1`,
		`rex_fanout_in_flight_fanouts `, `rex_fanout_in_flight_calls `, `rex_fanout_bytes_in_flight `,
		`rex_fanout_cache_bytes `, `rex_fanout_cache_flights `, `rex_fanout_log_lines_lost_total 0`, `process_open_fds `,
	} {
		if !strings.Contains(page, sample) {
			t.Errorf("%q is missing", sample)
		}
	}
	if strings.Contains(page, canary) || strings.Contains(page, promptCanary) {
		t.Error("metrics tell a key or a prompt")
	}
}

func TestTheDocumentedMetricsAreThoseThatAreShown(t *testing.T) {
	readme, err := os.ReadFile("../../telemetry/README.md")
	if err != nil {
		t.Fatal(err)
	}
	var documented, shown []string
	for _, row := range regexp.MustCompile("(?m)^\\| `([a-z_]+)` \\| ([a-z]+) \\|").FindAllStringSubmatch(string(readme), -1) {
		documented = append(documented, row[1]+" "+row[2])
	}
	pairs := fake(t)
	pairs["REX_REDIS_URL"], pairs["OTEL_ENABLED"], pairs["REX_FANOUT_MAX_CONCURRENT"] = "redis://127.0.0.1:1", "1", "10"
	service := start(t, pairs).quiet()
	defer service.end()
	// A metric with labels is shown once it has something to tell: one call is hedged, one
	// is tried again, and in the end the provider wants to be left alone for long.
	for model, fields := range map[string]string{"slow-once": `"hedge":{"after_ms":20},`, "flaky?percent=100": `"retry":{"attempts":2},`} {
		response, err := post(t, http.DefaultClient, service.url, strings.Replace(question(model[:4], model), `"messages"`, fields+`"messages"`, 1))
		if err != nil {
			t.Fatal(err)
		}
		_, _ = io.Copy(io.Discard, response.Body)
	}
	_, _ = io.Copy(io.Discard, service.ask("rate-limited?retry_after=600").Body)
	_, page := get(t, service.url+"/metrics")
	for _, line := range regexp.MustCompile(`(?m)^# TYPE (rex_\S+ [a-z]+)$`).FindAllStringSubmatch(page, -1) {
		shown = append(shown, line[1])
	}
	slices.Sort(documented)
	slices.Sort(shown)
	if !slices.Equal(documented, shown) {
		t.Errorf("documented %v\nshown      %v", documented, shown)
	}
}

func TestARedisThatIsGoneStopsNothing(t *testing.T) {
	closed, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	_ = closed.Close()
	pairs := fake(t)
	pairs["REX_REDIS_URL"] = "redis://" + closed.Addr().String()
	service := start(t, pairs).quiet()
	defer service.end()
	raw, err := io.ReadAll(service.ask("ok").Body)
	if err != nil || !strings.Contains(string(raw), `"finish_reason":"stop"`) {
		t.Errorf("%v: %s", err, raw)
	}
	if _, page := get(t, service.url+"/metrics"); !strings.Contains(page, "rex_fanout_shared_limits_up 0") {
		t.Error("metrics do not say that limits are not shared")
	}
}
