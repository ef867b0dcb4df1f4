package fakeprovider

import (
	"math"
	"net/http"
	"strconv"
	"time"
)

// refusals are HTTP statuses of failure, each wire in its own words.
var refusals = []script{
	{name: "http-<n>", does: "That status with an error body. 401 repeats the key it was sent; 3xx point to `/_/trap`, which logs a visit.",
		options: "`type`, `code`, `message`", streams: refused, run: func(s *session) { s.status(s.argument) }},
	{name: "rate-limited", does: "429 with `Retry-After: 2`.",
		options: "`retry_after` (any text; `none`; `date`, `in_ms` (2000) from now), `retry_after_ms` (a header of its own, alone unless both are given), `retry_info` (Gemini's `RetryInfo`), `should_retry`, `status`",
		streams: refused, run: func(s *session) {
			s.retryAfter("2")
			s.refuse(s.fault(rateLimit, 0))
		}},
	{name: "quota-exhausted", does: "No money left: 429 with `insufficient_quota`; Anthropic says 400, Gemini 429 with a `QuotaFailure`.", streams: refused, run: refusing(quota)},
	{name: "context-too-long", does: "The prompt is too long.", streams: refused, run: refusing(contextLength)},
	{name: "overloaded", does: "503; Anthropic says 529.", options: "`retry_after`", streams: refused, run: func(s *session) {
		s.retryAfter("none")
		s.refuse(s.fault(overloaded, 0))
	}},
	{name: "too-concurrent", does: "429 that speaks of concurrency.", streams: refused, run: refusing(concurrency)},
	{name: "bad-key", does: "The wire's refusal of a key, which it repeats; Gemini says 400.", streams: refused, run: func(s *session) {
		f := s.fault(badKey, 0)
		f.message += s.wire.key(s.r)
		s.refuse(f)
	}},
	{name: "error-list", does: "The error inside a list, as Google's front end sometimes has it.", on: "gemini", options: "`status` (400)", streams: refused, run: func(s *session) {
		f := s.fault(scripted, http.StatusBadRequest)
		s.respond(f.status, "application/json", "["+s.wire.failure(f)+"\n]")
	}},
	{name: "html-error", does: "A front end's page with a status of failure.", options: "`status` (502)", streams: refused, run: func(s *session) {
		s.respond(s.number("status", http.StatusBadGateway), "text/html", "<html><title>Bad gateway</title></html>")
	}},
	{name: "huge-error", does: "An error body of `bytes` (8 MiB).", options: "`status` (500)", streams: refused, run: func(s *session) {
		f := s.fault(scripted, http.StatusInternalServerError)
		f.message = string(make([]byte, s.number("bytes", 8<<20)/6)) // a NUL takes six bytes
		s.refuse(f)
	}},
	{name: "endless-error", does: "An error body without an end.", options: "`status` (500)", streams: open, run: func(s *session) {
		s.respond(s.number("status", http.StatusInternalServerError), "application/json", `{"error":{"message":"`)
		for s.pause(1) {
			s.put([]byte(passage))
		}
	}},
	{name: "redirect", does: "302 to `to` (`trap`, `metadata`, or an address).", options: "`status`", streams: refused, run: func(s *session) {
		to := s.text("to", "trap")
		switch to {
		case "trap":
			to = "/_/trap"
		case "metadata":
			to = "http://169.254.169.254/latest/meta-data/"
		}
		s.w.Header().Set("Location", to)
		s.refuse(s.fault(scripted, http.StatusFound))
	}},
}

func refusing(why reason) func(*session) {
	return func(s *session) { s.refuse(s.fault(why, 0)) }
}

// fault is the wire's words for a reason; options change them.
func (s *session) fault(why reason, status int) fault {
	f := s.wire.fault(why, status)
	if n := s.number("status", f.status); n != f.status && n >= 200 && n <= 999 {
		changed := s.wire.fault(scripted, n)
		f.status, f.kind = n, changed.kind
	}
	f.kind, f.code, f.message = s.text("type", f.kind), s.text("code", f.code), s.text("message", f.message)
	if info := s.text("retry_info", ""); info != "" {
		f.details = `[{"@type":"type.googleapis.com/google.rpc.RetryInfo","retryDelay":` + quote(info) + `}]`
	}
	return f
}

// status answers with any status.
func (s *session) status(code int) {
	if code < 200 || code > 999 {
		code = http.StatusInternalServerError
	}
	if code >= 300 && code < 400 {
		s.w.Header().Set("Location", "/_/trap")
	}
	if code == http.StatusNoContent || code == http.StatusNotModified {
		s.last()
		s.began = true
		s.server.firstByte(s.entry)
		s.w.WriteHeader(code)
		return
	}
	f := s.fault(scripted, code)
	if code == http.StatusUnauthorized {
		f.message = "Incorrect API key provided: " + s.wire.key(s.r)
	}
	s.refuse(f)
}

// retryAfter writes the header in the form the options ask for, and notes how long it binds.
func (s *session) retryAfter(fallback string) {
	text := s.text("retry_after", fallback)
	if s.options.Has("retry_after_ms") {
		s.w.Header().Set("Retry-After-Ms", s.text("retry_after_ms", ""))
		s.bind(s.ms("retry_after_ms", 0))
		if !s.options.Has("retry_after") {
			text = "none"
		}
	}
	if s.options.Has("should_retry") {
		s.w.Header().Set("X-Should-Retry", s.text("should_retry", ""))
	}
	switch text {
	case "none":
		return
	case "date":
		wait := s.ms("in_ms", 2000)
		// Dates have whole seconds: this one is rounded up, so that it binds for at least the wait.
		text = time.Now().Add(wait + time.Second - 1).UTC().Format(http.TimeFormat)
		s.bind(wait)
	default:
		if seconds, err := strconv.ParseFloat(text, 64); err == nil && seconds > 0 && seconds < math.MaxInt32 {
			s.bind(time.Duration(seconds * float64(time.Second)))
		}
	}
	s.w.Header().Set("Retry-After", text)
}
