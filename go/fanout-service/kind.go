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
	CircuitOpen         Kind = "circuit_open"
	QueueFull           Kind = "queue_full"
	SlowReader          Kind = "slow_reader"
	Internal            Kind = "internal"
)

type kindRow struct {
	retryable bool
	// providerFault: the provider is at fault, and nobody's key, request or patience.
	providerFault bool
	sentence      string
}

var kinds = map[Kind]kindRow{
	RateLimited:         {true, false, "The provider asked to slow down"},
	Overloaded:          {true, true, "The provider is overloaded"},
	ServerError:         {true, true, "The provider failed"},
	Connection:          {true, true, "The provider could not be reached"},
	TimeoutConnect:      {true, true, "Connecting to the provider took too long"},
	TimeoutFirstToken:   {true, true, "The provider sent no first token in time"},
	TimeoutStall:        {true, true, "The provider stopped sending"},
	TimeoutTotal:        {false, false, "The call took longer than it may"},
	Deadline:            {false, false, "The deadline passed"},
	InvalidRequest:      {false, false, "The provider refused the request"},
	Auth:                {false, false, "The provider refused the key or its account"},
	ContextTooLong:      {false, false, "The request is longer than the model's context"},
	ContentFilter:       {false, false, "The provider's content filter stopped the answer"},
	ResponseTooLarge:    {false, false, "The answer is larger than the service accepts"},
	BadUpstreamResponse: {false, true, "The provider's answer could not be understood"},
	Incomplete:          {true, true, "The answer ended before it was complete"},
	StopUser:            {false, false, "Stopped by the user"},
	StopSuperseded:      {false, false, "Stopped: the answer was no longer needed"},
	CircuitOpen:         {true, false, "The provider failed too often and is left alone for a while"},
	QueueFull:           {true, false, "Too many calls wait for the provider"},
	SlowReader:          {false, false, "The answer was not read"},
	Internal:            {false, false, "The service failed"},
}

// Retryable says whether another attempt of the same call may succeed.
func (k Kind) Retryable() bool { return kinds[k].retryable }

// ProviderFault says whether a failure of this kind speaks against the provider: it moves the
// circuit breaker. A rate limit, a refused key or a bad request does not.
func (k Kind) ProviderFault() bool { return kinds[k].providerFault }

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
	Crowded    bool          // a 429 that complains of calls at once, not of calls per minute
	Lasting    bool          // the provider says that trying again is of no use
	Blameless  bool          // the provider did as it was asked, so it is not at fault whatever the kind
	Fact       string        // a safe fact for people, like "15000 ms without data"; may be empty
}

// Fail returns a Failure with a formatted fact; an empty format means none.
func Fail(kind Kind, format string, args ...any) *Failure {
	return &Failure{Kind: kind, Fact: fmt.Sprintf(format, args...)}
}

// Retryable says whether another attempt of the same call may succeed.
func (f *Failure) Retryable() bool { return f.Kind.Retryable() && !f.Lasting }

// ProviderFault says whether this failure speaks against the provider.
func (f *Failure) ProviderFault() bool { return f.Kind.ProviderFault() && !f.Blameless }

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
