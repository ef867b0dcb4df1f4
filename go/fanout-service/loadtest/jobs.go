package loadtest

import (
	"context"
	"fmt"
	"sync"
	"sync/atomic"
	"time"
)

// Jobs asks in a closed loop: AtOnce fan-outs of Width calls in flight, the next when one has ended.
type Jobs struct {
	Target  Target  `json:"target"`
	Width   int     `json:"width"`
	AtOnce  int     `json:"at_once"`
	Count   int     `json:"count"`   // fan-outs in all; 0: as many as fit into Seconds
	Seconds float64 `json:"seconds"` // no fan-out begins later
	Warm    int     `json:"warm"`    // fan-outs before, which are not measured
}

// JobsResult tells what fan-outs cost and how long they took from being sent.
type JobsResult struct {
	Jobs     int            `json:"jobs"`
	Failures map[string]int `json:"failures"`
	Chunks   int            `json:"chunks"`
	First    Distribution   `json:"first"` // of each call, from the sending of its fan-out
	Wall     Distribution   `json:"wall"`  // of each fan-out
	Usage    Usage          `json:"usage"`
}

// Run measures.
func (j Jobs) Run(ctx context.Context) (JobsResult, error) {
	c := newClient(j.Target)
	defer c.close()
	if j.Warm > 0 {
		warm := j
		warm.Count, warm.Seconds = j.Warm, 10
		tally, _ := warm.loop(ctx, c, "warm", &Histogram{})
		if len(tally.failures) > 0 {
			return JobsResult{}, fmt.Errorf("warming up failed: %v", tally.failures)
		}
	}
	meter := begin(j.Target)
	var wall Histogram
	tally, done := j.loop(ctx, c, "job", &wall)
	return JobsResult{
		Jobs: done, Failures: tally.failures, Chunks: tally.chunks, Usage: meter.end(),
		First: tally.first.Distribution(), Wall: wall.Distribution(),
	}, ctx.Err()
}

func (j Jobs) loop(ctx context.Context, c *client, name string, wall *Histogram) (*tally, int) {
	tally := newTally()
	var begun, done atomic.Int64
	stop := time.Now().Add(time.Duration(j.Seconds * float64(time.Second)))
	var all sync.WaitGroup
	for range j.AtOnce {
		all.Go(func() {
			for ctx.Err() == nil && time.Now().Before(stop) {
				n := begun.Add(1)
				if j.Count > 0 && n > int64(j.Count) {
					return
				}
				sent := time.Now()
				answers, err := c.ask(ctx, question{
					id: fmt.Sprintf("%s-%d", name, n), model: j.Target.Model, width: j.Width, stream: true, deadline: maxWait,
				})
				tally.add(answers, err, sent)
				wall.Record(time.Since(sent))
				done.Add(1)
			}
		})
	}
	all.Wait()
	return tally, int(done.Load())
}
