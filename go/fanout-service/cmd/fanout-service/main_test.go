package main

import (
	"bufio"
	"context"
	"encoding/json"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"go.uber.org/goleak"

	"rex/fanout-service/fakeprovider"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

const canary = "sk-canary-key-55d0"

func env(pairs map[string]string) environment {
	e := environment{get: func(name string) string { return pairs[name] }}
	for name, value := range pairs {
		e.all = append(e.all, name+"="+value)
	}
	return e
}

func keyFile(t *testing.T, content string) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "key")
	if err := os.WriteFile(path, []byte(content), 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

func TestProvidersAreConfiguredByTheEnvironment(t *testing.T) {
	s, err := readSettings(env(map[string]string{
		"REX_LOCAL_BASE_URL":          "http://127.0.0.1:9/v1/",
		"OPENAI_API_KEY":              canary,
		"GEMINI_API_KEY_FILE":         keyFile(t, canary+"\n"),
		"VLLM_BASE_URL":               "http://127.0.0.1:8/v1",
		"GROQ_BASE_URL":               "https://groq.example/v1", // an address without a key does not suffice
		"REX_PROVIDER_MINE_BASE_URL":  "https://mine.example/v1",
		"REX_PROVIDER_MINE_API_KEY":   canary,
		"REX_PROVIDER_OTHER_BASE_URL": "",
	}))
	if err != nil {
		t.Fatal(err)
	}
	got := map[string]string{}
	for _, p := range s.providers.configs {
		got[p.Name] = p.BaseURL + " " + p.Keys[0].Reveal()
	}
	want := map[string]string{
		"local":  "http://127.0.0.1:9/v1 ",
		"openai": "https://api.openai.com/v1 " + canary,
		"google": "https://generativelanguage.googleapis.com/v1beta " + canary,
		"vllm":   "http://127.0.0.1:8/v1 ",
		"mine":   "https://mine.example/v1 " + canary,
	}
	for name, line := range want {
		if got[name] != line {
			t.Errorf("%s: %q, want %q", name, got[name], line)
		}
	}
	if len(got) != len(want) {
		t.Errorf("configured: %v", got)
	}
	if s.listen != "127.0.0.1:8099" {
		t.Errorf("listens on %s", s.listen)
	}
}

func TestAWrongEnvironmentIsRefusedByNameAndWithoutItsSecrets(t *testing.T) {
	cases := map[string]map[string]string{
		"OPENAI_BASE_URL":             {"OPENAI_BASE_URL": "https://user:" + canary + "@openai.example/v1"},
		"REX_LOCAL_BASE_URL":          {"REX_LOCAL_BASE_URL": "file:///etc/passwd"},
		"VLLM_BASE_URL":               {"VLLM_BASE_URL": "https://vllm.example/v1?key=" + canary},
		"OPENAI_API_KEY":              {"OPENAI_API_KEY": canary + "\r\nX-Evil: 1"},
		"OPENAI_API_KEY_FILE":         {"OPENAI_API_KEY_FILE": "/nowhere/" + canary},
		"REX_PROVIDER_LOCAL_BASE_URL": {"REX_PROVIDER_LOCAL_BASE_URL": "http://127.0.0.1:1/v1"},
		"REX_FANOUT_DRAIN_SECONDS":    {"REX_FANOUT_DRAIN_SECONDS": "soon"},
	}
	for name, pairs := range cases {
		_, err := readSettings(env(pairs))
		if err == nil || !strings.Contains(err.Error(), name) || strings.Contains(err.Error(), canary) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func TestCheckConfigSaysWhatIsConfiguredAndNoSecret(t *testing.T) {
	var out strings.Builder
	err := run(t.Context(), []string{"--check-config"}, env(map[string]string{"OPENAI_API_KEY": canary}), strings.NewReader(""), &out)
	if err != nil || !strings.Contains(out.String(), "openai       configured") || !strings.Contains(out.String(), "groq         not configured") {
		t.Errorf("%v\n%s", err, out.String())
	}
	if strings.Contains(out.String(), canary) {
		t.Error("the key was told")
	}
}

// running is the service in its own goroutine.
type running struct {
	t     *testing.T
	url   string
	stop  context.CancelFunc
	stdin *io.PipeWriter
	ended chan error
}

func start(t *testing.T, pairs map[string]string, args ...string) *running {
	t.Helper()
	ctx, stop := context.WithCancel(context.Background())
	stdin, parent := io.Pipe()
	log, out := io.Pipe()
	pairs["REX_FANOUT_LISTEN"] = "127.0.0.1:0"
	r := &running{t: t, stop: stop, stdin: parent, ended: make(chan error, 1)}
	go func() {
		err := run(ctx, args, env(pairs), stdin, out)
		_ = out.Close()
		r.ended <- err
	}()
	lines := bufio.NewReader(log)
	first, err := lines.ReadString('\n')
	var listening struct {
		Address string `json:"address"`
	}
	if err != nil || json.Unmarshal([]byte(first), &listening) != nil {
		t.Fatalf("%q %v", first, err)
	}
	go func() { _, _ = io.Copy(io.Discard, lines) }()
	r.url = "http://" + listening.Address
	return r
}

func (r *running) ask(model string) *http.Response {
	r.t.Helper()
	body := `{"v":1,"id":"x","deadline_ms":60000,"calls":[{"id":"A","provider":"fake","model":"` + model + `","messages":[{"role":"user","content":"hi"}]}]}`
	request, err := http.NewRequestWithContext(r.t.Context(), http.MethodPost, r.url+"/fanout", strings.NewReader(body))
	if err != nil {
		r.t.Fatal(err)
	}
	request.Header.Set("Content-Type", "application/json")
	response, err := http.DefaultClient.Do(request)
	if err != nil {
		r.t.Fatal(err)
	}
	return response
}

func fake(t *testing.T) map[string]string {
	t.Helper()
	upstream := httptest.NewServer(fakeprovider.New())
	t.Cleanup(upstream.Close)
	t.Cleanup(http.DefaultClient.CloseIdleConnections)
	return map[string]string{"REX_PROVIDER_FAKE_BASE_URL": upstream.URL + "/v1"}
}

func TestASignalLetsWhatIsInFlightFinish(t *testing.T) {
	service := start(t, fake(t))
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
	service := start(t, pairs)
	response := service.ask("no-headers")
	defer func() { _ = response.Body.Close() }()
	service.stop()
	if err := <-service.ended; err != nil {
		t.Error(err)
	}
	if raw, err := io.ReadAll(response.Body); err == nil || strings.Contains(string(raw), `"end":`) {
		t.Errorf("the stream was not cut: %v %s", err, raw)
	}
}

func TestTheServiceEndsWithItsParent(t *testing.T) {
	service := start(t, fake(t), "--exit-on-stdin-eof")
	defer service.stop()
	response := service.ask("no-headers")
	defer func() { _ = response.Body.Close() }()
	_ = service.stdin.Close()
	if err := <-service.ended; err != nil {
		t.Error(err)
	}
}

func TestAPortInUseIsSaidByName(t *testing.T) {
	service := start(t, fake(t))
	defer func() { service.stop(); <-service.ended }()
	taken := map[string]string{"REX_FANOUT_LISTEN": strings.TrimPrefix(service.url, "http://")}
	err := run(t.Context(), nil, env(taken), strings.NewReader(""), io.Discard)
	if err == nil || !strings.Contains(err.Error(), "REX_FANOUT_LISTEN") {
		t.Errorf("%v", err)
	}
}
