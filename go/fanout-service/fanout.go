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
	Deadline  time.Duration // from the receipt of the request
	Coalesce  time.Duration // text that arrives within this window leaves together
	Calls     []Call
}

// Call is one question to one model.
type Call struct {
	ID       string
	Provider string
	Model    string // the provider's own name
	Messages []Message
	Params   Params
	Timeouts Timeouts
}

// Message is one turn of the conversation.
type Message struct {
	Role    string `json:"role"` // system, user or assistant
	Content string `json:"content"`
}

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

// Answer is what a Provider reports when an answer is complete.
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
	// or a word the upstream wrote.
	Stream(ctx context.Context, call Call, sink Sink) (Answer, error)
}

// Sink takes what an attempt produces. Its methods are called from one goroutine at a time.
type Sink interface {
	// Connected says that a connection is ready and the request is being sent.
	Connected()
	// Progress says that a data event arrived; generated, that the model produced something
	// with it, be it text, reasoning or a tool call. Comments and pings are no progress.
	Progress(generated bool)
	// Text takes the next piece of the answer as the inside of a JSON string: escaped, valid,
	// not empty, without lone surrogates and U+0000. characters counts its code points. It
	// blocks while the reader is slow; an error ends the attempt and is returned by Stream.
	Text(escaped []byte, characters int) error
}

// Characters counts the code points of a call's messages.
func (c *Call) Characters() int {
	total := 0
	for i := range c.Messages {
		total += utf8.RuneCountInString(c.Messages[i].Content)
	}
	return total
}
