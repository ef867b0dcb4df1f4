package telemetry_test

import (
	"context"
	encoding "encoding/hex"
	"testing"
	"time"

	"go.uber.org/goleak"

	fanout "rex/fanout-service"
	"rex/fanout-service/engine"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// What must never be told, wherever a request has it.
const canary = "canary-7e21"

// newRequest is a fan-out of calls to a model, by workspace w.
func newRequest(model string, calls int) *fanout.Request {
	temperature := 0.2
	r := &fanout.Request{ID: "run-1", RequestID: "req-1", Workspace: "w"}
	for range calls {
		r.Calls = append(r.Calls, fanout.Call{
			ID: "A", Target: fanout.Target{Provider: "google", Model: model},
			Messages: []fanout.Message{{Role: "user", Content: canary}},
			Params:   fanout.Params{Temperature: &temperature, Stop: []string{canary}},
		})
	}
	return r
}

// answered is the record of an attempt that went well: 5 ms of waiting, first text 40 ms later,
// then four pieces in 30 ms.
func answered() engine.AttemptRecord {
	return engine.AttemptRecord{
		Outcome: engine.OutcomeFinished, KeyID: "2", Chunks: 4, Elapsed: 80 * time.Millisecond, Wait: fanout.Never,
		Timing: fanout.Timing{
			Queued: time.Millisecond, Admitted: 6 * time.Millisecond, Connect: 10 * time.Millisecond,
			FirstToken: 46 * time.Millisecond, LastToken: 76 * time.Millisecond,
		},
		Usage: &fanout.Usage{InputTokens: 7, OutputTokens: 12, ReasoningTokens: 3},
	}
}

// refused is the record of an attempt that the provider refused before any text.
func refused(kind fanout.Kind, status int) engine.AttemptRecord {
	return engine.AttemptRecord{
		Outcome: string(kind), Failure: &fanout.Failure{Kind: kind, Status: status}, KeyID: "2",
		Elapsed: 9 * time.Millisecond, Timing: fanout.NoTiming, Wait: fanout.Never,
	}
}

// observe lets an observer see a fan-out whose calls make the given attempts, in order; the last
// decides what comes of the call.
func observe(ctx context.Context, o engine.Observer, r *fanout.Request, attempts ...engine.AttemptRecord) {
	ctx, over := o.Fanout(ctx, r)
	end := fanout.End{Calls: len(r.Calls)}
	for i := range r.Calls {
		call := &r.Calls[i]
		ctx, ended := o.Call(ctx, r, call)
		record := engine.CallRecord{Target: call.Target, Cache: engine.CacheBypass, Attempts: len(attempts)}
		for n := range attempts {
			reason := fanout.First
			if n > 0 {
				reason = fanout.Again
			}
			_, done := o.Attempt(ctx, r, call, &engine.Attempt{Number: n + 1, Reason: reason, Target: call.Target})
			done(&attempts[n])
			record.Outcome, record.Failure, record.Usage = attempts[n].Outcome, attempts[n].Failure, attempts[n].Usage
			record.Elapsed += attempts[n].Elapsed
		}
		if record.Failure == nil {
			end.Finished++
		} else {
			end.Failed++
		}
		ended(&record)
	}
	over(&engine.FanoutRecord{Outcome: engine.OutcomeDone, End: end})
}

var attempt = engine.Attempt{Number: 3, Reason: fanout.First, Target: fanout.Target{Provider: "google", Model: "gemini-x"}}

func hex(id []byte) string { return encoding.EncodeToString(id) }
