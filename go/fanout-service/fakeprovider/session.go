package fakeprovider

import (
	"encoding/json"
	"fmt"
	"net"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"time"
)

// session is one answer being written: the pieces of the wire format that scripts are made of.
// In a request without stream the same script runs at the same pace, and one JSON body is
// written at the end.
type session struct {
	w        http.ResponseWriter
	r        *http.Request
	flusher  *http.ResponseController
	request  chatRequest
	options  url.Values
	argument int // the number in the script's name

	eol    string // the line end of the event stream
	began  bool   // the response header is out
	gone   bool   // the client left, or the connection was broken off
	asText strings.Builder
	finish string
	sent   int // text chunks so far, the output tokens
}

func newSession(w http.ResponseWriter, r *http.Request, request chatRequest, options url.Values, argument int) *session {
	return &session{
		w: w, r: r, flusher: http.NewResponseController(w),
		request: request, options: options, argument: argument, eol: "\n",
	}
}

func (s *session) number(name string, fallback int) int {
	if n, err := strconv.Atoi(s.options.Get(name)); err == nil && n >= 0 {
		return n
	}
	return fallback
}

func (s *session) text(name, fallback string) string {
	if s.options.Has(name) {
		return s.options.Get(name)
	}
	return fallback
}

// sleep waits, or returns false at once when the client leaves.
func (s *session) sleep(d time.Duration) bool {
	if s.gone {
		return false
	}
	if d <= 0 {
		return s.r.Context().Err() == nil
	}
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
		return true
	case <-s.r.Context().Done():
		s.gone = true
		return false
	}
}

// pause waits the script's pace: delay_ms, or the given default.
func (s *session) pause(defaultMS int) bool {
	return s.sleep(time.Duration(s.number("delay_ms", defaultMS)) * time.Millisecond)
}

// hang waits until the client leaves.
func (s *session) hang() {
	<-s.r.Context().Done()
	s.gone = true
}

// raw writes bytes of the event stream as they are and flushes them.
func (s *session) raw(text string) {
	if s.gone {
		return
	}
	s.begin("text/event-stream")
	if _, err := s.w.Write([]byte(text)); err != nil {
		s.gone = true
		return
	}
	if s.flusher.Flush() != nil {
		s.gone = true
	}
}

func (s *session) begin(contentType string) {
	if s.began {
		return
	}
	s.began = true
	s.w.Header().Set("Content-Type", contentType)
	s.w.WriteHeader(http.StatusOK)
}

// data writes one event of the stream; a request without stream swallows it.
func (s *session) data(payload string) {
	if s.request.Stream {
		s.raw("data: " + payload + s.eol + s.eol)
	}
}

func (s *session) comment(text string) {
	if s.request.Stream {
		s.raw(": " + text + s.eol + s.eol)
	}
}

func (s *session) chunkJSON(choices, extra string) string {
	return `{"id":"chatcmpl-fake","object":"chat.completion.chunk","created":1700000000,"model":` +
		quote(s.request.Model) + `,"choices":` + choices + extra + `}`
}

func choice(delta, finish string) string {
	reason := "null"
	if finish != "" {
		reason = quote(finish)
	}
	return `[{"index":0,"delta":` + delta + `,"logprobs":null,"finish_reason":` + reason + `}]`
}

// role writes the opening event that carries no text.
func (s *session) role() {
	s.data(s.chunkJSON(choice(`{"role":"assistant","content":""}`, ""), ""))
}

// say writes one piece of the answer.
func (s *session) say(text string) { s.sayRaw(quote(text), text) }

// sayRaw writes a piece whose JSON string literal is given, so that scripts can choose the escapes.
func (s *session) sayRaw(literal, text string) {
	s.sent++
	s.asText.WriteString(text)
	s.data(s.chunkJSON(choice(`{"content":`+literal+`}`, ""), ""))
}

func (s *session) end(reason string) {
	s.finish = reason
	s.data(s.chunkJSON(choice(`{}`, reason), ""))
}

func (s *session) inputTokens() int {
	total := 0
	for _, message := range s.request.Messages {
		total += len(strings.Fields(string(message.Content)))
	}
	return total
}

func (s *session) usageJSON() string {
	in := s.inputTokens()
	return fmt.Sprintf(`{"prompt_tokens":%d,"completion_tokens":%d,"total_tokens":%d,`+
		`"prompt_tokens_details":{"cached_tokens":%d},"completion_tokens_details":{"reasoning_tokens":%d}}`,
		in, s.sent, in+s.sent, s.number("cached", 0), s.number("reasoning", 0))
}

// usage writes the trailing usage event, as OpenAI does when it was asked for.
func (s *session) usage() {
	if s.request.StreamOptions.IncludeUsage {
		s.data(s.chunkJSON("[]", `,"usage":`+s.usageJSON()))
	}
}

func (s *session) done() { s.data("[DONE]") }

// complete ends an answer in the regular way.
func (s *session) complete(reason string) {
	s.end(reason)
	s.usage()
	s.done()
}

// reset breaks the connection with a TCP RST.
func (s *session) reset() {
	conn := s.hijack()
	if tcp, ok := conn.(*net.TCPConn); ok {
		_ = tcp.SetLinger(0)
	}
	if conn != nil {
		_ = conn.Close()
	}
}

func (s *session) hijack() net.Conn {
	s.gone = true
	conn, _, err := s.flusher.Hijack()
	if err != nil {
		panic(http.ErrAbortHandler)
	}
	return conn
}

// close writes the body of a request without stream. A script that never finished breaks the
// connection off in the middle of the body.
func (s *session) close() {
	if s.request.Stream || s.gone || s.began {
		return
	}
	message, err := json.Marshal(s.asText.String())
	if err != nil {
		panic(http.ErrAbortHandler)
	}
	body := `{"id":"chatcmpl-fake","object":"chat.completion","created":1700000000,"model":` + quote(s.request.Model) +
		`,"choices":[{"index":0,"message":{"role":"assistant","content":` + string(message) +
		`},"finish_reason":` + quote(s.finish) + `}],"usage":` + s.usageJSON() + `}`
	s.w.Header().Set("Content-Type", "application/json")
	s.w.Header().Set("Content-Length", strconv.Itoa(len(body)))
	if s.finish == "" {
		_, _ = s.w.Write([]byte(body[:len(body)/2]))
		_ = s.flusher.Flush()
		panic(http.ErrAbortHandler)
	}
	_, _ = s.w.Write([]byte(body))
}

// fail answers with an HTTP status and an error body instead of a stream.
func (s *session) fail(status int, kind, code, message string) {
	s.began = true
	writeError(s.w, status, kind, code, message)
}

func quote(text string) string {
	out, err := json.Marshal(text)
	if err != nil {
		panic(err) // a string always marshals
	}
	return string(out)
}
