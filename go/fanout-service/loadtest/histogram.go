package loadtest

import (
	"math/bits"
	"sync/atomic"
	"time"
)

// A histogram counts durations in buckets that are linear within a power of two and double from one
// power to the next, as HdrHistogram's do (hdrhistogram.org): 2,048 buckets a power keep every value
// to within 1/2,048, so that half a millisecond more can be seen in fifty.
const (
	linearBits = 11
	linear     = 1 << linearBits
	maxBits    = 42 // 2⁴² ns are 73 minutes; longer durations count as that
	buckets    = (maxBits-linearBits)*linear + linear
)

// Histogram counts durations. The zero value is ready; any number of goroutines may record.
type Histogram struct {
	counts [buckets]atomic.Int64
	sum    atomic.Int64 // nanoseconds
}

// Record counts one duration; below zero counts as zero.
func (h *Histogram) Record(d time.Duration) {
	d = min(max(d, 0), 1<<maxBits-1)
	h.counts[bucket(uint64(d))].Add(1)
	h.sum.Add(int64(d))
}

func bucket(v uint64) int {
	if v < linear {
		return int(v)
	}
	power := bits.Len64(v) - linearBits - 1
	return power*linear + int(v>>power) //nolint:gosec // below twice linear
}

// largest is the largest value a bucket counts.
func largest(bucket int) time.Duration {
	if bucket < linear {
		return time.Duration(bucket)
	}
	power := bucket/linear - 1
	return time.Duration((bucket%linear+linear+1)<<power - 1)
}

// Count is how many durations were recorded.
func (h *Histogram) Count() int64 {
	total := int64(0)
	for i := range h.counts {
		total += h.counts[i].Load()
	}
	return total
}

// Quantile is the smallest duration that at least the share q (0 to 1) of those recorded do not
// exceed, to within a bucket; 0 when nothing was recorded.
func (h *Histogram) Quantile(q float64) time.Duration {
	total := h.Count()
	if total == 0 {
		return 0
	}
	rank := max(1, int64(q*float64(total)+.999999999))
	for i := range h.counts {
		if rank -= h.counts[i].Load(); rank <= 0 {
			return largest(i)
		}
	}
	return largest(buckets - 1)
}

// Distribution is a histogram as a report has it, in milliseconds. Buckets are the non-empty ones,
// [largest value in nanoseconds, count] each, so that rounds can be added up later.
type Distribution struct {
	Count   int64      `json:"count"`
	MeanMS  float64    `json:"mean_ms"`
	MinMS   float64    `json:"min_ms"`
	P50MS   float64    `json:"p50_ms"`
	P90MS   float64    `json:"p90_ms"`
	P99MS   float64    `json:"p99_ms"`
	MaxMS   float64    `json:"max_ms"`
	Buckets [][2]int64 `json:"buckets"`
}

// Distribution summarises what was recorded so far.
func (h *Histogram) Distribution() Distribution {
	d := Distribution{
		Count: h.Count(), MinMS: ms(h.Quantile(0)), P50MS: ms(h.Quantile(.5)), P90MS: ms(h.Quantile(.9)),
		P99MS: ms(h.Quantile(.99)), MaxMS: ms(h.Quantile(1)), Buckets: [][2]int64{},
	}
	if d.Count > 0 {
		d.MeanMS = float64(h.sum.Load()) / float64(d.Count) / float64(time.Millisecond)
	}
	for i := range h.counts {
		if n := h.counts[i].Load(); n > 0 {
			d.Buckets = append(d.Buckets, [2]int64{int64(largest(i)), n})
		}
	}
	return d
}

func ms(d time.Duration) float64 { return float64(d) / float64(time.Millisecond) }
