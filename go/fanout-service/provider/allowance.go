package provider

import (
	"net/http"
	"strconv"
	"time"

	fanout "rex/fanout-service"
)

// ReadAllowance reads what a response's headers say about the key's rate limits; ok is false when
// they say nothing. Two families are known: OpenAI's X-Ratelimit-{Limit,Remaining,Reset}-{Requests,
// Tokens} with resets like "6m0s" or "17ms", which most compatible servers send too, and
// Anthropic's Anthropic-Ratelimit-{Requests,Tokens,Input-Tokens,Output-Tokens}-{Limit,Remaining,
// Reset} with resets as RFC 3339 dates.
func ReadAllowance(header http.Header, now time.Time) (allowance fanout.Allowance, ok bool) {
	requests, ok1 := bucket(header, now, "X-Ratelimit-Limit-Requests", "X-Ratelimit-Remaining-Requests", "X-Ratelimit-Reset-Requests")
	tokens, ok2 := bucket(header, now, "X-Ratelimit-Limit-Tokens", "X-Ratelimit-Remaining-Tokens", "X-Ratelimit-Reset-Tokens")
	if !ok1 && !ok2 {
		requests, ok1 = anthropicBucket(header, now, "Requests")
		tokens, ok2 = anthropicTokens(header, now)
	}
	return fanout.Allowance{Requests: requests, Tokens: tokens}, ok1 || ok2
}

// anthropicTokens is the bucket that holds least: Tokens is the provider's own choice of it, and
// older answers have the two others alone.
func anthropicTokens(header http.Header, now time.Time) (fanout.Bucket, bool) {
	tightest, found := anthropicBucket(header, now, "Tokens")
	for _, name := range []string{"Input-Tokens", "Output-Tokens"} {
		b, ok := anthropicBucket(header, now, name)
		if ok && (!found || b.Remaining != fanout.Unknown && b.Remaining < tightest.Remaining) {
			tightest, found = b, true
		}
	}
	return tightest, found
}

func anthropicBucket(header http.Header, now time.Time, name string) (fanout.Bucket, bool) {
	prefix := "Anthropic-Ratelimit-" + name
	return bucket(header, now, prefix+"-Limit", prefix+"-Remaining", prefix+"-Reset")
}

// bucket reads one rate limit; the header names are in canonical form. Without a limit and a
// remainder it says nothing.
func bucket(header http.Header, now time.Time, limit, remaining, reset string) (fanout.Bucket, bool) {
	b := fanout.Bucket{Limit: count(first(header, limit)), Remaining: count(first(header, remaining))}
	if b.Limit == fanout.Unknown && b.Remaining == fanout.Unknown {
		return b, false
	}
	b.Reset = untilReset(first(header, reset), now)
	return b, true
}

// first spares the canonicalization of Header.Get.
func first(header http.Header, canonical string) string {
	if values := header[canonical]; len(values) > 0 {
		return values[0]
	}
	return ""
}

func count(text string) int64 {
	n, err := strconv.ParseInt(text, 10, 64)
	if err != nil || n < 0 {
		return fanout.Unknown
	}
	return n
}

// untilReset reads a duration, seconds, or a date; 0 when it is none of them.
func untilReset(text string, now time.Time) time.Duration {
	if text == "" {
		return 0
	}
	if wait, err := time.ParseDuration(text); err == nil {
		return bounded(wait)
	}
	if s, err := strconv.ParseFloat(text, 64); err == nil {
		return scale(s, time.Second)
	}
	if date, err := time.Parse(time.RFC3339, text); err == nil {
		return bounded(date.Sub(now))
	}
	return 0
}
