package telemetry

import (
	"context"
	"net/http"
	"strconv"
	"sync"
	"sync/atomic"
	"time"

	fanout "rex/fanout-service"
	"rex/fanout-service/engine"
)

// Bounds of the labels that clients choose. What comes after them is told as "other".
const (
	maxModels     = 200 // of a provider
	maxWorkspaces = 100
)

const (
	other     = "other"
	nobody    = "none" // the workspace of requests that name none
	perSecond = float64(time.Second)
)

var (
	reasons    = []string{string(fanout.First), string(fanout.Again), string(fanout.Restart), string(fanout.Fallback), string(fanout.Hedged), other}
	caches     = []string{string(engine.CacheBypass), string(engine.CacheMiss), string(engine.CacheHit), string(engine.CacheShared), other}
	ends       = []string{engine.OutcomeDone, engine.OutcomeReaderGone, engine.OutcomeSlowReader, other}
	directions = []string{"input", "output", "cached", "reasoning"}
	classes    = []string{"finished", "failed", "stopped"}
)

var (
	callBounds  = []float64{.01, .025, .05, .1, .25, .5, 1, 2.5, 5, 10, 20, 30, 60, 120, 300}
	tokenBounds = []float64{.01, .025, .05, .1, .25, .5, 1, 2.5, 5, 10, 20, 30, 60}
	gapBounds   = []float64{.001, .0025, .005, .01, .025, .05, .1, .25, .5, 1, 2.5, 5}
	waitBounds  = []float64{.001, .005, .01, .05, .1, .5, 1, 2.5, 5, 10, 30, 60, 120}
	dialBounds  = []float64{.001, .0025, .005, .01, .025, .05, .1, .25, .5, 1, 2.5}
	widthBounds = []float64{1, 2, 3, 4, 6, 8, 12, 16, 32, 64, 128, 256, 512}
)

// Metrics counts what it observes and is the handler that shows it, in Prometheus' text format.
// The numbers of a call are found by one look-up of its provider and model and are atomics of
// their own: no lock and no hashing of labels. Every label has a closed or bounded set of values;
// provider is bounded by what is configured, since nothing else can be asked.
type Metrics struct {
	targets   sync.Map // fanout.Target → *target
	providers sync.Map // name → *providerSeries
	admission sync.Mutex

	workspaces map[string]bool // the operator's list; nil: the first that come
	known      sync.Map        // workspace → *workspaceSeries
	full       atomic.Bool     // maxWorkspaces are known
	admitted   int
	others     workspaceSeries
	folded     atomic.Uint64

	fanouts [4]atomic.Uint64
	cache   [5]atomic.Uint64
	width   *histogram

	gauges []func(*exposition) // what is read when somebody asks
}

// target is what is counted of a model at a provider.
type target struct {
	calls    [len(outcomes)]atomic.Uint64
	attempts [len(outcomes)][6]atomic.Uint64 // by reason
	tokens   [4]atomic.Uint64

	call, firstToken, interToken, queue, connect *histogram
}

func newTarget() *target {
	return &target{
		call:       newHistogram(callBounds, perSecond),
		firstToken: newHistogram(tokenBounds, perSecond),
		interToken: newHistogram(gapBounds, perSecond),
		queue:      newHistogram(waitBounds, perSecond),
		connect:    newHistogram(dialBounds, perSecond),
	}
}

// providerSeries is what is counted of a provider alone, and how many of its models have labels.
type providerSeries struct {
	models  int
	full    atomic.Bool
	others  *target
	retries [len(outcomes)]atomic.Uint64
	hedges  [2]atomic.Uint64 // lost, won
}

// workspaceSeries is what is counted of a workspace.
type workspaceSeries struct {
	calls  [3]atomic.Uint64 // by class
	tokens [2]atomic.Uint64 // input, output
}

// NewMetrics returns Metrics. Workspaces are those that get labels of their own; when there are
// none, the first hundred that come do.
func NewMetrics(workspaces []string) *Metrics {
	m := &Metrics{width: newHistogram(widthBounds, 1)}
	if len(workspaces) > 0 {
		m.workspaces = map[string]bool{}
		for _, name := range workspaces {
			m.workspaces[name] = true
		}
	}
	m.gauges = append(m.gauges, runtimeGauges)
	return m
}

// Fanout implements engine.Observer.
func (m *Metrics) Fanout(ctx context.Context, request *fanout.Request) (context.Context, func(*engine.FanoutRecord)) {
	m.width.observe(int64(len(request.Calls)))
	return ctx, m.fanoutEnded
}

func (m *Metrics) fanoutEnded(record *engine.FanoutRecord) {
	m.fanouts[index(ends, record.Outcome)].Add(1)
}

// Call implements engine.Observer.
func (m *Metrics) Call(ctx context.Context, request *fanout.Request, _ *fanout.Call) (context.Context, func(*engine.CallRecord)) {
	return ctx, func(record *engine.CallRecord) {
		target, _ := m.target(record.Target)
		target.calls[index(outcomes[:], record.Outcome)].Add(1)
		target.call.observe(int64(record.Elapsed))
		m.cache[index(caches, string(record.Cache))].Add(1)
		series := m.workspace(request.Workspace)
		series.calls[class(record.Outcome)].Add(1)
		// What a cache gave out again cost no tokens.
		if record.Usage != nil && record.Cache != engine.CacheHit && record.Cache != engine.CacheShared {
			add(&series.tokens[0], record.Usage.InputTokens)
			add(&series.tokens[1], record.Usage.OutputTokens)
		}
	}
}

// Attempt implements engine.Observer.
func (m *Metrics) Attempt(ctx context.Context, _ *fanout.Request, _ *fanout.Call, attempt *engine.Attempt) (context.Context, func(*engine.AttemptRecord)) {
	target, provider := m.target(attempt.Target)
	why := attempt.Reason
	return ctx, func(record *engine.AttemptRecord) {
		came := index(outcomes[:], record.Outcome)
		target.attempts[came][index(reasons, string(why))].Add(1)
		timing := &record.Timing
		target.queue.observeSince(timing.Queued, timing.Admitted)
		target.connect.observeSince(timing.Admitted, timing.Connect)
		if timing.Admitted >= 0 {
			target.firstToken.observeSince(timing.Admitted, timing.FirstToken)
		}
		if gap := timing.LastToken - timing.FirstToken; record.Chunks > 1 && timing.FirstToken >= 0 && gap >= 0 {
			target.interToken.observe(int64(gap) / int64(record.Chunks-1))
		}
		if usage := record.Usage; usage != nil {
			add(&target.tokens[0], usage.InputTokens)
			add(&target.tokens[1], usage.OutputTokens)
			add(&target.tokens[2], usage.CachedTokens)
			add(&target.tokens[3], usage.ReasoningTokens)
		}
		if record.Failure != nil && record.Wait != fanout.Never {
			provider.retries[came].Add(1)
		}
		if why == fanout.Hedged {
			won := 0
			if record.Failure == nil && record.Outcome == engine.OutcomeFinished {
				won = 1
			}
			provider.hedges[won].Add(1)
		}
	}
}

// add counts tokens; a provider's nonsense must not turn a counter back.
func add(counter *atomic.Uint64, n int64) {
	if n > 0 {
		counter.Add(uint64(n))
	}
}

// class is an outcome's place in classes.
func class(outcome string) int {
	switch {
	case outcome == engine.OutcomeFinished:
		return 0
	case stopped(outcome):
		return 2
	default:
		return 1
	}
}

// target finds where a model at a provider is counted.
func (m *Metrics) target(of fanout.Target) (*target, *providerSeries) {
	provider := m.provider(of.Provider)
	if known, ok := m.targets.Load(of); ok {
		return known.(*target), provider
	}
	if provider.full.Load() {
		return provider.others, provider
	}
	m.admission.Lock()
	defer m.admission.Unlock()
	if known, ok := m.targets.Load(of); ok {
		return known.(*target), provider
	}
	if provider.models == maxModels {
		provider.full.Store(true)
		return provider.others, provider
	}
	provider.models++
	fresh := newTarget()
	m.targets.Store(of, fresh)
	return fresh, provider
}

func (m *Metrics) provider(name string) *providerSeries {
	known, ok := m.providers.Load(name)
	if !ok {
		known, _ = m.providers.LoadOrStore(name, &providerSeries{others: newTarget()})
	}
	return known.(*providerSeries)
}

// workspace finds where a workspace is counted, and counts when that is not apart.
func (m *Metrics) workspace(name string) *workspaceSeries {
	if name == "" {
		name = nobody
	}
	if known, ok := m.known.Load(name); ok {
		return known.(*workspaceSeries)
	}
	if m.workspaces == nil && !m.full.Load() || m.workspaces[name] || name == nobody {
		m.admission.Lock()
		defer m.admission.Unlock()
		if known, ok := m.known.Load(name); ok {
			return known.(*workspaceSeries)
		}
		if m.workspaces != nil || m.admitted < maxWorkspaces || name == nobody {
			if name != nobody {
				m.admitted++
			}
			fresh := &workspaceSeries{}
			m.known.Store(name, fresh)
			return fresh
		}
		m.full.Store(true)
	}
	m.folded.Add(1)
	return &m.others
}

// ServeHTTP shows the metrics.
func (m *Metrics) ServeHTTP(w http.ResponseWriter, _ *http.Request) {
	w.Header().Set("Content-Type", "text/plain; version=0.0.4; charset=utf-8")
	page := m.page()
	w.Header().Set("Content-Length", strconv.Itoa(len(page)))
	_, _ = w.Write(page) // the reader may have left
}
