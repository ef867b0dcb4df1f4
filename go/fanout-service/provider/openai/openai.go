// Package openai speaks the OpenAI chat completions format, which most servers understand:
// OpenAI, OpenRouter, Groq, Mistral, vLLM, Ollama, llama.cpp and many more.
package openai

import (
	"bytes"
	"context"
	"errors"
	"io"
	"mime"
	"net/http"
	"net/http/httptrace"
	"time"

	fanout "rex/fanout-service"
	"rex/fanout-service/provider"
	"rex/fanout-service/provider/sse"
)

const (
	maxEvent     = 32 << 20
	maxErrorBody = 64 << 10
	// afterFinish is how long a finished answer waits for the usage and [DONE].
	afterFinish = 2 * time.Second
	// A finished body is read to its end, so that its connection can serve again, if that
	// takes no longer and no more than this.
	drainTime  = 100 * time.Millisecond
	drainBytes = 64 << 10
)

// Provider is a fanout.Provider for one endpoint.
type Provider struct {
	config provider.Config
	client *http.Client
}

// New returns a provider that reaches config.BaseURL through client.
func New(config provider.Config, client *http.Client) *Provider {
	return &Provider{config: config, client: client}
}

// Stream implements fanout.Provider.
func (p *Provider) Stream(ctx context.Context, call *fanout.Call, key fanout.Key, sink fanout.Sink) (fanout.Answer, error) {
	body, err := requestBody(call, p.config.Quirks)
	if err != nil {
		return fanout.Answer{}, fanout.Fail(fanout.Internal, "the request could not be written")
	}
	exchange, cancel := provider.NewExchange(ctx)
	unlink := context.AfterFunc(ctx, cancel)
	connected := false
	exchange = httptrace.WithClientTrace(exchange, &httptrace.ClientTrace{
		GotConn: func(httptrace.GotConnInfo) {
			connected = true
			sink.Connected()
		},
	})
	response, err := p.send(exchange, key, body)
	if err != nil {
		unlink()
		cancel()
		return fanout.Answer{}, reason(ctx, err, connected)
	}
	answer, err := p.read(ctx, response, sink, cancel)
	// A context that has ended closes the connection at once; Close alone might first read on.
	if unlink() && err == nil {
		go drain(response.Body, cancel)
	} else {
		cancel()
		_ = response.Body.Close()
	}
	return answer, err
}

func (p *Provider) send(ctx context.Context, key fanout.Key, body []byte) (*http.Response, error) {
	request, err := http.NewRequestWithContext(ctx, http.MethodPost, p.config.BaseURL+"/chat/completions", bytes.NewReader(body))
	if err != nil {
		return nil, err
	}
	request.Close = p.config.Quirks.CloseConnections
	request.Header.Set("Content-Type", "application/json")
	request.Header.Set("Accept", "text/event-stream")
	request.Header.Set("User-Agent", "rex-fanout")
	if secret := key.Reveal(); secret != "" {
		request.Header.Set("Authorization", "Bearer "+secret)
	}
	return p.client.Do(request)
}

// reason turns an error of the exchange before any response into a failure. The error's own text
// holds addresses, so none of it is passed on.
func reason(ctx context.Context, err error, connected bool) error {
	if ctx.Err() != nil {
		return context.Cause(ctx)
	}
	var timeout interface{ Timeout() bool }
	switch {
	case connected:
		return fanout.Fail(fanout.Connection, "the connection broke before an answer")
	case errors.As(err, &timeout) && timeout.Timeout():
		return fanout.Fail(fanout.TimeoutConnect, "")
	default:
		return fanout.Fail(fanout.Connection, "")
	}
}

// read takes the response to its end; abandon ends the exchange when a finished answer dawdles.
func (p *Provider) read(ctx context.Context, response *http.Response, sink fanout.Sink, abandon context.CancelFunc) (fanout.Answer, error) {
	var answer fanout.Answer
	var err error
	if failure := refusal(response); failure != nil {
		err = failure
	} else {
		s := stream{sink: sink, abandon: abandon}
		answer, err = s.read(sse.NewReader(response.Body, maxEvent))
	}
	if err != nil && ctx.Err() != nil {
		return fanout.Answer{}, context.Cause(ctx)
	}
	return answer, err
}

// refusal says why a response is no event stream, nil when it is one.
func refusal(response *http.Response) *fanout.Failure {
	media, _, err := mime.ParseMediaType(response.Header.Get("Content-Type"))
	isStream := err != nil || media == "text/event-stream" || media == "text/plain"
	encoding := response.Header.Get("Content-Encoding")
	if response.StatusCode == http.StatusOK && isStream && (encoding == "" || encoding == "identity") {
		return nil
	}
	// Read for its codes only; when it cannot be read, the status has to do.
	body, _ := io.ReadAll(io.LimitReader(response.Body, maxErrorBody))
	failure := &fanout.Failure{Kind: fanout.StatusKind(response.StatusCode)}
	if response.StatusCode != http.StatusOK {
		failure.Status = response.StatusCode
	}
	object, isError := errorObject(body)
	switch {
	case response.StatusCode >= 400:
		failure.Kind = readFault(object).refine(failure.Kind)
		failure.RetryAfter = provider.RetryAfter(response.Header, time.Now())
	case response.StatusCode >= 300:
		failure.Fact = "redirects are not followed"
	case response.StatusCode == http.StatusOK && isError:
		failure.Kind = eventKind(object)
		failure.Fact = "an error instead of a stream"
	case encoding != "":
		failure.Fact = "compressed"
	default:
		failure.Fact = "not an event stream"
	}
	return failure
}

func drain(body io.ReadCloser, cancel context.CancelFunc) {
	timer := time.AfterFunc(drainTime, cancel)
	_, _ = io.CopyN(io.Discard, body, drainBytes)
	timer.Stop()
	cancel()
	_ = body.Close()
}
