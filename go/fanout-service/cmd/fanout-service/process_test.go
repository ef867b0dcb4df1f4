package main

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	otlp "go.opentelemetry.io/proto/otlp/collector/trace/v1"
	tracepb "go.opentelemetry.io/proto/otlp/trace/v1"
	"google.golang.org/protobuf/proto"

	"rex/fanout-service/internal/redistest"
	"rex/fanout-service/internal/testlog"
)

// binary is the service as it is shipped, built once.
var binary struct {
	once sync.Once
	dir  string
	err  error
}

// process is the service as a process of its own.
type process struct {
	*exec.Cmd
	t   *testing.T
	url string
	log *testlog.Buffer
	// ended is closed once it has; err is what it ended with.
	ended chan struct{}
	err   error
}

func launch(t *testing.T, pairs map[string]string) *process {
	t.Helper()
	binary.once.Do(func() {
		if binary.dir, binary.err = os.MkdirTemp("", "fanout-service-"); binary.err == nil {
			var said []byte
			if said, binary.err = exec.Command("go", "build", "-o", binary.dir, ".").CombinedOutput(); binary.err != nil {
				binary.err = fmt.Errorf("%w: %s", binary.err, said)
			}
		}
	})
	if binary.err != nil {
		t.Fatal(binary.err)
	}
	p := &process{Cmd: exec.Command(filepath.Join(binary.dir, "fanout-service")), t: t, log: &testlog.Buffer{}, ended: make(chan struct{})}
	p.Stdout, p.Stderr = p.log, p.log
	p.Env = append(p.Env, "REX_FANOUT_LISTEN=127.0.0.1:0")
	for name, value := range pairs {
		p.Env = append(p.Env, name+"="+value)
	}
	if err := p.Start(); err != nil {
		t.Fatal(err)
	}
	go func() {
		p.err = p.Wait()
		close(p.ended)
	}()
	t.Cleanup(func() {
		_ = p.Process.Kill()
		<-p.ended
	})
	for p.url == "" {
		if line, _, whole := strings.Cut(p.log.String(), "\n"); whole {
			var first struct {
				Address string `json:"address"`
			}
			if json.Unmarshal([]byte(line), &first) != nil || first.Address == "" {
				t.Fatal(line)
			}
			p.url = "http://" + first.Address
		}
		select {
		case <-p.ended:
			t.Fatal(p.log.String())
		case <-time.After(5 * time.Millisecond):
		}
	}
	return p
}

func TestAnAcceptedFanoutIsNeverDroppedByADrain(t *testing.T) {
	p := launch(t, fake(t))
	client := &http.Client{Transport: &http.Transport{}}
	defer client.CloseIdleConnections()
	var accepted, whole, refused atomic.Int32
	var cut testlog.Buffer
	var askers sync.WaitGroup
	for i := range 20 {
		askers.Go(func() {
			for n := 0; ; n++ {
				response, err := post(t, client, p.url, question(fmt.Sprintf("run-%d-%d", i, n), "ok?delay_ms=10"))
				if err != nil {
					return // it has gone
				}
				body, err := io.ReadAll(response.Body)
				_ = response.Body.Close()
				switch {
				case response.StatusCode == http.StatusServiceUnavailable:
					refused.Add(1)
					return
				case err == nil && bytes.Contains(body, []byte(`"end":`)) && bytes.Contains(body, []byte(`"finish_reason":"stop"`)):
					accepted.Add(1)
					whole.Add(1)
				default:
					accepted.Add(1)
					_, _ = fmt.Fprintf(&cut, "%v: %s\n", err, body)
				}
			}
		})
	}
	for accepted.Load() < 40 {
		time.Sleep(time.Millisecond)
	}
	_ = p.Process.Signal(syscall.SIGTERM)
	askers.Wait()
	<-p.ended
	if p.err != nil || accepted.Load() != whole.Load() {
		t.Errorf("%v; %d accepted, %d answered to the end, %d refused; %s", p.err, accepted.Load(), whole.Load(), refused.Load(), cut.String())
	}
	if lines := strings.Count(p.log.String(), `"msg":"fanout"`); lines != int(accepted.Load()) {
		t.Errorf("%d fan-outs in the log, %d were answered: lines were lost on the way out", lines, accepted.Load())
	}
	if !strings.Contains(p.log.String(), `"msg":"stopped"`) {
		t.Error("the last line is missing")
	}
}

func TestASecondSignalEndsTheProcessAtOnce(t *testing.T) {
	p := launch(t, fake(t))
	client := &http.Client{Transport: &http.Transport{}}
	defer client.CloseIdleConnections()
	response, err := post(t, client, p.url, question("x", "no-headers"))
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = response.Body.Close() }()
	_ = p.Process.Signal(syscall.SIGTERM)
	for !strings.Contains(p.log.String(), `"msg":"draining"`) {
		time.Sleep(time.Millisecond)
	}
	_ = p.Process.Signal(syscall.SIGTERM)
	<-p.ended
	if status, _ := p.ProcessState.Sys().(syscall.WaitStatus); status.Signal() != syscall.SIGTERM {
		t.Errorf("it ended by %v, not by the signal", p.ProcessState)
	}
}

func TestServicesOfTheSameRedisShareAnswers(t *testing.T) {
	pairs := fake(t)
	pairs["REX_REDIS_URL"] = "redis://" + redistest.Start(t)
	client := &http.Client{Transport: &http.Transport{}}
	defer client.CloseIdleConnections()
	ask := func(p *process, workspace string) string {
		body := strings.Replace(question("x", "ok"), `"messages"`, `"cache":{"key":"`+strings.Repeat("ab", 32)+`","mode":"read_write"},"messages"`, 1)
		response, err := post(t, client, p.url, strings.Replace(body, "acme", workspace, 1))
		if err != nil {
			t.Fatal(err)
		}
		defer func() { _ = response.Body.Close() }()
		answer, _ := io.ReadAll(response.Body)
		if !strings.Contains(string(answer), `"type":"finished"`) {
			t.Fatalf("%s", answer)
		}
		return string(answer)
	}
	const replay = `"reason":"cache"`
	first := launch(t, pairs)
	if strings.Contains(ask(first, "acme"), replay) {
		t.Error("the first answer came from a cache")
	}
	_ = first.Process.Signal(syscall.SIGTERM) // what waits for Redis is written on the way out
	<-first.ended
	second := launch(t, pairs)
	if !strings.Contains(ask(second, "acme"), replay) {
		t.Error("the answer was not shared")
	}
	if strings.Contains(ask(second, "beta"), replay) {
		t.Error("another workspace got the answer")
	}
	if _, page := get(t, second.url+"/metrics"); !strings.Contains(page, "rex_fanout_shared_limits_up 1") {
		t.Error("metrics do not say that limits are shared")
	}
}

func TestARedisThatIsGoneIsNamedNowhere(t *testing.T) {
	gone, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	_ = gone.Close()
	pairs := fake(t)
	pairs["REX_REDIS_URL"] = "redis://:" + canary + "@" + gone.Addr().String()
	p := launch(t, pairs)
	client := &http.Client{Transport: &http.Transport{}}
	defer client.CloseIdleConnections()
	response, err := post(t, client, p.url, question("x", "ok"))
	if err != nil {
		t.Fatal(err)
	}
	_, _ = io.Copy(io.Discard, response.Body)
	_ = response.Body.Close()
	_ = p.Process.Signal(syscall.SIGTERM)
	<-p.ended
	if !strings.Contains(p.log.String(), "Redis does not answer") {
		t.Error("the log does not say that Redis is gone")
	}
	if strings.Contains(p.log.String(), gone.Addr().String()) || strings.Contains(p.log.String(), canary) {
		t.Errorf("its address or password was told: %s", p.log.String())
	}
}

func TestLogsAndSpansTellWhoAskedWhomAndNothingThatWasSaid(t *testing.T) {
	var mu sync.Mutex
	var spans []*tracepb.Span
	var sent bytes.Buffer
	collector := httptest.NewServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		mu.Lock()
		defer mu.Unlock()
		body, _ := io.ReadAll(r.Body)
		sent.Write(body)
		var batch otlp.ExportTraceServiceRequest
		if proto.Unmarshal(body, &batch) == nil {
			for _, of := range batch.GetResourceSpans() {
				for _, scope := range of.GetScopeSpans() {
					spans = append(spans, scope.GetSpans()...)
				}
			}
		}
	}))
	defer collector.Close()
	const answer = "answer-canary-3f10"
	var traceparent atomic.Value
	upstream := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		traceparent.Store(r.Header.Get("Traceparent"))
		w.Header().Set("Content-Type", "text/event-stream")
		_, _ = io.WriteString(w, `data: {"choices":[{"delta":{"content":"`+answer+`"},"finish_reason":"stop"}]}`+"\n\ndata: [DONE]\n\n")
	}))
	defer upstream.Close()
	p := launch(t, map[string]string{
		"REX_PROVIDER_FAKE_BASE_URL": upstream.URL + "/v1", "REX_PROVIDER_FAKE_API_KEY": canary,
		"OTEL_ENABLED": "1", "OTEL_EXPORTER_OTLP_ENDPOINT": collector.URL, "REX_FANOUT_LOG_LEVEL": "DEBUG",
	})
	client := &http.Client{Transport: &http.Transport{}}
	defer client.CloseIdleConnections()
	const trace = "0af7651916cd43dd8448eb211c80319c"
	response, err := post(t, client, p.url, question("x", "m"), "Traceparent", "00-"+trace+"-b7ad6b7169203331-01")
	if err != nil {
		t.Fatal(err)
	}
	body, err := io.ReadAll(response.Body)
	if _ = response.Body.Close(); err != nil || !bytes.Contains(body, []byte(answer)) {
		t.Fatalf("%v: %s", err, body)
	}
	_ = p.Process.Signal(syscall.SIGTERM)
	<-p.ended
	mu.Lock()
	defer mu.Unlock()
	named := map[string]*tracepb.Span{}
	for _, span := range spans {
		named[span.GetName()] = span
		if got := fmt.Sprintf("%x", span.GetTraceId()); got != trace {
			t.Errorf("%s is of trace %s", span.GetName(), got)
		}
	}
	if named["fanout"] == nil || named["chat m"] == nil || len(spans) != 2 {
		t.Fatalf("spans: %v", named)
	}
	if got, want := traceparent.Load(), fmt.Sprintf("00-%s-%x-01", trace, named["chat m"].GetSpanId()); got != want {
		t.Errorf("the provider got traceparent %v, want %s", got, want)
	}
	for _, line := range []string{`"msg":"attempt"`, `"msg":"call"`, `"msg":"fanout"`} {
		if !strings.Contains(p.log.String(), line) {
			t.Errorf("the log has no %s", line)
		}
	}
	for where, text := range map[string]string{"the log": p.log.String(), "spans": sent.String()} {
		for _, secret := range []string{canary, promptCanary, answer} {
			if strings.Contains(text, secret) {
				t.Errorf("%s tell %s: %s", where, secret, text)
			}
		}
	}
}

func TestProvidersAreToldTheTraceUnlessTheOperatorForbidsIt(t *testing.T) {
	collector := httptest.NewServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) { _, _ = io.Copy(io.Discard, r.Body) }))
	defer collector.Close()
	t.Setenv("OTEL_EXPORTER_OTLP_ENDPOINT", collector.URL)
	traceparents := make(chan string, 1)
	upstream := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		traceparents <- r.Header.Get("Traceparent")
		w.WriteHeader(http.StatusBadRequest)
	}))
	defer upstream.Close()
	defer http.DefaultClient.CloseIdleConnections()
	for pass, told := range map[string]bool{"1": true, "0": false} {
		service := start(t, map[string]string{
			"REX_PROVIDER_FAKE_BASE_URL": upstream.URL, "OTEL_ENABLED": "1", "REX_FANOUT_TRACE_PROVIDERS": pass,
		}).quiet()
		response := service.ask("m")
		if got := <-traceparents; (got != "") != told {
			t.Errorf("REX_FANOUT_TRACE_PROVIDERS=%s: traceparent %q", pass, got)
		}
		_ = response.Body.Close()
		service.end()
	}
}
