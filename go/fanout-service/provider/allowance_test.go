package provider_test

import (
	"net/http"
	"testing"
	"time"

	fanout "rex/fanout-service"
	"rex/fanout-service/provider"
)

func TestAllowancesAreReadInEveryForm(t *testing.T) {
	now := time.Date(2026, 11, 23, 12, 0, 0, 0, time.UTC)
	none := fanout.Bucket{Limit: fanout.Unknown, Remaining: fanout.Unknown}
	for _, c := range []struct {
		name   string
		header map[string]string
		want   fanout.Allowance
		ok     bool
	}{
		{"OpenAI", map[string]string{
			"x-ratelimit-limit-requests": "60", "x-ratelimit-remaining-requests": "59", "x-ratelimit-reset-requests": "17ms",
			"x-ratelimit-limit-tokens": "150000", "x-ratelimit-remaining-tokens": "149984", "x-ratelimit-reset-tokens": "6m0s",
		}, fanout.Allowance{
			Requests: fanout.Bucket{Limit: 60, Remaining: 59, Reset: 17 * time.Millisecond},
			Tokens:   fanout.Bucket{Limit: 150000, Remaining: 149984, Reset: 6 * time.Minute},
		}, true},
		{"fractions and bare seconds", map[string]string{
			"x-ratelimit-remaining-requests": "0", "x-ratelimit-reset-requests": "2m59.56s",
			"x-ratelimit-remaining-tokens": "1", "x-ratelimit-reset-tokens": "7.5",
		}, fanout.Allowance{
			Requests: fanout.Bucket{Limit: fanout.Unknown, Reset: 179560 * time.Millisecond},
			Tokens:   fanout.Bucket{Limit: fanout.Unknown, Remaining: 1, Reset: 7500 * time.Millisecond},
		}, true},
		{"Anthropic", map[string]string{
			"anthropic-ratelimit-requests-limit": "50", "anthropic-ratelimit-requests-remaining": "49", "anthropic-ratelimit-requests-reset": "2026-11-23T12:00:30Z",
			"anthropic-ratelimit-tokens-limit": "40000", "anthropic-ratelimit-tokens-remaining": "39000", "anthropic-ratelimit-tokens-reset": "2026-11-23T13:01:00+01:00",
			"anthropic-ratelimit-input-tokens-limit": "30000", "anthropic-ratelimit-input-tokens-remaining": "30000",
			"anthropic-ratelimit-output-tokens-limit": "8000", "anthropic-ratelimit-output-tokens-remaining": "100", "anthropic-ratelimit-output-tokens-reset": "2026-11-23T11:00:00Z",
		}, fanout.Allowance{
			Requests: fanout.Bucket{Limit: 50, Remaining: 49, Reset: 30 * time.Second},
			Tokens:   fanout.Bucket{Limit: 8000, Remaining: 100}, // the one that holds least; its reset is past
		}, true},
		{"a limit without a remainder beside one with", map[string]string{
			"anthropic-ratelimit-tokens-limit": "40000", "anthropic-ratelimit-output-tokens-remaining": "100",
		}, fanout.Allowance{Requests: none, Tokens: fanout.Bucket{Limit: fanout.Unknown, Remaining: 100}}, true},
		{"one bucket", map[string]string{"anthropic-ratelimit-input-tokens-remaining": "12"},
			fanout.Allowance{Requests: none, Tokens: fanout.Bucket{Limit: fanout.Unknown, Remaining: 12}}, true},
		{"nonsense", map[string]string{
			"x-ratelimit-limit-requests": "many", "x-ratelimit-remaining-requests": "-3", "x-ratelimit-reset-requests": "soon",
		}, fanout.Allowance{Requests: none, Tokens: none}, false},
		{"a nonsense reset", map[string]string{"x-ratelimit-remaining-tokens": "5", "x-ratelimit-reset-tokens": "soon"},
			fanout.Allowance{Requests: none, Tokens: fanout.Bucket{Limit: fanout.Unknown, Remaining: 5}}, true},
		{"nothing", nil, fanout.Allowance{Requests: none, Tokens: none}, false},
	} {
		t.Run(c.name, func(t *testing.T) {
			header := http.Header{}
			for name, value := range c.header {
				header.Set(name, value)
			}
			if got, ok := provider.ReadAllowance(header, now); got != c.want || ok != c.ok {
				t.Errorf("got %+v, %v, want %+v, %v", got, ok, c.want, c.ok)
			}
		})
	}
}
