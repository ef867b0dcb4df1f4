package anthropic_test

import (
	"encoding/json"
	"strings"
	"testing"

	"go.uber.org/goleak"

	fanout "rex/fanout-service"
	"rex/fanout-service/provider"
	"rex/fanout-service/provider/anthropic"
	"rex/fanout-service/provider/providertest"
)

func ptr[T any](v T) *T { return &v }

func event(name, data string) string { return "event: " + name + "\ndata: " + data + "\n\n" }

const (
	end = "event: message_stop\ndata: {\"type\":\"message_stop\"}\n\n"
	// What Anthropic sends, shortened.
	stopped = `{"type":"message_delta","delta":{"stop_reason":"end_turn","stop_sequence":null},"usage":{"output_tokens":12}}`
	thought = `{"type":"message_delta","delta":{"stop_reason":"max_tokens","stop_sequence":null},"usage":{"input_tokens":25,` +
		`"cache_creation_input_tokens":null,"cache_read_input_tokens":null,"output_tokens":40,"output_tokens_details":{"thinking_tokens":30}}}`
	late   = `{"type": "message_delta", "delta": {"stop_reason": "max_tokens"}, "usage": {"input_tokens": 1, "output_tokens": 2}}`
	called = `{"type":"message_delta","delta":{"stop_reason":"tool_use"},"usage":{"input_tokens":-1,"output_tokens":"x"}}`
)

var recorded = []providertest.Recorded{
	{
		Name: "text, with a cache",
		Stream: event("message_start", `{"type":"message_start","message":{"id":"msg_1","type":"message","role":"assistant","model":"m","content":[],`+
			`"stop_reason":null,"stop_sequence":null,"usage":{"input_tokens":9,"cache_creation_input_tokens":100,"cache_read_input_tokens":2000,`+
			`"cache_creation":{"ephemeral_5m_input_tokens":100},"output_tokens":1,"service_tier":"standard"}}}`) +
			event("content_block_start", `{"type":"content_block_start","index":0,"content_block":{"type":"text","text":""}}`) +
			event("ping", `{"type": "ping"}`) +
			event("content_block_delta", `{"type":"content_block_delta","index":0,"delta":{"type":"text_delta","text":"Light — \"na\u00efve\" \ud83c"}}`) +
			event("content_block_delta", `{"type":"content_block_delta","index":0,"delta":{"type":"text_delta","text":"\udf0d\n 日本"}}`) +
			event("content_block_stop", `{"type":"content_block_stop","index":0}`) +
			event("message_delta", stopped) + end,
		Text:     "Light — \"naïve\" 🌍\n 日本",
		Want:     fanout.Answer{FinishReason: fanout.FinishStop, InputTokens: ptr[int64](2109), OutputTokens: ptr[int64](12), CachedTokens: 2000},
		Complete: stopped + "\n\n",
	},
	{
		Name: "thinking, redacted in part, cut by the length",
		Stream: event("message_start", `{"type":"message_start","message":{"usage":{"input_tokens":25,"output_tokens":1}}}`) +
			event("content_block_start", `{"type":"content_block_start","index":0,"content_block":{"type":"thinking","thinking":"","signature":""}}`) +
			event("content_block_delta", `{"type":"content_block_delta","index":0,"delta":{"type":"thinking_delta","thinking":"Let me"}}`) +
			event("content_block_delta", `{"type":"content_block_delta","index":0,"delta":{"type":"thinking_delta","thinking":" see."}}`) +
			event("content_block_delta", `{"type":"content_block_delta","index":0,"delta":{"type":"signature_delta","signature":"EqQB"}}`) +
			event("content_block_stop", `{"type":"content_block_stop","index":0}`) +
			event("content_block_start", `{"type":"content_block_start","index":1,"content_block":{"type":"redacted_thinking","data":"Emw"}}`) +
			event("content_block_start", `{"type":"content_block_start","index":2,"content_block":{"type":"text","text":"So"}}`) +
			event("content_block_delta", `{"type":"content_block_delta","index":2,"delta":{"type":"citations_delta","citation":{"cited_text":"no"}}}`) +
			event("something_new", `{"type":"something_new","delta":{"text":"no"}}`) +
			event("message_delta", thought) + end,
		Text:     "So",
		Thoughts: "Let me see.",
		Want: fanout.Answer{FinishReason: fanout.FinishLength, InputTokens: ptr[int64](25), OutputTokens: ptr[int64](40),
			ReasoningTokens: 30},
		Complete: thought + "\n\n",
	},
	{
		Name: "a tool call behind text, with a nonsense usage and no end",
		Stream: event("message_start", `{"type":"message_start","message":{"usage":{"input_tokens":-1,"output_tokens":1}}}`) +
			event("content_block_delta", `{"delta":{"text":"Look","type":"text_delta"},"index":0,"type":"content_block_delta"}`) +
			event("content_block_start", `{"type":"content_block_start","index":1,"content_block":{"type":"tool_use","id":"t","name":"n","input":{}}}`) +
			event("content_block_delta", `{"type":"content_block_delta","index":1,"delta":{"type":"input_json_delta","partial_json":"{\"a\":"}}`) +
			event("message_delta", called),
		Text:     "Look",
		Want:     fanout.Answer{FinishReason: fanout.FinishToolCalls},
		Complete: called + "\n\n",
	},
	{
		Name: "LiteLLM's proxy, which counts at the end",
		Stream: event("message_start", `{"type": "message_start", "message": {"id": "msg_0", "type": "message", "role": "assistant", "content": [], "model": "ok", `+
			`"stop_reason": null, "stop_sequence": null, "usage": {"input_tokens": 0, "output_tokens": 0, "cache_creation_input_tokens": 0, "cache_read_input_tokens": 0}}}`) +
			event("content_block_start", `{"type": "content_block_start", "index": 0, "content_block": {"type": "text", "text": ""}}`) +
			event("content_block_delta", `{"type": "content_block_delta", "index": 0, "delta": {"type": "text_delta", "text": "result"}}`) +
			event("content_block_stop", `{"type": "content_block_stop", "index": 0}`) +
			event("message_delta", late) + event("message_stop", `{"type": "message_stop"}`),
		Text:     "result",
		Want:     fanout.Answer{FinishReason: fanout.FinishLength, InputTokens: ptr[int64](1), OutputTokens: ptr[int64](2)},
		Complete: late + "\n\n",
	},
}

var subject = providertest.Subject{
	New:      anthropic.New,
	Recorded: recorded,
	Whole: []providertest.Whole{{
		Name: "a message",
		Body: `{"id":"msg_1","type":"message","role":"assistant","model":"m","content":[{"type":"thinking","thinking":"Hm","signature":"x"},` +
			`{"type":"text","text":"Na\u00efve \ud83c\udf0d"},{"type":"text","text":"\n!"}],"stop_reason":"stop_sequence","stop_sequence":"x",` +
			`"usage":{"input_tokens":9,"cache_read_input_tokens":4,"output_tokens":7}}`,
		Text: "Naïve 🌍\n!", Thoughts: "Hm",
		Want: fanout.Answer{FinishReason: fanout.FinishStop, InputTokens: ptr[int64](13), OutputTokens: ptr[int64](7), CachedTokens: 4},
	}},
	TextEvent: func(text string) string {
		return event("content_block_delta", `{"type":"content_block_delta","index":0,"delta":{"type":"text_delta","text":"`+text+`"}}`)
	},
	EndEvents: event("message_delta", stopped) + end,
	ErrorEvent: func(object json.RawMessage) string {
		return event("error", `{"type":"error",`+strings.TrimPrefix(string(object), "{"))
	},
}

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func TestConformance(t *testing.T) { providertest.Run(t, subject) }

func FuzzAnswer(f *testing.F) { providertest.Fuzz(f, subject) }

func BenchmarkDelta(b *testing.B) {
	providertest.Benchmark(b, subject, subject.TextEvent(" hello"), subject.EndEvents)
}

func TestWhatACallLeavesOpenIsNotSent(t *testing.T) {
	sent := providertest.Sent(t, subject, provider.Config{}, providertest.Call())
	providertest.SameJSON(t, sent.Body, `{"model":"model-1","max_tokens":4096,"messages":[{"role":"user","content":"Why?"}],"stream":true}`)
	if sent.Path != "/base/messages" || sent.Header.Get("X-Api-Key") != providertest.Key ||
		sent.Header.Get("Anthropic-Version") != "2023-06-01" || sent.Header.Get("Authorization") != "" {
		t.Errorf("%s %v", sent.Path, sent.Header)
	}
}

func TestEveryParameterIsSentInTheProvidersWords(t *testing.T) {
	call := providertest.Call()
	call.Whole = true
	call.Messages = append(providertest.Pictures(), fanout.Message{Role: "system", Content: "And kind."}, fanout.Message{Role: "system"})
	call.Params = fanout.Params{
		MaxTokens: ptr[int64](5), Temperature: ptr(1.7), TopP: ptr(0.5), Seed: ptr[int64](7), Stop: []string{"\n"},
		ResponseFormat: json.RawMessage(`{"type":"json_schema","json_schema":{"name":"n","strict":true,"schema":{"type":"object"}}}`),
	}
	sent := providertest.Sent(t, subject, provider.Config{}, call)
	providertest.SameJSON(t, sent.Body, `{"model":"model-1","max_tokens":5,"stream":false,"temperature":1,"top_p":0.5,"stop_sequences":["\n"],
		"system":[{"type":"text","text":"Be <brief>."},{"type":"text","text":"And kind."}],
		"messages":[
			{"role":"user","content":[{"type":"text","text":"Compare"},
				{"type":"image","source":{"type":"base64","media_type":"image/png","data":"aGk="}},
				{"type":"image","source":{"type":"url","url":"https://pictures.example/a.jpeg?size=1&x=2"}}]},
			{"role":"assistant","content":"Alike."},
			{"role":"user","content":"Sure?"}],
		"output_config":{"format":{"type":"json_schema","schema":{"type":"object"}}}}`)
}

func TestJSONWithoutASchemaIsAskedForInWords(t *testing.T) {
	call := providertest.Call()
	call.Params.ResponseFormat = json.RawMessage(`{"type":"json_object"}`)
	sent := providertest.Sent(t, subject, provider.Config{}, call)
	providertest.SameJSON(t, sent.Body, `{"model":"model-1","max_tokens":4096,"messages":[{"role":"user","content":"Why?"}],"stream":true,
		"system":[{"type":"text","text":"Answer with one JSON object and nothing else."}]}`)
}

func TestEveryStopReasonHasItsEnd(t *testing.T) {
	for reason, want := range map[string]any{
		"end_turn": fanout.FinishStop, "stop_sequence": fanout.FinishStop, "pause_turn": fanout.FinishStop, "something_new": fanout.FinishStop,
		"max_tokens": fanout.FinishLength, "model_context_window_exceeded": fanout.FinishLength,
		"tool_use": fanout.FinishToolCalls, "refusal": fanout.ContentFilter,
	} {
		got := providertest.Ending(t, subject, event("message_delta", `{"type":"message_delta","delta":{"stop_reason":"`+reason+`"}}`))
		if got != want {
			t.Errorf("%s: %v, want %v", reason, got, want)
		}
	}
}
