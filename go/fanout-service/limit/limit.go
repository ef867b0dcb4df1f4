// Package limit decides when an attempt may be sent, and with which key: calls at once, calls and
// tokens per minute, what a provider asked us to wait, keys it refused, and providers that fail.
// An attempt asks with Admit, waits its turn, and says with Done what came of it; everything the
// package knows it learns from that.
package limit

import (
	"time"

	fanout "rex/fanout-service"
)

// Config holds the bounds an operator set.
type Config struct {
	Default Rule
	Rules   []Rule // of several matching rules the most specific wins, field by field
}

// Rule bounds the calls to a provider, or to one of its models.
type Rule struct {
	Provider, Model   string // "" matches every one; Model needs Provider
	MaxConcurrent     int    // calls at once per key (and per key+model for a rule with Model); 0: no bound
	Adaptive          *bool  // lower the bound while the provider complains; nil: inherited, true by default
	Queue             int    // calls that may wait per provider, of a rule without Model; 0: inherited
	RequestsPerMinute int64  // per key (and per key+model for a rule with Model); 0: only what headers say
	TokensPerMinute   int64  // likewise, input and output together
}

// Ask is an attempt that wants to be sent.
type Ask struct {
	Target    fanout.Target
	Keys      []fanout.Key // any of them will do; a provider's, but for those that refused the call
	Workspace string       // whose turn it takes
	Deadline  time.Time    // after it the attempt is of no use; zero: none
	Tokens    int64        // upper estimate of input+output, 0 unknown
	Waiting   func()       // called once, at most, when the attempt has to wait; may be nil
	NoWait    bool         // fail with queue_full instead of waiting
}

// Outcome is what came of an admitted attempt.
type Outcome struct {
	Failure *fanout.Failure // nil: answered; one of our own making, like a cancel or the deadline, speaks for and against nobody
	Neutral bool            // it speaks for and against nobody, whatever the failure
	Tokens  int64           // really used, 0 unknown
}

// TargetState is how a model stands with one key, for gauges and operators.
type TargetState struct {
	Provider, KeyID, Model string
	InFlight               int
	Limit                  int       // calls at once now, 0: no bound
	Queued                 int       // calls that wait for the model, told with its first key alone so that sums are right
	Breaker                string    // closed, open or half_open
	NotBefore              time.Time // nothing is sent before; zero: no such wish
	Refused                bool      // the provider refused the key, and has not taken it again since
	// Resumes is when a call is sent again: the latest of NotBefore, the end of an open breaker's rest,
	// and when a refused key is tried; zero when nothing of these keeps calls back.
	Resumes time.Time
	Asked   time.Time // when the last attempt was let through
}
