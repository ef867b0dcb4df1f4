package loadtest_test

import (
	"math/rand/v2"
	"slices"
	"testing"
	"time"

	"rex/fanout-service/loadtest"
)

// recorded is a histogram of n durations of every size, and the durations in order.
func recorded(seed uint64, n int) (*loadtest.Histogram, []time.Duration) {
	random := rand.New(rand.NewPCG(seed, seed))
	h, all := &loadtest.Histogram{}, make([]time.Duration, n)
	for i := range all {
		all[i] = time.Duration(random.Int64N(1 << (1 + random.IntN(40))))
		h.Record(all[i])
	}
	slices.Sort(all)
	return h, all
}

func TestAQuantileIsThatOfTheDurationsToWithinABucket(t *testing.T) {
	for seed := range uint64(20) {
		h, all := recorded(seed, 1+int(seed)*37)
		for _, q := range []float64{0, .01, .25, .5, .9, .99, 1} {
			at := max(0, int(q*float64(len(all))+.999999999)-1)
			got, want := h.Quantile(q), all[at]
			if got < want || float64(got-want) > float64(want)/2048+1 {
				t.Errorf("seed %d, %d durations: the %g quantile is %v, want %v", seed, len(all), q, got, want)
			}
		}
	}
}

func TestQuantilesNeverFallAndEveryDurationIsCounted(t *testing.T) {
	h, all := recorded(7, 5000)
	last := time.Duration(0)
	for q := 0.0; q <= 1; q += .001 {
		if got := h.Quantile(q); got < last {
			t.Fatalf("quantile %g is %v, below %v", q, got, last)
		} else {
			last = got
		}
	}
	d := h.Distribution()
	total := int64(0)
	for _, bucket := range d.Buckets {
		total += bucket[1]
	}
	if h.Count() != int64(len(all)) || d.Count != h.Count() || total != h.Count() {
		t.Errorf("%d recorded, %d counted, %d told, %d in buckets", len(all), h.Count(), d.Count, total)
	}
}

func TestADurationOutOfRangeCountsAsTheNearestInIt(t *testing.T) {
	for _, c := range []struct{ in, least, most time.Duration }{
		{-time.Second, 0, 0},
		{0, 0, 0},
		{1, 1, 1},
		{2047, 2047, 2047},
		{2048, 2048, 2049},
		{1 << 41, 1 << 41, 1<<41 + 1<<30},
		{240 * time.Hour, time.Hour, 74 * time.Minute},
	} {
		var h loadtest.Histogram
		h.Record(c.in)
		if got := h.Quantile(.5); got < c.least || got > c.most {
			t.Errorf("%v became %v", c.in, got)
		}
	}
	if got := (&loadtest.Histogram{}).Distribution(); got.Count != 0 || got.P99MS != 0 || len(got.Buckets) != 0 {
		t.Errorf("nothing recorded: %+v", got)
	}
}
