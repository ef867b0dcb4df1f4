package loadtest

import (
	"context"
	"sync"
	"time"

	"rex/fanout-service/fakeprovider"
)

// openLoop calls work for each of n moments, perSecond apart, each in its own goroutine, and
// returns when all have. It never waits for an answer before it sends the next: a target that is
// slow is not asked less. work gets the moment it was meant to begin; whoever measures from that
// counts what a late start cost too (no "coordinated omission").
func openLoop(ctx context.Context, perSecond float64, n int, work func(i int, meant time.Time)) {
	var all sync.WaitGroup
	begin := time.Now()
	timer := time.NewTimer(time.Hour)
	defer timer.Stop()
	for i := range n {
		meant := begin.Add(time.Duration(float64(i) / perSecond * float64(time.Second)))
		if !fakeprovider.SleepUntil(ctx, timer, meant) {
			break
		}
		all.Go(func() { work(i, meant) })
	}
	all.Wait()
}
