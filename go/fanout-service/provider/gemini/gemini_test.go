package gemini_test

import (
	"encoding/json"
	"testing"

	"go.uber.org/goleak"

	fanout "rex/fanout-service"
	"rex/fanout-service/provider"
	"rex/fanout-service/provider/gemini"
	"rex/fanout-service/provider/providertest"
)

func ptr[T any](v T) *T { return &v }

func event(data string) string { return "data: " + data + "\n\n" }

const (
	// What the Gemini API sends, shortened.
	stopped = `{"candidates":[{"content":{"parts":[{"text":"\udf0d\n 日本"}],"role":"model"},"finishReason":"STOP","index":0}],` +
		`"usageMetadata":{"promptTokenCount":9,"candidatesTokenCount":7,"totalTokenCount":16,"cachedContentTokenCount":4},"modelVersion":"m"}`
	thought = `{"candidates":[{"content":{"parts":[{"text":"","thoughtSignature":"CiQ"}],"role":"model"},"finishReason":"MAX_TOKENS"}],` +
		`"usageMetadata":{"promptTokenCount":5,"candidatesTokenCount":2,"thoughtsTokenCount":30,"totalTokenCount":37}}`
	zeros = `{"candidates": [{"content": {"parts": [], "role": "model"}, "finishReason": "MAX_TOKENS", "index": 0, "safetyRatings": []}], ` +
		`"usageMetadata": {"promptTokenCount": 0, "candidatesTokenCount": 0, "totalTokenCount": 0}}`
	bare = `{"candidates":[{"finishReason":"SOMETHING_NEW"}]}`
)

var recorded = []providertest.Recorded{
	{
		Name: "text",
		Stream: event(`{"candidates":[{"content":{"parts":[{"text":"Light — \"na\u00efve\" \ud83c"}],"role":"model"},"index":0}],`+
			`"usageMetadata":{"promptTokenCount":9,"totalTokenCount":9},"modelVersion":"m","responseId":"r"}`) +
			event(stopped),
		Text:     "Light — \"naïve\" 🌍\n 日本",
		Want:     fanout.Answer{FinishReason: fanout.FinishStop, InputTokens: ptr[int64](9), OutputTokens: ptr[int64](7), CachedTokens: 4},
		Complete: stopped + "\n\n",
	},
	{
		Name: "thoughts, several parts at once, cut by the length",
		Stream: event(`{"candidates":[{"content":{"parts":[{"text":"**Think**\n","thought":true}],"role":"model"}}],"usageMetadata":{"promptTokenCount":5,"thoughtsTokenCount":20}}`) +
			event(`{"candidates":[{"content":{"parts":[{"thought":true,"text":"done"},{"text":"A"},{"text":"B","thought":false},{"executableCode":{"code":"1"}},{"text":"C"}]}}]}`) +
			event(thought),
		Text:     "ABC",
		Thoughts: "**Think**\ndone",
		Want: fanout.Answer{FinishReason: fanout.FinishLength, InputTokens: ptr[int64](5), OutputTokens: ptr[int64](32),
			ReasoningTokens: 30},
		Complete: thought + "\n\n",
	},
	{
		Name: "an odd end, then a nonsense usage",
		Stream: event(`{"candidates":[{"content":{"role":"model","parts":[{"text":"Hi"}]},"finishReason":null,"safetyRatings":[{"category":"x"}]},{"content":{"parts":[{"text":"no"}]}}]}`) +
			event(`{"candidates":[{"content":{"parts":[{"text":"no"}]},"finishReason":"SAFETY","index":1}]}`) +
			event(bare) + event(`{"usageMetadata":{"promptTokenCount":-4,"candidatesTokenCount":"many"}}`),
		Text:     "Hi",
		Want:     fanout.Answer{FinishReason: fanout.FinishStop},
		Complete: bare + "\n\n",
	},
	{
		Name: "LiteLLM's proxy, which counts nothing",
		Stream: event(`{"candidates": [{"content": {"parts": [{"text": "result"}], "role": "model"}, "finishReason": null, "index": 0, "safetyRatings": []}]}`) +
			event(zeros),
		Text:     "result",
		Want:     fanout.Answer{FinishReason: fanout.FinishLength},
		Complete: zeros + "\n\n",
	},
}

var subject = providertest.Subject{
	New:      gemini.New,
	Recorded: recorded,
	Whole: []providertest.Whole{{
		Name: "pretty-printed",
		Body: "{\n  \"candidates\": [\n    {\n      \"content\": {\n        \"parts\": [\n          {\"text\": \"Hm\", \"thought\": true},\n          {\"text\": \"Na\\u00efve \\ud83c\\udf0d\"},\n" +
			"          {\"text\": \"\\n!\"}\n        ],\n        \"role\": \"model\"\n      },\n      \"finishReason\": \"STOP\",\n      \"avgLogprobs\": -0.13e-2\n    }\n  ],\n" +
			"  \"usageMetadata\": {\"promptTokenCount\": 13, \"candidatesTokenCount\": 7, \"promptTokensDetails\": [{\"modality\": \"TEXT\", \"tokenCount\": 13}]}\n}\n",
		Text: "Naïve 🌍\n!", Thoughts: "Hm",
		Want: fanout.Answer{FinishReason: fanout.FinishStop, InputTokens: ptr[int64](13), OutputTokens: ptr[int64](7)},
	}},
	TextEvent: func(text string) string {
		return event(`{"candidates":[{"content":{"parts":[{"text":"` + text + `"}],"role":"model"},"index":0}]}`)
	},
	EndEvents:  event(`{"candidates":[{"content":{"parts":[{"text":""}],"role":"model"},"finishReason":"STOP","index":0}]}`),
	ErrorEvent: func(object json.RawMessage) string { return event(string(object)) },
}

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func TestConformance(t *testing.T) { providertest.Run(t, subject) }

func FuzzAnswer(f *testing.F) { providertest.Fuzz(f, subject) }

func BenchmarkDelta(b *testing.B) {
	providertest.Benchmark(b, subject, event(`{"candidates": [{"content": {"parts": [{"text": " hello"}],"role": "model"},"index": 0}],`+
		`"usageMetadata": {"promptTokenCount": 9,"candidatesTokenCount": 40,"totalTokenCount": 49,"promptTokensDetails": [{"modality": "TEXT","tokenCount": 9}]},`+
		`"modelVersion": "some-model-2026-07-18","responseId": "AbCdEfGhIjKlMnOpQrStUv"}`), subject.EndEvents)
}

func TestWhatACallLeavesOpenIsNotSent(t *testing.T) {
	sent := providertest.Sent(t, subject, provider.Config{}, providertest.Call())
	providertest.SameJSON(t, sent.Body, `{"contents":[{"role":"user","parts":[{"text":"Why?"}]}]}`)
	if sent.Path != "/base/models/model-1:streamGenerateContent?alt=sse" ||
		sent.Header.Get("X-Goog-Api-Key") != providertest.Key || sent.Header.Get("Authorization") != "" {
		t.Errorf("%s %v", sent.Path, sent.Header)
	}
}

func TestEveryParameterIsSentInTheProvidersWords(t *testing.T) {
	call := providertest.Call()
	call.Whole, call.Thoughts = true, true
	call.Messages = append(providertest.Pictures(), fanout.Message{Role: "system", Content: "And kind."})
	call.Params = fanout.Params{
		MaxTokens: ptr[int64](5), Temperature: ptr(1.7), TopP: ptr(0.5), Seed: ptr[int64](7), Stop: []string{"\n"},
		ResponseFormat: json.RawMessage(`{"type":"json_schema","json_schema":{"name":"n","schema":{"type":"object"}}}`),
	}
	sent := providertest.Sent(t, subject, provider.Config{}, call)
	providertest.SameJSON(t, sent.Body, `{
		"systemInstruction":{"parts":[{"text":"Be <brief>."},{"text":"And kind."}]},
		"contents":[
			{"role":"user","parts":[{"text":"Compare"},{"inlineData":{"mimeType":"image/png","data":"aGk="}},
				{"fileData":{"mimeType":"image/jpeg","fileUri":"https://pictures.example/a.jpeg?size=1&x=2"}}]},
			{"role":"model","parts":[{"text":"Alike."}]},
			{"role":"user","parts":[{"text":"Sure?"}]}],
		"generationConfig":{"maxOutputTokens":5,"temperature":1.7,"topP":0.5,"seed":7,"stopSequences":["\n"],
			"responseMimeType":"application/json","responseJsonSchema":{"type":"object"},"thinkingConfig":{"includeThoughts":true}}}`)
	if sent.Path != "/base/models/model-1:generateContent" {
		t.Errorf("asked %s", sent.Path)
	}
}

func TestAModelsNameCannotLeaveItsPlaceInTheAddress(t *testing.T) {
	for model, want := range map[string]string{
		"models/gemini-x":   "/base/models/gemini-x:streamGenerateContent?alt=sse",
		"ok?delay_ms=5&x=1": "/base/models/ok%3Fdelay_ms=5&x=1:streamGenerateContent?alt=sse",
		"a/../b#c":          "/base/models/a%2F..%2Fb%23c:streamGenerateContent?alt=sse",
	} {
		call := providertest.Call()
		call.Model = model
		call.Params.ResponseFormat = json.RawMessage(`{"type":"json_object"}`)
		sent := providertest.Sent(t, subject, provider.Config{}, call)
		if sent.Path != want {
			t.Errorf("%s: asked %s", model, sent.Path)
		}
		providertest.SameJSON(t, sent.Body, `{"contents":[{"role":"user","parts":[{"text":"Why?"}]}],"generationConfig":{"responseMimeType":"application/json"}}`)
	}
}

func TestAnAddressTellsItsImageTypeOrNothing(t *testing.T) {
	for address, want := range map[string]string{
		"https://x.example/a.PNG": `,"mimeType":"image/png"`, "https://x.example/a.webp#b": `,"mimeType":"image/webp"`,
		"https://x.example/a.gif?b=c": `,"mimeType":"image/gif"`, "https://x.example/a": "", "https://x.example/a.svg": "", "https://x.example/%zz": "",
	} {
		call := providertest.Call()
		call.Messages = []fanout.Message{{Role: "user", Parts: []fanout.Part{{URL: address}}}}
		sent := providertest.Sent(t, subject, provider.Config{}, call)
		providertest.SameJSON(t, sent.Body, `{"contents":[{"role":"user","parts":[{"fileData":{"fileUri":"`+address+`"`+want+`}}]}]}`)
	}
}

func TestEveryFinishReasonHasItsEnd(t *testing.T) {
	for reason, want := range map[string]any{
		"STOP": fanout.FinishStop, "OTHER": fanout.FinishStop, "LANGUAGE": fanout.FinishStop, "SOMETHING_NEW": fanout.FinishStop,
		"MAX_TOKENS": fanout.FinishLength, "MALFORMED_FUNCTION_CALL": fanout.FinishToolCalls,
		"SAFETY": fanout.ContentFilter, "RECITATION": fanout.ContentFilter, "BLOCKLIST": fanout.ContentFilter,
		"PROHIBITED_CONTENT": fanout.ContentFilter, "SPII": fanout.ContentFilter, "IMAGE_SAFETY": fanout.ContentFilter,
		"FINISH_REASON_UNSPECIFIED": fanout.Incomplete,
	} {
		if got := providertest.Ending(t, subject, event(`{"candidates":[{"finishReason":"`+reason+`"}]}`)); got != want {
			t.Errorf("%s: %v, want %v", reason, got, want)
		}
	}
	if got := providertest.Ending(t, subject, event(`{"promptFeedback":{"safetyRatings":[],"blockReason":"PROHIBITED_CONTENT"}}`)); got != fanout.ContentFilter {
		t.Errorf("a blocked prompt: %v", got)
	}
}

func TestACalledToolIsTheEndWhateverTheFinishReasonSays(t *testing.T) {
	const call = `{"functionCall":{"name":"look_up","args":{}}}`
	candidate := func(part, finish string) string {
		return event(`{"candidates":[{"content":{"parts":[` + part + `]}` + finish + `}]}`)
	}
	for name, row := range map[string]struct {
		stream string
		want   any
	}{
		"before the end":      {candidate(call, "") + candidate(`{"text":""}`, `,"finishReason":"STOP"`), fanout.FinishToolCalls},
		"with the end":        {candidate(call, `,"finishReason":"STOP"`), fanout.FinishToolCalls},
		"and cut off":         {candidate(call, "") + candidate(`{"text":""}`, `,"finishReason":"MAX_TOKENS"`), fanout.FinishLength},
		"none":                {candidate(`{"functionCall":null}`, `,"finishReason":"STOP"`), fanout.FinishStop},
		"of another choice":   {event(`{"candidates":[{"index":0},{"index":1,"content":{"parts":[`+call+`]}}]}`) + candidate(`{"text":""}`, `,"finishReason":"STOP"`), fanout.FinishStop},
		"behind an end, late": {candidate(`{"text":""}`, `,"finishReason":"STOP"`) + candidate(call, ""), fanout.FinishStop},
	} {
		if got := providertest.Ending(t, subject, row.stream); got != row.want {
			t.Errorf("%s: %v, want %v", name, got, row.want)
		}
	}
}
