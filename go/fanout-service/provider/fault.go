package provider

import (
	"encoding/json"
	"strings"
	"time"

	fanout "rex/fanout-service"
)

// fault is what an error object says in codes. The message is read for how it begins, and never
// passed on: providers repeat keys and prompts in it.
type fault struct {
	words      string // code, type, status and the reasons of the details, lower case
	status     int    // a code that is an HTTP status
	message    string // lower case
	retryAfter time.Duration
	crowded    bool // it complains of calls at once, not of calls per minute
	flagged    bool // its metadata says what a moderation found in the prompt
}

type phrase struct {
	part string
	kind fanout.Kind
}

// codes maps a part of a code to a kind; the first match wins.
var codes = []phrase{
	{"context_length", fanout.ContextTooLong},
	{"context_size", fanout.ContextTooLong},
	{"context_window", fanout.ContextTooLong},
	{"content_filter", fanout.ContentFilter},
	{"content_policy", fanout.ContentFilter},
	// An exhausted account does not recover by waiting: it is no rate limit.
	{"insufficient_quota", fanout.Auth},
	{"billing", fanout.Auth},
	{"invalid_api_key", fanout.Auth},
	{"api_key_invalid", fanout.Auth},
	{"no_db_connection", fanout.Auth}, // LiteLLM's proxy, of a key it has no database to look up in
	{"authentication", fanout.Auth},
	{"unauthenticated", fanout.Auth},
	{"permission", fanout.Auth},
	{"overloaded", fanout.Overloaded},
	{"rate_limit", fanout.RateLimited},
	{"resource_exhausted", fanout.RateLimited},
}

// requestCodes speak of the request, where no status does.
var requestCodes = []string{"invalid_request", "invalid_argument", "failed_precondition", "not_found", "request_too_large"}

// beginnings of messages sharpen an invalid request: some servers say these in words alone. A part
// from the middle would not do: it may be repeated from the request, and whoever writes one could
// have another's key taken for a refused one.
var beginnings = []phrase{
	{"this model's maximum context length", fanout.ContextTooLong},
	{"this endpoint's maximum context length", fanout.ContextTooLong},
	{"this model's maximum prompt length", fanout.ContextTooLong},
	{"your input exceeds the context window", fanout.ContextTooLong},
	{"the request exceeds the available context size", fanout.ContextTooLong},
	{"prompt is too long", fanout.ContextTooLong},
	{"prompt contains", fanout.ContextTooLong},    // … tokens, too large for Mistral's model
	{"the decoder prompt", fanout.ContextTooLong}, // … is longer than vLLM's maximum model length
	{"litellm.contextwindowexceedederror", fanout.ContextTooLong},
	{"input length and", fanout.ContextTooLong}, // … max_tokens exceed Anthropic's context limit
	{"the input token count", fanout.ContextTooLong},
	{"output blocked by content filtering policy", fanout.ContentFilter},
	{"your credit balance is too low", fanout.Auth},
}

// refine sharpens the kind that the status gives.
func (f fault) refine(kind fanout.Kind) fanout.Kind {
	for _, row := range codes {
		if strings.Contains(f.words, row.part) {
			return row.kind
		}
	}
	if f.flagged && (kind == fanout.Auth || kind == fanout.InvalidRequest) {
		return fanout.ContentFilter // OpenRouter, with status 403: nothing is wrong with the key
	}
	if kind == fanout.InvalidRequest {
		for _, row := range beginnings {
			if strings.HasPrefix(f.message, row.part) {
				return row.kind
			}
		}
	}
	return kind
}

// failure is what the fault means where no status speaks, as inside a stream.
func (f fault) failure(fact string) *fanout.Failure {
	kind := fanout.ServerError
	switch {
	case f.status >= 400:
		kind = fanout.StatusKind(f.status)
	case containsAny(f.words, requestCodes):
		kind = fanout.InvalidRequest
	case strings.Contains(f.words, "unavailable"):
		kind = fanout.Overloaded
	}
	kind = f.refine(kind)
	return &fanout.Failure{
		Kind: kind, RetryAfter: f.retryAfter, Crowded: f.crowded && kind == fanout.RateLimited, Fact: fact,
	}
}

func containsAny(text string, parts []string) bool {
	for _, part := range parts {
		if strings.Contains(text, part) {
			return true
		}
	}
	return false
}

// errorObject finds the error in a body: {"error": …}, a list of one such, or a bare error.
func errorObject(body []byte) (object json.RawMessage, ok bool) {
	var list []json.RawMessage
	if json.Unmarshal(body, &list) == nil && len(list) > 0 {
		body = list[0]
	}
	var envelope struct {
		Error  json.RawMessage `json:"error"`
		Object string          `json:"object"`
	}
	if json.Unmarshal(body, &envelope) != nil {
		return nil, false
	}
	if envelope.Object == "error" {
		return body, true
	}
	return envelope.Error, len(envelope.Error) > 0 && string(envelope.Error) != "null"
}

// faultOf reads an error object. What it cannot read it leaves empty.
func faultOf(object []byte) fault {
	var fields struct {
		Code    json.RawMessage `json:"code"`
		Type    string          `json:"type"`
		Status  string          `json:"status"`
		Message string          `json:"message"`
		Details json.RawMessage `json:"details"`
		// Of OpenRouter. Only that they are there is looked at.
		Metadata struct {
			Reasons json.RawMessage `json:"reasons"`
			Flagged json.RawMessage `json:"flagged_input"`
		} `json:"metadata"`
	}
	// Fields of another type than ours are left out; the rest is read all the same.
	if _ = json.Unmarshal(object, &fields); fields.Code == nil && fields.Type == "" && fields.Status == "" && fields.Message == "" {
		return fault{}
	}
	code := strings.Trim(string(fields.Code), `"`)
	f := fault{message: strings.ToLower(fields.Message)}
	f.flagged = fields.Metadata.Reasons != nil || fields.Metadata.Flagged != nil
	words := code + " " + fields.Type + " " + fields.Status
	for _, detail := range googleDetails(fields.Details) {
		words += " " + detail.Reason
		if wait, err := time.ParseDuration(detail.RetryDelay); err == nil {
			f.retryAfter = bounded(wait)
		}
	}
	f.words = strings.ToLower(words)
	f.crowded = strings.Contains(f.words, "concurren") || strings.Contains(f.message, "concurren")
	var status int
	if json.Unmarshal([]byte(code), &status) == nil && status < 1000 {
		f.status = status
	}
	return f
}

// googleDetail is an entry of a google.rpc.Status: an ErrorInfo has a reason, a RetryInfo a delay
// like "17.5s".
type googleDetail struct {
	Reason     string `json:"reason"`
	RetryDelay string `json:"retryDelay"`
}

func googleDetails(raw json.RawMessage) (details []googleDetail) {
	if json.Unmarshal(raw, &details) != nil {
		return nil
	}
	return details
}
