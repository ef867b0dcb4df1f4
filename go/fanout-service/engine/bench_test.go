package engine_test

import (
	"context"
	"fmt"
	"syscall"
	"testing"
	"time"

	fanout "rex/fanout-service"
	"rex/fanout-service/limit"
)

// processor is the CPU time that this process has used.
func processor() time.Duration {
	var usage syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &usage); err != nil {
		return 0
	}
	return time.Duration(usage.Utime.Nano() + usage.Stime.Nano())
}

// width is the number of calls of a fan-out.
const width = 10

// benchmark runs fan-outs, with limits and a cache but no observer, and reports CPU time for each
// unit of work: units is how many of them a call holds.
func benchmark(b *testing.B, s script, units int, unit string, change func(*fanout.Request)) {
	e, _ := build(s, parts{cached: true, limits: limit.Config{Default: limit.Rule{MaxConcurrent: 100}}, quiet: true})
	b.ReportAllocs()
	b.ResetTimer()
	before := processor()
	for n := range b.N {
		r := request(fmt.Sprintf("r%d", n), width)
		r.Coalesce = time.Millisecond
		if change != nil {
			change(&r)
		}
		run, err := e.Start(b.Context(), r, time.Now())
		if err != nil {
			b.Fatal(err)
		}
		if err := run.Read(b.Context(), func([]fanout.Event, *fanout.End) error { return nil }); err != nil {
			b.Fatal(err)
		}
	}
	b.ReportMetric(float64((processor()-before).Nanoseconds())/float64(b.N*width*units), "cpu-ns/"+unit)
}

// say is a provider that gives its answer in so many pieces.
func say(pieces int) script {
	text := []byte(" token")
	return func(_ context.Context, _ *fanout.Call, _ fanout.Key, sink fanout.Sink) (fanout.Answer, error) {
		sink.Connected()
		for range pieces {
			sink.Progress(true)
			if err := sink.Text(text, 6); err != nil {
				return fanout.Answer{}, err
			}
		}
		return done, nil
	}
}

func BenchmarkCall(b *testing.B) { benchmark(b, say(1), 1, "call", nil) }

func BenchmarkChunk(b *testing.B) { benchmark(b, say(2000), 2000, "chunk", nil) }

// Calls that use the cache, each with a key that nobody asked for before, or all with the same.
func BenchmarkSharedCall(b *testing.B) { benchmark(b, say(1), 1, "call", fresh) }

func BenchmarkSharedChunk(b *testing.B) { benchmark(b, say(2000), 2000, "chunk", fresh) }

func BenchmarkKnownAnswer(b *testing.B) { benchmark(b, say(1), 1, "call", cached) }

func fresh(r *fanout.Request) {
	for i := range r.Calls {
		r.Calls[i].Cache = &fanout.CacheUse{Key: r.ID + r.Calls[i].ID, Read: true, Write: true}
	}
}
