package telemetry

import (
	"context"
	"log/slog"
	"sync"
	"sync/atomic"
	"time"

	sdk "go.opentelemetry.io/otel/sdk/trace"
)

// maxSpans bounds the spans that wait to be sent: at 8 KB each, 32 MiB.
const maxSpans = 4096

// Spans are sent when there are batchSpans of them, or after sendAfter.
const (
	batchSpans = 512
	sendAfter  = time.Second
)

// sendLimit bounds the sending of a batch, with all that the exporter tries again.
const sendLimit = 10 * time.Second

// batcher hands spans to an exporter in batches. Unlike the SDK's own it counts what it drops, and
// it wakes its goroutine twice a batch instead of once a span.
type batcher struct {
	exporter sdk.SpanExporter
	log      *slog.Logger
	dropped  atomic.Int64

	mu      sync.Mutex
	waiting []sdk.ReadOnlySpan
	closed  bool

	ctx    context.Context // of sending
	cancel context.CancelFunc
	wake   chan struct{}
	stop   chan struct{}
	ended  chan struct{}

	failing bool // the collector did not take the last batch; the goroutine's own
}

func newBatcher(exporter sdk.SpanExporter, log *slog.Logger) *batcher {
	b := &batcher{
		exporter: exporter, log: log,
		wake: make(chan struct{}, 1), stop: make(chan struct{}), ended: make(chan struct{}),
	}
	b.ctx, b.cancel = context.WithCancel(context.Background())
	go b.run()
	return b
}

// OnStart implements sdk.SpanProcessor.
func (b *batcher) OnStart(context.Context, sdk.ReadWriteSpan) {}

// OnEnd implements sdk.SpanProcessor. It never blocks on the collector.
func (b *batcher) OnEnd(span sdk.ReadOnlySpan) {
	if !span.SpanContext().IsSampled() {
		return
	}
	b.mu.Lock()
	if b.closed || len(b.waiting) == maxSpans {
		b.mu.Unlock()
		b.dropped.Add(1)
		return
	}
	b.waiting = append(b.waiting, span)
	waiting := len(b.waiting)
	b.mu.Unlock()
	if waiting == 1 || waiting == batchSpans {
		select {
		case b.wake <- struct{}{}:
		default:
		}
	}
}

// ForceFlush implements sdk.SpanProcessor; nothing here asks for it.
func (b *batcher) ForceFlush(context.Context) error { return nil }

// Shutdown implements sdk.SpanProcessor: it sends what waits, until ctx ends.
func (b *batcher) Shutdown(ctx context.Context) error {
	b.mu.Lock()
	again := b.closed
	b.closed = true
	b.mu.Unlock()
	if again {
		return nil
	}
	close(b.stop)
	defer context.AfterFunc(ctx, b.cancel)()
	<-b.ended
	b.cancel()
	return b.exporter.Shutdown(ctx)
}

func (b *batcher) run() {
	defer close(b.ended)
	timer := time.NewTimer(sendAfter)
	timer.Stop()
	var spare []sdk.ReadOnlySpan
	for {
		select {
		case <-b.wake:
			b.mu.Lock()
			full := len(b.waiting) >= batchSpans
			b.mu.Unlock()
			if !full {
				timer.Reset(sendAfter)
				continue
			}
			timer.Stop()
		case <-timer.C:
		case <-b.stop:
			b.send(spare)
			return
		}
		spare = b.send(spare)
	}
}

// send sends all that waits and returns the slice that held it, to be filled again.
func (b *batcher) send(spare []sdk.ReadOnlySpan) []sdk.ReadOnlySpan {
	b.mu.Lock()
	spans := b.waiting
	b.waiting = spare[:0]
	b.mu.Unlock()
	for rest := spans; len(rest) > 0; {
		batch := rest[:min(len(rest), batchSpans)]
		rest = rest[len(batch):]
		ctx, cancel := context.WithTimeout(b.ctx, sendLimit)
		b.sent(len(batch), b.exporter.ExportSpans(ctx, batch))
		cancel()
	}
	clear(spans)
	return spans
}

// sent says once that the collector does not take spans, and once that it does again. The error
// itself is not told: it may hold the collector's words.
func (b *batcher) sent(spans int, err error) {
	if err != nil {
		b.dropped.Add(int64(spans))
	}
	if failing := err != nil; failing != b.failing {
		b.failing = failing
		if failing {
			b.log.Warn("spans are not taken", "dropped", b.dropped.Load())
		} else {
			b.log.Info("spans are taken again", "dropped", b.dropped.Load())
		}
	}
}
