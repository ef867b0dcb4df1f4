package fanout

import "time"

// EventType names what happened to a call.
type EventType string

// The event types of the contract.
const (
	Queued        EventType = "queued"         // the call has to wait for its turn
	Started       EventType = "started"        // an attempt begins
	Thought       EventType = "thought"        // a piece of reasoning
	Chunk         EventType = "chunk"          // a piece of the answer
	AttemptFailed EventType = "attempt_failed" // an attempt is over, the call is not
	Finished      EventType = "finished"
	Failed        EventType = "failed"
)

// Reason says why an attempt is made.
type Reason string

// The reasons of the contract.
const (
	First    Reason = "first"
	Again    Reason = "retry"
	Restart  Reason = "restart" // after text: the answer starts over
	Fallback Reason = "fallback"
	Hedged   Reason = "hedge"
	Replay   Reason = "cache" // no attempt at all: the answer is known, or on its way to another call
)

// Event is one thing that happened to a call. Which fields are set depends on Type: one flat
// value, so that a chunk costs no allocation.
type Event struct {
	Type         EventType
	Call         string
	At           time.Duration // since the receipt of the request
	Attempt      int           // all but queued, thought and chunk; 0 for a replay from the cache
	Reason       Reason        // started
	Target       Target        // started, finished
	Text         []byte        // thought, chunk: the inside of a JSON string, escaped
	FinishReason FinishReason  // finished
	Failure      *Failure      // attempt_failed, failed
	Wait         time.Duration // attempt_failed: until the next attempt, Never when none follows it
	Usage        *Usage        // attempt_failed, finished, failed (nil when no text came)
	Timing       Timing        // attempt_failed, finished, failed
	CachedAge    time.Duration // finished: the age of an answer from the cache, Never of a fresh one
}

// Never marks a moment of Timing that did not come.
const Never time.Duration = -1

// Timing holds the moments of an attempt since the receipt of the request, or Never.
type Timing struct {
	Queued     time.Duration // it began to wait for its turn
	Admitted   time.Duration // its turn came: it was sent
	Connect    time.Duration // a connection was ready
	FirstToken time.Duration // first text
	LastToken  time.Duration // last text
}

// NoTiming is the Timing of an attempt that has not begun.
var NoTiming = Timing{Queued: Never, Admitted: Never, Connect: Never, FirstToken: Never, LastToken: Never}

// End closes a fan-out.
type End struct {
	Calls    int
	Finished int
	Failed   int
	Elapsed  time.Duration
}
