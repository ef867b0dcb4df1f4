package fakeprovider

import (
	"encoding/json"
	"net/http"
	"strconv"
	"strings"
	"time"
)

// wire is one provider's format. Scripts say what happens, the wire writes the bytes for it. A
// value belongs to one request and may keep what it has begun.
type wire interface {
	name() string
	key(r *http.Request) string
	read(r *http.Request, body []byte) (question, error)

	opening(s *session)                          // the events before any text
	frame(s *session, thought bool) event        // an event for a piece whose text is hole; begins its block if need be
	ending(s *session, reason string, u *counts) // the finish reason, with usage where the format has it there and u is given
	trailer(s *session, u counts)                // what regularly stands between the finish reason and the end
	usage(s *session, u counts)                  // usage in an event of its own
	done(s *session)                             // what stands last, if anything does
	ping(s *session)
	oddity(s *session, kind oddity) // an event without what it should have
	toolCall(s *session)
	whole(s *session) string // the body of a request without stream

	fault(reason reason, status int) fault
	failure(f fault) string // a JSON object: the body of a refusal, the data of an error event
	errorEvent() string     // the name of an event that carries a failure
	allowance(h http.Header, a allowance)
}

// question is what a script knows of the request.
type question struct {
	model     string
	stream    bool
	wantUsage bool
	maxTokens int    // 0: not bounded
	last      string // the last user message: its text, or its JSON when it is more than text
	words     int    // of all messages, the input tokens
	params    json.RawMessage
	body      []byte
}

// event is one event of a stream. Text stands for hole in the data of an event made by frame.
type event struct{ name, data string }

const hole = "\x00"

// counts are the numbers of a usage object as JSON, so that they can be wrong; "" leaves one out.
type counts struct{ input, output, total, cached, reasoning string }

// reason is what a script refuses for; each wire has its own words for it.
type reason int

const (
	scripted reason = iota
	rateLimit
	concurrency
	quota
	contextLength
	badKey
	overloaded
	notFound
	badRequest
)

// fault is a failure in a wire's own words.
type fault struct {
	status  int
	kind    string // OpenAI's and Anthropic's type, Gemini's status
	code    string // OpenAI only
	message string
	details string // Gemini only: a JSON list
}

// oddity is a piece of the format that is missing or wrong.
type oddity int

const (
	noChoices oddity = iota
	nullChoices
	noDelta
	nullText
	secondChoice
	unknownEvent
)

// allowance is what rate limit headers say.
type allowance struct {
	requests, requestsLeft, tokens, tokensLeft int
	reset                                      time.Duration
}

// object writes the members of a JSON object that have a value.
func object(pairs ...string) string {
	var b strings.Builder
	b.WriteByte('{')
	for i := 0; i+1 < len(pairs); i += 2 {
		if pairs[i+1] == "" {
			continue
		}
		if b.Len() > 1 {
			b.WriteByte(',')
		}
		b.WriteString(`"` + pairs[i] + `":` + pairs[i+1])
	}
	return b.String() + "}"
}

func quote(text string) string { return string(appendQuoted(nil, text)) }

// appendQuoted writes a JSON string. Text that needs no escape costs no allocation.
func appendQuoted(b []byte, text string) []byte {
	for i := range len(text) {
		if c := text[i]; c < 0x20 || c > 0x7e || c == '"' || c == '\\' || c == '<' || c == '>' || c == '&' {
			out, err := json.Marshal(text)
			if err != nil {
				panic(err) // a string always marshals
			}
			return append(b, out...)
		}
	}
	b = append(b, '"')
	b = append(b, text...)
	return append(b, '"')
}

func writeJSON(w http.ResponseWriter, value any) {
	w.Header().Set("Content-Type", "application/json")
	_ = json.NewEncoder(w).Encode(value)
}

// without is the request's JSON less some members.
func without(body []byte, members ...string) json.RawMessage {
	var all map[string]json.RawMessage
	if json.Unmarshal(body, &all) != nil {
		return nil
	}
	for _, name := range members {
		delete(all, name)
	}
	out, err := json.Marshal(all)
	if err != nil {
		return nil
	}
	return out
}

// textOf is a message's content as text when it is text: a string, or a list of one text part.
func textOf(content json.RawMessage) string {
	var text string
	if json.Unmarshal(content, &text) == nil {
		return text
	}
	var parts []struct {
		Text *string `json:"text"`
	}
	if json.Unmarshal(content, &parts) == nil && len(parts) == 1 && parts[0].Text != nil {
		return *parts[0].Text
	}
	return string(content)
}

func wordCount(content json.RawMessage) int { return len(strings.Fields(string(content))) }

func itoa(n int) string { return strconv.Itoa(n) }
