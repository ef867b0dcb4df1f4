package fakeprovider

import (
	"encoding/json"
	"net/http"
	"strings"
)

// openAI is the chat completions format.
type openAI struct{}

func (*openAI) name() string { return "openai" }

func (*openAI) key(r *http.Request) string {
	key, _ := strings.CutPrefix(r.Header.Get("Authorization"), "Bearer ")
	return key
}

func (*openAI) read(_ *http.Request, body []byte) (question, error) {
	var asked struct {
		Model    string `json:"model"`
		Stream   bool   `json:"stream"`
		Messages []struct {
			Role    string          `json:"role"`
			Content json.RawMessage `json:"content"`
		} `json:"messages"`
		StreamOptions struct {
			IncludeUsage bool `json:"include_usage"`
		} `json:"stream_options"`
		MaxTokens           int `json:"max_tokens"`
		MaxCompletionTokens int `json:"max_completion_tokens"`
	}
	err := json.Unmarshal(body, &asked)
	q := question{
		model: asked.Model, stream: asked.Stream, wantUsage: asked.StreamOptions.IncludeUsage,
		maxTokens: asked.MaxTokens + asked.MaxCompletionTokens, params: without(body, "model", "messages"), body: body,
	}
	for _, message := range asked.Messages {
		q.words += wordCount(message.Content)
		if message.Role == "user" {
			q.last = textOf(message.Content)
		}
	}
	return q, err
}

func (*openAI) chunk(s *session, choices, extra string) event {
	return event{data: `{"id":"chatcmpl-fake","object":"chat.completion.chunk","created":1700000000,"model":` +
		quote(s.asked.model) + `,"choices":` + choices + extra + `}`}
}

func choice(delta, finish string) string {
	reason := "null"
	if finish != "" {
		reason = quote(finish)
	}
	return `[{"index":0,"delta":` + delta + `,"logprobs":null,"finish_reason":` + reason + `}]`
}

func (o *openAI) opening(s *session) {
	s.event(o.chunk(s, choice(`{"role":"assistant","content":""}`, ""), ""))
}

func (o *openAI) frame(s *session, thought bool) event {
	if thought {
		return o.chunk(s, choice(`{"`+s.text("thought_field", "reasoning_content")+`":`+hole+`}`, ""), "")
	}
	return o.chunk(s, choice(`{"content":`+hole+`}`, ""), s.usageEverywhere(`,"usage":`, openAIUsage))
}

func (o *openAI) ending(s *session, reason string, _ *counts) {
	s.event(o.chunk(s, choice(`{}`, reason), ""))
}

// trailer sends the usage in an event of its own, as OpenAI does when it was asked for.
func (o *openAI) trailer(s *session, u counts) {
	if s.asked.wantUsage {
		o.usage(s, u)
	}
}

func (o *openAI) usage(s *session, u counts) {
	s.event(o.chunk(s, "[]", `,"usage":`+openAIUsage(u)))
}

func openAIUsage(u counts) string {
	var cached, reasoning string
	if u.cached != "" {
		cached = object("cached_tokens", u.cached)
	}
	if u.reasoning != "" {
		reasoning = object("reasoning_tokens", u.reasoning)
	}
	return object("prompt_tokens", u.input, "completion_tokens", u.output, "total_tokens", u.total,
		"prompt_tokens_details", cached, "completion_tokens_details", reasoning)
}

func (*openAI) done(s *session) { s.event(event{data: "[DONE]"}) }

func (*openAI) ping(s *session) { s.comment("ping") }

func (o *openAI) oddity(s *session, kind oddity) {
	switch kind {
	case noChoices:
		s.event(o.chunk(s, "[]", ""))
	case nullChoices:
		s.event(o.chunk(s, "null", ""))
	case noDelta:
		s.event(o.chunk(s, `[{"index":0,"finish_reason":null}]`, ""))
	case nullText:
		s.event(o.chunk(s, choice(`{"content":null}`, ""), ""))
	case secondChoice:
		s.event(o.chunk(s, `[{"index":1,"delta":{"content":"of another choice"},"finish_reason":null}]`, ""))
	case unknownEvent:
		s.event(event{data: `{"object":"something.new","value":[1,{"text":"not of the answer"}]}`})
	}
}

func (o *openAI) toolCall(s *session) {
	s.event(o.chunk(s, choice(`{"tool_calls":[{"index":0,"id":"call_fake","type":"function","function":{"name":"look_up","arguments":""}}]}`, ""), ""))
	s.event(o.chunk(s, choice(`{"tool_calls":[{"index":0,"function":{"arguments":"{\"q\":\"blue\"}"}}]}`, ""), ""))
}

func (*openAI) whole(s *session) string {
	message := `{"role":"assistant","content":` + quote(s.said.String())
	if s.thought.Len() > 0 {
		message += `,"` + s.text("thought_field", "reasoning_content") + `":` + quote(s.thought.String())
	}
	usage := ""
	if u := s.counts(); u != nil {
		usage = `,"usage":` + openAIUsage(*u)
	}
	return `{"id":"chatcmpl-fake","object":"chat.completion","created":1700000000,"model":` + quote(s.asked.model) +
		`,"choices":[{"index":0,"message":` + message + `},"finish_reason":` + quote(s.finish) + `}]` + usage + `}`
}

func (*openAI) fault(why reason, status int) fault {
	switch why {
	case rateLimit:
		return fault{429, "requests", "rate_limit_exceeded", "Rate limit reached.", ""}
	case concurrency:
		return fault{429, "requests", "concurrency_limit_exceeded", "Too many concurrent requests.", ""}
	case quota:
		return fault{429, "insufficient_quota", "insufficient_quota", "You exceeded your current quota.", ""}
	case contextLength:
		return fault{400, "invalid_request_error", "context_length_exceeded", "This model's maximum context length is 4096 tokens.", ""}
	case badKey:
		return fault{401, "invalid_request_error", "invalid_api_key", "Incorrect API key provided: ", ""}
	case overloaded:
		return fault{503, "server_error", "", "The server is overloaded or not ready yet.", ""}
	case notFound:
		return fault{404, "invalid_request_error", "model_not_found", "no such script: ", ""}
	case badRequest:
		return fault{400, "invalid_request_error", "", "", ""}
	default:
		return fault{status, "scripted_error", "", "scripted failure", ""}
	}
}

func (*openAI) failure(f fault) string {
	code := "null"
	if f.code != "" {
		code = quote(f.code)
	}
	return `{"error":{"message":` + quote(f.message) + `,"type":` + quote(f.kind) + `,"param":null,"code":` + code + `}}`
}

func (*openAI) errorEvent() string { return "" }

// allowance writes the reset as a Go duration, which is how OpenAI's look: 6m0s, 1s, 17ms.
func (*openAI) allowance(h http.Header, a allowance) {
	h.Set("X-Ratelimit-Limit-Requests", itoa(a.requests))
	h.Set("X-Ratelimit-Remaining-Requests", itoa(a.requestsLeft))
	h.Set("X-Ratelimit-Reset-Requests", a.reset.String())
	h.Set("X-Ratelimit-Limit-Tokens", itoa(a.tokens))
	h.Set("X-Ratelimit-Remaining-Tokens", itoa(a.tokensLeft))
	h.Set("X-Ratelimit-Reset-Tokens", a.reset.String())
}
