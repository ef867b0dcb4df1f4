// Package provider holds what every provider shares: its settings, the HTTP client, and how an
// upstream asks to be left alone for a while.
package provider

import (
	"net"
	"net/http"
	"strconv"
	"time"
)

// Config is one configured provider.
type Config struct {
	Name    string
	BaseURL string // without a trailing slash
	Key     string // "" when none is needed
	Quirks  Quirks
}

// Quirks say how an endpoint differs from OpenAI's own wire format.
type Quirks struct {
	MaxTokensParam    string `json:"max_tokens_param"`    // its name for max_tokens
	SeedParam         string `json:"seed_param"`          // its name for seed
	OmitStreamOptions bool   `json:"omit_stream_options"` // it refuses stream_options
}

// dialLimit bounds a dial that no call waits for any more.
const dialLimit = 30 * time.Second

// NewClient returns the client for all upstream traffic: it follows no redirect (the key would
// travel on), asks for no compression (it would hold deltas back) and has no time limit of its
// own, because the engine's timers know the phase and name the reason.
func NewClient() *http.Client {
	dialer := &net.Dialer{Timeout: dialLimit, KeepAlive: 15 * time.Second}
	return &http.Client{
		Transport: &http.Transport{
			Proxy:               http.ProxyFromEnvironment,
			DialContext:         dialer.DialContext,
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
