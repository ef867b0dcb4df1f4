package fakeprovider_test

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strings"
	"testing"
	"time"

	"go.uber.org/goleak"

	"rex/fanout-service/fakeprovider"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

var wires = []string{"openai", "anthropic", "gemini"}

// upstream is the scripted upstream on a real socket, and a client for it.
type upstream struct {
	t      *testing.T
	fake   *fakeprovider.Server
	at     *fakeprovider.Listener
	client *http.Client
}

func start(t *testing.T, options fakeprovider.Options) *upstream {
	t.Helper()
	u := &upstream{t: t, fake: fakeprovider.New()}
	var err error
	if u.at, err = u.fake.Listen(t.Context(), options); err != nil {
		t.Fatal(err)
	}
	transport := &http.Transport{DisableCompression: true, Protocols: new(http.Protocols)}
	transport.Protocols.SetHTTP1(!options.HTTP2)
	transport.Protocols.SetUnencryptedHTTP2(options.HTTP2)
	transport.Protocols.SetHTTP2(options.HTTP2)
	u.client = &http.Client{
		Transport:     transport,
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}
	t.Cleanup(func() {
		transport.CloseIdleConnections()
		if err := u.at.Close(); err != nil {
			t.Error(err)
		}
	})
	return u
}

// request asks for a model as one of the wires does, with the key sk-1.
func (u *upstream) request(ctx context.Context, wire, model string, stream bool) *http.Request {
	u.t.Helper()
	path, body := "/v1/chat/completions", fmt.Sprintf(`{"model":%q,"stream":%v,"stream_options":{"include_usage":true},"messages":[{"role":"user","content":"say this"}]}`, model, stream)
	header := http.Header{"Authorization": {"Bearer sk-1"}}
	switch wire {
	case "anthropic":
		path, body = "/v1/messages", fmt.Sprintf(`{"model":%q,"stream":%v,"max_tokens":4096,"messages":[{"role":"user","content":"say this"}]}`, model, stream)
		header = http.Header{"X-Api-Key": {"sk-1"}, "Anthropic-Version": {"2023-06-01"}}
	case "gemini":
		path, body = "/v1beta/models/"+url.PathEscape(model)+":generateContent", `{"contents":[{"role":"user","parts":[{"text":"say this"}]}]}`
		if stream {
			path = strings.TrimSuffix(path, "generateContent") + "streamGenerateContent?alt=sse"
		}
		header = http.Header{"X-Goog-Api-Key": {"sk-1"}}
	}
	request, err := http.NewRequestWithContext(ctx, http.MethodPost, u.at.URL+path, strings.NewReader(body))
	if err != nil {
		u.t.Fatal(err)
	}
	request.Header = header
	return request
}

// reply is what came of a request. Err is what broke it off, if anything did.
type reply struct {
	status int
	header http.Header
	body   string
	err    error
}

// post sends a body and reads the answer whole.
func post(t *testing.T, url, body string) (status int, answer string, err error) {
	t.Helper()
	request, err := http.NewRequestWithContext(t.Context(), http.MethodPost, url, strings.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	u := &upstream{t: t, client: http.DefaultClient}
	defer http.DefaultClient.CloseIdleConnections()
	got := u.send(request)
	return got.status, got.body, got.err
}

func (u *upstream) send(request *http.Request) reply {
	u.t.Helper()
	response, err := u.client.Do(request)
	if err != nil {
		return reply{err: err}
	}
	defer func() { _ = response.Body.Close() }()
	raw, err := io.ReadAll(response.Body)
	return reply{response.StatusCode, response.Header, string(raw), err}
}

func (u *upstream) ask(wire, model string, stream bool) reply {
	u.t.Helper()
	return u.send(u.request(u.t.Context(), wire, model, stream))
}

func (u *upstream) asKey(key, model string) reply {
	u.t.Helper()
	request := u.request(u.t.Context(), "openai", model, false)
	request.Header.Set("Authorization", "Bearer "+key)
	return u.send(request)
}

// settled waits until no request runs any more, and returns the log.
func (u *upstream) settled() []fakeprovider.Entry {
	u.t.Helper()
	for range 1000 {
		if u.fake.Stats().InFlight == 0 {
			return u.fake.Log()
		}
		time.Sleep(5 * time.Millisecond)
	}
	u.t.Fatalf("requests go on for ever: %+v", u.fake.Stats())
	return nil
}

// data is the data of each event of a stream, whatever its line ends.
func data(stream string) []string {
	stream = strings.TrimPrefix(stream, "\ufeff")
	stream = strings.ReplaceAll(strings.ReplaceAll(stream, "\r\n", "\n"), "\r", "\n")
	var out, lines []string
	for line := range strings.SplitSeq(stream, "\n") {
		if value, ok := strings.CutPrefix(line, "data:"); ok {
			lines = append(lines, strings.TrimPrefix(value, " "))
		} else if line == "" && lines != nil {
			out, lines = append(out, strings.Join(lines, "\n")), nil
		}
	}
	return out
}

func TestWithoutStreamTheSameTextComesInOneBody(t *testing.T) {
	u := start(t, fakeprovider.Options{})
	want := map[string]string{
		"openai": `{"id":"chatcmpl-fake","object":"chat.completion","created":1700000000,"model":"ok?words=2\u0026think=1","choices":[{"index":0,` +
			`"message":{"role":"assistant","content":"result red","reasoning_content":"hmm "},"finish_reason":"stop"}],` +
			`"usage":{"prompt_tokens":2,"completion_tokens":2,"total_tokens":4,"prompt_tokens_details":{"cached_tokens":0},"completion_tokens_details":{"reasoning_tokens":0}}}`,
		"anthropic": `{"id":"msg_fake","type":"message","role":"assistant","model":"ok?words=2\u0026think=1",` +
			`"content":[{"type":"thinking","thinking":"hmm ","signature":"ZmFrZQ=="},{"type":"text","text":"result red"}],` +
			`"stop_reason":"end_turn","stop_sequence":null,"usage":{"input_tokens":2,"cache_read_input_tokens":0,"output_tokens":2}}`,
		"gemini": `{"candidates":[{"content":{"parts":[{"text":"hmm ","thought":true},{"text":"result red"}],"role":"model"},"finishReason":"STOP","index":0}],` +
			`"modelVersion":"ok?words=2\u0026think=1","responseId":"fake",` +
			`"usageMetadata":{"promptTokenCount":2,"cachedContentTokenCount":0,"candidatesTokenCount":2,"thoughtsTokenCount":0,"totalTokenCount":4}}`,
	}
	for wire, body := range want {
		t.Run(wire, func(t *testing.T) {
			got := u.ask(wire, "ok?words=2&think=1", false)
			if got.err != nil || got.status != http.StatusOK || got.body != body {
				t.Errorf("%+v", got)
			}
		})
	}
}

func TestAStreamHasTheEventsOfItsFormat(t *testing.T) {
	u := start(t, fakeprovider.Options{})
	want := map[string][]string{
		"openai": {
			`"delta":{"role":"assistant","content":""}`, `"delta":{"reasoning_content":"hmm "}`, `"delta":{"content":"result"}`,
			`"delta":{"content":" red"}`, `"delta":{},"logprobs":null,"finish_reason":"stop"`, `"choices":[],"usage":{"prompt_tokens":2,`, `[DONE]`,
		},
		"anthropic": {
			`{"type":"message_start","message":{"id":"msg_fake",`, `"index":0,"content_block":{"type":"thinking"`, `{"type": "ping"}`,
			`"index":0,"delta":{"type":"thinking_delta","thinking":"hmm "}`, `"index":0,"delta":{"type":"signature_delta"`,
			`{"type":"content_block_stop","index":0}`, `"index":1,"content_block":{"type":"text","text":""}`,
			`"index":1,"delta":{"type":"text_delta","text":"result"}`, `"index":1,"delta":{"type":"text_delta","text":" red"}`,
			`{"type":"content_block_stop","index":1}`, `"delta":{"stop_reason":"end_turn","stop_sequence":null},"usage":{"output_tokens":2}`,
			`{"type":"message_stop"}`,
		},
		"gemini": {
			`"parts":[{"text":"hmm ","thought":true}]`, `"parts":[{"text":"result"}]`, `"parts":[{"text":" red"}]`,
			`"parts":[{"text":""}],"role":"model"},"finishReason":"STOP"`,
		},
	}
	for wire, events := range want {
		t.Run(wire, func(t *testing.T) {
			got := u.ask(wire, "ok?words=2&think=1&delay_ms=0", true)
			read := data(got.body)
			if got.err != nil || got.header.Get("Content-Type") != "text/event-stream" || len(read) != len(events) {
				t.Fatalf("%+v", got)
			}
			for i, event := range events {
				if !strings.Contains(read[i], event) {
					t.Errorf("event %d is %s, want %s", i, read[i], event)
				}
			}
		})
	}
	if raw := u.ask("anthropic", "ok?words=1", true).body; !strings.HasPrefix(raw, "event: message_start\ndata: {") {
		t.Errorf("an event without its name: %.60s", raw)
	}
}

func TestAnAnswerRepeatsItself(t *testing.T) {
	u := start(t, fakeprovider.Options{})
	for _, model := range []string{"prose-2?delay_ms=0&seed=5", "ok?delay_ms=0&jitter_ms=2&seed=9"} {
		first, second := u.ask("openai", model, true), u.ask("openai", model, true)
		if first.body != second.body || first.body == u.ask("openai", model+"1", true).body {
			t.Errorf("%s: the seed does not decide", model)
		}
	}
}

func TestARequestTheProviderWouldRefuseIsRefused(t *testing.T) {
	u := start(t, fakeprovider.Options{})
	spoil := func(wire string, change func(*http.Request)) *http.Request {
		request := u.request(t.Context(), wire, "ok", true)
		change(request)
		return request
	}
	body := func(text string) func(*http.Request) {
		return func(r *http.Request) {
			r.Body, r.ContentLength = io.NopCloser(strings.NewReader(text)), int64(len(text))
		}
	}
	cases := map[string]*http.Request{
		"no version":      spoil("anthropic", func(r *http.Request) { r.Header.Del("Anthropic-Version") }),
		"no max_tokens":   spoil("anthropic", body(`{"model":"ok","messages":[{"role":"user","content":"x"}]}`)),
		"no messages":     spoil("anthropic", body(`{"model":"ok","max_tokens":1,"messages":[]}`)),
		"a system turn":   spoil("anthropic", body(`{"model":"ok","max_tokens":1,"messages":[{"role":"system","content":"x"}]}`)),
		"an assistant":    spoil("gemini", body(`{"contents":[{"role":"assistant","parts":[{"text":"x"}]}]}`)),
		"no contents":     spoil("gemini", body(`{}`)),
		"no alt=sse":      spoil("gemini", func(r *http.Request) { r.URL.RawQuery = "" }),
		"no such method":  spoil("gemini", func(r *http.Request) { r.URL.Path = "/v1beta/models/ok:countTokens" }),
		"openai no JSON":  spoil("openai", body(`{"model":`)),
		"gemini no JSON":  spoil("gemini", body(`[`)),
		"a wrong message": spoil("openai", body(`{"model":"ok","messages":7}`)),
	}
	for name, request := range cases {
		t.Run(name, func(t *testing.T) {
			got := u.send(request)
			var answer struct{ Error struct{ Message string } }
			if err := json.Unmarshal([]byte(got.body), &answer); err != nil || got.status != http.StatusBadRequest || answer.Error.Message == "" {
				t.Errorf("%+v %v", got, err)
			}
		})
	}
	for _, wire := range wires {
		for _, model := range []string{"no-such-script", "prose-", "http-many", "ok?%zz"} {
			if got := u.ask(wire, model, true); got.status != http.StatusNotFound {
				t.Errorf("%s of %s: %+v", model, wire, got)
			}
		}
	}
	if got := u.ask("anthropic", "usage-with-finish", true); got.status != http.StatusNotFound {
		t.Errorf("a script of another wire: %+v", got)
	}
	if log := u.fake.Log(); len(log) != 0 {
		t.Errorf("logged: %+v", log)
	}
}

func TestGeminisPathCarriesTheOptions(t *testing.T) {
	u := start(t, fakeprovider.Options{})
	for _, path := range []string{
		"ok%3Fwords=2&seed=3:streamGenerateContent?alt=sse",
		"ok%3Fwords%3D2%26seed%3D3:streamGenerateContent?alt=sse",
		"ok?words=2&seed=3:streamGenerateContent?alt=sse",
		"ok?words=2&seed=3%3AstreamGenerateContent&alt=sse",
	} {
		request := u.request(t.Context(), "gemini", "x", true)
		target, err := url.Parse(u.at.URL + "/v1beta/models/" + path)
		if err != nil {
			t.Fatal(err)
		}
		request.URL = target
		if got := u.send(request); got.status != http.StatusOK || len(data(got.body)) != 3 {
			t.Errorf("%s: %+v", path, got)
		}
	}
	for _, entry := range u.settled() {
		if entry.Model != "ok?words=2&seed=3" || !entry.Stream || entry.Wire != "gemini" {
			t.Errorf("%+v", entry)
		}
	}
}

func TestTheLogTellsOfRequestsAndNoKey(t *testing.T) {
	u := start(t, fakeprovider.Options{})
	for _, wire := range wires {
		u.ask(wire, "ok?delay_ms=0", true)
	}
	log := u.settled()
	params := []string{`{"stream":true,"stream_options":{"include_usage":true}}`, `{"max_tokens":4096,"stream":true}`, `{}`}
	if len(log) != len(wires) {
		t.Fatalf("%+v", log)
	}
	for i, entry := range log {
		if entry.Wire != wires[i] || entry.Script != "ok" || !entry.Finished || entry.AbortedAt != nil || string(entry.Params) != params[i] {
			t.Errorf("%+v", entry)
		}
		if entry.FirstByteAt == nil || entry.EndedAt == nil || entry.FirstByteAt.Before(entry.At) || entry.EndedAt.Before(*entry.FirstByteAt) {
			t.Errorf("moments out of order: %+v", entry)
		}
		if len(entry.KeyHash) != 12 || entry.KeyHash != log[0].KeyHash {
			t.Errorf("key hash %q", entry.KeyHash)
		}
	}
	u.ask("openai", "http-503", false)
	var page []fakeprovider.Entry
	var stats fakeprovider.Stats
	u.get("/_/log?model=http-503", &page)
	u.get("/_/stats", &stats)
	if len(page) != 1 || page[0].Model != "http-503" {
		t.Errorf("%+v", page)
	}
	if stats.Requests != 4 || stats.Scripts["ok"].Finished != 3 || stats.Scripts["http-503"].Requests != 1 || stats.ConnectionsOpen == 0 {
		t.Errorf("%+v", stats)
	}
	reset, err := http.NewRequestWithContext(t.Context(), http.MethodPost, u.at.URL+"/_/reset", nil)
	if err != nil {
		t.Fatal(err)
	}
	if got := u.send(reset); got.status != http.StatusNoContent || len(u.fake.Log()) != 0 || u.fake.Stats().Requests != 0 {
		t.Errorf("reset: %+v", got)
	}
}

func (u *upstream) get(path string, into any) {
	u.t.Helper()
	request, err := http.NewRequestWithContext(u.t.Context(), http.MethodGet, u.at.URL+path, nil)
	if err != nil {
		u.t.Fatal(err)
	}
	if err := json.NewDecoder(bytes.NewReader([]byte(u.send(request).body))).Decode(into); err != nil {
		u.t.Fatal(path, err)
	}
}
