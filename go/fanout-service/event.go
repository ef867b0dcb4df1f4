package fanout

import "time"

// EventType names what happened to a call.
type EventType string

// The event types of the contract.
const (
	Started  EventType = "started"
	Chunk    EventType = "chunk"
	Finished EventType = "finished"
	Failed   EventType = "failed"
)

// Event is one thing that happened to a call. Which fields are set depends on Type: one flat
// value, so that a chunk costs no allocation.
type Event struct {
	Type         EventType
	Call         string
	At           time.Duration // since the receipt of the request
	Attempt      int           // started
	Text         []byte        // chunk: the inside of a JSON string, escaped
	FinishReason FinishReason  // finished
	Failure      *Failure      // failed
	Usage        *Usage        // finished, failed (nil when no text came)
	Timing       Timing        // finished, failed
}

// Never marks a moment of Timing that did not come.
const Never time.Duration = -1

// Timing holds moments since the receipt of the request, or Never.
type Timing struct {
	Queued     time.Duration // the attempt began
	Connect    time.Duration // a connection was ready
	FirstToken time.Duration // first text
	LastToken  time.Duration // last text
}

// End closes a fan-out.
type End struct {
	Calls    int
	Finished int
	Failed   int
	Elapsed  time.Duration
}
