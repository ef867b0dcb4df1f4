package fakeprovider

import (
	"context"
	"math/rand/v2"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"sync/atomic"
	"time"
)

// session is one answer being written: what scripts are made of. In a request without stream the
// same script runs at the same pace, and one JSON body is written at the end.
type session struct {
	server   *Server
	entry    *Entry
	w        http.ResponseWriter
	r        *http.Request
	control  *http.ResponseController
	wire     wire
	asked    question
	options  url.Values
	argument int // the number in the script's name
	nth      int // how many requests for this model there were, this one included

	framing framing
	frames  [2]frame // around text and around thoughts, as the framing and the open block want them
	buffer  []byte
	timer   *time.Timer
	jitter  *rand.Rand
	cutAt   int // bytes of the body until it is cut, -1 for never
	cutHow  string

	began   bool // the response header is out
	gone    bool // nothing can be written any more
	leaving leaving
	noUsage bool
	said    strings.Builder // of a request without stream
	thought strings.Builder
	finish  string
	sent    int // text pieces so far, the output tokens
}

// leaving is what is known of the client's going.
type leaving struct {
	over atomic.Bool // the answer's last byte is being written: who leaves now does not leave early
	lost bool        // the script came upon the client's absence
}

// number reads an option that counts; what is no number from 0 is as if it were absent.
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

func (s *session) ms(name string, fallback int) time.Duration {
	return time.Duration(s.number(name, fallback)) * time.Millisecond
}

// lose notes that the client left, at once and for good.
func (s *session) lose() {
	s.gone, s.leaving.lost = true, true
	s.server.aborted(s.entry)
}

// proceed says whether there is still somebody to write for. A script that goes on behind its
// last byte is not over.
func (s *session) proceed() bool {
	if s.gone {
		return false
	}
	s.leaving.over.Store(false)
	if s.r.Context().Err() != nil {
		s.lose()
	}
	return !s.gone
}

// last marks what is written next as the end of the answer.
func (s *session) last() {
	if s.proceed() {
		s.leaving.over.Store(true)
	}
}

// watch notes a client that leaves while the script is busy with something else. The function it
// returns ends that and settles whether the client left early.
func (s *session) watch() (settle func()) {
	stop := context.AfterFunc(s.r.Context(), func() {
		if !s.leaving.over.Load() {
			s.server.aborted(s.entry)
		}
	})
	return func() {
		stop()
		if !s.leaving.lost && !s.leaving.over.Load() && s.r.Context().Err() != nil {
			s.lose()
		}
		s.server.ended(s.entry)
	}
}

// sleep waits, or returns false at once when the client leaves.
func (s *session) sleep(d time.Duration) bool {
	if !s.proceed() || d <= 0 {
		return !s.gone
	}
	if s.timer == nil {
		s.timer = time.NewTimer(d)
	} else {
		s.timer.Reset(d)
	}
	select {
	case <-s.timer.C:
		return true
	case <-s.r.Context().Done():
		s.timer.Stop()
		s.lose()
		return false
	}
}

// pause waits the script's pace: delay_ms or the given default, and up to jitter_ms more.
func (s *session) pause(defaultMS int) bool {
	wait := s.ms("delay_ms", defaultMS)
	if extra := s.number("jitter_ms", 0); extra > 0 {
		if s.jitter == nil {
			s.jitter = s.random()
		}
		wait += time.Duration(s.jitter.Int64N(int64(extra) * int64(time.Millisecond)))
	}
	return s.sleep(wait)
}

// hang waits until the client leaves.
func (s *session) hang() {
	if s.proceed() {
		<-s.r.Context().Done()
		s.lose()
	}
}

// raw writes bytes of the event stream as they are and flushes them.
func (s *session) raw(text string) {
	s.buffer = append(s.buffer[:0], text...)
	s.flush()
}

// flush writes the buffer as part of the event stream.
func (s *session) flush() {
	if s.gone {
		return
	}
	if !s.leaving.over.Load() && !s.proceed() {
		return
	}
	s.begin("text/event-stream")
	s.put(s.buffer)
}

// put writes bytes of the body and flushes them.
func (s *session) put(bytes []byte) {
	cut := s.cutAt >= 0 && len(bytes) >= s.cutAt
	if cut {
		bytes = bytes[:s.cutAt]
	} else if s.cutAt >= 0 {
		s.cutAt -= len(bytes)
	}
	_, err := s.w.Write(bytes)
	if err == nil {
		err = s.control.Flush()
	}
	if err != nil {
		s.lose()
		return
	}
	if cut {
		s.cut()
	}
}

// begin writes the response header, once.
func (s *session) begin(contentType string) {
	if s.began {
		return
	}
	s.began = true
	s.w.Header().Set("Content-Type", contentType)
	s.server.firstByte(s.entry)
	s.w.WriteHeader(http.StatusOK)
}

// beginStream sends the header of an event stream alone.
func (s *session) beginStream() {
	if s.asked.stream && s.proceed() {
		s.begin("text/event-stream")
		s.put(nil)
	}
}

// open writes what stands before any text.
func (s *session) open() { s.wire.opening(s) }

// say writes one piece of the answer.
func (s *session) say(text string) {
	s.sent++
	if !s.asked.stream {
		s.said.WriteString(text)
		return
	}
	s.piece(false, text, "")
}

// think writes one piece of reasoning.
func (s *session) think(text string) {
	if !s.asked.stream {
		s.thought.WriteString(text)
		return
	}
	s.piece(true, text, "")
}

// sayRaw writes a piece whose JSON string is given, so that scripts can choose the escapes.
func (s *session) sayRaw(literal, text string) {
	s.sent++
	if !s.asked.stream {
		s.said.WriteString(text)
		return
	}
	s.piece(false, "", literal)
}

// end writes the finish reason, with the usage unless the script leaves that out.
func (s *session) end(reason string) { s.endWith(reason, s.counts()) }

func (s *session) endWith(reason string, u *counts) {
	s.finish = s.text("finish", reason)
	s.wire.ending(s, s.finish, u)
}

// done writes what stands last in a stream.
func (s *session) done() {
	s.last()
	s.wire.done(s)
}

// complete ends an answer in the regular way. A client may leave with the finish reason: all from
// there on is one last word.
func (s *session) complete(reason string) {
	s.last()
	s.end(reason)
	if u := s.counts(); u != nil {
		s.wire.trailer(s, *u)
	}
	s.wire.done(s)
}

// counts is what the usage says, nil for nothing.
func (s *session) counts() *counts {
	if s.noUsage {
		return nil
	}
	if s.options.Has("usage") { // the same nonsense for every number
		n := s.options.Get("usage")
		return &counts{input: n, output: n, total: n}
	}
	return &counts{
		input: itoa(s.asked.words), output: itoa(s.sent), total: itoa(s.asked.words + s.sent),
		cached: itoa(s.number("cached", 0)), reasoning: itoa(s.number("reasoning", 0)),
	}
}

// usageEverywhere is the usage as a member of every chunk, where the script wants that.
func (s *session) usageEverywhere(member string, write func(counts) string) string {
	if u := s.counts(); u != nil && s.framing.usage {
		return member + write(*u)
	}
	return ""
}

// close writes the body of a request without stream. A script that never finished breaks the
// connection off in the middle of the body.
func (s *session) close() {
	if s.asked.stream || s.gone || s.began || !s.proceed() {
		return
	}
	body := []byte(s.wire.whole(s))
	s.w.Header().Set("Content-Length", strconv.Itoa(len(body)))
	if s.finish == "" {
		s.begin("application/json")
		s.put(body[:len(body)/2])
		panic(http.ErrAbortHandler)
	}
	s.last()
	s.begin("application/json")
	s.put(body)
}

// refuse answers with an HTTP status and an error body instead of an answer.
func (s *session) refuse(f fault) { s.respond(f.status, "application/json", s.wire.failure(f)+"\n") }

// respond answers with any status and body.
func (s *session) respond(status int, contentType, body string) {
	s.last()
	if s.gone {
		return
	}
	s.began = true
	s.server.firstByte(s.entry)
	s.w.Header().Set("Content-Type", contentType)
	s.w.WriteHeader(status)
	s.put([]byte(body))
}

// page answers 200 with something that is no answer.
func (s *session) page(header http.Header, body []byte) {
	s.last()
	if s.gone {
		return
	}
	s.began = true
	s.server.firstByte(s.entry)
	for name, values := range header {
		s.w.Header()[name] = values
	}
	s.w.WriteHeader(http.StatusOK)
	s.put(body)
}
