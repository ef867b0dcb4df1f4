package telemetry

import (
	"context"
	"fmt"
	"log/slog"
	"sync/atomic"

	"go.opentelemetry.io/otel/exporters/otlp/otlptrace/otlptracehttp"
	"go.opentelemetry.io/otel/sdk/resource"
	sdk "go.opentelemetry.io/otel/sdk/trace"
	semconv "go.opentelemetry.io/otel/semconv/v1.40.0"
	"go.opentelemetry.io/otel/trace"
)

// maxSpans bounds the spans that wait to be sent: at 8 KB each, 32 MiB.
const maxSpans = 4096

// Exporter sends spans to a collector by OTLP over HTTP. The standard OTEL_* variables say where
// to and how: the SDK reads them.
type Exporter struct {
	provider  *sdk.TracerProvider
	processor *boundedProcessor
}

// NewExporter returns an Exporter, to be shut down. A collector that cannot be reached is no
// error: spans are dropped and counted.
func NewExporter(ctx context.Context, version string, log *slog.Logger) (*Exporter, error) {
	client, err := otlptracehttp.New(ctx)
	if err != nil {
		return nil, fmt.Errorf("OTEL_EXPORTER_OTLP_*: %w", err)
	}
	// What comes later wins: the environment may rename the service.
	about, err := resource.New(ctx,
		resource.WithAttributes(semconv.ServiceName("rex-fanout"), semconv.ServiceVersion(version)),
		resource.WithTelemetrySDK(), resource.WithFromEnv())
	if err != nil {
		return nil, fmt.Errorf("OTEL_RESOURCE_ATTRIBUTES: %w", err)
	}
	processor := &boundedProcessor{}
	processor.SpanProcessor = sdk.NewBatchSpanProcessor(
		&countingExporter{SpanExporter: client, processor: processor, log: log}, sdk.WithMaxQueueSize(maxSpans))
	return &Exporter{sdk.NewTracerProvider(sdk.WithResource(about), sdk.WithSpanProcessor(processor)), processor}, nil
}

// Tracers makes the spans that the Exporter sends.
func (e *Exporter) Tracers() trace.TracerProvider { return e.provider }

// Dropped counts spans that were never sent: too many waited, or the collector did not take them.
func (e *Exporter) Dropped() int64 { return e.processor.dropped.Load() }

// Shutdown sends what waits, until ctx ends.
func (e *Exporter) Shutdown(ctx context.Context) error { return e.provider.Shutdown(ctx) }

// boundedProcessor counts what its queue has no room for; the SDK's own drops it in silence.
type boundedProcessor struct {
	sdk.SpanProcessor
	waiting atomic.Int64
	dropped atomic.Int64
}

func (p *boundedProcessor) OnEnd(span sdk.ReadOnlySpan) {
	if !span.SpanContext().IsSampled() {
		return
	}
	if p.waiting.Add(1) > maxSpans {
		p.waiting.Add(-1)
		p.dropped.Add(1)
		return
	}
	p.SpanProcessor.OnEnd(span)
}

// countingExporter tells the processor what has left its queue.
type countingExporter struct {
	sdk.SpanExporter
	processor *boundedProcessor
	log       *slog.Logger
	failing   atomic.Bool
}

// ExportSpans says once that the collector does not take spans, and once that it does again. The
// error itself is not told: it may hold the collector's words.
func (e *countingExporter) ExportSpans(ctx context.Context, spans []sdk.ReadOnlySpan) error {
	err := e.SpanExporter.ExportSpans(ctx, spans)
	e.processor.waiting.Add(-int64(len(spans)))
	if err != nil {
		e.processor.dropped.Add(int64(len(spans)))
	}
	if failing := err != nil; e.failing.Swap(failing) != failing {
		if failing {
			e.log.WarnContext(ctx, "spans are not taken", "dropped", e.processor.dropped.Load())
		} else {
			e.log.InfoContext(ctx, "spans are taken again", "dropped", e.processor.dropped.Load())
		}
	}
	return nil
}
