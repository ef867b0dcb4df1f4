// Package memory bounds what all exchanges together hold of long events and whole answers. One
// event may be 32 MiB; ten thousand streams of such would end the process.
package memory

import (
	"errors"
	"io"
	"sync/atomic"
)

// ErrFull says that too much is held already.
var ErrFull = errors.New("memory: too many long events at once")

// Free is what each reader may hold without asking: most events are far shorter.
const Free = 64 << 10

// Bound is a number of bytes that many share. A nil Bound bounds nothing.
type Bound struct{ left atomic.Int64 }

// New returns a bound of so many bytes.
func New(bytes int64) *Bound {
	b := &Bound{}
	b.left.Store(bytes)
	return b
}

// Hold is one reader's share of a Bound. Its methods are called from one goroutine.
type Hold struct {
	of   *Bound
	size int
}

// Hold returns an empty share.
func (b *Bound) Hold() Hold { return Hold{of: b} }

// Resize makes the share that of buffers of the given sizes; those up to Free cost nothing. It
// fails with ErrFull, and changes nothing, when there is no room for a larger one.
func (h *Hold) Resize(buffers ...int) error {
	size := 0
	for _, n := range buffers {
		if n > Free {
			size += n
		}
	}
	more := int64(size - h.size)
	if more == 0 || h.of == nil {
		return nil
	}
	if h.of.left.Add(-more) < 0 && more > 0 {
		h.of.left.Add(more)
		return ErrFull
	}
	h.size = size
	return nil
}

// ReadAll reads src to its end, up to limit bytes and one more, which tells that there were more.
func (h *Hold) ReadAll(src io.Reader, limit int) ([]byte, error) {
	buf := make([]byte, 0, 4<<10)
	for {
		if len(buf) == cap(buf) {
			grown := min(2*cap(buf), limit+1)
			if err := h.Resize(cap(buf), grown); err != nil {
				return nil, err
			}
			buf = append(make([]byte, 0, grown), buf...)
			_ = h.Resize(grown) // shrinking never fails
		}
		n, err := src.Read(buf[len(buf):cap(buf)])
		buf = buf[:len(buf)+n]
		switch {
		case errors.Is(err, io.EOF), len(buf) > limit:
			return buf, nil
		case err != nil:
			return nil, err
		}
	}
}
