package fakeprovider

import (
	"bytes"
	"compress/gzip"
	"net/http"
	"sync"
)

// framings are the same events in the other ways the event stream format allows.
var framings = []script{
	{name: "crlf", does: "Lines end with CR LF.", streams: completely, run: reframed(func(f *framing) { f.eol = "\r\n" })},
	{name: "cr", does: "Lines end with CR.", streams: completely, run: reframed(func(f *framing) { f.eol = "\r" })},
	{name: "bom", does: "A byte order mark first.", streams: completely, run: func(s *session) {
		if s.asked.stream {
			s.raw("\ufeff")
		}
		ok(s)
	}},
	{name: "no-space", does: "No space behind `data:`.", streams: completely, run: func(s *session) {
		s.reframe(func(f *framing) { f.data = "data:" })
		s.open()
		s.rest(words(s, 3), 0, "stop")
	}},
	{name: "named-events", does: "The words' events have names, ids, unknown fields and comments.", streams: completely, run: func(s *session) {
		if s.asked.stream {
			s.comment("hello")
		}
		s.open()
		s.reframe(func(f *framing) { f.decorated = true })
		going := s.pieces(words(s, 3), 0)
		s.reframe(func(f *framing) { f.decorated = false })
		if going {
			s.complete("stop")
		}
	}},
	{name: "multi-line-data", does: "The JSON of the words' events is broken over several data lines.", streams: completely, run: func(s *session) {
		s.open()
		s.reframe(func(f *framing) { f.multiline = true })
		going := s.pieces(words(s, 3), 0)
		s.reframe(func(f *framing) { f.multiline = false })
		if going {
			s.complete("stop")
		}
	}},
	{name: "split-utf8", does: "A piece with text outside ASCII, a byte at a time.", streams: completely, run: splitUTF8},
	{name: "pings", does: "Pings between the words.", streams: completely, run: func(s *session) {
		s.open()
		for piece := range words(s, 12) {
			s.say(piece)
			if s.asked.stream {
				s.wire.ping(s)
			}
		}
		s.complete("stop")
	}},
	{name: "gzip", does: "A compressed stream nobody asked for.", streams: odd, run: func(s *session) {
		s.page(http.Header{"Content-Type": {"text/event-stream"}, "Content-Encoding": {"gzip"}}, compressed([]byte("data: [DONE]\n\n")))
	}},
	{name: "wrong-encoding", does: "Says `Content-Encoding: gzip`, and is not.", options: "`encoding`", streams: odd, run: func(s *session) {
		s.page(http.Header{"Content-Type": {"text/event-stream"}, "Content-Encoding": {s.text("encoding", "gzip")}}, []byte("data: [DONE]\n\n"))
	}},
	{name: "gzip-bomb", does: "10 MB that unpack to 10 GiB.", options: "`bytes`, unpacked", streams: odd, run: gzipBomb},
}

func reframed(change func(*framing)) func(*session) {
	return func(s *session) {
		s.reframe(change)
		ok(s)
	}
}

func splitUTF8(s *session) {
	const text = "naïve — 日本語 🌍 done"
	s.open()
	s.sent++
	if s.asked.stream {
		s.pieceBytes(false, "", `"`+text+`"`)
		for _, b := range bytes.Clone(s.buffer) {
			s.raw(string([]byte{b}))
		}
	} else {
		s.said.WriteString(text)
	}
	s.complete("stop")
}

func compressed(plain []byte) []byte {
	var b bytes.Buffer
	z := gzip.NewWriter(&b)
	_, _ = z.Write(plain)
	_ = z.Close()
	return b.Bytes()
}

const bombBlock = 16 << 20

var bombMember = sync.OnceValue(func() []byte { return compressed(bytes.Repeat([]byte{' '}, bombBlock)) })

// gzipBomb repeats one compressed block: a reader takes the members together for one text.
func gzipBomb(s *session) {
	member := bombMember()
	kind := "application/json"
	if s.asked.stream {
		kind = "text/event-stream"
	}
	s.w.Header().Set("Content-Encoding", "gzip")
	for left := s.number("bytes", 10<<30); left > 0 && s.proceed(); left -= bombBlock {
		s.begin(kind)
		s.put(member)
	}
}
