package provider_test

import (
	"errors"
	"io"
	"log"
	"net/http"
	"net/http/httptest"
	"testing"

	fanout "rex/fanout-service"
	"rex/fanout-service/fakeprovider"
	"rex/fanout-service/provider"
	"rex/fanout-service/provider/anthropic"
	"rex/fanout-service/provider/gemini"
	"rex/fanout-service/provider/openai"
	"rex/fanout-service/provider/providertest"
)

// outcomes are what an answer comes to in every format: a fanout.FinishReason or a fanout.Kind.
var outcomes = map[string]any{
	"ok": fanout.FinishStop, "length": fanout.FinishLength, "content-filter": fanout.ContentFilter, "unknown-finish": fanout.FinishStop,
	"tool-calls": fanout.FinishToolCalls, "tool-call-parts": fanout.FinishToolCalls,
	"reasoning": fanout.FinishStop, "interleaved": fanout.FinishStop, "early-hints": fanout.FinishStop, "big-line": fanout.FinishStop,
	"crlf": fanout.FinishStop, "cr": fanout.FinishStop, "bom": fanout.FinishStop, "no-space": fanout.FinishStop, "named-events": fanout.FinishStop,
	"multi-line-data": fanout.FinishStop, "split-utf8": fanout.FinishStop, "pings": fanout.FinishStop, "unknown-event": fanout.FinishStop,
	"odd-unicode": fanout.FinishStop, "strange-scripts": fanout.FinishStop, "invalid-utf8": fanout.FinishStop,
	"usage-missing": fanout.FinishStop, "usage-late": fanout.FinishStop, "usage-nonsense": fanout.FinishStop, "usage-huge": fanout.FinishStop,
	"second-finish": fanout.FinishStop, "late-chunks": fanout.FinishStop, "no-delta": fanout.FinishStop,
	"gzip": fanout.BadUpstreamResponse, "wrong-encoding": fanout.BadUpstreamResponse, "gzip-bomb": fanout.BadUpstreamResponse,
	"empty": fanout.BadUpstreamResponse, "null-content": fanout.BadUpstreamResponse, "not-json": fanout.BadUpstreamResponse,
	"not-an-object": fanout.BadUpstreamResponse, "html-200": fanout.BadUpstreamResponse, "json-in-stream": fanout.BadUpstreamResponse,
	"redirect": fanout.BadUpstreamResponse, "http-204": fanout.BadUpstreamResponse,
	"error-event": fanout.ServerError, "error-event-text": fanout.ServerError, "html-error": fanout.ServerError,
	"huge-error": fanout.ServerError, "http-500": fanout.ServerError,
	"rate-limited": fanout.RateLimited, "too-concurrent": fanout.RateLimited, "overloaded": fanout.Overloaded,
	"bad-key": fanout.Auth, "context-too-long": fanout.ContextTooLong,
	"cut": fanout.Incomplete, "cut-abrupt": fanout.Incomplete, "reset": fanout.Incomplete, "bad-chunk": fanout.Incomplete,
	"short-body": fanout.Incomplete, "empty-body": fanout.Incomplete,
	"reset-before": fanout.Connection, "close-before": fanout.Connection, "not-http": fanout.Connection, "huge-header": fanout.Connection,
}

// formats returns an endpoint of each format at one upstream.
func formats(t *testing.T) (*http.Client, map[string]*provider.Endpoint) {
	t.Helper()
	upstream := httptest.NewUnstartedServer(fakeprovider.New())
	upstream.Config.ErrorLog = log.New(io.Discard, "", 0)
	upstream.Start()
	t.Cleanup(upstream.Close)
	client := providertest.Client(t)
	return client, map[string]*provider.Endpoint{
		"openai":    openai.New(provider.Config{BaseURL: upstream.URL + "/v1"}, client),
		"anthropic": anthropic.New(provider.Config{BaseURL: upstream.URL + "/v1"}, client),
		"gemini":    gemini.New(provider.Config{BaseURL: upstream.URL + "/v1beta"}, client),
	}
}

func TestTheThreeFormatsAgreeOnWhatBecomesOfAnAnswer(t *testing.T) {
	client, wires := formats(t)
	for script, want := range outcomes {
		texts := map[string]bool{}
		for wire, endpoint := range wires {
			call := providertest.Call()
			call.Model = script + "?delay_ms=0"
			call.Thoughts = true
			sink := &providertest.Sink{T: t}
			got := outcomeOf(endpoint.Stream(t.Context(), call, fanout.NewKey(providertest.Key), sink))
			if got != want {
				t.Errorf("%s, %s: %v, want %v", script, wire, got, want)
			}
			texts[sink.Texts.String()+"\n"+sink.Thoughts.String()] = true
			// What was closed under this call is not for the next to find.
			client.CloseIdleConnections()
		}
		if len(texts) != 1 {
			t.Errorf("%s: the texts differ: %v", script, texts)
		}
	}
}

func TestACalledToolIsTheEndOfAnAnswerInOnePieceToo(t *testing.T) {
	_, wires := formats(t)
	for _, script := range []string{"tool-calls", "tool-call-parts"} {
		for wire, endpoint := range wires {
			call := providertest.Call()
			call.Model, call.Whole = script+"?delay_ms=0", true
			if got := outcomeOf(endpoint.Stream(t.Context(), call, fanout.NewKey(providertest.Key), &providertest.Sink{T: t})); got != fanout.FinishToolCalls {
				t.Errorf("%s, %s: %v", script, wire, got)
			}
		}
	}
}

func outcomeOf(answer fanout.Answer, err error) any {
	var failure *fanout.Failure
	switch {
	case errors.As(err, &failure):
		return failure.Kind
	case err != nil:
		return err
	default:
		return answer.FinishReason
	}
}
