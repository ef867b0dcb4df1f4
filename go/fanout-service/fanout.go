// Package fanout is the domain of the fan-out service: what a request asks for, what can happen
// to a call, and why it can fail. It knows no HTTP server, no provider and no environment.
//
// The layers point one way: cmd wires httpapi to engine, engine drives Providers, and everything
// imports this package.
package fanout

import (
	"context"
	"encoding/json"
	"time"
	"unicode/utf8"
)

// Request asks for several calls at once.
type Request struct {
	ID        string
	RequestID string
	Workspace string        // whose calls these are, "" for nobody's: queues are fair between them
	Deadline  time.Duration // from the receipt of the request
	Coalesce  time.Duration // text that arrives within this window leaves together
	Calls     []Call
}

// Target is a model at a provider.
type Target struct {
	Provider string
	Model    string // the provider's own name
}

// Call is one question to one model.
type Call struct {
	ID string
	Target
	Messages []Message
	Params   Params
	Timeouts Timeouts
	Whole    bool // ask the provider for the answer in one piece instead of a stream
	Thoughts bool // pass the model's reasoning on, apart from the answer
	Retry    Retry
	// Fallbacks are asked in turn, each once its predecessor has used up its attempts.
	Fallbacks []Target
	Hedge     *Hedge
	Cache     *CacheUse // nil: neither read nor written
}

// Retry bounds the attempts of a call.
type Retry struct {
	Attempts int  // at each target, at least 1
	Restart  bool // another attempt may follow text that was given out; the answer then starts over
}

// Hedge sends the call a second time when the first attempt has said nothing for a while. The
// first to produce text is the answer, the other is stopped.
type Hedge struct {
	After  time.Duration // from the moment the first attempt was sent
	Target Target        // empty: the call's own
}

// CacheUse says how a call uses the cache of answers.
type CacheUse struct {
	Key   string // 64 hex digits, made by Rex from all that the answer depends on
	Read  bool
	Write bool
}

// Message is one turn of the conversation: Content, or Parts when it is not text alone.
type Message struct {
	Role    string // system, user or assistant
	Content string
	Parts   []Part
}

// Part is a piece of a message: text, or an image by its data or its address.
type Part struct {
	Text      string
	MediaType string // of Data, like image/png
	Data      string // base64
	URL       string // fetched by the provider, never by us
}

// IsImage says whether the part is an image.
func (p *Part) IsImage() bool { return p.Data != "" || p.URL != "" }

// Params are the sampling parameters; nil means "not sent".
type Params struct {
	MaxTokens      *int64
	Temperature    *float64
	TopP           *float64
	Seed           *int64
	Stop           []string
	ResponseFormat json.RawMessage // an object, passed on as it is
}

// Timeouts bound the phases of one attempt. None is zero.
type Timeouts struct {
	Connect    time.Duration // attempt begins → a connection is ready
	FirstToken time.Duration // connection ready → first generated piece
	Stall      time.Duration // one data event → the next
	Total      time.Duration // attempt begins → end
}

// DefaultTimeouts are what a call gets that asks for nothing.
var DefaultTimeouts = Timeouts{
	Connect:    3 * time.Second,
	FirstToken: 30 * time.Second,
	Stall:      20 * time.Second,
	Total:      120 * time.Second,
}

// DefaultCoalesce is the window of a request that names none.
const DefaultCoalesce = 20 * time.Millisecond

// FinishReason says how a complete answer ended.
type FinishReason string

// The finish reasons of the contract.
const (
	FinishStop      FinishReason = "stop"
	FinishLength    FinishReason = "length"
	FinishToolCalls FinishReason = "tool_calls"
)

// Usage counts tokens. Estimated says that the provider did not count and we did.
type Usage struct {
	InputTokens     int64 `json:"input_tokens"`
	OutputTokens    int64 `json:"output_tokens"`
	CachedTokens    int64 `json:"cached_tokens"`
	ReasoningTokens int64 `json:"reasoning_tokens"`
	Estimated       bool  `json:"estimated"`
}

// Plus is what both cost together.
func (u Usage) Plus(other Usage) Usage {
	return Usage{
		InputTokens: u.InputTokens + other.InputTokens, OutputTokens: u.OutputTokens + other.OutputTokens,
		CachedTokens: u.CachedTokens + other.CachedTokens, ReasoningTokens: u.ReasoningTokens + other.ReasoningTokens,
		Estimated: u.Estimated || other.Estimated,
	}
}

// Unknown marks a number that a Bucket does not tell.
const Unknown int64 = -1

// Allowance is what a provider's headers say about what a key may still do.
type Allowance struct {
	Requests, Tokens Bucket
}

// Bucket is one rate limit of an Allowance; Limit and Remaining may be Unknown.
type Bucket struct {
	Limit     int64
	Remaining int64
	Reset     time.Duration // until the bucket is full, or holds something, again
}

// Answer is what a Provider reports when an answer is complete, or what it counted of one that failed.
type Answer struct {
	FinishReason FinishReason
	// InputTokens and OutputTokens are nil where the provider did not count, or counted nonsense.
	InputTokens     *int64
	OutputTokens    *int64
	CachedTokens    int64
	ReasoningTokens int64
}

// Provider sends one attempt of a call upstream.
type Provider interface {
	// Stream reports progress and text to sink and returns when the answer is complete or has
	// failed. A failure is a *Failure; when ctx ends first, Stream returns context.Cause(ctx),
	// and the upstream connection is closed by then. Nothing that Stream returns holds a key
	// or a word the upstream wrote. With call.Whole the answer is asked for in one piece; it
	// reaches sink all the same. Beside a failure the Answer holds what the provider counted
	// before it, and nothing else.
	Stream(ctx context.Context, call *Call, key Key, sink Sink) (Answer, error)
}

// Sink takes what an attempt produces. Its methods are called from one goroutine at a time.
type Sink interface {
	// Connected says that a connection is ready and the request is being sent.
	Connected()
	// Allowed tells what the response's headers said about the key; at most once, before text,
	// also for a response that is a refusal.
	Allowed(allowance Allowance)
	// Progress says that a data event arrived; generated, that the model produced something
	// with it, be it text, reasoning or a tool call. Comments and pings are no progress.
	Progress(generated bool)
	// Text takes the next piece of the answer as the inside of a JSON string: escaped, valid,
	// not empty, without lone surrogates and U+0000. characters counts its code points. It
	// blocks while the reader is slow; an error ends the attempt and is returned by Stream.
	Text(escaped []byte, characters int) error
	// Thought takes a piece of the model's reasoning in the same form. It is no part of the
	// answer, and is called only for calls that ask for Thoughts.
	Thought(escaped []byte, characters int) error
}

// Characters counts the code points of a call's messages; images count nothing.
func (c *Call) Characters() int {
	total := 0
	for i := range c.Messages {
		total += utf8.RuneCountInString(c.Messages[i].Content)
		for k := range c.Messages[i].Parts {
			total += utf8.RuneCountInString(c.Messages[i].Parts[k].Text)
		}
	}
	return total
}
