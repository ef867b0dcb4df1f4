package loadtest

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"sync"
	"sync/atomic"
	"time"

	"rex/fanout-service/fakeprovider"
)

// Leave opens streams, ends them all at one moment, and measures how long the upstream goes on
// being asked: money that is spent for nobody.
type Leave struct {
	Target   Target `json:"target"`
	Upstream string `json:"upstream"`
	Calls    int    `json:"calls"` // a multiple of Width
	Width    int    `json:"width"`
	// How: "disconnect" (the client closes its connections), "cancel" (it asks for it, fan-outs
	// only) or "deadline" (the fan-outs' own passes).
	How string `json:"how"`
	// DeadlineMS is the fan-outs' deadline for "deadline"; it must suffice to open all.
	DeadlineMS int `json:"deadline_ms"`
}

// LeaveResult tells when the upstream saw its clients leave.
type LeaveResult struct {
	Opened int `json:"opened"`
	Closed int `json:"closed"`
	// LastMS is from the moment all left, or the last deadline passed, to the moment the upstream
	// had seen the last of them go; null when it did not within the limit.
	LastMS *float64 `json:"last_ms"`
	Usage  Usage    `json:"usage"`
}

// leaveLimit is how long the upstream is watched.
const leaveLimit = 8 * time.Second

// Run measures.
func (l Leave) Run(ctx context.Context) (LeaveResult, error) {
	c := newClient(l.Target)
	defer c.close()
	upstream := upstreamAt(l.Upstream)
	before, err := upstream.rest(ctx)
	if err != nil {
		return LeaveResult{}, err
	}
	deadline := maxWait
	if l.How == "deadline" {
		deadline = time.Duration(l.DeadlineMS) * time.Millisecond
	}
	asking, leave := context.WithCancel(ctx)
	defer leave()
	var all sync.WaitGroup
	defer all.Wait()
	defer leave()
	var lastSent atomic.Int64 // Unix nanoseconds
	for i := range l.Calls / l.Width {
		all.Go(func() {
			lastSent.Store(max(lastSent.Load(), time.Now().UnixNano()))
			// How it ends is what the upstream tells.
			_, _ = c.ask(asking, question{
				id: fmt.Sprintf("leave-%d", i), model: l.Target.Model, width: l.Width, stream: true, deadline: deadline,
			})
		})
	}
	meter := begin(l.Target)
	opened, ok := upstream.until(ctx, leaveLimit, func(c fakeprovider.Counts) bool {
		return c.Open >= int64(l.Calls)
	})
	result := LeaveResult{Opened: int(opened.Open)}
	if !ok {
		return result, errors.New("not all streams were opened")
	}
	time.Sleep(100 * time.Millisecond) // every stream has text under way
	// A fan-out's deadline counts from its receipt. That is a little later than its sending, which
	// this measurement counts as ours.
	left := time.Unix(0, lastSent.Load()).Add(deadline)
	switch l.How {
	case "disconnect":
		left = time.Now()
		leave()
	case "cancel":
		left = time.Now()
		l.cancel(ctx, c)
	}
	closed, ok := upstream.until(ctx, deadlineOr(l.How, deadline)+leaveLimit, func(c fakeprovider.Counts) bool {
		return c.Aborted-before.Aborted >= int64(result.Opened)
	})
	result.Closed = int(closed.Aborted - before.Aborted)
	if ok {
		last := ms(time.Unix(0, closed.LastAbortNS).Sub(left))
		result.LastMS = &last
	}
	result.Usage = meter.end()
	return result, ctx.Err()
}

func deadlineOr(how string, deadline time.Duration) time.Duration {
	if how == "deadline" {
		return deadline
	}
	return 0
}

// cancel asks the service to stop every fan-out, all at once.
func (l Leave) cancel(ctx context.Context, c *client) {
	var all sync.WaitGroup
	for i := range l.Calls / l.Width {
		all.Go(func() {
			request, err := http.NewRequestWithContext(ctx, http.MethodDelete, fmt.Sprintf("%s/fanout/leave-%d", l.Target.URL, i), nil)
			if err != nil {
				return
			}
			if response, err := c.http.Do(request); err == nil {
				_ = response.Body.Close()
			}
		})
	}
	all.Wait()
}
