package fakeprovider

import (
	"bytes"
	"strings"
)

// framing is how events are written. The event stream format allows many ways for the same
// events; a reader must not care.
type framing struct {
	eol       string
	data      string // "data: " or "data:"
	decorated bool   // with event names, ids, unknown fields and comments
	multiline bool   // JSON broken over several data lines
	usage     bool   // every chunk has the usage so far
	id        int
}

func plainFraming() framing { return framing{eol: "\n", data: "data: "} }

// frame is what stands around a piece's JSON string: it is the same for every piece of a block.
type frame struct {
	ready         bool
	before, after []byte
}

// reframe forgets the prepared frames, since the framing changed.
func (s *session) reframe(change func(*framing)) {
	change(&s.framing)
	s.frames = [2]frame{}
}

// event writes one event of the stream; a request without stream swallows it.
func (s *session) event(e event) {
	if !s.asked.stream {
		return
	}
	s.buffer = s.framing.append(s.buffer[:0], e)
	s.flush()
	s.frames = [2]frame{} // another block may be open now
}

func (s *session) comment(text string) {
	if s.asked.stream {
		s.raw(": " + text + s.framing.eol + s.framing.eol)
	}
}

// piece writes text, or the JSON string given instead, in an event of its own.
func (s *session) piece(thought bool, text, literal string) {
	if !s.proceed() {
		return
	}
	s.pieceBytes(thought, text, literal)
	s.flush()
}

// pieceBytes puts the event of a piece into the buffer. It allocates nothing for plain text in an
// open block.
func (s *session) pieceBytes(thought bool, text, literal string) {
	kind := 0
	if thought {
		kind = 1
	}
	f := &s.frames[kind]
	if !f.ready {
		e := s.wire.frame(s, thought) // writes what begins the block, which empties the frames
		framed := s.framing.append(nil, e)
		before, after, _ := bytes.Cut(framed, []byte(hole))
		*f = frame{!s.framing.decorated && !s.framing.usage, before, after}
	}
	s.buffer = append(s.buffer[:0], f.before...)
	if literal != "" {
		s.buffer = append(s.buffer, literal...)
	} else {
		s.buffer = appendQuoted(s.buffer, text)
	}
	s.buffer = append(s.buffer, f.after...)
}

func (f *framing) append(b []byte, e event) []byte {
	name := e.name
	if f.decorated {
		if name == "" {
			name = "message"
		}
		b = f.field(b, "id: ", itoa(f.id))
		b = f.field(b, "retry: ", "5")
		b = f.field(b, "unknown: ", "x")
		f.id++
	}
	if name != "" {
		b = f.field(b, "event: ", name)
	}
	data := e.data
	if f.multiline {
		data = strings.ReplaceAll(data, `,"`, ",\n\"")
	}
	for line := range strings.SplitSeq(data, "\n") {
		b = f.field(b, f.data, line)
	}
	b = append(b, f.eol...)
	if f.decorated {
		b = append(b, ": between"+f.eol+f.eol...)
	}
	return b
}

func (f *framing) field(b []byte, name, value string) []byte {
	b = append(b, name...)
	b = append(b, value...)
	return append(b, f.eol...)
}
