// Package provider holds what every provider shares: its settings, the HTTP client, and how an
// upstream asks to be left alone for a while.
package provider

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"net"
	"net/http"
	"strconv"
	"time"

	fanout "rex/fanout-service"
)

// Config is one configured provider.
type Config struct {
	Name    string
	BaseURL string // without a trailing slash
	Keys    []fanout.Key // at least one; fanout.NewKey("") when none is needed
	Quirks  Quirks
}

// Quirks say how an endpoint differs from OpenAI's own wire format.
type Quirks struct {
	MaxTokensParam    string `json:"max_tokens_param"`    // its name for max_tokens
	SeedParam         string `json:"seed_param"`          // its name for seed
	OmitStreamOptions bool   `json:"omit_stream_options"` // it refuses stream_options
	// It may close a kept connection just as the next call is sent on it, and a call that was sent
	// cannot be sent again unseen.
	CloseConnections bool `json:"close_connections"`
}

// dialLimit bounds a dial that no call waits for any more.
const dialLimit = 30 * time.Second

// NewClient returns the client for all upstream traffic, through the proxies of the usual
// environment variables: it follows no redirect (the key would
// travel on), asks for no compression (it would hold deltas back) and has no time limit of its
// own, because the engine's timers know the phase and name the reason.
func NewClient() *http.Client { return newClient(nil) }

// newClient trusts the given authorities, the system's when nil.
func newClient(authorities *x509.CertPool) *http.Client {
	dialer := &net.Dialer{Timeout: dialLimit, KeepAlive: 15 * time.Second}
	secure := &tls.Dialer{NetDialer: dialer, Config: &tls.Config{
		RootCAs:    authorities,
		MinVersion: tls.VersionTLS12,
		NextProtos: []string{"h2", "http/1.1"},
		// Resumed sessions save a round trip of the handshake.
		ClientSessionCache: tls.NewLRUClientSessionCache(0),
	}}
	return &http.Client{
		Transport: &http.Transport{
			Proxy:               http.ProxyFromEnvironment,
			DialContext:         withinExchange(dialer.DialContext),
			DialTLSContext:      withinExchange(secure.DialContext),
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
			// Go's default window is 4 MiB a stream: a slow reader of ours must slow the provider.
			HTTP2: &http.HTTP2Config{MaxReceiveBufferPerStream: 64 << 10},
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

// RetryAfter reads how long the provider asks to wait: Retry-After-Ms, or Retry-After in seconds
// (whole or not) or as a date. Absent, past and unreadable values are 0.
func RetryAfter(header http.Header, now time.Time) time.Duration {
	const longest = 24 * time.Hour // beyond this the number means "never" or nonsense
	wait := time.Duration(0)
	if ms, err := strconv.ParseFloat(header.Get("Retry-After-Ms"), 64); err == nil {
		wait = scale(ms, time.Millisecond)
	} else if s, err := strconv.ParseFloat(header.Get("Retry-After"), 64); err == nil {
		wait = scale(s, time.Second)
	} else if date, err := http.ParseTime(header.Get("Retry-After")); err == nil {
		wait = date.Sub(now)
	}
	return min(max(wait, 0), longest)
}

// scale multiplies without overflow; not-a-number becomes 0.
func scale(n float64, unit time.Duration) time.Duration {
	if !(n > 0) {
		return 0
	}
	return time.Duration(min(n, 1e6) * float64(unit))
}
