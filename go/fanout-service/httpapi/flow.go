package httpapi

import (
	"net/http"
	"time"
)

// patience is how long a reader may take for a piece. Its calls are stopped then; as long again, and
// the connection is cut.
const patience = 30 * time.Second

// pieceSize is what a reader has to take within its patience, however long a line is. Less would ask
// no less of it: the system wakes a writer only when a good part of the connection's buffer is free.
const pieceSize = 64 << 10

// flow writes to a reader that may be slow, and gives it up in two stages.
type flow struct {
	w        http.ResponseWriter
	control  *http.ResponseController
	patience time.Duration
	slow     *time.Timer // the first stage
}

// newFlow returns a flow that calls slow when the reader does not take a piece in time.
func newFlow(w http.ResponseWriter, patience time.Duration, slow func()) *flow {
	timer := time.AfterFunc(patience, slow)
	timer.Stop()
	return &flow{w, http.NewResponseController(w), patience, timer}
}

// write sends all parts, or returns an error when the reader has left or was given up.
func (f *flow) write(parts ...[]byte) error {
	defer f.slow.Stop()
	for _, b := range parts {
		for len(b) > 0 {
			piece := b[:min(len(b), pieceSize)]
			b = b[len(piece):]
			// A deadline that has passed spoils the connection, so the first stage is not one.
			f.slow.Reset(f.patience)
			if err := f.control.SetWriteDeadline(time.Now().Add(2 * f.patience)); err != nil {
				return err
			}
			if _, err := f.w.Write(piece); err != nil {
				return err
			}
		}
	}
	return f.control.Flush()
}
