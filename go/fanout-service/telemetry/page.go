package telemetry

import (
	"sync/atomic"

	fanout "rex/fanout-service"
)

// page writes all metrics. Samples of nothing are left out, but for those without labels.
func (m *Metrics) page() []byte {
	e := &exposition{page: make([]byte, 0, 64<<10)}
	m.targetPages(e)
	m.providerPages(e)

	e.metric("rex_fanout_fanouts_total", "counter", "Fan-outs that are over, by whether their reader saw the end.", "outcome")
	closed(e, m.fanouts[:], ends)
	e.metric("rex_fanout_width", "histogram", "Calls of a fan-out.")
	e.histogram(m.width)
	e.metric("rex_fanout_cache_total", "counter", "Calls, by what the cache did for them.", "result")
	closed(e, m.cache[:], caches)
	m.workspacePages(e)
	for _, write := range m.gauges {
		write(e)
	}
	return e.page
}

// closed writes the counters of a closed set of labels, behind the given values.
func closed(e *exposition, counters []atomic.Uint64, names []string, values ...string) {
	for i := range counters {
		if n := counters[i].Load(); n > 0 {
			e.sample(float64(n), append(values[:len(values):len(values)], names[i])...)
		}
	}
}

func (m *Metrics) targetPages(e *exposition) {
	each := func(visit func(t *target, provider, model string)) {
		m.targets.Range(func(key, value any) bool {
			of := key.(fanout.Target)
			visit(value.(*target), of.Provider, of.Model)
			return true
		})
		m.providers.Range(func(key, value any) bool {
			visit(value.(*providerSeries).others, key.(string), other)
			return true
		})
	}
	e.metric("rex_fanout_calls_total", "counter", "Calls that are over.", "provider", "model", "outcome")
	each(func(t *target, provider, model string) { closed(e, t.calls[:], outcomes[:], provider, model) })
	e.metric("rex_fanout_attempts_total", "counter", "Attempts that are over, by why they were made.", "provider", "model", "outcome", "reason")
	each(func(t *target, provider, model string) {
		for i := range t.attempts {
			closed(e, t.attempts[i][:], reasons, provider, model, outcomes[i])
		}
	})
	e.metric("rex_fanout_tokens_total", "counter", "Tokens of all attempts, as providers counted them or else estimated.", "provider", "model", "direction")
	each(func(t *target, provider, model string) { closed(e, t.tokens[:], directions, provider, model) })
	for _, row := range []struct {
		name, help string
		of         func(*target) *histogram
	}{
		{"rex_fanout_call_seconds", "From a call's begin to its end, all attempts and waits.", func(t *target) *histogram { return t.call }},
		{"rex_fanout_queue_seconds", "How long attempts waited for their turn.", func(t *target) *histogram { return t.queue }},
		{"rex_fanout_connect_seconds", "From an attempt's turn to a connection.", func(t *target) *histogram { return t.connect }},
		{"rex_fanout_first_token_seconds", "From an attempt's turn to its first text.", func(t *target) *histogram { return t.firstToken }},
		{"rex_fanout_inter_token_seconds", "An attempt's mean time between two pieces of text.", func(t *target) *histogram { return t.interToken }},
	} {
		e.metric(row.name, "histogram", row.help, "provider", "model")
		each(func(t *target, provider, model string) { e.histogram(row.of(t), provider, model) })
	}
}

func (m *Metrics) providerPages(e *exposition) {
	each := func(visit func(p *providerSeries, provider string)) {
		m.providers.Range(func(key, value any) bool {
			visit(value.(*providerSeries), key.(string))
			return true
		})
	}
	e.metric("rex_fanout_retries_total", "counter", "Failed attempts that another followed, by their kind.", "provider", "kind")
	each(func(p *providerSeries, provider string) { closed(e, p.retries[:], outcomes[:], provider) })
	e.metric("rex_fanout_hedges_total", "counter", "Hedges that are over, by whether they became the answer.", "provider", "won")
	each(func(p *providerSeries, provider string) { closed(e, p.hedges[:], []string{"false", "true"}, provider) })
}

func (m *Metrics) workspacePages(e *exposition) {
	each := func(visit func(w *workspaceSeries, name string)) {
		m.known.Range(func(key, value any) bool {
			visit(value.(*workspaceSeries), key.(string))
			return true
		})
		visit(&m.others, other)
	}
	e.metric("rex_fanout_workspace_calls_total", "counter", "Calls of a workspace.", "workspace", "outcome_class")
	each(func(w *workspaceSeries, name string) { closed(e, w.calls[:], classes, name) })
	e.metric("rex_fanout_workspace_tokens_total", "counter", "Tokens of a workspace's calls, without cached answers.", "workspace", "direction")
	each(func(w *workspaceSeries, name string) { closed(e, w.tokens[:], directions, name) })
	e.metric("rex_fanout_workspace_folded_total", "counter", "Calls counted under the workspace \"other\": there are more than have labels.")
	e.sample(float64(m.folded.Load()))
}
