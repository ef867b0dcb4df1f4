package fakeprovider

import (
	"net/http"
	"slices"
)

// content is odd: what a provider may send in a well-framed stream.
var content = []script{
	{name: "empty", does: "A finish reason without any text.", streams: completely, run: func(s *session) { s.open(); s.complete("stop") }},
	{name: "empty-body", does: "The header of a stream and not a byte more.", streams: short, whole: odd, run: func(s *session) { s.raw("") }},
	{name: "null-content", does: "Pieces whose text is null.", streams: completely, run: bared(nullText, nullText, nullText)},
	{name: "no-choices", does: "A chunk with an empty list of choices before the answer.", on: "openai gemini", streams: completely, run: before(noChoices)},
	{name: "null-choices", does: "A chunk whose choices are null before the answer.", on: "openai gemini", streams: completely, run: before(nullChoices)},
	{name: "no-delta", does: "A chunk without a delta, or without parts, before the answer.", streams: completely, run: before(noDelta)},
	{name: "two-choices", does: "Text of a second choice before the answer.", on: "openai gemini", streams: completely, run: before(secondChoice)},
	{name: "unknown-event", does: "An event of a kind nobody knows before the answer.", streams: completely, run: before(unknownEvent)},
	{name: "usage-missing", does: "No usage.", streams: completely, run: func(s *session) {
		s.noUsage = true
		s.some(12)
		s.end("stop")
		s.done()
	}},
	{name: "usage-late", does: "Usage `late_ms` (50) after the finish reason, asked for or not.", streams: completely, run: func(s *session) {
		s.some(12)
		s.endWith("stop", nil)
		s.sleep(s.ms("late_ms", 50))
		s.wire.usage(s, *s.counts())
		s.done()
	}},
	{name: "usage-with-finish", does: "Usage in the event of the finish reason.", on: "openai", streams: completely, run: func(s *session) {
		s.some(12)
		s.finish = "stop"
		s.event((&openAI{}).chunk(s, choice(`{}`, "stop"), `,"usage":`+openAIUsage(*s.counts())))
		s.done()
	}},
	{name: "usage-everywhere", does: "Every chunk has the usage so far.", on: "openai gemini", streams: completely, run: func(s *session) {
		s.reframe(func(f *framing) { f.usage = true })
		ok(s)
	}},
	{name: "usage-nonsense", does: "Negative usage, and usage that is text.", streams: completely, run: func(s *session) {
		s.some(12)
		s.endWith("stop", nil)
		s.wire.usage(s, counts{input: "-4", output: `"many"`})
		s.done()
	}},
	{name: "usage-huge", does: "Usage beyond every counter.", streams: completely, run: func(s *session) {
		s.some(12)
		s.endWith("stop", nil)
		s.wire.usage(s, counts{input: "1e300", output: "9223372036854775808", total: "1.5"})
		s.done()
	}},
	{name: "second-finish", does: "A second finish reason, then more text.", streams: completely, run: func(s *session) {
		s.some(3)
		s.end("stop")
		s.end("length")
		s.say(" late")
		s.done()
	}},
	{name: "late-chunks", does: "More text behind the regular end.", streams: completely, run: func(s *session) {
		s.some(3)
		s.complete("stop")
		s.say(" too late")
		s.end("length")
	}},
	{name: "no-done", does: "A finish reason, and the end without what stands last.", on: "openai anthropic", streams: short, whole: completely, run: func(s *session) {
		s.some(12)
		s.end("stop")
	}},
	{name: "no-done-open", does: "The same with the connection left open.", streams: open, run: func(s *session) { s.some(12); s.end("stop"); s.hang() }},
	{name: "done-without-finish", does: "What stands last, without a finish reason.", on: "openai anthropic", streams: short, whole: broken, run: func(s *session) { s.some(12); s.done() }},
	{name: "odd-unicode", does: "U+0000, lone surrogates, and a pair cut in two.", streams: completely, run: oddUnicode},
	{name: "strange-scripts", does: "Text from right to left, zero-width marks, combining marks, a BOM inside.", streams: completely, run: func(s *session) {
		s.stream(slices.Values([]string{"שלום ", "\u202emirror\u202c ", "zero\u200b\u200d\ufeffwidth ", "Z\u0351\u036bal\u0334go"}), 1, "stop")
	}},
	{name: "invalid-utf8", does: "Bytes that are not UTF-8.", streams: completely, run: func(s *session) {
		s.open()
		s.sayRaw("\"bad:\xff\xfe \xc3(\"", "bad:\ufffd\ufffd \ufffd(")
		s.complete("stop")
	}},
	{name: "not-json", does: "Two words, then data that is no JSON.", streams: short, whole: broken, run: func(s *session) { s.some(2); s.event(event{data: "this is not JSON"}) }},
	{name: "not-an-object", does: "Two words, then data that is a list.", streams: short, whole: broken, run: func(s *session) { s.some(2); s.event(event{data: `["a","list"]`}) }},
	{name: "error-event", does: "`after` (2) words, then a failure in the stream.", options: "`type`, `code`, `status` (500)", streams: short, whole: broken, run: errorEvent},
	{name: "error-event-text", does: "Two words, then a failure that is bare text.", streams: short, whole: broken, run: func(s *session) {
		s.some(2)
		s.event(event{s.wire.errorEvent(), `{"error":"it broke"}`})
	}},
	{name: "html-200", does: "A page instead of an answer.", streams: odd, run: func(s *session) {
		s.page(http.Header{"Content-Type": {"text/html"}}, []byte("<!doctype html><title>Sign in</title>"))
	}},
	{name: "json-in-stream", does: "One JSON body though a stream was asked for.", streams: odd, whole: completely, run: func(s *session) { s.asked.stream = false; ok(s) }},
	{name: "stream-in-json", does: "A stream though one JSON body was asked for.", streams: completely, whole: odd, run: func(s *session) { s.asked.stream = true; ok(s) }},
	{name: "body", does: "200 with the body given.", options: "`json`", streams: odd, run: func(s *session) {
		s.page(http.Header{"Content-Type": {"application/json"}}, []byte(s.text("json", "{}")))
	}},
}

func bared(kinds ...oddity) func(*session) {
	return func(s *session) {
		s.open()
		if s.asked.stream {
			for _, kind := range kinds {
				s.wire.oddity(s, kind)
			}
		}
		s.complete("stop")
	}
}

func before(kind oddity) func(*session) {
	return func(s *session) {
		if s.wire.name() == "anthropic" {
			s.open()
			s.say("") // begins the block the odd event belongs to
			s.sent--
			s.wire.oddity(s, kind)
		} else {
			s.wire.oddity(s, kind)
			s.open()
		}
		s.rest(words(s, 3), 10, "stop")
	}
}

func oddUnicode(s *session) {
	s.open()
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

func errorEvent(s *session) {
	s.some(s.number("after", 2))
	f := s.fault(scripted, http.StatusInternalServerError)
	if s.wire.name() == "openai" && !s.options.Has("type") {
		f.kind = "server_error"
	}
	s.event(event{s.wire.errorEvent(), s.wire.failure(f)})
}
