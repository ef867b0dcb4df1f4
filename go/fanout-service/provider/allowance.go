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
	requests, ok1 := openAIRequests.read(header, now)
	tokens, ok2 := openAITokens.read(header, now)
	if !ok1 && !ok2 {
		requests, ok1 = anthropicRequests.read(header, now)
		tokens, ok2 = tightest(header, now)
	}
	return fanout.Allowance{Requests: requests, Tokens: tokens}, ok1 || ok2
}

// names are the headers of one rate limit, in canonical form.
type names struct{ limit, remaining, reset string }

var (
	openAIRequests    = names{"X-Ratelimit-Limit-Requests", "X-Ratelimit-Remaining-Requests", "X-Ratelimit-Reset-Requests"}
	openAITokens      = names{"X-Ratelimit-Limit-Tokens", "X-Ratelimit-Remaining-Tokens", "X-Ratelimit-Reset-Tokens"}
	anthropicRequests = anthropicNames("Requests")
	// Tokens is the provider's own choice of the tightest; older answers have the two others alone.
	anthropicTokens = []names{anthropicNames("Tokens"), anthropicNames("Input-Tokens"), anthropicNames("Output-Tokens")}
)

func anthropicNames(of string) names {
	prefix := "Anthropic-Ratelimit-" + of
	return names{prefix + "-Limit", prefix + "-Remaining", prefix + "-Reset"}
}

// tightest is the bucket of Anthropic's tokens that holds least, of those that tell.
func tightest(header http.Header, now time.Time) (least fanout.Bucket, found bool) {
	least = fanout.Bucket{Limit: fanout.Unknown, Remaining: fanout.Unknown}
	for _, each := range anthropicTokens {
		b, ok := each.read(header, now)
		if ok && (!found || b.Remaining != fanout.Unknown && (least.Remaining == fanout.Unknown || b.Remaining < least.Remaining)) {
			least, found = b, true
		}
	}
	return least, found
}

// read reads one rate limit; without a limit and a remainder it says nothing.
func (n *names) read(header http.Header, now time.Time) (fanout.Bucket, bool) {
	b := fanout.Bucket{Limit: count(first(header, n.limit)), Remaining: count(first(header, n.remaining))}
	if b.Limit == fanout.Unknown && b.Remaining == fanout.Unknown {
		return b, false
	}
	b.Reset = untilReset(first(header, n.reset), now)
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
	if text == "" { // the rule: an error would be made for nothing
		return fanout.Unknown
	}
	n, err := strconv.ParseInt(text, 10, 64)
	if err != nil || n < 0 {
		return fanout.Unknown
	}
	return n
}

// untilReset reads a duration, seconds, or a date; 0 when it is none of them, or more than a day away.
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
