package fanout_test

import (
	"encoding/json"
	"os"
	"testing"
	"time"

	fanout "rex/fanout-service"
)

func readJSON[T any](t *testing.T, path string) T {
	t.Helper()
	var value T
	raw, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if err := json.Unmarshal(raw, &value); err != nil {
		t.Fatal(err)
	}
	return value
}

func TestKindsAreThoseOfTheContract(t *testing.T) {
	file := readJSON[struct {
		Kinds []struct {
			Kind      fanout.Kind `json:"kind"`
			Retryable bool        `json:"retryable"`
			Message   string      `json:"message"`
		} `json:"kinds"`
	}](t, "api/kinds.json")
	if len(file.Kinds) != fanout.KindCount() {
		t.Errorf("api/kinds.json has %d kinds, the code %d", len(file.Kinds), fanout.KindCount())
	}
	for _, row := range file.Kinds {
		failure := fanout.Failure{Kind: row.Kind}
		if got := failure.Message(); got != row.Message+"." {
			t.Errorf("%s: message %q, in api/kinds.json %q", row.Kind, got, row.Message)
		}
		if row.Kind.Retryable() != row.Retryable {
			t.Errorf("%s: retryable %v, in api/kinds.json %v", row.Kind, row.Kind.Retryable(), row.Retryable)
		}
	}
}

func TestEveryStatusHasAKind(t *testing.T) {
	special := map[int]fanout.Kind{
		401: fanout.Auth, 402: fanout.Auth, 403: fanout.Auth, 429: fanout.RateLimited,
		503: fanout.Overloaded, 529: fanout.Overloaded,
		408: fanout.ServerError, 409: fanout.ServerError, 425: fanout.ServerError, 499: fanout.ServerError,
	}
	for status := 100; status < 1000; status++ {
		want, ok := special[status]
		switch {
		case ok:
		case status < 400:
			want = fanout.BadUpstreamResponse
		case status < 500:
			want = fanout.InvalidRequest
		default:
			want = fanout.ServerError
		}
		if got := fanout.StatusKind(status); got != want {
			t.Errorf("%d: %s, want %s", status, got, want)
		}
	}
}

func TestAMessageCarriesTheFactsInBrackets(t *testing.T) {
	failure := fanout.Failure{Kind: fanout.RateLimited, Status: 429, RetryAfter: 1500 * time.Millisecond, Fact: "a fact"}
	const want = "The provider asked to slow down (HTTP 429, try again in 1.5 s, a fact)."
	if got := failure.Message(); got != want {
		t.Errorf("got %q, want %q", got, want)
	}
}
