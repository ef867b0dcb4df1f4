package limit

import (
	"fmt"
	"testing"
	"time"

	fanout "rex/fanout-service"
	"rex/fanout-service/internal/redistest"

	"github.com/redis/go-redis/v9"
)

func benchmark(b *testing.B, l *Limiter, ask Ask) {
	b.ReportAllocs()
	for b.Loop() {
		p, err := l.Admit(b.Context(), ask)
		if err != nil {
			b.Fatal(err)
		}
		p.Alive()
		p.Done(Outcome{Tokens: 90})
	}
}

func BenchmarkACallNobodyContends(b *testing.B) {
	ask := askFor("a")
	ask.Deadline, ask.Tokens = time.Now().Add(time.Hour), 100
	benchmark(b, New(Config{Default: Rule{MaxConcurrent: 1000, RequestsPerMinute: 1e15, TokensPerMinute: 1e15}}, nil, nil), ask)
}

func BenchmarkACallWithTwoKeysAndHeaders(b *testing.B) {
	l := New(Config{Default: Rule{MaxConcurrent: 1000}}, nil, nil)
	ask := askFor("a")
	ask.Keys = twoKeys
	rich := fanout.Bucket{Limit: 1e9, Remaining: 1e9 - 10, Reset: time.Second}
	b.ReportAllocs()
	for b.Loop() {
		p, err := l.Admit(b.Context(), ask)
		if err != nil {
			b.Fatal(err)
		}
		p.Allowed(fanout.Allowance{Requests: rich, Tokens: rich})
		p.Done(Outcome{})
	}
}

// BenchmarkACallThatWaitsAmongAThousand is a place that goes from hand to hand.
func BenchmarkACallThatWaitsAmongAThousand(b *testing.B) {
	l := New(Config{Default: Rule{MaxConcurrent: 10, Queue: 10_000}}, nil, nil)
	b.ReportAllocs()
	b.SetParallelism(500)
	b.RunParallel(func(pb *testing.PB) {
		for i := 0; pb.Next(); i++ {
			p, err := l.Admit(b.Context(), askFor(fmt.Sprint(i%50)))
			if err != nil {
				b.Error(err)
				return
			}
			p.Done(Outcome{})
		}
	})
}

func BenchmarkACallSharedByRedis(b *testing.B) {
	client := redis.NewClient(&redis.Options{Addr: redistest.Start(b)})
	defer client.Close()
	l := New(Config{Default: Rule{MaxConcurrent: 1000}}, NewShared(client, "bench:", nil), nil)
	b.Run("alone", func(b *testing.B) { benchmark(b, l, askFor("a")) })
	b.Run("100 at once", func(b *testing.B) {
		b.ReportAllocs()
		b.SetParallelism(50)
		b.RunParallel(func(pb *testing.PB) {
			for pb.Next() {
				p, err := l.Admit(b.Context(), askFor("a"))
				if err != nil {
					b.Error(err)
					return
				}
				p.Done(Outcome{})
			}
		})
	})
}
