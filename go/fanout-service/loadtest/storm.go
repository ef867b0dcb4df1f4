package loadtest

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"time"
)

// Storm asks an upstream that refuses, and counts what it is asked all the same.
type Storm struct {
	Target   Target `json:"target"` // its model: "storm?retry_after_s=2&id=x" or "down?id=x"
	Upstream string `json:"upstream"`
	Fanouts  int    `json:"fanouts"`
	Width    int    `json:"width"`
	Attempts int    `json:"attempts"`
	Spread   int    `json:"spread_ms"` // the fan-outs begin within this time
	// Apart gives each fan-out a model of its own, so that no circuit breaker, which is a model's,
	// hides what retrying costs.
	Apart bool `json:"apart"`
}

// StormResult is what the upstream saw of it.
type StormResult struct {
	Calls    int            `json:"calls"`
	Answered int            `json:"answered"`
	Failures map[string]int `json:"failures"`
	Seen     Refusals       `json:"seen"`
	// Retries and hedges the upstream saw beyond one request a call, for a model that is down.
	Amplification float64 `json:"amplification"`
	Usage         Usage   `json:"usage"`
}

// Run measures. The first call goes alone, so that what the upstream asks for is known when the
// others come.
func (s Storm) Run(ctx context.Context) (StormResult, error) {
	c := newClient(s.Target)
	defer c.close()
	meter := begin(s.Target)
	tally, answered := newTally(), 0
	var mu sync.Mutex
	ask := func(id string, width, attempts int) {
		model := s.Target.Model
		if s.Apart {
			model += apart + id
		}
		answers, err := c.ask(ctx, question{
			id: id, model: model, width: width, attempts: attempts, stream: true, deadline: 20 * time.Second,
		})
		tally.add(answers, err, time.Now())
		mu.Lock()
		defer mu.Unlock()
		for _, answer := range answers {
			if answer.Failure == "" {
				answered++
			}
		}
	}
	calls := s.Fanouts * s.Width
	if strings.HasPrefix(s.Target.Model, "storm?") {
		ask("storm-first", 1, 1)
		time.Sleep(2 * underWay)
		calls++
	}
	openLoop(ctx, float64(s.Fanouts)/(float64(max(1, s.Spread))/1000), s.Fanouts, func(i int, _ time.Time) {
		ask(fmt.Sprintf("storm-%d", i), s.Width, s.Attempts)
	})
	seen, err := upstreamAt(s.Upstream).refusals(ctx, s.Target.Model)
	result := StormResult{
		Calls: calls, Answered: answered, Failures: tally.failures, Seen: seen,
		Amplification: float64(seen.Requests) / float64(calls), Usage: meter.end(),
	}
	if err == nil && seen.Requests == 0 {
		err = errors.New("the upstream was not asked")
	}
	return result, err
}
