package loadtest

import (
	"context"
	"fmt"
	"net/http"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"rex/fanout-service/fakeprovider"
)

// Hold keeps many streams open at once and counts that nothing is lost. The model's answers must
// last longer than the opening and Seconds together.
type Hold struct {
	Target    Target  `json:"target"`
	Upstream  string  `json:"upstream"`   // address of the Upstream behind the target
	Streams   int     `json:"streams"`    // a multiple of Width
	Width     int     `json:"width"`      // calls a fan-out
	PerSecond float64 `json:"per_second"` // fan-outs opened a second
	Seconds   float64 `json:"seconds"`    // of the steady span, from when all are open
	Chunks    int     `json:"chunks"`     // pieces each answer has, by the model
	Settle    float64 `json:"settle"`     // seconds the target has to be as it was before
}

// HoldResult tells what open streams cost.
type HoldResult struct {
	Open       int            `json:"open"` // streams the upstream saw open at once
	Failures   map[string]int `json:"failures"`
	Chunks     int            `json:"chunks"`       // pieces that arrived, in all
	Short      int            `json:"short"`        // calls that miss a piece, or everything
	PerSecond  float64        `json:"chunks_per_s"` // in the steady span
	CPUPerUS   float64        `json:"cpu_us_per_chunk"`
	Steady     Usage          `json:"steady"`
	RestMiB    float64        `json:"rss_rest_mib"`
	PeakMiB    float64        `json:"rss_peak_mib"`  // the largest of the steady span
	AfterMiB   float64        `json:"rss_after_mib"` // Settle seconds after the last stream
	RestFiles  int            `json:"files_rest"`
	PeakFiles  int            `json:"files_peak"`
	AfterFiles int            `json:"files_after"`
	// Goroutines as the service's metrics tell them; 0 when it has none.
	RestGoroutines  int `json:"goroutines_rest"`
	PeakGoroutines  int `json:"goroutines_peak"`
	AfterGoroutines int `json:"goroutines_after"`
}

// openingGrace is how long the last streams may take to reach the upstream.
const openingGrace = 10 * time.Second

// Run measures.
func (h Hold) Run(ctx context.Context) (HoldResult, error) {
	c := newClient(h.Target)
	defer c.close()
	upstream := upstreamAt(h.Upstream)
	before, err := upstream.rest(ctx)
	if err != nil {
		return HoldResult{}, err
	}
	result := HoldResult{
		RestMiB: rssMiB(h.Target.PIDs), RestFiles: openFiles(h.Target.PIDs), RestGoroutines: goroutines(ctx, h.Target),
	}
	tally, short := newTally(), atomic.Int64{}
	var asking sync.WaitGroup
	asking.Go(func() {
		openLoop(ctx, h.PerSecond, h.Streams/h.Width, func(i int, meant time.Time) {
			answers, err := c.ask(ctx, question{
				id: fmt.Sprintf("hold-%d", i), model: h.Target.Model, width: h.Width, stream: true, deadline: 10 * time.Minute,
			})
			tally.add(answers, err, meant)
			whole := 0
			for _, answer := range answers {
				if answer.Chunks == h.Chunks {
					whole++
				}
			}
			short.Add(int64(h.Width - whole)) // all of them, when the fan-out was refused or cut
		})
	})
	opening := time.Duration(float64(h.Streams/h.Width) / h.PerSecond * float64(time.Second))
	_, _ = upstream.until(ctx, opening+openingGrace, func(c fakeprovider.Counts) bool {
		return c.Begun-before.Begun >= int64(h.Streams)
	})
	// Fewer are held when some could not be opened; their failures tell why.
	h.steady(ctx, upstream, &result)
	asking.Wait()
	result.Failures, result.Chunks, result.Short = tally.failures, tally.chunks, int(short.Load())
	c.close()
	time.Sleep(time.Duration(h.Settle * float64(time.Second)))
	result.AfterMiB, result.AfterFiles = rssMiB(h.Target.PIDs), openFiles(h.Target.PIDs)
	result.AfterGoroutines = goroutines(ctx, h.Target)
	return result, ctx.Err()
}

// steady samples the span in which every stream is open.
func (h Hold) steady(ctx context.Context, upstream upstreamAt, result *HoldResult) {
	first, err := upstream.counts(ctx)
	if err != nil {
		return
	}
	meter := begin(h.Target)
	end := time.Now().Add(time.Duration(h.Seconds * float64(time.Second)))
	for time.Now().Before(end) && ctx.Err() == nil {
		time.Sleep(min(250*time.Millisecond, time.Until(end)))
		result.PeakMiB = max(result.PeakMiB, rssMiB(h.Target.PIDs))
	}
	last, err := upstream.counts(ctx)
	result.Steady = meter.end()
	result.Open = int(max(first.Open, last.Open))
	if chunks := float64(last.Chunks - first.Chunks); err == nil && chunks > 0 {
		result.PerSecond = chunks / result.Steady.Seconds
		result.CPUPerUS = result.Steady.CPUSeconds / chunks * 1e6
	}
	result.PeakFiles, result.PeakGoroutines = openFiles(h.Target.PIDs), goroutines(ctx, h.Target)
}

// goroutines reads go_goroutines from the service's metrics; 0 where there are none.
func goroutines(ctx context.Context, target Target) int {
	if target.Kind != "fanout" {
		return 0
	}
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, target.URL+"/metrics", nil)
	if err != nil {
		return 0
	}
	response, err := http.DefaultClient.Do(request)
	if err != nil {
		return 0
	}
	defer func() { _ = response.Body.Close() }()
	found := 0
	_ = eachLine(response.Body, func(line []byte, _ time.Time) { // a half page has no number to trust
		if number, ok := strings.CutPrefix(string(line), "go_goroutines "); ok {
			n, _ := strconv.ParseFloat(strings.TrimSpace(number), 64) // not a number counts as none
			found = int(n)
		}
	})
	return found
}
