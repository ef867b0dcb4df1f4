package fakeprovider

import (
	"compress/gzip"
	"encoding/json"
	"fmt"
	"strings"
	"time"
)

// script is one scripted answer. The file is longer than most: it is the catalogue, an entry each,
// and a reader looks one up here.
type script func(*session)

// scripts is every behaviour the server knows; "<n>" stands for a number in the name.
var scripts = map[string]script{
	"ok":                  ok,
	"echo":                echo,
	"long":                func(s *session) { s.stream(words(s, 200), 5, "stop") },
	"prose-<n>":           func(s *session) { s.stream(prose(s, s.argument), 10, "stop") },
	"length":              func(s *session) { s.stream(words(s, 12), 10, "length") },
	"content-filter":      func(s *session) { s.stream(words(s, 3), 10, "content_filter") },
	"tool-calls":          func(s *session) { s.stream(words(s, 3), 10, "tool_calls") },
	"unknown-finish":      func(s *session) { s.stream(words(s, 3), 10, "because") },
	"slow-first-token":    func(s *session) { s.role(); s.waitFirst(60_000); s.rest(words(s, 12), 10, "stop") },
	"reasoning":           reasoning,
	"no-headers":          func(s *session) { s.hang() },
	"stall":               stall,
	"cut":                 func(s *session) { s.some(3) },
	"cut-abrupt":          func(s *session) { s.some(3); s.breakOff() },
	"reset":               func(s *session) { s.some(3); s.reset() },
	"reset-before":        func(s *session) { s.reset() },
	"http-<n>":            status,
	"rate-limited":        rateLimited,
	"quota-exhausted":     quotaExhausted,
	"context-too-long":    contextTooLong,
	"error-event":         errorEvent,
	"error-event-text":    func(s *session) { s.some(2); s.data(`{"error":"it broke"}`) },
	"not-json":            func(s *session) { s.some(2); s.data("this is not JSON") },
	"not-an-object":       func(s *session) { s.some(2); s.data(`["a","list"]`) },
	"html-200":            html200,
	"json-in-stream":      jsonInStream,
	"stream-in-json":      streamInJSON,
	"gzip":                gzipped,
	"no-done":             func(s *session) { s.some(12); s.end("stop") },
	"no-done-open":        func(s *session) { s.some(12); s.end("stop"); s.hang() },
	"done-without-finish": func(s *session) { s.some(12); s.done() },
	"empty":               func(s *session) { s.role(); s.complete("stop") },
	"empty-body":          func(s *session) { s.raw("") },
	"null-content":        nullContent,
	"no-choices":          func(s *session) { s.data(s.chunkJSON("[]", "")); s.some(3); s.complete("stop") },
	"usage-missing":       func(s *session) { s.some(12); s.end("stop"); s.done() },
	"usage-late":          usageLate,
	"usage-with-finish":   usageWithFinish,
	"usage-nonsense":      usageNonsense,
	"second-finish":       func(s *session) { s.some(3); s.end("stop"); s.end("length"); s.say(" late"); s.done() },
	"crlf":                func(s *session) { s.eol = "\r\n"; ok(s) },
	"cr":                  func(s *session) { s.eol = "\r"; ok(s) },
	"bom":                 func(s *session) { s.raw("\ufeff"); ok(s) },
	"no-space":            noSpace,
	"named-events":        namedEvents,
	"split-utf8":          splitUTF8,
	"odd-unicode":         oddUnicode,
	"invalid-utf8":        invalidUTF8,
	"multi-line-data":     multiLineData,
	"big-line":            func(s *session) { s.bigLine(1 << 20) },
	"huge-line":           func(s *session) { s.bigLine(33 << 20) },
	"endless":             endless,
	"drip":                drip,
	"late-chunks":         func(s *session) { s.some(3); s.complete("stop"); s.say(" too late"); s.end("length") },
}

func ok(s *session) { s.stream(words(s, 12), 10, "stop") }

// stream is a whole regular answer: role, pieces at the script's pace, finish, usage, [DONE].
func (s *session) stream(pieces []string, delayMS int, finish string) {
	s.role()
	s.waitFirst(0)
	s.rest(pieces, delayMS, finish)
}

func (s *session) waitFirst(defaultMS int) {
	s.sleep(time.Duration(s.number("first_ms", defaultMS)) * time.Millisecond)
}

func (s *session) rest(pieces []string, delayMS int, finish string) {
	if s.pieces(pieces, delayMS) {
		s.complete(finish)
	}
}

// pieces writes the given pieces and says whether the client stayed. max_tokens cuts like a
// provider would: the answer ends with finish reason length.
func (s *session) pieces(pieces []string, delayMS int) bool {
	limit := s.request.MaxTokens + s.request.MaxCompletionTokens
	for i, piece := range pieces {
		if limit > 0 && i >= limit {
			s.complete("length")
			return false
		}
		if i > 0 && !s.pause(delayMS) || s.gone {
			return false
		}
		s.say(piece)
	}
	return !s.gone
}

// some writes the role and n pieces, and no end.
func (s *session) some(n int) {
	s.role()
	s.waitFirst(0)
	s.pieces(words(s, n), 10)
}

func (s *session) breakOff() {
	if conn := s.hijack(); conn != nil {
		_ = conn.Close()
	}
}

func echo(s *session) {
	last := ""
	for _, message := range s.request.Messages {
		if message.Role != "user" {
			continue
		}
		last = string(message.Content)
		var text string
		if json.Unmarshal(message.Content, &text) == nil {
			last = text
		}
	}
	s.stream(split(last), 10, "stop")
}

func reasoning(s *session) {
	s.role()
	for i := range s.number("thoughts", 5) {
		if i > 0 && !s.pause(10) {
			return
		}
		s.data(s.chunkJSON(choice(`{"reasoning_content":"hmm "}`, ""), ""))
	}
	s.rest(words(s, 12), 10, "stop")
}

// stall writes three pieces and then only comments, as some proxies do to keep a line open.
func stall(s *session) {
	s.some(3)
	for s.sleep(time.Duration(s.number("ping_ms", 50)) * time.Millisecond) {
		s.comment("ping")
	}
}

func status(s *session) {
	code := s.argument
	if code < 200 || code > 999 {
		code = 500
	}
	if code >= 300 && code < 400 {
		s.w.Header().Set("Location", "/_/trap")
	}
	message := "scripted failure"
	if code == 401 {
		message = "Incorrect API key provided: " + strings.TrimPrefix(s.r.Header.Get("Authorization"), "Bearer ")
	}
	if code == 204 || code == 304 {
		s.began = true
		s.w.WriteHeader(code)
		return
	}
	s.fail(code, s.text("type", "scripted_error"), s.text("code", ""), message)
}

func rateLimited(s *session) {
	s.w.Header().Set("Retry-After", s.text("retry_after", "2"))
	s.fail(429, "requests", "rate_limit_exceeded", "Rate limit reached.")
}

func quotaExhausted(s *session) {
	s.fail(429, "insufficient_quota", "insufficient_quota", "You exceeded your current quota.")
}

func contextTooLong(s *session) {
	s.fail(400, "invalid_request_error", "context_length_exceeded", "This model's maximum context length is 4096 tokens.")
}

// errorEvent sends an error object inside a stream that began well; type and code are options.
func errorEvent(s *session) {
	s.some(2)
	code := quote(s.text("code", ""))
	if code == `""` {
		code = "null"
	}
	s.data(`{"error":{"message":"scripted failure","type":` + quote(s.text("type", "server_error")) + `,"code":` + code + `}}`)
}

func html200(s *session) {
	s.began = true
	s.w.Header().Set("Content-Type", "text/html")
	_, _ = s.w.Write([]byte("<!doctype html><title>Sign in</title>"))
}

// jsonInStream answers a streaming request with the body of one that is not.
func jsonInStream(s *session) {
	s.request.Stream = false
	ok(s)
}

// streamInJSON answers a request without stream with an event stream.
func streamInJSON(s *session) {
	s.request.Stream = true
	ok(s)
}

func gzipped(s *session) {
	s.began = true
	s.w.Header().Set("Content-Type", "text/event-stream")
	s.w.Header().Set("Content-Encoding", "gzip")
	z := gzip.NewWriter(s.w)
	_, _ = z.Write([]byte("data: [DONE]\n\n"))
	_ = z.Close()
}

func nullContent(s *session) {
	s.role()
	for range 3 {
		s.data(s.chunkJSON(choice(`{"content":null}`, ""), ""))
	}
	s.complete("stop")
}

// usageLate sends the usage after the finish reason, after a pause, asked for or not.
func usageLate(s *session) {
	s.some(12)
	s.end("stop")
	s.sleep(time.Duration(s.number("late_ms", 50)) * time.Millisecond)
	s.data(s.chunkJSON("[]", `,"usage":`+s.usageJSON()))
	s.done()
}

func usageWithFinish(s *session) {
	s.some(12)
	s.finish = "stop"
	s.data(s.chunkJSON(choice(`{}`, "stop"), `,"usage":`+s.usageJSON()))
	s.done()
}

func usageNonsense(s *session) {
	s.some(12)
	s.end("stop")
	s.data(s.chunkJSON("[]", `,"usage":{"prompt_tokens":-4,"completion_tokens":"many"}`))
	s.done()
}

func noSpace(s *session) {
	s.role()
	for _, piece := range words(s, 3) {
		s.sent++
		s.asText.WriteString(piece)
		if s.request.Stream {
			s.raw("data:" + s.chunkJSON(choice(`{"content":`+quote(piece)+`}`, ""), "") + "\n\n")
		}
	}
	s.complete("stop")
}

// namedEvents wraps every event with fields that must not matter, and comments between.
func namedEvents(s *session) {
	s.comment("hello")
	s.role()
	for i, piece := range words(s, 3) {
		s.sent++
		s.asText.WriteString(piece)
		if s.request.Stream {
			s.raw(fmt.Sprintf("event: message\nid: %d\nretry: 5\nunknown: x\ndata: %s\n\n: between\n\n", i,
				s.chunkJSON(choice(`{"content":`+quote(piece)+`}`, ""), "")))
		}
	}
	s.complete("stop")
}

// splitUTF8 sends text outside ASCII a byte at a time.
func splitUTF8(s *session) {
	s.role()
	const text = "naïve — 日本語 🌍 done"
	s.sent++
	s.asText.WriteString(text)
	if s.request.Stream {
		for _, b := range []byte("data: " + s.chunkJSON(choice(`{"content":`+quote(text)+`}`, ""), "") + "\n\n") {
			s.raw(string([]byte{b}))
		}
	}
	s.complete("stop")
}

// oddUnicode sends a NUL, lone surrogates, and a surrogate pair cut in two between chunks.
func oddUnicode(s *session) {
	s.role()
	for _, piece := range []struct{ literal, text string }{
		{`"nul:\u0000 "`, "nul:\ufffd "},
		{`"high:\ud800 "`, "high:\ufffd "},
		{`"low:\udc00 "`, "low:\ufffd "},
		{`"pair:\ud83c"`, "pair:"},
		{`"\udf0d end\ud83c"`, "🌍 end\ufffd"},
	} {
		s.sayRaw(piece.literal, piece.text)
	}
	s.complete("stop")
}

func invalidUTF8(s *session) {
	s.role()
	s.sayRaw("\"bad:\xff\xfe \xc3(\"", "bad:\ufffd\ufffd \ufffd(")
	s.complete("stop")
}

// multiLineData breaks the JSON of each event over several data lines.
func multiLineData(s *session) {
	s.role()
	for _, piece := range words(s, 3) {
		s.sent++
		s.asText.WriteString(piece)
		if s.request.Stream {
			whole := s.chunkJSON(choice(`{"content":`+quote(piece)+`}`, ""), "")
			s.raw("data: " + strings.ReplaceAll(whole, `,"choices"`, ",\ndata: \"choices\"") + "\n\n")
		}
	}
	s.complete("stop")
}

// bigLine sends one event whose text is size bytes long.
func (s *session) bigLine(size int) {
	s.role()
	s.say(strings.Repeat("0123456789abcdef", size/16))
	s.complete("stop")
}

// endless never stops; each piece has 4 KiB.
func endless(s *session) {
	s.role()
	piece := strings.Repeat("and so on ", 410)
	for s.pause(0) {
		s.sent++
		s.data(s.chunkJSON(choice(`{"content":`+quote(piece)+`}`, ""), ""))
	}
}

// drip sends a regular answer a few bytes at a time.
func drip(s *session) {
	var whole strings.Builder
	for _, piece := range words(s, 3) {
		s.sent++
		s.asText.WriteString(piece)
		whole.WriteString("data: " + s.chunkJSON(choice(`{"content":`+quote(piece)+`}`, ""), "") + "\n\n")
	}
	if s.request.Stream {
		size := max(1, s.number("bytes", 7))
		for rest := whole.String(); rest != ""; {
			n := min(size, len(rest))
			if !s.pause(1) {
				return
			}
			s.raw(rest[:n])
			rest = rest[n:]
		}
	}
	s.complete("stop")
}
