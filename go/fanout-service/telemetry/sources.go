package telemetry

import (
	"time"

	fanout "rex/fanout-service"
	"rex/fanout-service/cache"
	"rex/fanout-service/engine"
	"rex/fanout-service/limit"
)

// Sources are the parts whose state metrics show; those that are nil are left out.
type Sources struct {
	Engine  *engine.Engine
	Limiter *limit.Limiter
	Shared  *limit.Shared
	Cache   *cache.Cache
	Spans   *Exporter
	Log     *Writer
}

// Watch adds what the parts tell of themselves, read when somebody asks.
func (m *Metrics) Watch(s Sources) {
	if s.Engine != nil {
		m.watchEngine(s.Engine)
	}
	if s.Limiter != nil {
		m.watchLimiter(s.Limiter)
	}
	if s.Shared != nil {
		m.gauge("rex_fanout_shared_limits_up", "1 while limits are shared through Redis, 0 while this process counts alone.",
			func() float64 { return truth(s.Shared.Up()) })
	}
	if s.Cache != nil {
		m.watchCache(s.Cache)
	}
	if s.Spans != nil {
		m.Counter("rex_fanout_spans_dropped_total", "Spans that were never sent.", func() float64 { return float64(s.Spans.Dropped()) })
	}
	if s.Log != nil {
		m.Counter("rex_fanout_log_lines_lost_total", "Log lines dropped because nobody read the log.", func() float64 { return float64(s.Log.Lost()) })
	}
}

func (m *Metrics) gauge(name, help string, read func() float64) {
	m.Gauge(name, help, nil, func(emit func(float64, ...string)) { emit(read()) })
}

func truth(is bool) float64 {
	if is {
		return 1
	}
	return 0
}

func (m *Metrics) watchEngine(e *engine.Engine) {
	m.gauge("rex_fanout_in_flight_fanouts", "Fan-outs that are not over.", func() float64 { return float64(e.Stats().Fanouts) })
	m.gauge("rex_fanout_in_flight_calls", "Calls that are not over.", func() float64 { return float64(e.Stats().Calls) })
	m.gauge("rex_fanout_bytes_in_flight", "Text that waits for readers, or is kept for followers.", func() float64 { return float64(e.Stats().Bytes) })
}

func (m *Metrics) watchCache(c *cache.Cache) {
	m.gauge("rex_fanout_cache_bytes", "Answers in memory, in bytes.", func() float64 { return float64(c.Stats().Bytes) })
	m.gauge("rex_fanout_cache_entries", "Answers in memory.", func() float64 { return float64(c.Stats().Entries) })
	m.Counter("rex_fanout_cache_evicted_total", "Answers pushed out of memory by newer ones.", func() float64 { return float64(c.Stats().Evicted) })
	m.Counter("rex_fanout_cache_store_errors_total", "Reads and writes of Redis that failed or took too long.", func() float64 { return float64(c.Stats().StoreErrors) })
}

// breakers number the states of a circuit breaker.
var breakers = map[string]float64{"closed": 0, "half_open": 1, "open": 2}

// watchLimiter shows every model at every key. Models without a label of their own are summed up
// where sums mean something.
func (m *Metrics) watchLimiter(l *limit.Limiter) {
	labels := []string{"provider", "key", "model"}
	show := func(name, help string, sums bool, value func(limit.TargetState) (float64, bool)) {
		m.Gauge(name, help, labels, func(emit func(float64, ...string)) {
			folded := map[[2]string]float64{}
			for _, state := range l.Targets() {
				n, known := value(state)
				switch _, shown := m.targets.Load(fanout.Target{Provider: state.Provider, Model: state.Model}); {
				case !known:
				case shown || state.Model == "":
					emit(n, state.Provider, state.KeyID, state.Model)
				case sums:
					folded[[2]string{state.Provider, state.KeyID}] += n
				}
			}
			for of, n := range folded {
				emit(n, of[0], of[1], other)
			}
		})
	}
	show("rex_fanout_limiter_in_flight", "Attempts that were admitted and are not over.", true,
		func(s limit.TargetState) (float64, bool) { return float64(s.InFlight), true })
	show("rex_fanout_limiter_limit", "Attempts that may be in flight at once, as learned.", false,
		func(s limit.TargetState) (float64, bool) { return float64(s.Limit), s.Limit > 0 })
	show("rex_fanout_limiter_queued", "Attempts that wait for their turn.", true,
		func(s limit.TargetState) (float64, bool) { return float64(s.Queued), true })
	show("rex_fanout_limiter_not_before_seconds", "Until something may be sent again, as the provider asked.", false,
		func(s limit.TargetState) (float64, bool) {
			left := time.Until(s.NotBefore)
			return left.Seconds(), left > 0
		})
	show("rex_fanout_breaker_state", "The circuit breaker: 0 closed, 1 half open, 2 open.", false,
		func(s limit.TargetState) (float64, bool) { n, ok := breakers[s.Breaker]; return n, ok })
}
