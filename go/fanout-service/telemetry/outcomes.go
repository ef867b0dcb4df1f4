package telemetry

import (
	"strings"
	"time"

	fanout "rex/fanout-service"
	"rex/fanout-service/engine"
)

// outcomes are all that can come of a call or an attempt: the closed set of that label. What is
// not among them is told as the last, so that a label never grows.
var outcomes = [...]string{
	engine.OutcomeFinished,
	engine.OutcomeReaderGone,
	string(fanout.RateLimited), string(fanout.Overloaded), string(fanout.ServerError),
	string(fanout.Connection), string(fanout.TimeoutConnect), string(fanout.TimeoutFirstToken),
	string(fanout.TimeoutStall), string(fanout.TimeoutTotal), string(fanout.Deadline),
	string(fanout.InvalidRequest), string(fanout.Auth), string(fanout.ContextTooLong),
	string(fanout.ContentFilter), string(fanout.ResponseTooLarge), string(fanout.BadUpstreamResponse),
	string(fanout.Incomplete), string(fanout.StopUser), string(fanout.StopSuperseded),
	string(fanout.CircuitOpen), string(fanout.QueueFull), string(fanout.SlowReader),
	string(fanout.Internal),
	"other",
}

// stopped says whether an outcome is somebody's decision, and no failure.
func stopped(outcome string) bool {
	return outcome == engine.OutcomeReaderGone || strings.HasPrefix(outcome, "stop.")
}

// between is the whole milliseconds from one moment to another, negative when either never came.
func between(from, to time.Duration) int64 {
	if from == fanout.Never || to == fanout.Never {
		return -1
	}
	return (to - from).Milliseconds()
}
