package main

import (
	"bytes"
	"crypto/sha256"
	"encoding/json"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"os"
	"regexp"
	"strings"
	"sync"
	"syscall"
	"testing"

	"github.com/redis/go-redis/v9"

	fanout "rex/fanout-service"
	"rex/fanout-service/internal/redistest"
	"rex/fanout-service/internal/testlog"
)

const (
	answerCanary = "answer-canary-3f10"
	oursID       = "0d1f6f0e-8a5b-4a77-9a53-2f5c1d1f0a01"
	theirsID     = "0d1f6f0e-8a5b-4a77-9a53-2f5c1d1f0b02"
	othersID     = "0d1f6f0e-8a5b-4a77-9a53-2f5c1d1f0c03"
)

// gated is a provider whose answers wait until they are let go.
type gated struct {
	*httptest.Server
	arrived chan struct{}
	open    chan struct{}
}

func newGated(t *testing.T) *gated {
	t.Helper()
	g := &gated{arrived: make(chan struct{}, 16), open: make(chan struct{})}
	g.Server = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		body, _ := io.ReadAll(r.Body)
		if bytes.Contains(body, []byte(`"refused"`)) {
			w.WriteHeader(http.StatusUnauthorized)
			_, _ = io.WriteString(w, `{"error":{"message":"Incorrect API key provided: `+r.Header.Get("Authorization")+`","code":"invalid_api_key"}}`)
			return
		}
		g.arrived <- struct{}{}
		<-g.open
		w.Header().Set("Content-Type", "text/event-stream")
		_, _ = io.WriteString(w, `data: {"choices":[{"delta":{"content":"`+answerCanary+`"},"finish_reason":"stop"}],"usage":{"prompt_tokens":7,"completion_tokens":3}}`+"\n\ndata: [DONE]\n\n")
	}))
	t.Cleanup(g.Close)
	return g
}

// moments are what differs between two tellings of the same.
var moments = regexp.MustCompile(`"(at_ms|elapsed_ms|queued|admitted|connect|first_token|last_token)":(\d+)`)

// asked is the whole answer to a question that may be cached, without its moments.
func (p *process) asked(client *http.Client, workspace, model string) string {
	p.t.Helper()
	body := strings.Replace(question("run-"+workspace+model, model), `"messages"`,
		`"cache":{"key":"`+fmt.Sprintf("%x", sha256.Sum256([]byte(model)))+`","mode":"read_write"},"messages"`, 1)
	response, err := post(p.t, client, p.url, strings.Replace(body, `"acme"`, `"`+workspace+`"`, 1))
	if err != nil {
		p.t.Error(err)
		return ""
	}
	defer func() { _ = response.Body.Close() }()
	raw, err := io.ReadAll(response.Body)
	if err != nil {
		p.t.Error(err)
	}
	var headers bytes.Buffer
	response.Header.Del("Date")
	_ = response.Header.Write(&headers)
	// How the events fall into lines is a matter of time as well.
	var events []json.RawMessage
	for each := range bytes.Lines(raw) {
		var line struct {
			Events []json.RawMessage `json:"ev"`
		}
		if err := json.Unmarshal(each, &line); err != nil {
			p.t.Errorf("%s: %v", each, err)
		}
		events = append(events, line.Events...)
	}
	return headers.String() + moments.ReplaceAllString(fmt.Sprintf("%s", events), `"$1":0`)
}

// Another workspace's answer, known or on its way, changes nothing: the provider is asked as if
// nobody ever had, and every byte of what is told is that of a first answer.
func TestAWorkspaceIsAnsweredAsIfNobodyElseHadAsked(t *testing.T) {
	provider := newGated(t)
	address := redistest.Start(t)
	p := launch(t, map[string]string{
		"REX_PROVIDER_FAKE_BASE_URL": provider.URL + "/v1", "REX_PROVIDER_FAKE_API_KEY": canary, "REX_REDIS_URL": "redis://" + address,
	})
	client := &http.Client{Transport: &http.Transport{}}
	defer client.CloseIdleConnections()
	var ours, theirs string
	var both sync.WaitGroup
	both.Go(func() { ours = p.asked(client, oursID, "m") })
	<-provider.arrived
	both.Go(func() { theirs = p.asked(client, theirsID, "m") })
	<-provider.arrived // while the other's is still on its way
	close(provider.open)
	both.Wait()
	others := p.asked(client, othersID, "m") // with two answers known, and the key in Redis
	if n := len(provider.arrived); n != 1 {
		t.Errorf("the provider was asked %d times more, want once", n)
	}
	if !strings.Contains(ours, answerCanary) || theirs != ours || others != ours {
		t.Errorf("the answers differ:\n%s\n%s\n%s", ours, theirs, others)
	}
	if again := p.asked(client, oursID, "m"); !strings.Contains(again, `"reason":"cache"`) {
		t.Errorf("a workspace does not find its own answer: %s", again)
	}
}

// What was asked and answered stands in the stream of who asked, and in Redis as the value of a
// cached answer; keys of providers stand nowhere. Of a workspace only its id is known.
func TestSecretsStandNowhereButWhereTheyMust(t *testing.T) {
	var sent testlog.Buffer
	collector := httptest.NewServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		body, _ := io.ReadAll(r.Body)
		_, _ = sent.Write(body)
	}))
	defer collector.Close()
	provider := newGated(t)
	close(provider.open)
	address := redistest.Start(t)
	p := launch(t, map[string]string{
		"REX_PROVIDER_FAKE_BASE_URL": provider.URL + "/v1", "REX_PROVIDER_FAKE_API_KEY": canary + "-1," + canary + "-2",
		"REX_REDIS_URL": "redis://" + address, "REX_FANOUT_MAX_CONCURRENT": "5", "REX_FANOUT_LOG_LEVEL": "DEBUG",
		"OTEL_ENABLED": "1", "OTEL_EXPORTER_OTLP_ENDPOINT": collector.URL,
	})
	client := &http.Client{Transport: &http.Transport{}}
	defer client.CloseIdleConnections()
	fine, refused := p.asked(client, oursID, "m"), p.asked(client, oursID, "refused")
	if !strings.Contains(fine, answerCanary) || !strings.Contains(refused, `"kind":"auth"`) {
		t.Fatalf("%s\n%s", fine, refused)
	}
	_, metrics := get(t, p.url+"/metrics")
	_, targets := get(t, p.url+"/targets")
	http.DefaultClient.CloseIdleConnections()
	arguments, err := os.ReadFile(fmt.Sprintf("/proc/%d/cmdline", p.Process.Pid))
	if err != nil || len(arguments) == 0 {
		t.Fatal("the process' arguments cannot be read: ", err)
	}
	_ = p.Process.Signal(syscall.SIGTERM) // what waits for Redis and the collector is written on the way out
	<-p.ended
	names, values := stored(t, address)
	if !strings.Contains(values, answerCanary) || !strings.Contains(names, oursID) || !strings.Contains(sent.String(), oursID) || !strings.Contains(targets, `"refused"`) {
		t.Fatalf("not all that is looked through is there: %s %s", names, targets)
	}
	places := map[string]string{
		"an answer": fine, "a failure": refused, "metrics": metrics, "the state of targets": targets, "arguments": string(arguments),
		"spans": sent.String(), "the log": p.log.String(), "names in Redis": names, "values in Redis": values,
	}
	for where, text := range places {
		secrets := []string{canary, promptCanary}
		if where != "names in Redis" { // there processes must find each other's
			secrets = append(secrets, fanout.NewKey(canary+"-1").ID(), fanout.NewKey(canary+"-2").ID())
		}
		if where != "an answer" && where != "values in Redis" {
			secrets = append(secrets, answerCanary)
		}
		for _, secret := range secrets {
			if strings.Contains(text, secret) {
				t.Errorf("%s: %s is told: %.2000s", where, secret, text)
			}
		}
	}
}

// stored is everything in a Redis.
func stored(t *testing.T, address string) (names, values string) {
	t.Helper()
	client := redis.NewClient(&redis.Options{Addr: address})
	defer func() { _ = client.Close() }()
	all, err := client.Keys(t.Context(), "*").Result()
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range all {
		dump, err := client.Dump(t.Context(), name).Result()
		if err != nil {
			t.Fatal(err)
		}
		text, _ := client.Get(t.Context(), name).Result() // only of what is text
		names, values = names+name+"\n", values+dump+text
	}
	return names, values
}

func TestAPanicOfARequestTellsNothingOfIt(t *testing.T) {
	var log testlog.Buffer
	handler := http.HandlerFunc(func(http.ResponseWriter, *http.Request) { panic(promptCanary) })
	server := httptest.NewUnstartedServer(nil)
	server.Config = newServer(handler, slog.New(slog.NewJSONHandler(&log, &slog.HandlerOptions{Level: slog.LevelDebug})))
	server.Start()
	response, err := server.Client().Get(server.URL)
	if err == nil {
		_ = response.Body.Close()
		t.Errorf("answered with %d", response.StatusCode)
	}
	server.Close()
	if text := log.String(); !strings.Contains(text, "a request panicked") || !strings.Contains(text, "isolation_test.go") || strings.Contains(text, promptCanary) {
		t.Errorf("the log: %s", text)
	}
}
