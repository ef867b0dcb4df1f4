package loadtest

import (
	"context"
	"fmt"
	"sync"
	"time"
)

// maxWait bounds every question of a measurement.
const maxWait = 2 * time.Minute

// Rate asks in an open loop: single calls, so many a second, whatever becomes of them.
type Rate struct {
	Target    Target  `json:"target"`
	PerSecond float64 `json:"per_second"`
	Seconds   float64 `json:"seconds"`
	Stream    bool    `json:"stream"`
	Warm      int     `json:"warm"` // calls before, which are not measured
}

// RateResult tells how long calls took from the moment each was meant to be sent.
type RateResult struct {
	Sent     int            `json:"sent"`
	Failures map[string]int `json:"failures"`
	Chunks   int            `json:"chunks"`
	First    Distribution   `json:"first"` // to the first text
	Total    Distribution   `json:"total"` // to the end
	Usage    Usage          `json:"usage"`
}

// Run measures. It fails only when nothing could be asked at all.
func (r Rate) Run(ctx context.Context) (RateResult, error) {
	c := newClient(r.Target)
	defer c.close()
	tally := newTally()
	question := question{model: r.Target.Model, width: 1, stream: r.Stream, deadline: maxWait}
	openLoop(ctx, 50, r.Warm, func(i int, _ time.Time) {
		q := question
		q.id = fmt.Sprintf("warm-%d", i)
		if _, err := c.ask(ctx, q); err != nil {
			tally.fail(err.Error())
		}
	})
	if r.Warm > 0 && tally.failed == r.Warm {
		return RateResult{}, fmt.Errorf("no call was answered: %v", tally.failures)
	}
	tally = newTally()
	meter := begin(r.Target)
	sent := int(r.PerSecond * r.Seconds)
	openLoop(ctx, r.PerSecond, sent, func(i int, meant time.Time) {
		q := question
		q.id = fmt.Sprintf("rate-%d", i)
		answers, err := c.ask(ctx, q)
		tally.add(answers, err, meant)
	})
	return RateResult{
		Sent: sent, Failures: tally.failures, Chunks: tally.chunks, Usage: meter.end(),
		First: tally.first.Distribution(), Total: tally.total.Distribution(),
	}, ctx.Err()
}

// tally adds up what calls got.
type tally struct {
	first, total Histogram // of whole answers

	mu       sync.Mutex
	failures map[string]int
	failed   int
	chunks   int
}

func newTally() *tally { return &tally{failures: map[string]int{}} }

func (t *tally) fail(why string) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.failures[why]++
	t.failed++
}

func (t *tally) add(answers []Answer, err error, since time.Time) {
	if err != nil {
		t.fail(err.Error())
		return
	}
	chunks := 0
	for _, answer := range answers {
		chunks += answer.Chunks
		if answer.Failure != "" {
			t.fail(answer.Failure)
			continue
		}
		t.first.Record(answer.First.Sub(since))
		t.total.Record(answer.End.Sub(since))
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	t.chunks += chunks
}
