package provider

import (
	"bytes"
	"context"
	"crypto/tls"
	"errors"
	"io"
	"net/http"
	"net/http/httptrace"
	"time"

	fanout "rex/fanout-service"
	"rex/fanout-service/provider/sse"
)

const (
	maxEvent     = 32 << 20 // of a stream, and of an answer in one piece
	maxErrorBody = 64 << 10
	// A refusal's status is known before its body, which is waited for no longer than this.
	errorBodyTime = 2 * time.Second
	// A finished body is read to its end, so that its connection can serve again, if that
	// takes no longer and no more than this.
	drainTime  = 100 * time.Millisecond
	drainBytes = 64 << 10
)

// Endpoint is a fanout.Provider: a wire format spoken at an address.
//
// An attempt is one request and is never repeated here. net/http itself sends a POST again only when
// the provider cannot have begun on it: not a byte was written because a kept connection turned out
// to be closed, or an HTTP/2 server said that it refused the stream. A connection that closes under a
// request that was written is a failure of kind connection, because the provider may be at work on
// it; whether to ask again is the engine's to decide.
type Endpoint struct {
	config Config
	client *http.Client
	wire   Wire
}

// NewEndpoint returns a provider that speaks wire to config.BaseURL through client.
func NewEndpoint(config Config, client *http.Client, wire Wire) *Endpoint {
	return &Endpoint{config: config, client: client, wire: wire}
}

// Stream implements fanout.Provider.
func (e *Endpoint) Stream(ctx context.Context, call *fanout.Call, key fanout.Key, sink fanout.Sink) (fanout.Answer, error) {
	path, body, err := e.wire.Request(call, e.config.Quirks)
	if err != nil {
		return fanout.Answer{}, fanout.Fail(fanout.Internal, "the request could not be written")
	}
	exchange, cancel := NewExchange(ctx)
	unlink := context.AfterFunc(ctx, cancel)
	connected := false
	exchange = httptrace.WithClientTrace(exchange, &httptrace.ClientTrace{
		GotConn: func(httptrace.GotConnInfo) {
			if !connected { // again when a kept connection was closed before it was written to
				connected = true
				sink.Connected()
			}
		},
	})
	response, err := e.send(exchange, key, path, body, call.Whole)
	if err != nil {
		unlink()
		cancel()
		return fanout.Answer{}, reason(ctx, err, connected)
	}
	answer, err := e.read(ctx, response, newFold(sink, call.Thoughts, cancel), call.Whole)
	// A context that has ended closes the connection at once; Close alone might first read on.
	if unlink() && err == nil {
		go drain(response.Body, cancel)
	} else {
		cancel()
		_ = response.Body.Close()
	}
	return answer, err
}

func (e *Endpoint) send(ctx context.Context, key fanout.Key, path string, body []byte, whole bool) (*http.Response, error) {
	request, err := http.NewRequestWithContext(ctx, http.MethodPost, e.config.BaseURL+path, bytes.NewReader(body))
	if err != nil {
		return nil, err
	}
	request.Close = e.config.Quirks.CloseConnections
	request.Header.Set("Content-Type", "application/json")
	request.Header.Set("Accept", "text/event-stream")
	if whole {
		request.Header.Set("Accept", "application/json")
	}
	request.Header.Set("User-Agent", "rex-fanout")
	if e.config.Inject != nil {
		e.config.Inject(ctx, request.Header)
	}
	e.wire.Authorize(request.Header, key.Reveal())
	return e.client.Do(request)
}

// reason turns an error of the exchange before any response into a failure. The error's own text
// holds addresses, so none of it is passed on.
func reason(ctx context.Context, err error, connected bool) error {
	if ctx.Err() != nil {
		return context.Cause(ctx)
	}
	var timeout interface{ Timeout() bool }
	var certificate *tls.CertificateVerificationError
	switch {
	case connected:
		return fanout.Fail(fanout.Connection, "the connection broke before an answer")
	case errors.Is(err, errNotAllowed):
		return fanout.Fail(fanout.Connection, "the address is not allowed")
	case errors.As(err, &certificate):
		return fanout.Fail(fanout.Connection, "its certificate is not valid")
	case errors.As(err, &timeout) && timeout.Timeout():
		return fanout.Fail(fanout.TimeoutConnect, "")
	default:
		return fanout.Fail(fanout.Connection, "")
	}
}

// read takes the response to its end.
func (e *Endpoint) read(ctx context.Context, response *http.Response, f *fold, whole bool) (fanout.Answer, error) {
	if allowance, ok := ReadAllowance(response.Header, time.Now()); ok {
		f.sink.Allowed(allowance)
	}
	var err error
	if failure := refusal(response, whole, f.abandon); failure != nil {
		err = failure
	} else if whole {
		err = f.whole(response, e.wire, e.config.Memory)
	} else {
		events := sse.NewReader(response.Body, maxEvent, e.config.Memory)
		err = f.stream(events, e.wire)
		events.Close()
	}
	// A finished answer stays one however the context ends behind it: what stalls then is only
	// the usage. What the provider counted until a failure is told beside it.
	if err != nil && ctx.Err() != nil {
		err = weightier(err, context.Cause(ctx))
	}
	return f.answer(), err
}

// weightier is the reason of an attempt whose context ended: that one's cause, but not where the
// cause is that the provider was slow while its refusal says more.
func weightier(err, cause error) error {
	var said, ended *fanout.Failure
	if errors.As(err, &said) && said.Status != 0 && errors.As(cause, &ended) && ended.Kind.ProviderFault() {
		return said
	}
	return cause
}

func drain(body io.ReadCloser, cancel context.CancelFunc) {
	timer := time.AfterFunc(drainTime, cancel)
	_, _ = io.CopyN(io.Discard, body, drainBytes)
	timer.Stop()
	cancel()
	_ = body.Close()
}
