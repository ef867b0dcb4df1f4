package fanout

import (
	"fmt"
	"strings"
	"time"
)

// Kind is the reason of a failure: what logs, metrics and users see.
type Kind string

// The kinds of this seam; api/kinds.json is the same list for other languages.
const (
	RateLimited         Kind = "rate_limited"
	Overloaded          Kind = "overloaded"
	ServerError         Kind = "server_error"
	Connection          Kind = "connection"
	TimeoutConnect      Kind = "timeout.connect"
	TimeoutFirstToken   Kind = "timeout.first_token"
	TimeoutStall        Kind = "timeout.stall"
	TimeoutTotal        Kind = "timeout.total"
	Deadline            Kind = "deadline"
	InvalidRequest      Kind = "invalid_request"
	Auth                Kind = "auth"
	ContextTooLong      Kind = "context_too_long"
	ContentFilter       Kind = "content_filter"
	ResponseTooLarge    Kind = "response_too_large"
	BadUpstreamResponse Kind = "bad_upstream_response"
	Incomplete          Kind = "incomplete"
	StopUser            Kind = "stop.user"
	StopSuperseded      Kind = "stop.superseded"
	Internal            Kind = "internal"
)

type kindRow struct {
	retryable bool
	sentence  string
}

var kinds = map[Kind]kindRow{
	RateLimited:         {true, "The provider asked to slow down"},
	Overloaded:          {true, "The provider is overloaded"},
	ServerError:         {true, "The provider failed"},
	Connection:          {true, "The provider could not be reached"},
	TimeoutConnect:      {true, "Connecting to the provider took too long"},
	TimeoutFirstToken:   {true, "The provider sent no first token in time"},
	TimeoutStall:        {true, "The provider stopped sending"},
	TimeoutTotal:        {false, "The call took longer than it may"},
	Deadline:            {false, "The deadline passed"},
	InvalidRequest:      {false, "The provider refused the request"},
	Auth:                {false, "The provider refused the key or its account"},
	ContextTooLong:      {false, "The request is longer than the model's context"},
	ContentFilter:       {false, "The provider's content filter stopped the answer"},
	ResponseTooLarge:    {false, "The answer is larger than the service accepts"},
	BadUpstreamResponse: {false, "The provider's answer could not be understood"},
	Incomplete:          {true, "The answer ended before it was complete"},
	StopUser:            {false, "Stopped by the user"},
	StopSuperseded:      {false, "Stopped: the answer was no longer needed"},
	Internal:            {false, "The service failed"},
}

// Retryable says whether another attempt of the same call may succeed.
func (k Kind) Retryable() bool { return kinds[k].retryable }

// StatusKind maps the HTTP status of a provider that sent no event stream.
func StatusKind(status int) Kind {
	switch {
	case status == 401, status == 402, status == 403:
		return Auth
	case status == 429:
		return RateLimited
	case status == 503, status == 529:
		return Overloaded
	case status == 408, status == 409, status == 425, status == 499:
		return ServerError
	case status >= 400 && status < 500:
		return InvalidRequest
	case status >= 500:
		return ServerError
	default: // 1xx, redirects, and successes that carry no stream
		return BadUpstreamResponse
	}
}

// Failure is why a call failed. It holds facts of our own making only: no upstream text, no key.
type Failure struct {
	Kind       Kind
	Status     int           // the HTTP status of the provider's refusal, 0 when it answered 200 or nothing
	RetryAfter time.Duration // what the provider asked for, 0 when it did not
	Fact       string        // a safe fact for people, like "15000 ms without data"; may be empty
}

// Fail returns a Failure with a formatted fact; an empty format means none.
func Fail(kind Kind, format string, args ...any) *Failure {
	return &Failure{Kind: kind, Fact: fmt.Sprintf(format, args...)}
}

func (f *Failure) Error() string { return string(f.Kind) + ": " + f.Message() }

// Message is the kind's sentence with the facts in brackets.
func (f *Failure) Message() string {
	var facts []string
	if f.Status != 0 {
		facts = append(facts, fmt.Sprintf("HTTP %d", f.Status))
	}
	if f.RetryAfter > 0 {
		facts = append(facts, fmt.Sprintf("try again in %g s", f.RetryAfter.Seconds()))
	}
	if f.Fact != "" {
		facts = append(facts, f.Fact)
	}
	if len(facts) == 0 {
		return kinds[f.Kind].sentence + "."
	}
	return kinds[f.Kind].sentence + " (" + strings.Join(facts, ", ") + ")."
}
