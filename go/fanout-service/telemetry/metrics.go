package telemetry

import (
	"context"
	"net/http"
	"sync"
	"sync/atomic"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
	"github.com/prometheus/client_golang/prometheus/promhttp"

	fanout "rex/fanout-service"
	"rex/fanout-service/engine"
)

// Bounds of the labels that clients choose. What comes after them is told as "other".
const (
	maxModels     = 200 // of a provider
	maxWorkspaces = 100
)

const (
	other  = "other"
	nobody = "none" // the workspace of requests that name none
)

var (
	reasons    = []string{string(fanout.First), string(fanout.Again), string(fanout.Restart), string(fanout.Fallback), string(fanout.Hedged), other}
	caches     = []string{string(engine.CacheBypass), string(engine.CacheMiss), string(engine.CacheHit), string(engine.CacheShared), other}
	ends       = []string{engine.OutcomeDone, engine.OutcomeReaderGone, engine.OutcomeSlowReader, other}
	directions = []string{"input", "output", "cached", "reasoning"}
	classes    = []string{"finished", "failed", "stopped"}
)

// The last labels of counters, in the order that counting knows them by.
var (
	byOutcome   = each(outcomes[:])
	byAttempt   = pairs(outcomes[:], reasons)
	byDirection = each(directions)
	byClass     = each(classes)
	byWon       = each([]string{"false", "true"})
)

// Metrics counts what it observes and is the handler that shows it to Prometheus. The numbers of a
// call are found by one look-up of its provider and model: no lock and no hashing of labels. Every
// label has a closed or bounded set of values; provider is bounded by what is configured, since
// nothing else can be asked.
type Metrics struct {
	http.Handler

	registry  *prometheus.Registry
	families  families
	targets   sync.Map // fanout.Target → *target
	providers sync.Map // name → *providerSeries
	fanouts   counters
	cache     counters
	admission sync.Mutex

	workspaces map[string]bool // the operator's list; nil: the first that come
	known      sync.Map        // workspace → *workspaceSeries
	full       atomic.Bool     // maxWorkspaces are known
	admitted   int
	others     *workspaceSeries
}

// NewMetrics returns Metrics. Workspaces are those that get labels of their own; when there are
// none, the first hundred that come do.
func NewMetrics(workspaces []string) *Metrics {
	registry := prometheus.NewRegistry()
	registry.MustRegister(collectors.NewGoCollector(), collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}))
	m := &Metrics{registry: registry, families: newFamilies(registry)}
	m.Handler = promhttp.HandlerFor(registry, promhttp.HandlerOpts{
		Registry: registry, // for the count of scrapes that went wrong
		// What can be told is told: one part's fault must not hide the others.
		ErrorHandling:     promhttp.ContinueOnError,
		EnableOpenMetrics: true,
	})
	m.fanouts = children(m.families.fanouts, each(ends))
	m.cache = children(m.families.cache, each(caches))
	m.others = m.families.workspace(other)
	if len(workspaces) > 0 {
		m.workspaces = map[string]bool{}
		for _, name := range workspaces {
			m.workspaces[name] = true
		}
	}
	return m
}

// Fanout implements engine.Observer.
func (m *Metrics) Fanout(ctx context.Context, request *fanout.Request) (context.Context, func(*engine.FanoutRecord)) {
	m.families.width.Observe(float64(len(request.Calls)))
	return ctx, m.fanoutEnded
}

func (m *Metrics) fanoutEnded(record *engine.FanoutRecord) {
	m.fanouts.add(index(ends, record.Outcome), 1)
}

// Call implements engine.Observer.
func (m *Metrics) Call(ctx context.Context, request *fanout.Request, _ *fanout.Call) (context.Context, func(*engine.CallRecord)) {
	return ctx, func(record *engine.CallRecord) {
		target, _ := m.target(record.Target)
		target.calls.add(index(outcomes[:], record.Outcome), 1)
		target.call.Observe(record.Elapsed.Seconds())
		m.cache.add(index(caches, string(record.Cache)), 1)
		series := m.workspace(request.Workspace)
		series.calls.add(class(record.Outcome), 1)
		if series == m.others {
			m.families.folded.Inc()
		}
	}
}

// Attempt implements engine.Observer.
func (m *Metrics) Attempt(ctx context.Context, request *fanout.Request, _ *fanout.Call, attempt *engine.Attempt) (context.Context, func(*engine.AttemptRecord)) {
	target, provider := m.target(attempt.Target)
	why := attempt.Reason
	return ctx, func(record *engine.AttemptRecord) {
		came := index(outcomes[:], record.Outcome)
		target.attempts.add(came*len(reasons)+index(reasons, string(why)), 1)
		timing := &record.Timing
		observeSince(target.queue, timing.Queued, timing.Admitted)
		observeSince(target.connect, timing.Admitted, timing.Connect)
		if timing.Admitted >= 0 {
			observeSince(target.firstToken, timing.Admitted, timing.FirstToken)
		}
		if gap := timing.LastToken - timing.FirstToken; record.Chunks > 1 && timing.FirstToken >= 0 && gap >= 0 {
			target.interToken.Observe(gap.Seconds() / float64(record.Chunks-1))
		}
		if usage := record.Usage; usage != nil {
			target.tokens.add(0, usage.InputTokens)
			target.tokens.add(1, usage.OutputTokens)
			target.tokens.add(2, usage.CachedTokens)
			target.tokens.add(3, usage.ReasoningTokens)
			// Those of every attempt: what broke off and what lost a race was paid for too.
			series := m.workspace(request.Workspace)
			series.tokens.add(0, usage.InputTokens)
			series.tokens.add(1, usage.OutputTokens)
		}
		if record.Failure != nil && record.Wait != fanout.Never {
			provider.retries.add(came, 1)
		}
		if why == fanout.Hedged {
			won := 0
			if record.Failure == nil && record.Outcome == engine.OutcomeFinished {
				won = 1
			}
			provider.hedges.add(won, 1)
		}
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
	if others := provider.others.Load(); others != nil {
		return others, provider
	}
	m.admission.Lock()
	defer m.admission.Unlock()
	if known, ok := m.targets.Load(of); ok {
		return known.(*target), provider
	}
	if provider.models == maxModels {
		others := m.families.target(of.Provider, other)
		provider.others.Store(others)
		return others, provider
	}
	provider.models++
	fresh := m.families.target(of.Provider, of.Model)
	m.targets.Store(of, fresh)
	return fresh, provider
}

func (m *Metrics) provider(name string) *providerSeries {
	known, ok := m.providers.Load(name)
	if !ok {
		known, _ = m.providers.LoadOrStore(name, m.families.provider(name))
	}
	return known.(*providerSeries)
}

// workspace finds where a workspace is counted: with the others when it has no label of its own.
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
			fresh := m.families.workspace(name)
			m.known.Store(name, fresh)
			return fresh
		}
		m.full.Store(true)
	}
	return m.others
}
