package fakeprovider

import (
	"bytes"
	"iter"
	"net/http"
	"slices"
	"strings"
)

// answers are regular: what differs is their text, their pace and their finish reason.
var answers = []script{
	{name: "ok", does: "12 words, 10 ms apart.", streams: completely, run: ok},
	{name: "echo", does: "Repeats the last user message: its text, or its JSON when it is more than text.", streams: completely, run: func(s *session) {
		s.stream(split(s.asked.last), 10, "stop")
	}},
	{name: "echo-request", does: "Repeats the whole request body.", streams: completely, run: func(s *session) {
		s.stream(slices.Values([]string{string(s.asked.body)}), 10, "stop")
	}},
	{name: "long", does: "200 words, 5 ms apart.", streams: completely, run: func(s *session) { s.stream(words(s, 200), 5, "stop") }},
	{name: "prose-<n>", does: "n paragraphs of four seeded sentences.", streams: completely, run: func(s *session) {
		s.stream(prose(s, s.argument), 10, "stop")
	}},
	{name: "length", does: "Ends because of its length.", streams: completely, run: func(s *session) { s.stream(words(s, 12), 10, "length") }},
	{name: "content-filter", does: "Three words, then the provider's filter.", streams: completely, run: func(s *session) {
		s.stream(words(s, 3), 10, "content_filter")
	}},
	{name: "tool-calls", does: "Three words, then the finish reason of a tool call, and none; on gemini, whose reason does not tell, the call too.", streams: completely, run: func(s *session) {
		s.stream(words(s, 3), 10, "tool_calls")
	}},
	{name: "tool-call-parts", does: "Three words, then a tool call in parts; in one piece as `tool-calls`.", streams: completely, run: toolCallParts},
	{name: "unknown-finish", does: "A finish reason nobody knows.", streams: completely, run: func(s *session) { s.stream(words(s, 3), 10, "because") }},
	{name: "refusal", does: "OpenAI's own refusal text beside the answer.", on: "openai", streams: completely, run: func(s *session) {
		s.open()
		s.event((&openAI{}).chunk(s, choice(`{"refusal":"I cannot help with that."}`, ""), ""))
		s.complete("stop")
	}},
	{name: "blocked-prompt", does: "No candidate, but why the prompt was blocked.", on: "gemini", streams: odd, run: func(s *session) {
		s.answerWith(`{"promptFeedback":{"blockReason":"SAFETY"},"usageMetadata":{"promptTokenCount":4,"totalTokenCount":4}}`)
	}},
	{name: "reasoning", does: "Reasoning, then the answer.", options: "`thoughts` (5)", streams: completely, run: func(s *session) {
		s.open()
		if s.thoughts(s.number("thoughts", 5)) {
			s.rest(words(s, 12), 10, "stop")
		}
	}},
	{name: "interleaved", does: "Reasoning, words, reasoning, words.", streams: completely, run: func(s *session) {
		s.open()
		for piece := range words(s, 4) {
			s.think("hmm ")
			s.say(piece)
		}
		s.complete("stop")
	}},
	{name: "slow-first-token", does: "The header and the role at once, the first word after `first_ms` (60 000).", streams: completely, run: func(s *session) {
		s.open()
		s.sleep(s.ms("first_ms", 60_000))
		s.rest(words(s, 12), 10, "stop")
	}},
	{name: "early-hints", does: "An informational response (103) before the answer.", streams: completely, run: func(s *session) {
		s.w.WriteHeader(http.StatusEarlyHints)
		ok(s)
	}},
	{name: "big-line", does: "One piece of 1 MiB.", options: "`bytes`", streams: completely, run: func(s *session) { s.bigLine(s.number("bytes", 1<<20)) }},
	{name: "huge-line", does: "One piece of 33 MiB.", options: "`bytes`", streams: completely, run: func(s *session) { s.bigLine(s.number("bytes", 33<<20)) }},
	{name: "bulk", does: "20 MiB in pieces of 4 KiB, as fast as they are taken.", options: "`bytes`", streams: completely, run: func(s *session) {
		s.open()
		for left := s.number("bytes", 20<<20); left > 0 && s.pause(0); left -= len(passage) {
			s.say(passage[:min(left, len(passage))])
		}
		s.complete("stop")
	}},
	{name: "endless", does: "Pieces of 4.5 KB until the client leaves.", streams: open, run: func(s *session) {
		if !s.asked.stream {
			s.hang()
		}
		for s.open(); s.pause(0); {
			s.say(passage)
		}
	}},
	{name: "drip", does: "Three words, `bytes` (7) bytes a millisecond.", streams: completely, run: drip},
}

var passage = strings.Repeat("and so on ", 450)

func ok(s *session) { s.stream(words(s, 12), 10, "stop") }

// stream is a whole regular answer, at the script's pace.
func (s *session) stream(pieces iter.Seq[string], delayMS int, finish string) {
	s.open()
	s.sleep(s.ms("first_ms", 0))
	if s.thoughts(s.number("think", 0)) {
		s.rest(pieces, delayMS, finish)
	}
}

func (s *session) rest(pieces iter.Seq[string], delayMS int, finish string) {
	if s.pieces(pieces, delayMS) {
		s.complete(finish)
	}
}

// thoughts writes n pieces of reasoning, 10 ms apart, and says whether the client stayed.
func (s *session) thoughts(n int) bool {
	for i := range n {
		if i > 0 && !s.pause(10) {
			return false
		}
		s.think("hmm ")
	}
	return !s.gone
}

// pieces writes the given pieces and says whether the answer goes on: max_tokens cuts like a
// provider would, and the answer ends with finish reason length.
func (s *session) pieces(pieces iter.Seq[string], delayMS int) bool {
	i := 0
	for piece := range pieces {
		if s.asked.maxTokens > 0 && i >= s.asked.maxTokens {
			s.complete("length")
			return false
		}
		if i > 0 && !s.pause(delayMS) {
			return false
		}
		s.say(piece)
		i++
	}
	return !s.gone
}

// some opens the stream and writes n pieces, and no end.
func (s *session) some(n int) {
	s.open()
	s.sleep(s.ms("first_ms", 0))
	s.thoughts(s.number("think", 0))
	s.pieces(words(s, n), 10)
}

func toolCallParts(s *session) {
	s.some(3)
	if s.asked.stream {
		s.wire.toolCall(s)
	}
	s.complete("tool_calls")
}

// bigLine sends one piece of size bytes.
func (s *session) bigLine(size int) {
	s.open()
	s.say(strings.Repeat("0123456789abcdef", (size+15)/16)[:size])
	s.complete("stop")
}

// drip cuts a regular answer into bits that fit no event.
func drip(s *session) {
	s.open()
	size := max(1, s.number("bytes", 7))
	for piece := range words(s, 3) {
		s.sent++
		if !s.asked.stream {
			s.said.WriteString(piece)
			continue
		}
		s.pieceBytes(false, piece, "")
		for rest := bytes.Clone(s.buffer); len(rest) > 0; {
			n := min(size, len(rest))
			if !s.pause(1) {
				return
			}
			s.raw(string(rest[:n]))
			rest = rest[n:]
		}
	}
	s.complete("stop")
}

// answerWith answers with one JSON object: as an event, or as the body.
func (s *session) answerWith(data string) {
	if s.asked.stream {
		s.last()
		s.event(event{data: data})
		return
	}
	s.page(http.Header{"Content-Type": {"application/json"}}, []byte(data))
}
