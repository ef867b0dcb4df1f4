package telemetry_test

import (
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"syscall"
	"testing"
	"time"

	"rex/fanout-service/engine"
	"rex/fanout-service/telemetry"
)

// BenchmarkObservers is what observing costs a call of a fan-out of ten, with one attempt each:
// cpu-ns/op is that of all threads, with packing, sending and receiving spans.
func BenchmarkObservers(b *testing.B) {
	collector := httptest.NewServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		_, _ = io.Copy(io.Discard, r.Body)
	}))
	defer collector.Close()
	b.Setenv("OTEL_EXPORTER_OTLP_ENDPOINT", collector.URL)
	exporter, err := telemetry.NewExporter(b.Context(), "1", slog.New(slog.DiscardHandler))
	if err != nil {
		b.Fatal(err)
	}
	defer func() { _ = exporter.Shutdown(b.Context()) }()
	writer := telemetry.NewWriter(io.Discard)
	defer func() { _ = writer.Close() }()
	log := telemetry.NewLog(slog.New(slog.NewJSONHandler(writer, nil)))
	metrics, spans := telemetry.NewMetrics(nil), telemetry.NewSpans(exporter.Tracers())
	for name, observer := range map[string]engine.Observer{
		"log": log, "metrics": metrics, "spans": spans,
		"log and metrics": telemetry.Join(metrics, log), "all": telemetry.Join(spans, metrics, log),
	} {
		b.Run(name, func(b *testing.B) {
			request, record := newRequest("m", 10), answered()
			b.ReportAllocs()
			began := processorTime()
			for n := 0; n < b.N; n += len(request.Calls) {
				observe(b.Context(), observer, request, record)
				for exporter.Waiting() > 2000 { // what is dropped costs nothing
					time.Sleep(100 * time.Microsecond)
				}
			}
			for exporter.Waiting() > 0 {
				time.Sleep(time.Millisecond)
			}
			b.ReportMetric(float64((processorTime()-began).Nanoseconds())/float64(b.N), "cpu-ns/op")
			if dropped := exporter.Dropped(); dropped != 0 {
				b.Errorf("%d spans were dropped", dropped)
			}
		})
	}
}

// processorTime is what this process has used so far.
func processorTime() time.Duration {
	var used syscall.Rusage
	_ = syscall.Getrusage(syscall.RUSAGE_SELF, &used)
	return time.Duration(used.Utime.Nano() + used.Stime.Nano())
}
