package telemetry

import (
	"math"
	"slices"
	"strconv"
	"strings"
	"sync/atomic"
	"time"
)

// histogram counts durations (or, with unit 1, plain numbers) by upper bounds. It has no lock:
// an observation is a search and two atomic additions.
type histogram struct {
	bounds []float64 // upper bounds, in units
	counts []atomic.Uint64
	sum    atomic.Int64
	unit   float64 // what observe's numbers are divided by
}

func newHistogram(bounds []float64, unit float64) *histogram {
	return &histogram{bounds: bounds, counts: make([]atomic.Uint64, len(bounds)+1), unit: unit}
}

func (h *histogram) observe(n int64) {
	value := float64(n) / h.unit
	at := 0
	for at < len(h.bounds) && value > h.bounds[at] {
		at++
	}
	h.counts[at].Add(1)
	h.sum.Add(n)
}

// observeSince takes the time between two moments, when both came.
func (h *histogram) observeSince(from, to time.Duration) {
	if from >= 0 && to >= from {
		h.observe(int64(to - from))
	}
}

// exposition is a page of metrics in Prometheus' text format, version 0.0.4.
type exposition struct {
	page   []byte
	name   string
	labels []string
}

// metric begins a metric; the samples that follow are its own.
func (e *exposition) metric(name, kind, help string, labels ...string) {
	e.name, e.labels = name, labels
	e.page = append(e.page, "# HELP "+name+" "+help+"\n# TYPE "+name+" "+kind+"\n"...)
}

// sample adds a line; values are those of the metric's labels, in order.
func (e *exposition) sample(value float64, values ...string) { e.line("", value, values, "") }

// histogram adds the lines of a histogram, none when it is empty.
func (e *exposition) histogram(h *histogram, values ...string) {
	// The count is the sum of the buckets as read here: while others add, it must not differ.
	total := uint64(0)
	counts := make([]uint64, len(h.counts))
	for i := range h.counts {
		counts[i] = h.counts[i].Load()
		total += counts[i]
	}
	if total == 0 {
		return
	}
	below := uint64(0)
	for i, bound := range h.bounds {
		below += counts[i]
		e.line("_bucket", float64(below), values, number(bound))
	}
	e.line("_bucket", float64(total), values, "+Inf")
	e.line("_sum", float64(h.sum.Load())/h.unit, values, "")
	e.line("_count", float64(total), values, "")
}

func (e *exposition) line(suffix string, value float64, values []string, bound string) {
	e.page = append(append(e.page, e.name...), suffix...)
	separator := byte('{')
	add := func(label, text string) {
		e.page = append(append(append(e.page, separator), label...), `="`...)
		e.page = append(append(e.page, escaper.Replace(text)...), '"')
		separator = ','
	}
	for i, label := range e.labels {
		add(label, values[i])
	}
	if bound != "" {
		add("le", bound)
	}
	if separator == ',' {
		e.page = append(e.page, '}')
	}
	e.page = append(append(append(e.page, ' '), number(value)...), '\n')
}

var escaper = strings.NewReplacer(`\`, `\\`, `"`, `\"`, "\n", `\n`)

func number(value float64) string {
	if math.IsInf(value, 1) {
		return "+Inf"
	}
	return strconv.FormatFloat(value, 'g', -1, 64)
}

// index is the place of a name in a closed set, that of the last when it is not there.
func index(names []string, name string) int {
	if at := slices.Index(names, name); at >= 0 {
		return at
	}
	return len(names) - 1
}
