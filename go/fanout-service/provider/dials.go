package provider

import (
	"context"
	"net"
	"sync"
)

// dialsAtOnce bounds the connections to one address that are being made at the same time. A server's
// queue for new ones holds a few hundred to a few thousand, and what does not fit is dropped in silence
// and tried again a second later: thousands of calls that begin together would time out there, and
// speak against a provider that is well.
const dialsAtOnce = 64

// dials makes the connections to each address in turn. Its zero value is ready.
type dials struct{ places sync.Map } // of chan struct{}, by address

// inTurn waits for a place before it dials, or for the end of ctx. Waiting counts as connecting.
func (d *dials) inTurn(dial dialFunc) dialFunc {
	return func(ctx context.Context, network, address string) (net.Conn, error) {
		known, ok := d.places.Load(address)
		if !ok {
			known, _ = d.places.LoadOrStore(address, make(chan struct{}, dialsAtOnce))
		}
		places := known.(chan struct{})
		select {
		case places <- struct{}{}:
		case <-ctx.Done():
			return nil, context.Cause(ctx)
		}
		defer func() { <-places }()
		return dial(ctx, network, address)
	}
}
