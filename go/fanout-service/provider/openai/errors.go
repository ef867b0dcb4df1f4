package openai

import (
	"encoding/json"
	"strings"

	fanout "rex/fanout-service"
)

// fault is what an error object says in codes. The message is read for one thing only, and never
// passed on: providers repeat keys and prompts in it.
type fault struct {
	words   string // code, type and status, lower case
	status  int    // a code that is an HTTP status
	message string // lower case
}

// known maps a part of a code to a kind; the first match wins.
var known = []struct {
	part string
	kind fanout.Kind
}{
	{"context_length", fanout.ContextTooLong},
	{"context_size", fanout.ContextTooLong},
	{"context_window", fanout.ContextTooLong},
	{"content_filter", fanout.ContentFilter},
	{"content_policy", fanout.ContentFilter},
	// An exhausted account does not recover by waiting: it is no rate limit.
	{"insufficient_quota", fanout.Auth},
	{"billing", fanout.Auth},
	{"invalid_api_key", fanout.Auth},
	{"authentication", fanout.Auth},
	{"permission", fanout.Auth},
	{"overloaded", fanout.Overloaded},
	{"rate_limit", fanout.RateLimited},
}

// Some servers name the context length in words alone.
var contextWords = []string{"maximum context length", "context size", "context window", "prompt is too long"}

// refine sharpens the kind that the status gives.
func (f fault) refine(kind fanout.Kind) fanout.Kind {
	for _, row := range known {
		if strings.Contains(f.words, row.part) {
			return row.kind
		}
	}
	if kind == fanout.InvalidRequest {
		for _, words := range contextWords {
			if strings.Contains(f.message, words) {
				return fanout.ContextTooLong
			}
		}
	}
	return kind
}

// eventKind is the kind of an error object inside a stream.
func eventKind(object []byte) fanout.Kind {
	f := readFault(object)
	kind := fanout.ServerError
	switch {
	case f.status >= 400:
		kind = fanout.StatusKind(f.status)
	case strings.Contains(f.words, "invalid_request"):
		kind = fanout.InvalidRequest
	}
	return f.refine(kind)
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

func readFault(object json.RawMessage) fault {
	var fields struct {
		Code    json.RawMessage `json:"code"`
		Type    string          `json:"type"`
		Status  string          `json:"status"`
		Message string          `json:"message"`
	}
	if json.Unmarshal(object, &fields) != nil {
		return fault{}
	}
	code := strings.Trim(string(fields.Code), `"`)
	f := fault{
		words:   strings.ToLower(code + " " + fields.Type + " " + fields.Status),
		message: strings.ToLower(fields.Message),
	}
	var status int
	if json.Unmarshal([]byte(code), &status) == nil && status < 1000 {
		f.status = status
	}
	return f
}
