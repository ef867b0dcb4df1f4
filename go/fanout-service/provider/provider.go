// Package provider holds what every provider shares: its settings, the guarded HTTP client, the
// one exchange a call is, and how refusals, rate limits and whole answers are read. The folders
// beneath hold a wire format each: they write a request, and say what an event means.
package provider

import (
	"context"
	"net/http"

	fanout "rex/fanout-service"
	"rex/fanout-service/provider/memory"
)

// Config is one configured provider.
type Config struct {
	Name    string
	BaseURL string       // without a trailing slash
	Wire    string       // its format: WireOpenAI, WireAnthropic or WireGemini
	Keys    []fanout.Key // at least one; fanout.NewKey("") when none is needed
	Quirks  Quirks
	Memory  *memory.Bound // for long events and whole answers, shared by all providers; nil: none
	// Inject adds the headers that continue our trace at the provider; nil: none.
	Inject func(ctx context.Context, header http.Header)
}

// The wire formats.
const (
	WireOpenAI    = "openai"
	WireAnthropic = "anthropic"
	WireGemini    = "gemini"
)

// Quirks say how an endpoint differs from OpenAI's own wire format; CloseConnections goes for all.
type Quirks struct {
	MaxTokensParam    string `json:"max_tokens_param"`    // its name for max_tokens
	SeedParam         string `json:"seed_param"`          // its name for seed
	OmitStreamOptions bool   `json:"omit_stream_options"` // it refuses stream_options
	// It may close a kept connection just as the next call is sent on it, and a call that was sent
	// cannot be sent again unseen.
	CloseConnections bool `json:"close_connections"`
}

// Wire is a wire format: how a call is written, and what comes back means. It holds no state.
type Wire interface {
	// Request writes a call in the provider's words; what the call leaves open is not sent.
	// path follows the base URL.
	Request(call *fanout.Call, quirks Quirks) (path string, body []byte, err error)
	// Authorize adds the headers the format asks for; secret is "" when there is no key.
	Authorize(header http.Header, secret string)
	// Event reads one event of a stream. It fails when data is not what the format allows.
	Event(data []byte, into *Delta) error
	// Whole reads an answer in one piece.
	Whole(body []byte, into *Delta) error
}

// Delta is what one event, or a whole answer, says. Its slices point into the bytes it was read
// from. A reader sets what it finds in a Delta that has been Reset.
type Delta struct {
	Pieces    []Piece
	Generated bool // the model produced something that is no piece, like a tool call
	Called    bool // it called a tool, in a format whose finish reasons do not say so
	Idle      bool // a ping: no progress
	Finish    Finish
	Usage     Usage
	Fault     []byte // an error object
	Over      bool   // nothing of the answer follows
}

// Piece is some text as the inside of a JSON string: grammatical, not yet repaired.
type Piece struct {
	Thought bool
	Text    []byte
}

// Finish is how an answer ended; the zero value says that it has not.
type Finish int

// The ends of an answer.
const (
	Unfinished Finish = iota
	Stopped
	CutByLength
	CalledTools
	Filtered // by the provider, for what it says
	Broken   // by a fault of the provider's that it calls a finish reason
)

// Reset empties the delta for the next event and keeps its memory.
func (d *Delta) Reset() {
	*d = Delta{Pieces: d.Pieces[:0], Usage: NoUsage}
}

// IsFirst says whether one of a list of alternative answers is the one to read: that with index 0,
// which is the first where there are no numbers (-1). More than one is never asked for.
func IsFirst(index int64, position int) bool { return index == 0 || index < 0 && position == 0 }

// Say adds a piece of the answer.
func (d *Delta) Say(text []byte) {
	if len(text) > 0 {
		d.Pieces = append(d.Pieces, Piece{Text: text})
	}
}

// Think adds a piece of reasoning.
func (d *Delta) Think(text []byte) {
	if len(text) > 0 {
		d.Pieces = append(d.Pieces, Piece{Thought: true, Text: text})
	}
}

// Usage counts tokens; a count that was not told is negative.
type Usage struct {
	Input     int64 // all of them, cached ones too
	Output    int64 // all of them, reasoning too
	Cached    int64 // of Input
	Reasoning int64 // of Output
}

// NoUsage tells nothing.
var NoUsage = Usage{Input: -1, Output: -1, Cached: -1, Reasoning: -1}

// maxTokens is more than any answer can have: a count beyond it is nonsense.
const maxTokens = 1_000_000_000

// add takes the counts of a later event over. Where counts come more than once they are
// cumulative, and some servers send zeros last, so the largest is the one that holds.
func (u *Usage) add(later Usage) {
	u.Input = larger(u.Input, later.Input)
	u.Output = larger(u.Output, later.Output)
	u.Cached = larger(u.Cached, later.Cached)
	u.Reasoning = larger(u.Reasoning, later.Reasoning)
}

func larger(known, later int64) int64 {
	if later > maxTokens {
		return known
	}
	return max(known, later)
}
