package telemetry

import (
	"fmt"
	"io"
	"sync"
	"time"
)

// flushAfter is how long a line of the log may wait for others: a write(2) for each costs more
// than the line.
const flushAfter = 100 * time.Millisecond

// maxUnwritten bounds the lines that wait for a log nobody reads. Beyond it they are dropped and
// counted: a full pipe must not hold up the calls.
const maxUnwritten = 4 << 20

// closeLimit bounds how long Close waits for a log nobody reads.
const closeLimit = time.Second

// Writer collects lines and writes them together, from a goroutine of its own. Write never blocks
// on what is underneath, and never fails.
type Writer struct {
	mu     sync.Mutex
	lines  []byte
	lost   int   // lines dropped since the last flush
	gone   int64 // lines dropped before that
	closed bool

	under io.Writer
	wake  chan struct{} // the first line of a flush has come
	stop  chan struct{}
	ended chan struct{}
}

// NewWriter returns a Writer over under, which is written to by one goroutine at a time. It must
// be closed.
func NewWriter(under io.Writer) *Writer {
	w := &Writer{under: under, wake: make(chan struct{}, 1), stop: make(chan struct{}), ended: make(chan struct{})}
	go w.run()
	return w
}

// Write takes one whole line, as slog's handlers write them.
func (w *Writer) Write(line []byte) (int, error) {
	w.mu.Lock()
	first := len(w.lines) == 0
	if w.closed || len(w.lines)+len(line) > maxUnwritten {
		w.lost++
	} else {
		w.lines = append(w.lines, line...)
	}
	w.mu.Unlock()
	if first {
		select {
		case w.wake <- struct{}{}:
		default:
		}
	}
	return len(line), nil
}

// Lost counts the lines that were dropped.
func (w *Writer) Lost() int64 {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.gone + int64(w.lost)
}

// Close writes what waits, for up to a second. Lines written afterwards are lost.
func (w *Writer) Close() error {
	w.mu.Lock()
	again := w.closed
	w.closed = true
	w.mu.Unlock()
	if !again {
		close(w.stop)
	}
	select {
	case <-w.ended:
		return nil
	case <-time.After(closeLimit):
		return fmt.Errorf("the log was not read")
	}
}

func (w *Writer) run() {
	defer close(w.ended)
	timer := time.NewTimer(flushAfter)
	timer.Stop()
	var spare []byte
	for {
		select {
		case <-w.wake:
			timer.Reset(flushAfter)
		case <-timer.C:
			spare = w.flush(spare)
		case <-w.stop:
			w.flush(spare)
			return
		}
	}
}

// flush writes the lines that wait and returns their buffer, to be filled while the next is written.
func (w *Writer) flush(spare []byte) []byte {
	w.mu.Lock()
	lines, lost := w.lines, w.lost
	w.lines, w.lost = spare[:0], 0
	w.gone += int64(lost)
	w.mu.Unlock()
	if lost > 0 {
		lines = fmt.Appendf(lines, `{"time":%q,"level":"WARN","msg":"log lines lost","lines":%d}`+"\n",
			time.Now().Format(time.RFC3339Nano), lost)
	}
	if len(lines) > 0 {
		_, _ = w.under.Write(lines) // there is nowhere left to say so
	}
	return lines
}
