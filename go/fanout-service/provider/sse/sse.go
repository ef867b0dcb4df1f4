// Package sse reads event streams as the HTML standard defines them: lines end with LF, CRLF or
// CR, a byte order mark may lead, comments and unknown fields are skipped, several data lines
// join with a line feed, and an event counts only when its blank line has arrived.
package sse

import (
	"bytes"
	"errors"
	"io"
	"sync"

	"rex/fanout-service/provider/memory"
)

// ErrTooLong says that a line or an event exceeds the reader's limit.
var ErrTooLong = errors.New("sse: event too long")

const (
	firstBuffer = 2 << 10
	keepBuffer  = memory.Free // larger buffers are let go once their event has been read
	keepStray   = 64 << 10
)

// firstBuffers are those of readers that were closed: most answers never need a larger one, and it is a
// third of all that a short call would allocate.
var firstBuffers = sync.Pool{New: func() any { return new([firstBuffer]byte) }}

var byteOrderMark = []byte("\xef\xbb\xbf")

// Reader yields the data of events. It is not safe for concurrent use.
type Reader struct {
	src    io.Reader
	limit  int
	buf    []byte
	start  int  // first unread byte of buf
	end    int  // one past the last byte read into buf
	begun  bool // the first line has been seen
	skipLF bool // the last line ended with CR: a LF that follows belongs to it
	err    error
	data   []byte
	stray  []byte
	hold   memory.Hold
}

// NewReader reads from src; no line and no event may be longer than limit bytes, and all readers
// of bound (which may be nil) hold no more than that of long ones. Close gives back what is held; what Next and
// Stray returned is void then.
func NewReader(src io.Reader, limit int, bound *memory.Bound) *Reader {
	return &Reader{src: src, limit: limit, hold: bound.Hold()}
}

// Close lets the buffers go. The source is not closed.
func (r *Reader) Close() {
	if len(r.buf) == firstBuffer {
		firstBuffers.Put((*[firstBuffer]byte)(r.buf))
	}
	r.buf, r.data, r.start, r.end = nil, nil, 0, 0
	_ = r.hold.Resize() // shrinking never fails
}

// Next returns the data of the next event that has any; the slice is valid until the next call.
// At the end of the stream it returns io.EOF, whether or not an unfinished event was left over;
// memory.ErrFull when there is no room for a long event; any other error of the source is returned as it is.
func (r *Reader) Next() ([]byte, error) {
	if cap(r.data) > keepBuffer {
		r.data = nil
		_ = r.hold.Resize(len(r.buf)) // shrinking never fails
	}
	r.data = r.data[:0]
	seen := false
	for {
		line, err := r.line()
		if err != nil {
			return nil, err
		}
		if len(line) == 0 {
			if seen {
				return r.data, nil
			}
			continue
		}
		value, ok := dataField(line)
		if !ok {
			r.keep(line)
			continue
		}
		if len(r.data)+len(value) > r.limit {
			return nil, ErrTooLong
		}
		if seen {
			r.data = append(r.data, '\n')
		}
		if err := r.grow(len(r.data) + 1 + len(value)); err != nil {
			return nil, err
		}
		r.data = append(r.data, value...)
		seen = true
	}
}

// dataField returns the value of a data line.
func dataField(line []byte) ([]byte, bool) {
	rest, ok := bytes.CutPrefix(line, []byte("data"))
	if !ok {
		return nil, false
	}
	if len(rest) == 0 {
		return rest, true
	}
	if rest[0] != ':' {
		return nil, false
	}
	rest = rest[1:]
	if len(rest) > 0 && rest[0] == ' ' {
		rest = rest[1:]
	}
	return rest, true
}

// keep remembers a line that looks like JSON: some servers write an error into the stream as it
// is, over many lines and in no event.
func (r *Reader) keep(line []byte) {
	line = bytes.TrimLeft(line, " \t")
	if len(line) == 0 || len(r.stray)+len(line) > keepStray || bytes.IndexByte([]byte(`{}[]"`), line[0]) < 0 {
		return
	}
	r.stray = append(append(r.stray, line...), '\n')
}

// Stray returns the lines so far that look like JSON and belong to no event, and after the end of
// the stream its last line, should it have no end.
func (r *Reader) Stray() []byte {
	if r.err != nil {
		r.keep(r.buf[r.start:r.end])
		r.start = r.end
	}
	return r.stray
}

// line returns the next line without its end; the slice is valid until the next read.
func (r *Reader) line() ([]byte, error) {
	searched := 0
	for {
		if r.skipLF && r.start < r.end {
			r.skipLF = false
			if r.buf[r.start] == '\n' {
				r.start++
			}
		}
		if at := lineEnd(r.buf[r.start+searched : r.end]); at >= 0 {
			if at += searched; at > r.limit {
				return nil, ErrTooLong
			}
			line := r.buf[r.start : r.start+at]
			r.skipLF = r.buf[r.start+at] == '\r'
			r.start += at + 1
			if !r.begun {
				r.begun = true
				line = bytes.TrimPrefix(line, byteOrderMark)
			}
			return line, nil
		}
		searched = r.end - r.start
		if searched > r.limit {
			return nil, ErrTooLong
		}
		if err := r.fill(); err != nil {
			return nil, err
		}
	}
}

// lineEnd finds the first CR or LF, or -1. Lines without CR are the rule: LF is looked for first.
func lineEnd(b []byte) int {
	lf := bytes.IndexByte(b, '\n')
	if lf >= 0 {
		b = b[:lf]
	}
	if cr := bytes.IndexByte(b, '\r'); cr >= 0 {
		return cr
	}
	return lf
}

// fill reads more bytes behind the unread ones, moving or growing the buffer as needed.
func (r *Reader) fill() error {
	if r.err != nil {
		return r.err
	}
	if unread := r.end - r.start; len(r.buf) > keepBuffer && unread <= keepBuffer/2 {
		small := make([]byte, max(firstBuffer, 2*unread))
		copy(small, r.buf[r.start:r.end])
		r.buf, r.start, r.end = small, 0, unread
		_ = r.hold.Resize(len(r.buf), cap(r.data)) // shrinking never fails
	}
	if r.start == r.end {
		r.start, r.end = 0, 0
	}
	if r.end == len(r.buf) {
		if err := r.makeRoom(); err != nil {
			return err
		}
	}
	for range 100 { // a source that returns nothing, again and again, is broken
		n, err := r.src.Read(r.buf[r.end:])
		r.end += n
		if err != nil {
			r.err = err
		}
		if n > 0 {
			return nil
		}
		if err != nil {
			return err
		}
	}
	r.err = io.ErrNoProgress
	return r.err
}

// grow makes room for an event of size bytes.
func (r *Reader) grow(size int) error {
	if size <= cap(r.data) {
		return nil
	}
	size = max(size, min(2*cap(r.data), r.limit+1))
	if err := r.hold.Resize(len(r.buf), cap(r.data), size); err != nil {
		return err
	}
	r.data = append(make([]byte, 0, size), r.data...)
	return r.hold.Resize(len(r.buf), size) // less than before
}

func (r *Reader) makeRoom() error {
	unread := r.buf[r.start:r.end]
	if len(unread) > len(r.buf)/2 || len(r.buf) == 0 {
		size := min(max(firstBuffer, 2*len(r.buf)), r.limit+firstBuffer)
		if err := r.hold.Resize(len(r.buf), size, cap(r.data)); err != nil {
			return err
		}
		var grown []byte
		if size == firstBuffer {
			grown = firstBuffers.Get().(*[firstBuffer]byte)[:]
		} else {
			grown = make([]byte, size)
		}
		copy(grown, unread)
		r.buf = grown
	} else {
		copy(r.buf, unread)
	}
	r.start, r.end = 0, len(unread)
	return r.hold.Resize(len(r.buf), cap(r.data)) // never more than before
}
