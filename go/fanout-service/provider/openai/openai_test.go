package openai_test

import (
	"context"
	"encoding/json"
	"errors"
	"io"
	"log"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"go.uber.org/goleak"

	fanout "rex/fanout-service"
	"rex/fanout-service/provider"
	"rex/fanout-service/provider/openai"
	"rex/fanout-service/provider/providertest"
)

func ptr[T any](v T) *T { return &v }

func newProvider(t *testing.T, quirks provider.Quirks) func(baseURL string) fanout.Provider {
	client := provider.NewClient(providertest.Loopback())
	t.Cleanup(client.CloseIdleConnections)
	return func(baseURL string) fanout.Provider {
		return openai.New(provider.Config{Name: "test", BaseURL: baseURL, Quirks: quirks}, client)
	}
}

// What OpenAI, llama.cpp and a thinking model behind vLLM send, shortened.
var recorded = []providertest.Recorded{
	{
		Name: "openai",
		Stream: `data: {"id":"c1","object":"chat.completion.chunk","created":1,"model":"m","service_tier":"default","system_fingerprint":"fp","choices":[{"index":0,"delta":{"role":"assistant","content":"","refusal":null},"logprobs":null,"finish_reason":null}],"usage":null,"obfuscation":"x"}` + "\n\n" +
			`data: {"id":"c1","choices":[{"index":0,"delta":{"content":"Light — \"na\u00efve\" \ud83c\udf0d"},"logprobs":null,"finish_reason":null}],"usage":null}` + "\n\n" +
			`data: {"id":"c1","choices":[{"index":0,"delta":{"content":"\n scatters 日本"},"finish_reason":null}],"usage":null}` + "\n\n" +
			`data: {"id":"c1","choices":[{"index":0,"delta":{},"finish_reason":"stop"}],"usage":null}` + "\n\n" +
			`data: {"id":"c1","choices":[],"usage":{"prompt_tokens":9,"completion_tokens":7,"total_tokens":16,"prompt_tokens_details":{"cached_tokens":4,"audio_tokens":0},"completion_tokens_details":{"reasoning_tokens":2}}}` + "\n\n" +
			"data: [DONE]\n\n",
		Text:     "Light — \"naïve\" 🌍\n scatters 日本",
		Want:     fanout.Answer{FinishReason: fanout.FinishStop, InputTokens: ptr[int64](9), OutputTokens: ptr[int64](7), CachedTokens: 4, ReasoningTokens: 2},
		Complete: `"finish_reason":"stop"}],"usage":null}` + "\n\n",
	},
	{
		Name: "llama.cpp",
		Stream: `data: {"choices":[{"finish_reason":null,"index":0,"delta":{"role":"assistant","content":null}}],"created":1,"id":"c","model":"m","object":"chat.completion.chunk"}` + "\n\n" +
			`data: {"choices":[{"finish_reason":null,"index":0,"delta":{"content":"Cut"}}],"created":1}` + "\n\n" +
			`data: {"choices":[{"finish_reason":"length","index":0,"delta":{}}],"created":1,"usage":{"completion_tokens":1,"prompt_tokens":3,"total_tokens":4},"timings":{"predicted_ms":1.5e0}}` + "\n\n" +
			"data: [DONE]\n\n",
		Text:     "Cut",
		Want:     fanout.Answer{FinishReason: fanout.FinishLength, InputTokens: ptr[int64](3), OutputTokens: ptr[int64](1)},
		Complete: `"timings":{"predicted_ms":1.5e0}}` + "\n\n",
	},
	{
		Name: "thinking, without usage and [DONE]",
		Stream: `data: {"choices":[{"index":0,"delta":{"reasoning_content":"Hm, {\"content\":\"no\"}"}}]}` + "\n\n" +
			"event: message\nid: 7\n" +
			`data: {"choices":[{"index":0,` + "\ndata: " + `"delta":{"content":"Yes"},"finish_reason":"eos"}]}` + "\n\n",
		Text:     "Yes",
		Want:     fanout.Answer{FinishReason: fanout.FinishStop},
		Complete: `"finish_reason":"eos"}]}` + "\n\n",
	},
}

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func TestConformance(t *testing.T) {
	providertest.Run(t, providertest.Subject{
		New:      newProvider(t, provider.Quirks{}),
		Recorded: recorded,
		ErrorEvent: func(object json.RawMessage) string {
			return `data: {"choices":[{"index":0,"delta":{"content":"x"}}]}` + "\n\ndata: " + string(object) + "\n\n"
		},
	})
}

// sent returns the request that a call becomes.
func sent(t *testing.T, quirks provider.Quirks, call *fanout.Call) (header http.Header, body map[string]any) {
	t.Helper()
	upstream := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		header = r.Header
		raw, err := io.ReadAll(r.Body)
		if err == nil {
			err = json.Unmarshal(raw, &body)
		}
		if err != nil || r.URL.Path != "/v1/chat/completions" || r.Method != http.MethodPost {
			t.Errorf("%s %s: %v", r.Method, r.URL.Path, err)
		}
		w.WriteHeader(http.StatusTeapot)
	}))
	defer upstream.Close()
	_, err := newProvider(t, quirks)(upstream.URL+"/v1").Stream(t.Context(), call, fanout.NewKey("sk-1"), &providertest.Sink{T: t})
	if err == nil {
		t.Error("a teapot gave an answer")
	}
	return header, body
}

func TestWhatACallLeavesOpenIsNotSent(t *testing.T) {
	header, body := sent(t, provider.Quirks{}, providertest.Call())
	for _, name := range []string{"model", "messages", "stream", "stream_options"} {
		if _, ok := body[name]; !ok {
			t.Errorf("%s is missing", name)
		}
	}
	if len(body) != 4 {
		t.Errorf("more was sent: %v", body)
	}
	if header.Get("Authorization") != "Bearer sk-1" || header.Get("Accept-Encoding") != "" {
		t.Errorf("headers: %v", header)
	}
}

func TestAConnectionIsKeptUnlessTheEndpointClosesThemItself(t *testing.T) {
	for _, closes := range []bool{false, true} {
		addresses := map[string]bool{}
		upstream := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			addresses[r.RemoteAddr] = true
			w.Header().Set("Content-Type", "text/event-stream")
			_, _ = io.WriteString(w, "data: {\"choices\":[{\"delta\":{\"content\":\"Hi\"},\"finish_reason\":\"stop\"}]}\n\ndata: [DONE]\n\n")
		}))
		subject := newProvider(t, provider.Quirks{CloseConnections: closes})(upstream.URL)
		for range 3 {
			if _, err := subject.Stream(t.Context(), providertest.Call(), fanout.NewKey(providertest.Key), &providertest.Sink{T: t}); err != nil {
				t.Fatal(err)
			}
			time.Sleep(20 * time.Millisecond) // a connection is given back behind the answer
		}
		upstream.Close()
		if closes != (len(addresses) == 3) {
			t.Errorf("closes %v: %d connections for 3 calls", closes, len(addresses))
		}
	}
}

func TestEveryParameterIsSentInTheProvidersWords(t *testing.T) {
	call := providertest.Call()
	call.Params = fanout.Params{
		MaxTokens: ptr[int64](5), Temperature: ptr(0.0), TopP: ptr(0.5), Seed: ptr[int64](1 << 53),
		Stop: []string{"\n"}, ResponseFormat: json.RawMessage(`{"type":"json_object"}`),
	}
	want := []string{
		`"max_tokens":5`, `"temperature":0`, `"top_p":0.5`, `"stop":["\n"]`, `"response_format":{"type":"json_object"}`, `"seed":9007199254740992`,
	}
	check := func(body map[string]any, want []string) {
		raw, err := json.Marshal(body)
		if err != nil {
			t.Fatal(err)
		}
		for _, part := range want {
			if !strings.Contains(string(raw), part) {
				t.Errorf("%s is missing in %s", part, raw)
			}
		}
	}
	_, body := sent(t, provider.Quirks{}, call)
	check(body, want)
	_, body = sent(t, provider.Quirks{MaxTokensParam: "max_completion_tokens", SeedParam: "random_seed", OmitStreamOptions: true}, call)
	check(body, []string{`"max_completion_tokens":5`, `"random_seed":9007199254740992`})
	for _, name := range []string{"max_tokens", "seed", "stream_options"} {
		if _, ok := body[name]; ok {
			t.Errorf("%s was sent too", name)
		}
	}
}

func TestAProviderWithoutKeySendsNone(t *testing.T) {
	seen := "unset"
	upstream := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		seen = r.Header.Get("Authorization")
		w.WriteHeader(http.StatusTeapot)
	}))
	defer upstream.Close()
	_, _ = newProvider(t, provider.Quirks{})(upstream.URL).Stream(t.Context(), providertest.Call(), fanout.NewKey(""), &providertest.Sink{T: t})
	if seen != "" {
		t.Errorf("sent %q", seen)
	}
}

func TestTheSinkEndsAnAttempt(t *testing.T) {
	upstream := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "text/event-stream")
		_, _ = io.WriteString(w, recorded[0].Stream)
	}))
	defer upstream.Close()
	full := fanout.Fail(fanout.ResponseTooLarge, "")
	sink := &providertest.Sink{T: t, OnRun: func(string) error { return full }}
	_, err := newProvider(t, provider.Quirks{})(upstream.URL).Stream(t.Context(), providertest.Call(), fanout.NewKey(""), sink)
	if !errors.Is(err, full) || !strings.HasPrefix(recorded[0].Text, sink.Texts.String()) {
		t.Errorf("%v after %q", err, sink.Texts.String())
	}
}

func TestAStopClosesAConnectionThatIsStillBeingMade(t *testing.T) {
	// A server that accepts and never answers the handshake.
	listener, err := (&net.ListenConfig{}).Listen(t.Context(), "tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = listener.Close() }()
	ctx, stop := context.WithCancelCause(t.Context())
	cause := fanout.Fail(fanout.TimeoutConnect, "")
	closed := make(chan error, 1)
	go func() {
		conn, err := listener.Accept()
		if err == nil {
			stop(cause)
			_ = conn.SetReadDeadline(time.Now().Add(10 * time.Second))
			_, err = io.Copy(io.Discard, conn) // ends without error when the client has closed
			_ = conn.Close()
		}
		closed <- err
	}()
	subject := newProvider(t, provider.Quirks{})("https://" + listener.Addr().String())
	if _, err := subject.Stream(ctx, providertest.Call(), fanout.NewKey(providertest.Key), &providertest.Sink{T: t}); !errors.Is(err, cause) {
		t.Errorf("%v, want the cause of the stop", err)
	}
	if err := <-closed; err != nil {
		t.Errorf("the connection was left open: %v", err)
	}
}

func TestACertificateNobodyKnowsIsAConnectionFailure(t *testing.T) {
	asked := false
	upstream := httptest.NewUnstartedServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) { asked = true }))
	upstream.Config.ErrorLog = log.New(io.Discard, "", 0)
	upstream.StartTLS()
	defer upstream.Close()
	_, err := newProvider(t, provider.Quirks{})(upstream.URL).Stream(t.Context(), providertest.Call(), fanout.NewKey("sk-1"), &providertest.Sink{T: t})
	var failure *fanout.Failure
	if !errors.As(err, &failure) || failure.Kind != fanout.Connection || asked {
		t.Errorf("%v, asked %v", err, asked)
	}
}

func TestConnectionsServeAgain(t *testing.T) {
	connections := map[string]bool{}
	upstream := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		connections[r.RemoteAddr] = true
		_, _ = io.Copy(io.Discard, r.Body)
		w.Header().Set("Content-Type", "text/event-stream")
		_, _ = io.WriteString(w, recorded[0].Stream)
	}))
	defer upstream.Close()
	subject := newProvider(t, provider.Quirks{})(upstream.URL)
	for range 20 {
		if _, err := subject.Stream(t.Context(), providertest.Call(), fanout.NewKey(providertest.Key), &providertest.Sink{T: t}); err != nil {
			t.Fatal(err)
		}
	}
	// Mostly one; a call may come before the last body has been read to its end.
	if len(connections) > 10 {
		t.Errorf("%d connections for 20 calls", len(connections))
	}
}
