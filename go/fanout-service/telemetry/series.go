package telemetry

import (
	"slices"
	"strings"
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promauto"
)

var (
	callBounds  = []float64{.01, .025, .05, .1, .25, .5, 1, 2.5, 5, 10, 20, 30, 60, 120, 300}
	tokenBounds = []float64{.01, .025, .05, .1, .25, .5, 1, 2.5, 5, 10, 20, 30, 60}
	gapBounds   = []float64{.001, .0025, .005, .01, .025, .05, .1, .25, .5, 1, 2.5, 5}
	waitBounds  = []float64{.001, .005, .01, .05, .1, .5, 1, 2.5, 5, 10, 30, 60, 120}
	dialBounds  = []float64{.001, .0025, .005, .01, .025, .05, .1, .25, .5, 1, 2.5}
	widthBounds = []float64{1, 2, 3, 4, 6, 8, 12, 16, 32, 64, 128, 256, 512}
)

// families are the metrics that are counted, of all labels.
type families struct {
	calls, attempts, tokens, retries, hedges, fanouts, cache *prometheus.CounterVec
	workspaceCalls, workspaceTokens                          *prometheus.CounterVec
	call, queue, connect, firstToken, interToken             *prometheus.HistogramVec

	width  prometheus.Histogram
	folded prometheus.Counter
}

func newFamilies(registry prometheus.Registerer) families {
	register := promauto.With(registry)
	counter := func(name, help string, labels ...string) *prometheus.CounterVec {
		return register.NewCounterVec(prometheus.CounterOpts{Name: name, Help: help}, labels)
	}
	seconds := func(name, help string, bounds []float64) *prometheus.HistogramVec {
		return register.NewHistogramVec(prometheus.HistogramOpts{Name: name, Help: help, Buckets: bounds}, []string{"provider", "model"})
	}
	return families{
		calls:      counter("rex_fanout_calls_total", "Calls that are over.", "provider", "model", "outcome"),
		attempts:   counter("rex_fanout_attempts_total", "Attempts that are over, by why they were made.", "provider", "model", "outcome", "reason"),
		tokens:     counter("rex_fanout_tokens_total", "Tokens of all attempts, as providers counted them or else estimated.", "provider", "model", "direction"),
		call:       seconds("rex_fanout_call_seconds", "From a call's begin to its end, all attempts and waits.", callBounds),
		queue:      seconds("rex_fanout_queue_seconds", "How long attempts waited for their turn.", waitBounds),
		connect:    seconds("rex_fanout_connect_seconds", "From an attempt's turn to a connection.", dialBounds),
		firstToken: seconds("rex_fanout_first_token_seconds", "From an attempt's turn to its first text.", tokenBounds),
		interToken: seconds("rex_fanout_inter_token_seconds", "An attempt's mean time between two pieces of text.", gapBounds),
		retries:    counter("rex_fanout_retries_total", "Failed attempts that another followed, by their kind.", "provider", "kind"),
		hedges:     counter("rex_fanout_hedges_total", "Hedges that are over, by whether they became the answer.", "provider", "won"),
		fanouts:    counter("rex_fanout_fanouts_total", "Fan-outs that are over, by whether their reader saw the end.", "outcome"),
		width: register.NewHistogram(prometheus.HistogramOpts{
			Name: "rex_fanout_width", Help: "Calls of a fan-out.", Buckets: widthBounds,
		}),
		cache:           counter("rex_fanout_cache_total", "Calls, by what the cache did for them.", "result"),
		workspaceCalls:  counter("rex_fanout_workspace_calls_total", "Calls of a workspace.", "workspace", "outcome_class"),
		workspaceTokens: counter("rex_fanout_workspace_tokens_total", "Tokens of all attempts for a workspace; cached answers cost none.", "workspace", "direction"),
		folded: register.NewCounter(prometheus.CounterOpts{
			Name: "rex_fanout_workspace_folded_total",
			Help: `Calls counted under the workspace "other": there are more than have labels.`,
		}),
	}
}

// target is what is counted of a model at a provider.
type target struct {
	calls, attempts, tokens                      counters
	call, queue, connect, firstToken, interToken prometheus.Observer
}

func (f *families) target(provider, model string) *target {
	model = label(model)
	return &target{
		calls:      children(f.calls, byOutcome, provider, model),
		attempts:   children(f.attempts, byAttempt, provider, model),
		tokens:     children(f.tokens, byDirection, provider, model),
		call:       f.call.WithLabelValues(provider, model),
		queue:      f.queue.WithLabelValues(provider, model),
		connect:    f.connect.WithLabelValues(provider, model),
		firstToken: f.firstToken.WithLabelValues(provider, model),
		interToken: f.interToken.WithLabelValues(provider, model),
	}
}

// providerSeries is what is counted of a provider alone, and how many of its models have labels.
type providerSeries struct {
	retries, hedges counters

	models int
	others atomic.Pointer[target] // where further models are counted, once there are too many
}

func (f *families) provider(name string) *providerSeries {
	return &providerSeries{retries: children(f.retries, byOutcome, name), hedges: children(f.hedges, byWon, name)}
}

// workspaceSeries is what is counted of a workspace.
type workspaceSeries struct{ calls, tokens counters }

func (f *families) workspace(name string) *workspaceSeries {
	name = label(name)
	return &workspaceSeries{
		calls:  children(f.workspaceCalls, byClass, name),
		tokens: children(f.workspaceTokens, byDirection, name),
	}
}

// label is a name as a label can have it: Prometheus' client panics at what is not UTF-8.
func label(name string) string { return strings.ToValidUTF8(name, "\uFFFD") }

// counters are the children of a counter that share their first labels. A child is looked up when
// it first counts: after that counting hashes no labels and takes no lock, and what never came has
// no series.
type counters struct {
	of    *prometheus.CounterVec
	first []string
	rest  [][]string // the last labels of each child
	found []atomic.Pointer[prometheus.Counter]
}

func children(of *prometheus.CounterVec, rest [][]string, first ...string) counters {
	return counters{of, first, rest, make([]atomic.Pointer[prometheus.Counter], len(rest))}
}

// add counts n; a provider's nonsense must not turn a counter back.
func (c *counters) add(child int, n int64) {
	if n <= 0 {
		return
	}
	counter := c.found[child].Load()
	if counter == nil {
		fresh := c.of.WithLabelValues(slices.Concat(c.first, c.rest[child])...)
		counter = &fresh
		c.found[child].Store(counter)
	}
	(*counter).Add(float64(n))
}

// each is every value of a label, as the last labels of children.
func each(values []string) [][]string {
	var rows [][]string
	for _, value := range values {
		rows = append(rows, []string{value})
	}
	return rows
}

// pairs are all pairs of two labels' values: that of the values at i and j is at i*len(second)+j.
func pairs(first, second []string) [][]string {
	var rows [][]string
	for _, one := range first {
		for _, two := range second {
			rows = append(rows, []string{one, two})
		}
	}
	return rows
}

// index is the place of a name in a closed set, that of the last when it is not there.
func index(names []string, name string) int {
	if at := slices.Index(names, name); at >= 0 {
		return at
	}
	return len(names) - 1
}

// observeSince takes the time between two moments, when both came.
func observeSince(histogram prometheus.Observer, from, to time.Duration) {
	if from >= 0 && to >= from {
		histogram.Observe((to - from).Seconds())
	}
}
