package telemetry

import (
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promauto"

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
	Store   *cache.Store // of Cache
	Spans   *Exporter
	Log     *Writer
}

// Watch adds what the parts tell of themselves, read when somebody asks. It is to be called once.
func (m *Metrics) Watch(s Sources) {
	register := promauto.With(m.registry)
	if s.Engine != nil {
		m.registry.MustRegister(newState(s.Engine.Stats, engineNumbers))
	}
	if s.Limiter != nil {
		m.registry.MustRegister(limiterState{s.Limiter, &m.targets})
	}
	if s.Shared != nil {
		register.NewGaugeFunc(prometheus.GaugeOpts{
			Name: "rex_fanout_shared_limits_up", Help: "1 while limits are shared through Redis, 0 while this process counts alone.",
		}, func() float64 { return truth(s.Shared.Up()) })
	}
	if s.Cache != nil {
		numbers := cacheNumbers
		if s.Store != nil {
			numbers = append(numbers[:len(numbers):len(numbers)], storeNumbers...)
		}
		m.registry.MustRegister(newState(s.Cache.Stats, numbers))
	}
	if s.Spans != nil {
		register.NewCounterFunc(prometheus.CounterOpts{
			Name: "rex_fanout_spans_dropped_total", Help: "Spans that were never sent.",
		}, func() float64 { return float64(s.Spans.Dropped()) })
	}
	if s.Log != nil {
		register.NewCounterFunc(prometheus.CounterOpts{
			Name: "rex_fanout_log_lines_lost_total", Help: "Log lines dropped because nobody read the log.",
		}, func() float64 { return float64(s.Log.Lost()) })
	}
}

func truth(is bool) float64 {
	if is {
		return 1
	}
	return 0
}

const (
	gauge   = prometheus.GaugeValue
	counter = prometheus.CounterValue
)

// number is a metric that a part's statistics S hold.
type number[S any] struct {
	name, help string
	kind       prometheus.ValueType
	of         func(S) float64
}

var engineNumbers = []number[engine.Stats]{
	{"rex_fanout_in_flight_fanouts", "Fan-outs that are not over.", gauge, func(s engine.Stats) float64 { return float64(s.Fanouts) }},
	{"rex_fanout_in_flight_calls", "Calls that are not over.", gauge, func(s engine.Stats) float64 { return float64(s.Calls) }},
	{"rex_fanout_bytes_in_flight", "Requests, and text that waits for readers or is kept for followers.", gauge, func(s engine.Stats) float64 { return float64(s.Bytes) }},
}

var cacheNumbers = []number[cache.Stats]{
	{"rex_fanout_cache_bytes", "Answers in memory, in bytes.", gauge, func(s cache.Stats) float64 { return float64(s.Bytes) }},
	{"rex_fanout_cache_entries", "Answers in memory.", gauge, func(s cache.Stats) float64 { return float64(s.Entries) }},
	{"rex_fanout_cache_evicted_total", "Answers pushed out of memory by newer ones.", counter, func(s cache.Stats) float64 { return float64(s.Evicted) }},
	{"rex_fanout_cache_memory_hits_total", "Look-ups that found an answer in memory.", counter, func(s cache.Stats) float64 { return float64(s.MemoryHits) }},
	{"rex_fanout_cache_misses_total", "Look-ups that found no answer.", counter, func(s cache.Stats) float64 { return float64(s.Misses) }},
	{"rex_fanout_cache_flights", "Answers on their way that other calls may follow.", gauge, func(s cache.Stats) float64 { return float64(s.Flights) }},
	{"rex_fanout_cache_followers", "Calls that follow such an answer.", gauge, func(s cache.Stats) float64 { return float64(s.Followers) }},
	{"rex_fanout_cache_flight_bytes", "Text of answers on their way, kept for those who follow.", gauge, func(s cache.Stats) float64 { return float64(s.FlightBytes) }},
}

// storeNumbers are shown where answers are kept in Redis too.
var storeNumbers = []number[cache.Stats]{
	{"rex_fanout_cache_store_up", "1 when Redis answered the cache the last time it was asked.", gauge, func(s cache.Stats) float64 { return truth(s.StoreUp) }},
	{"rex_fanout_cache_store_hits_total", "Look-ups that found an answer in Redis.", counter, func(s cache.Stats) float64 { return float64(s.StoreHits) }},
	{"rex_fanout_cache_store_writes_total", "Answers written to Redis.", counter, func(s cache.Stats) float64 { return float64(s.StoreWrites) }},
	{"rex_fanout_cache_store_errors_total", "Reads and writes of Redis that failed or took too long.", counter, func(s cache.Stats) float64 { return float64(s.StoreErrors) }},
	{"rex_fanout_cache_store_dropped_total", "Answers not written to Redis: too large, too many waiting, or it is down.", counter, func(s cache.Stats) float64 { return float64(s.StoreDropped) }},
	{"rex_fanout_cache_store_corrupt_total", "Values in Redis that were no answers of ours.", counter, func(s cache.Stats) float64 { return float64(s.StoreCorrupt) }},
}

// state shows a part's statistics, read once for all its metrics.
type state[S any] struct {
	read    func() S
	numbers []number[S]
	descs   []*prometheus.Desc
}

func newState[S any](read func() S, numbers []number[S]) *state[S] {
	s := &state[S]{read: read, numbers: numbers}
	for _, each := range numbers {
		s.descs = append(s.descs, prometheus.NewDesc(each.name, each.help, nil, nil))
	}
	return s
}

// Describe implements prometheus.Collector.
func (s *state[S]) Describe(descs chan<- *prometheus.Desc) {
	for _, desc := range s.descs {
		descs <- desc
	}
}

// Collect implements prometheus.Collector.
func (s *state[S]) Collect(metrics chan<- prometheus.Metric) {
	now := s.read()
	for i, each := range s.numbers {
		metrics <- prometheus.MustNewConstMetric(s.descs[i], each.kind, each.of(now))
	}
}

// breakers number the states of a circuit breaker.
var breakers = map[string]float64{"closed": 0, "half_open": 1, "open": 2}

// limiterNumbers are shown of every model at every key, as far as they are known.
var limiterNumbers = []struct {
	desc *prometheus.Desc
	sums bool // whether a sum over models means something
	of   func(limit.TargetState) (value float64, known bool)
}{
	{limiterDesc("rex_fanout_limiter_in_flight", "Attempts that were admitted and are not over."), true,
		func(s limit.TargetState) (float64, bool) { return float64(s.InFlight), true }},
	{limiterDesc("rex_fanout_limiter_limit", "Attempts that may be in flight at once, as learned."), false,
		func(s limit.TargetState) (float64, bool) { return float64(s.Limit), s.Limit > 0 }},
	{limiterDesc("rex_fanout_limiter_queued", "Attempts that wait for their turn."), true,
		func(s limit.TargetState) (float64, bool) { return float64(s.Queued), true }},
	{limiterDesc("rex_fanout_limiter_not_before_seconds", "Until something may be sent again, as the provider asked."), false,
		func(s limit.TargetState) (float64, bool) {
			left := time.Until(s.NotBefore)
			return left.Seconds(), left > 0
		}},
	{limiterDesc("rex_fanout_key_refused", "1 while the provider refuses the key for the model and it is left alone but for probes; else 0."), true,
		func(s limit.TargetState) (float64, bool) { return truth(s.Refused), true }},
	{limiterDesc("rex_fanout_breaker_state", "The circuit breaker: 0 closed, 1 half open, 2 open."), false,
		func(s limit.TargetState) (float64, bool) { n, ok := breakers[s.Breaker]; return n, ok }},
}

func limiterDesc(name, help string) *prometheus.Desc {
	return prometheus.NewDesc(name, help, []string{"provider", "key", "model"}, nil)
}

// limiterState shows the limiter. Models without a label of their own are told together, where a
// sum means something.
type limiterState struct {
	limiter *limit.Limiter
	shown   interface{ Load(any) (any, bool) } // by fanout.Target, the models with a label of their own
}

// Describe implements prometheus.Collector.
func (l limiterState) Describe(descs chan<- *prometheus.Desc) {
	for _, each := range limiterNumbers {
		descs <- each.desc
	}
}

// Collect implements prometheus.Collector.
func (l limiterState) Collect(metrics chan<- prometheus.Metric) {
	targets := l.limiter.Targets()
	for _, each := range limiterNumbers {
		folded := map[[2]string]float64{}
		for _, target := range targets {
			n, known := each.of(target)
			_, shown := l.shown.Load(fanout.Target{Provider: target.Provider, Model: target.Model})
			switch {
			case !known:
			case target.Model == "" || shown && target.Model != other:
				metrics <- prometheus.MustNewConstMetric(each.desc, gauge, n, target.Provider, target.KeyID, label(target.Model))
			case each.sums:
				folded[[2]string{target.Provider, target.KeyID}] += n
			}
		}
		for of, n := range folded {
			metrics <- prometheus.MustNewConstMetric(each.desc, gauge, n, of[0], of[1], other)
		}
	}
}
