package fakeprovider

import (
	"encoding/json"
	"errors"
	"net/http"
	"net/url"
	"strings"
)

// gemini is the generateContent format. The model and the mode stand in the path.
type gemini struct {
	model, method string
}

const (
	geminiStream = "streamGenerateContent"
	geminiWhole  = "generateContent"
)

// newGemini reads the path behind models/. A client that does not escape the question mark of a
// script's options puts them, and the method, into the query.
func newGemini(r *http.Request) *gemini {
	rest := r.PathValue("call")
	if query, err := url.PathUnescape(r.URL.RawQuery); err == nil {
		for _, method := range []string{geminiStream, geminiWhole} {
			if options, _, found := strings.Cut(query, ":"+method); found {
				return &gemini{model: rest + "?" + options, method: method}
			}
		}
	}
	at := strings.LastIndexByte(rest, ':')
	if at < 0 {
		return &gemini{model: rest}
	}
	return &gemini{model: rest[:at], method: rest[at+1:]}
}

func (*gemini) name() string { return "gemini" }

func (*gemini) key(r *http.Request) string {
	if key := r.Header.Get("X-Goog-Api-Key"); key != "" {
		return key
	}
	return r.URL.Query().Get("key")
}

func (g *gemini) read(r *http.Request, body []byte) (question, error) {
	var asked struct {
		Contents []struct {
			Role  string          `json:"role"`
			Parts json.RawMessage `json:"parts"`
		} `json:"contents"`
		SystemInstruction json.RawMessage `json:"systemInstruction"`
		GenerationConfig  struct {
			MaxOutputTokens int `json:"maxOutputTokens"`
		} `json:"generationConfig"`
	}
	if err := json.Unmarshal(body, &asked); err != nil {
		return question{}, err
	}
	q := question{
		model: g.model, stream: g.method == geminiStream, wantUsage: true, maxTokens: asked.GenerationConfig.MaxOutputTokens,
		words: wordCount(asked.SystemInstruction), params: without(body, "contents"), body: body,
	}
	for _, content := range asked.Contents {
		if content.Role != "user" && content.Role != "model" && content.Role != "" {
			return q, errors.New("Please use a valid role: user, model.") //nolint:staticcheck // the provider's own sentence
		}
		q.words += wordCount(content.Parts)
		if content.Role != "model" {
			q.last = textOf(content.Parts)
		}
	}
	switch {
	case g.method != geminiStream && g.method != geminiWhole:
		return q, errors.New("no such method: " + g.method)
	case q.stream && !strings.Contains(r.URL.RawQuery, "alt=sse"):
		return q, errors.New("only alt=sse streams here")
	case len(asked.Contents) == 0:
		return q, errors.New("contents is not specified")
	}
	return q, nil
}

func (*gemini) chunk(s *session, candidates, extra string) event {
	if candidates != "" {
		candidates = `"candidates":` + candidates + `,`
	}
	return event{data: `{` + candidates + `"modelVersion":` + quote(s.asked.model) + `,"responseId":"fake"` + extra + `}`}
}

func candidate(part, finish string) string {
	if finish != "" {
		finish = `,"finishReason":` + quote(finish)
	}
	return `[{"content":{"parts":[` + part + `],"role":"model"}` + finish + `,"index":0}]`
}

// opening is nothing: the first chunk has text.
func (*gemini) opening(s *session) { s.beginStream() }

func (g *gemini) frame(s *session, thought bool) event {
	part := `{"text":` + hole + `}`
	if thought {
		part = `{"text":` + hole + `,"thought":true}`
	}
	return g.chunk(s, candidate(part, ""), s.usageEverywhere(`,"usageMetadata":`, geminiUsage))
}

func (g *gemini) ending(s *session, reason string, u *counts) {
	extra := ""
	if u != nil {
		extra = `,"usageMetadata":` + geminiUsage(*u)
	}
	part := `{"text":""}`
	if reason == "tool_calls" {
		part = geminiCall
	}
	s.event(g.chunk(s, candidate(part, geminiReason(reason)), extra))
}

func (g *gemini) usage(s *session, u counts) {
	s.event(g.chunk(s, "", `,"usageMetadata":`+geminiUsage(u)))
}

func geminiUsage(u counts) string {
	return object("promptTokenCount", u.input, "cachedContentTokenCount", u.cached, "candidatesTokenCount", u.output,
		"thoughtsTokenCount", u.reasoning, "totalTokenCount", u.total)
}

func geminiReason(reason string) string {
	switch reason {
	case "stop", "tool_calls":
		return "STOP"
	case "length":
		return "MAX_TOKENS"
	case "content_filter":
		return "SAFETY"
	default:
		return reason
	}
}

// done is nothing: the stream ends with the body.
func (*gemini) done(*session) {}

func (*gemini) trailer(*session, counts) {}

func (*gemini) ping(s *session) { s.comment("ping") }

func (g *gemini) oddity(s *session, kind oddity) {
	switch kind {
	case noChoices:
		s.event(g.chunk(s, "[]", ""))
	case nullChoices:
		s.event(g.chunk(s, "null", ""))
	case noDelta:
		s.event(g.chunk(s, `[{"content":{"role":"model"},"index":0}]`, ""))
	case nullText:
		s.event(g.chunk(s, candidate(`{"text":null}`, ""), ""))
	case secondChoice:
		s.event(g.chunk(s, `[{"content":{"parts":[{"text":"of another choice"}],"role":"model"},"index":1}]`, ""))
	case unknownEvent:
		s.event(event{data: `{"somethingNew":[1,{"text":"not of the answer"}]}`})
	}
}

func (g *gemini) toolCall(s *session) {
	s.event(g.chunk(s, candidate(geminiCall, ""), ""))
}

// geminiCall is all that says a tool was called: the finish reason is STOP, as of any answer.
const geminiCall = `{"functionCall":{"name":"look_up","args":{"q":"blue"}}}`

func (g *gemini) whole(s *session) string {
	part := `{"text":` + quote(s.said.String()) + `}`
	if s.thought.Len() > 0 {
		part = `{"text":` + quote(s.thought.String()) + `,"thought":true},` + part
	}
	if s.finish == "tool_calls" {
		part += "," + geminiCall
	}
	extra := ""
	if u := s.counts(); u != nil {
		extra = `,"usageMetadata":` + geminiUsage(*u)
	}
	return g.chunk(s, candidate(part, geminiReason(s.finish)), extra).data
}

func (*gemini) fault(why reason, status int) fault {
	f := fault{status: status, message: "scripted failure"}
	switch why {
	case rateLimit:
		f = fault{status: 429, message: "Resource has been exhausted (e.g. check quota)."}
	case concurrency:
		f = fault{status: 429, message: "Too many concurrent requests for this model."}
	case quota:
		f = fault{status: 429, message: "You exceeded your current quota, please check your plan and billing details.",
			details: `[{"@type":"type.googleapis.com/google.rpc.QuotaFailure","violations":[{"quotaId":"GenerateRequestsPerDayPerProjectPerModel-FreeTier","quotaValue":"0"}]}]`}
	case contextLength:
		f = fault{status: 400, message: "The input token count (1204242) exceeds the maximum number of tokens allowed (1048576)."}
	case badKey:
		f = fault{status: 400, message: "API key not valid. Please pass a valid API key: ",
			details: `[{"@type":"type.googleapis.com/google.rpc.ErrorInfo","reason":"API_KEY_INVALID","domain":"googleapis.com"}]`}
	case overloaded:
		f = fault{status: 503, message: "The model is overloaded. Please try again later."}
	case notFound:
		f = fault{status: 404, message: "no such script: "}
	case badRequest:
		f = fault{status: 400}
	case scripted:
	}
	f.kind = geminiStatus(f.status)
	return f
}

func geminiStatus(status int) string {
	switch status {
	case 400:
		return "INVALID_ARGUMENT"
	case 401:
		return "UNAUTHENTICATED"
	case 403:
		return "PERMISSION_DENIED"
	case 404:
		return "NOT_FOUND"
	case 409:
		return "ABORTED"
	case 429:
		return "RESOURCE_EXHAUSTED"
	case 499:
		return "CANCELLED"
	case 500:
		return "INTERNAL"
	case 501:
		return "UNIMPLEMENTED"
	case 503:
		return "UNAVAILABLE"
	case 504:
		return "DEADLINE_EXCEEDED"
	default:
		return "UNKNOWN"
	}
}

// failure is written over several lines, as Google's front end does.
func (*gemini) failure(f fault) string {
	details := ""
	if f.details != "" {
		details = ",\n    \"details\": " + f.details
	}
	return "{\n  \"error\": {\n    \"code\": " + itoa(f.status) + ",\n    \"message\": " + quote(f.message) +
		",\n    \"status\": " + quote(f.kind) + details + "\n  }\n}"
}

func (*gemini) errorEvent() string { return "" }

// allowance is nothing: Gemini tells its limits in refusals alone.
func (*gemini) allowance(http.Header, allowance) {}
