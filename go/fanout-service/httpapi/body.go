package httpapi

import (
	"errors"
	"io"

	"rex/fanout-service/engine"
)

// arriving is a body that is on the engine's books while it is read: many large ones at once are too
// much although none of them is.
type arriving struct {
	body   io.Reader
	engine *engine.Engine
	bytes  int64
}

// Read implements io.Reader. It fails with engine.ErrBusy when too much is held already.
func (a *arriving) Read(p []byte) (int, error) {
	n, err := a.body.Read(p)
	a.bytes += int64(n)
	busy := a.engine.Hold(int64(n))
	if busy != nil && (err == nil || errors.Is(err, io.EOF)) {
		err = busy
	}
	return n, err
}

// release takes the body off the books: what is kept of it is the request's.
func (a *arriving) release() { _ = a.engine.Hold(-a.bytes) }
