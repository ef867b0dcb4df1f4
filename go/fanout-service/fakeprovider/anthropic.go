package fakeprovider

import (
	"encoding/json"
	"errors"
	"net/http"
	"time"
)

// anthropic is the Messages format. An answer is a row of blocks; block is the open one's number,
// holds what is in it ("" when none is open).
type anthropic struct {
	block int
	holds string
}

func (*anthropic) name() string { return "anthropic" }

func (*anthropic) key(r *http.Request) string { return r.Header.Get("X-Api-Key") }

// read refuses what Anthropic refuses: no version header, no max_tokens, an odd first turn.
func (*anthropic) read(r *http.Request, body []byte) (question, error) {
	var asked struct {
		Model     string          `json:"model"`
		Stream    bool            `json:"stream"`
		MaxTokens int             `json:"max_tokens"`
		System    json.RawMessage `json:"system"`
		Messages  []struct {
			Role    string          `json:"role"`
			Content json.RawMessage `json:"content"`
		} `json:"messages"`
	}
	if err := json.Unmarshal(body, &asked); err != nil {
		return question{}, err
	}
	q := question{
		model: asked.Model, stream: asked.Stream, wantUsage: true, maxTokens: asked.MaxTokens,
		words: wordCount(asked.System), params: without(body, "model", "messages"), body: body,
	}
	for _, message := range asked.Messages {
		if message.Role != "user" && message.Role != "assistant" {
			return q, errors.New("messages: unexpected role")
		}
		q.words += wordCount(message.Content)
		if message.Role == "user" {
			q.last = textOf(message.Content)
		}
	}
	switch {
	case r.Header.Get("Anthropic-Version") == "":
		return q, errors.New("anthropic-version: header is required")
	case asked.MaxTokens < 1:
		return q, errors.New("max_tokens: Field required")
	case len(asked.Messages) == 0:
		return q, errors.New("messages: at least one message is required")
	}
	return q, nil
}

func (*anthropic) opening(s *session) {
	usage := ""
	if u := s.counts(); u != nil {
		begin := counts{input: u.input, output: "1", cached: u.cached}
		usage = `,"usage":` + anthropicUsage(begin)
	}
	s.event(event{"message_start", `{"type":"message_start","message":{"id":"msg_fake","type":"message","role":"assistant","model":` +
		quote(s.asked.model) + `,"content":[],"stop_reason":null,"stop_sequence":null` + usage + `}}`})
}

// turn ends the open block and begins another, unless the right one is open.
func (a *anthropic) turn(s *session, holds, start string) {
	if a.holds == holds {
		return
	}
	a.close(s)
	a.holds = holds
	if holds != "" {
		s.event(event{"content_block_start", `{"type":"content_block_start","index":` + itoa(a.block) + `,"content_block":` + start + `}`})
		if a.block == 0 {
			a.ping(s)
		}
	}
}

func (a *anthropic) close(s *session) {
	if a.holds == "" {
		return
	}
	if a.holds == "thinking" {
		a.delta(s, `{"type":"signature_delta","signature":"ZmFrZQ=="}`)
	}
	s.event(event{"content_block_stop", `{"type":"content_block_stop","index":` + itoa(a.block) + `}`})
	a.holds = ""
	a.block++
}

func (a *anthropic) delta(s *session, delta string) { s.event(a.deltaEvent(delta)) }

func (a *anthropic) deltaEvent(delta string) event {
	return event{"content_block_delta", `{"type":"content_block_delta","index":` + itoa(a.block) + `,"delta":` + delta + `}`}
}

func (a *anthropic) frame(s *session, thought bool) event {
	if thought {
		a.turn(s, "thinking", `{"type":"thinking","thinking":"","signature":""}`)
		return a.deltaEvent(`{"type":"thinking_delta","thinking":` + hole + `}`)
	}
	a.turn(s, "text", `{"type":"text","text":""}`)
	return a.deltaEvent(`{"type":"text_delta","text":` + hole + `}`)
}

func (a *anthropic) ending(s *session, reason string, u *counts) {
	a.close(s)
	usage := ""
	if u != nil {
		usage = `,"usage":` + anthropicUsage(counts{output: u.output, reasoning: u.reasoning})
	}
	s.event(event{"message_delta", `{"type":"message_delta","delta":{"stop_reason":` + quote(anthropicReason(reason)) + `,"stop_sequence":null}` + usage + `}`})
}

func (*anthropic) usage(s *session, u counts) {
	s.event(event{"message_delta", `{"type":"message_delta","delta":{},"usage":` + anthropicUsage(u) + `}`})
}

// anthropicUsage counts cached tokens apart from the other input, as Anthropic does.
func anthropicUsage(u counts) string {
	return object("input_tokens", u.input, "cache_read_input_tokens", u.cached, "output_tokens", u.output)
}

func anthropicReason(reason string) string {
	switch reason {
	case "stop":
		return "end_turn"
	case "length":
		return "max_tokens"
	case "tool_calls":
		return "tool_use"
	case "content_filter":
		return "refusal"
	default:
		return reason
	}
}

func (*anthropic) done(s *session) { s.event(event{"message_stop", `{"type":"message_stop"}`}) }

func (*anthropic) trailer(*session, counts) {}

func (*anthropic) ping(s *session) { s.event(event{"ping", `{"type": "ping"}`}) }

func (a *anthropic) oddity(s *session, kind oddity) {
	switch kind {
	case noDelta:
		s.event(event{"content_block_delta", `{"type":"content_block_delta","index":` + itoa(a.block) + `}`})
	case nullText:
		a.turn(s, "text", `{"type":"text","text":""}`)
		a.delta(s, `{"type":"text_delta","text":null}`)
	case unknownEvent:
		s.event(event{"something_new", `{"type":"something_new","value":[1,{"text":"not of the answer"}]}`})
	case noChoices, nullChoices, secondChoice: // not of this format
	}
}

func (a *anthropic) toolCall(s *session) {
	a.turn(s, "tool_use", `{"type":"tool_use","id":"toolu_fake","name":"look_up","input":{}}`)
	a.delta(s, `{"type":"input_json_delta","partial_json":""}`)
	a.delta(s, `{"type":"input_json_delta","partial_json":"{\"q\": \"blue\"}"}`)
}

func (*anthropic) whole(s *session) string {
	content := ""
	if s.thought.Len() > 0 {
		content = `{"type":"thinking","thinking":` + quote(s.thought.String()) + `,"signature":"ZmFrZQ=="},`
	}
	content += `{"type":"text","text":` + quote(s.said.String()) + `}`
	usage := ""
	if u := s.counts(); u != nil {
		usage = `,"usage":` + anthropicUsage(*u)
	}
	return `{"id":"msg_fake","type":"message","role":"assistant","model":` + quote(s.asked.model) + `,"content":[` + content +
		`],"stop_reason":` + quote(anthropicReason(s.finish)) + `,"stop_sequence":null` + usage + `}`
}

func (*anthropic) fault(why reason, status int) fault {
	f := fault{status: status, message: "scripted failure"}
	switch why {
	case rateLimit:
		f = fault{status: 429, message: "This request would exceed your organization's rate limit."}
	case concurrency:
		f = fault{status: 429, message: "Number of concurrent connections has exceeded your rate limit."}
	case quota:
		f = fault{status: 400, message: "Your credit balance is too low to access the API."}
	case contextLength:
		f = fault{status: 400, message: "prompt is too long: 204242 tokens > 200000 maximum"}
	case badKey:
		f = fault{status: 401, message: "invalid x-api-key: "}
	case overloaded:
		f = fault{status: 529, message: "Overloaded"}
	case notFound:
		f = fault{status: 404, message: "model: "}
	case badRequest:
		f = fault{status: 400}
	case scripted:
	}
	f.kind = anthropicKind(f.status)
	return f
}

func anthropicKind(status int) string {
	switch status {
	case 400, 422:
		return "invalid_request_error"
	case 401:
		return "authentication_error"
	case 402:
		return "billing_error"
	case 403:
		return "permission_error"
	case 404:
		return "not_found_error"
	case 413:
		return "request_too_large"
	case 429:
		return "rate_limit_error"
	case 504:
		return "timeout_error"
	case 529:
		return "overloaded_error"
	default:
		return "api_error"
	}
}

func (*anthropic) failure(f fault) string {
	return `{"type":"error","error":{"type":` + quote(f.kind) + `,"message":` + quote(f.message) + `},"request_id":"req_fake"}`
}

func (*anthropic) errorEvent() string { return "error" }

// allowance writes the reset as a moment, rounded up: Anthropic tells whole seconds.
func (*anthropic) allowance(h http.Header, a allowance) {
	reset := time.Now().Add(a.reset + time.Second - 1).UTC().Truncate(time.Second).Format(time.RFC3339)
	for _, bucket := range []struct {
		name        string
		limit, left int
	}{{"Requests", a.requests, a.requestsLeft}, {"Tokens", a.tokens, a.tokensLeft}, {"Input-Tokens", a.tokens, a.tokensLeft}, {"Output-Tokens", a.tokens, a.tokensLeft}} {
		prefix := "Anthropic-Ratelimit-" + bucket.name
		h.Set(prefix+"-Limit", itoa(bucket.limit))
		h.Set(prefix+"-Remaining", itoa(bucket.left))
		h.Set(prefix+"-Reset", reset)
	}
}
