package provider

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"net"
	"net/http"
	"time"
)

// dialLimit bounds a dial that no call waits for any more.
const dialLimit = 30 * time.Second

// NewClient returns the client for all upstream traffic: it connects to what guard lets it (nil:
// to public addresses alone), follows no redirect (the key would travel on), asks for no
// compression (it would hold deltas back) and has no time limit of its own, because the engine's
// timers know the phase and name the reason.
//
// Proxies of the usual environment variables are used, except for loopback. The guard then sees
// the proxy's address, not the provider's, which the proxy resolves: a proxy on a private network
// has to be allowed, by its network or as one of the guard's configured addresses.
func NewClient(guard *Guard) *http.Client { return newClient(guard, nil) }

// newClient trusts the given authorities, the system's when nil.
func newClient(guard *Guard, authorities *x509.CertPool) *http.Client {
	secure := &tls.Config{
		RootCAs:    authorities,
		MinVersion: tls.VersionTLS12,
		NextProtos: []string{"h2", "http/1.1"},
		// Resumed sessions save a round trip of the handshake.
		ClientSessionCache: tls.NewLRUClientSessionCache(0),
	}
	// A dialer for each dial, because what it may reach depends on what was asked for.
	dialer := func(address string) *net.Dialer {
		return &net.Dialer{Timeout: dialLimit, KeepAlive: 15 * time.Second, Control: guard.control(address)}
	}
	dial := func(ctx context.Context, network, address string) (net.Conn, error) {
		return dialer(address).DialContext(ctx, network, address)
	}
	dialTLS := func(ctx context.Context, network, address string) (net.Conn, error) {
		return (&tls.Dialer{NetDialer: dialer(address), Config: secure}).DialContext(ctx, network, address)
	}
	turns := &dials{}
	return &http.Client{
		Transport: &http.Transport{
			Proxy:               http.ProxyFromEnvironment,
			DialContext:         withinExchange(turns.inTurn(dial)),
			DialTLSContext:      withinExchange(turns.inTurn(dialTLS)),
			TLSClientConfig:     secure, // for hosts behind a proxy: the transport makes that handshake itself
			ForceAttemptHTTP2:   true,
			TLSHandshakeTimeout: dialLimit,
			DisableCompression:  true,
			// A connection costs three goroutine stacks and these buffers: small ones halve the
			// heap of ten thousand open streams, and a delta fits.
			ReadBufferSize:      2 << 10,
			WriteBufferSize:     1 << 10,
			MaxIdleConns:        2048,
			MaxIdleConnsPerHost: 512,
			IdleConnTimeout:     60 * time.Second,
			HTTP2: &http.HTTP2Config{
				// Go's default window is 4 MiB a stream: a slow reader of ours must slow the provider.
				MaxReceiveBufferPerStream: 64 << 10,
				// One connection carries all calls to a host. When the network forgets it without a
				// word, only a ping that stays unanswered tells; else every call would go on joining it.
				SendPingTimeout: 15 * time.Second,
				PingTimeout:     5 * time.Second,
			},
		},
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}
}

type exchangeKey struct{}

// NewExchange returns a context for one exchange with an upstream. It does not end with ctx: the
// rest of a finished body may be read after its call. It does end a dial that is under way, which
// net/http would let go on for the sake of its pool of connections.
func NewExchange(ctx context.Context) (context.Context, context.CancelFunc) {
	exchange, cancel := context.WithCancel(context.WithoutCancel(ctx))
	return context.WithValue(exchange, exchangeKey{}, exchange), cancel
}

type dialFunc func(ctx context.Context, network, address string) (net.Conn, error)

// withinExchange makes a dial end with the exchange it serves.
func withinExchange(dial dialFunc) dialFunc {
	return func(ctx context.Context, network, address string) (net.Conn, error) {
		ctx, cancel := context.WithCancel(ctx)
		defer cancel()
		if exchange, ok := ctx.Value(exchangeKey{}).(context.Context); ok {
			defer context.AfterFunc(exchange, cancel)()
		}
		return dial(ctx, network, address)
	}
}
