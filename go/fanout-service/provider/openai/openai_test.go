package openai_test

import (
	"context"
	"encoding/json"
	"net/http"
	"strings"
	"testing"

	"go.uber.org/goleak"

	fanout "rex/fanout-service"
	"rex/fanout-service/provider"
	"rex/fanout-service/provider/openai"
	"rex/fanout-service/provider/providertest"
)

func ptr[T any](v T) *T { return &v }

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
		Thoughts: `Hm, {"content":"no"}`,
		Want:     fanout.Answer{FinishReason: fanout.FinishStop},
		Complete: `"finish_reason":"eos"}]}` + "\n\n",
	},
	{
		Name: "Mistral's thinking parts, cut by the model's length",
		Stream: `data: {"id":"m","object":"chat.completion.chunk","model":"magistral","choices":[{"index":0,"delta":{"role":"assistant","content":""},"finish_reason":null}]}` + "\n\n" +
			`data: {"id":"m","choices":[{"index":0,"delta":{"content":[{"type":"thinking","thinking":[{"type":"text","text":"Let me "}]}]},"finish_reason":null}]}` + "\n\n" +
			`data: {"id":"m","choices":[{"index":0,"delta":{"content":[{"type":"thinking","thinking":[{"type":"text","text":"see"}]},{"type":"text","text":"42"}]},"finish_reason":null}]}` + "\n\n" +
			`data: {"id":"m","choices":[{"index":0,"delta":{"content":""},"finish_reason":"model_length"}],"usage":{"prompt_tokens":12,"total_tokens":20,"completion_tokens":8}}` + "\n\n" +
			"data: [DONE]\n\n",
		Text:     "42",
		Thoughts: "Let me see",
		Want:     fanout.Answer{FinishReason: fanout.FinishLength, InputTokens: ptr[int64](12), OutputTokens: ptr[int64](8)},
		Complete: `"completion_tokens":8}}` + "\n\n",
	},
	{
		Name: "reasoning under two names, other choices, a nonsense usage",
		Stream: ": OPENROUTER PROCESSING\n\n" +
			`data: {"choices":[{"index":0,"delta":{"role":"assistant","content":"","reasoning":"So","reasoning_content":"So"}}]}` + "\n\n" +
			`data: {"choices":[{"delta":{"content":"no"},"finish_reason":"stop","index":1},{"delta":{"content":"Do"},"index":0}]}` + "\n\n" +
			`data: {"choices":[{"delta":{"content":"ne"}},{"delta":{"content":"no"}}]}` + "\n\n" +
			`data: {"choices":[{"index":0,"delta":{"content":""},"finish_reason":"tool_calls"}]}` + "\n\n" +
			`data: {"choices":[],"usage":{"prompt_tokens":-4,"completion_tokens":"many","completion_tokens_details":null}}` + "\n\n" +
			"data: [DONE]\n\n",
		Text:     "Done",
		Thoughts: "So",
		Want:     fanout.Answer{FinishReason: fanout.FinishToolCalls},
		Complete: `"finish_reason":"tool_calls"}]}` + "\n\n",
	},
}

var whole = []providertest.Whole{
	{
		Name: "openai",
		Body: `{"id":"c1","object":"chat.completion","created":1,"model":"m","choices":[{"index":0,"message":{"role":"assistant",` +
			`"content":"Na\u00efve \ud83c\udf0d\n","reasoning_content":"Hm","refusal":null},"logprobs":null,"finish_reason":"stop"}],` +
			`"usage":{"prompt_tokens":9,"completion_tokens":7,"prompt_tokens_details":{"cached_tokens":4}}}`,
		Text: "Naïve 🌍\n", Thoughts: "Hm",
		Want: fanout.Answer{FinishReason: fanout.FinishStop, InputTokens: ptr[int64](9), OutputTokens: ptr[int64](7), CachedTokens: 4},
	},
	{
		Name: "Mistral's parts, pretty-printed, without usage",
		Body: "{\n  \"choices\": [\n    {\"message\": {\"content\": [{\"type\": \"text\", \"text\": \"Hi\"}]}, \"finish_reason\": \"length\"}\n  ]\n}\n",
		Text: "Hi",
		Want: fanout.Answer{FinishReason: fanout.FinishLength},
	},
}

var subject = providertest.Subject{
	New:      openai.New,
	Recorded: recorded,
	Whole:    whole,
	TextEvent: func(text string) string {
		return `data: {"choices":[{"index":0,"delta":{"content":"` + text + `"}}]}` + "\n\n"
	},
	EndEvents:  `data: {"choices":[{"index":0,"delta":{},"finish_reason":"stop"}]}` + "\n\ndata: [DONE]\n\n",
	ErrorEvent: func(object json.RawMessage) string { return "data: " + string(object) + "\n\n" },
}

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func TestConformance(t *testing.T) { providertest.Run(t, subject) }

func FuzzAnswer(f *testing.F) { providertest.Fuzz(f, subject) }

func BenchmarkDelta(b *testing.B) {
	providertest.Benchmark(b, subject, `data: {"id":"chatcmpl-AbCdEfGhIjKlMnOpQrStUvWxYz012","object":"chat.completion.chunk","created":1787000000,`+
		`"model":"some-model-2026-07-18","service_tier":"default","system_fingerprint":"fp_0ba0d124f1",`+
		`"choices":[{"index":0,"delta":{"content":" hello"},"logprobs":null,"finish_reason":null}],"usage":null}`+"\n\n", subject.EndEvents)
}

func TestWhatACallLeavesOpenIsNotSent(t *testing.T) {
	sent := providertest.Sent(t, subject, provider.Config{}, providertest.Call())
	providertest.SameJSON(t, sent.Body, `{"model":"model-1","messages":[{"role":"user","content":"Why?"}],"stream":true,"stream_options":{"include_usage":true}}`)
	if sent.Path != "/base/chat/completions" || sent.Header.Get("Authorization") != "Bearer "+providertest.Key || sent.Header.Get("Accept-Encoding") != "" {
		t.Errorf("%s %v", sent.Path, sent.Header)
	}
}

func TestEveryParameterIsSentInTheProvidersWords(t *testing.T) {
	call := providertest.Call()
	call.Messages = providertest.Pictures()
	call.Params = fanout.Params{
		MaxTokens: ptr[int64](5), Temperature: ptr(0.0), TopP: ptr(0.5), Seed: ptr[int64](1 << 53),
		Stop: []string{"\n"}, ResponseFormat: json.RawMessage(`{"type":"json_object"}`),
	}
	const common = `"model":"model-1","temperature":0,"top_p":0.5,"stop":["\n"],"response_format":{"type":"json_object"},"messages":[
		{"role":"system","content":"Be <brief>."},
		{"role":"user","content":[{"type":"text","text":"Compare"},
			{"type":"image_url","image_url":{"url":"data:image/png;base64,aGk="}},
			{"type":"image_url","image_url":{"url":"https://pictures.example/a.jpeg?size=1&x=2"}}]},
		{"role":"assistant","content":"Alike."},
		{"role":"user","content":"Sure?"}]`
	sent := providertest.Sent(t, subject, provider.Config{}, call)
	providertest.SameJSON(t, sent.Body, `{`+common+`,"max_tokens":5,"seed":9007199254740992,"stream":true,"stream_options":{"include_usage":true}}`)
	if !strings.Contains(sent.Body, "9007199254740992") || !strings.Contains(sent.Body, "Be <brief>.") {
		t.Errorf("a number or a text was changed: %s", sent.Body)
	}
	call.Whole = true
	quirks := provider.Quirks{MaxTokensParam: "max_completion_tokens"}
	sent = providertest.Sent(t, subject, provider.Config{Quirks: quirks}, call)
	providertest.SameJSON(t, sent.Body, `{`+common+`,"max_completion_tokens":5,"seed":9007199254740992,"stream":false}`)
}

// Mistral's API documents random_seed, and neither seed nor stream_options.
func TestMistralIsAskedInItsOwnWords(t *testing.T) {
	call := providertest.Call()
	call.Params = fanout.Params{MaxTokens: ptr[int64](5), Seed: ptr[int64](7)}
	quirks := provider.Quirks{SeedParam: "random_seed", OmitStreamOptions: true}
	sent := providertest.Sent(t, subject, provider.Config{Quirks: quirks}, call)
	providertest.SameJSON(t, sent.Body, `{"model":"model-1","messages":[{"role":"user","content":"Why?"}],"stream":true,"max_tokens":5,"random_seed":7}`)
}

func TestTheTraceIsContinuedAtTheProvider(t *testing.T) {
	const trace = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"
	config := provider.Config{Inject: func(_ context.Context, header http.Header) { header.Set("Traceparent", trace) }}
	if sent := providertest.Sent(t, subject, config, providertest.Call()); sent.Header.Get("Traceparent") != trace {
		t.Errorf("sent %v", sent.Header)
	}
}

func TestEveryFinishReasonHasItsEnd(t *testing.T) {
	for reason, want := range map[string]any{
		"stop": fanout.FinishStop, "eos": fanout.FinishStop, "length": fanout.FinishLength, "model_length": fanout.FinishLength,
		"tool_calls": fanout.FinishToolCalls, "function_call": fanout.FinishToolCalls, "content_filter": fanout.ContentFilter,
		"error": fanout.ServerError, "": fanout.Incomplete,
	} {
		if got := providertest.Ending(t, subject, `data: {"choices":[{"delta":{},"finish_reason":"`+reason+`"}]}`+"\n\n"); got != want {
			t.Errorf("%s: %v, want %v", reason, got, want)
		}
	}
}
