package provider_test

import (
	"net/http"
	"testing"
	"time"

	"rex/fanout-service/provider"
)

func TestRetryAfterIsReadInEveryForm(t *testing.T) {
	now := time.Date(2026, 11, 23, 12, 0, 0, 0, time.UTC)
	cases := []struct {
		name, header, value string
		want                time.Duration
	}{
		{"seconds", "Retry-After", "2", 2 * time.Second},
		{"a fraction", "Retry-After", "0.25", 250 * time.Millisecond},
		{"milliseconds", "Retry-After-Ms", "1500", 1500 * time.Millisecond},
		{"a date", "Retry-After", "Mon, 23 Nov 2026 12:00:07 GMT", 7 * time.Second},
		{"an old date", "Retry-After", "Mon, 23 Nov 2026 11:00:00 GMT", 0},
		{"zero", "Retry-After", "0", 0},
		{"negative", "Retry-After", "-5", 0},
		{"words", "Retry-After", "abc", 0},
		{"not a number", "Retry-After", "NaN", 0},
		{"for ever", "Retry-After", "1e300", 0},
		{"infinite", "Retry-After", "Inf", 0},
		{"a day", "Retry-After", "86400", 24 * time.Hour},
		{"more than a day", "Retry-After", "86401", 0},
		{"thirty years", "Retry-After", "1e9", 0},
		{"thirty years in milliseconds", "Retry-After-Ms", "1e12", 0},
		{"a date next year", "Retry-After", "Wed, 24 Nov 2027 12:00:00 GMT", 0},
		{"absent", "X-Other", "1", 0},
	}
	for _, c := range cases {
		t.Run(c.name, func(t *testing.T) {
			header := http.Header{}
			header.Set(c.header, c.value)
			if got := provider.RetryAfter(header, now); got != c.want {
				t.Errorf("got %v, want %v", got, c.want)
			}
		})
	}
}
