package telemetry_test

import (
	"bytes"
	"context"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
	"time"

	otlp "go.opentelemetry.io/proto/otlp/collector/trace/v1"
	common "go.opentelemetry.io/proto/otlp/common/v1"
	tracepb "go.opentelemetry.io/proto/otlp/trace/v1"
	"google.golang.org/protobuf/proto"

	fanout "rex/fanout-service"
	"rex/fanout-service/engine"
	"rex/fanout-service/telemetry"
)

// collector receives spans by OTLP over HTTP, as a real one does.
type collector struct {
	*httptest.Server
	mu       sync.Mutex
	refuse   bool
	bodies   bytes.Buffer
	spans    []*tracepb.Span
	resource map[string]string
}

func newCollector(t *testing.T) *collector {
	c := &collector{}
	c.Server = httptest.NewServer(c)
	t.Cleanup(c.Close)
	t.Setenv("OTEL_EXPORTER_OTLP_ENDPOINT", c.URL)
	return c
}

func (c *collector) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	c.mu.Lock()
	defer c.mu.Unlock()
	body, _ := io.ReadAll(r.Body)
	var batch otlp.ExportTraceServiceRequest
	if r.URL.Path != "/v1/traces" || c.refuse || proto.Unmarshal(body, &batch) != nil {
		w.WriteHeader(http.StatusBadRequest)
		return
	}
	c.bodies.Write(body)
	for _, of := range batch.GetResourceSpans() {
		c.resource = attributes(of.GetResource().GetAttributes())
		for _, scope := range of.GetScopeSpans() {
			c.spans = append(c.spans, scope.GetSpans()...)
		}
	}
	w.Header().Set("Content-Type", "application/x-protobuf")
}

func attributes(pairs []*common.KeyValue) map[string]string {
	found := map[string]string{}
	for _, pair := range pairs {
		found[pair.GetKey()] = strings.Trim(strings.SplitN(pair.GetValue().String(), ":", 2)[1], `"`)
	}
	return found
}

const outside = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"

func TestSpansOfAFanoutContinueTheTraceOfItsRequest(t *testing.T) {
	collector := newCollector(t)
	t.Setenv("OTEL_RESOURCE_ATTRIBUTES", "deployment.environment.name=test")
	exporter, err := telemetry.NewExporter(t.Context(), "1.2.3", slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	spans := telemetry.NewSpans(exporter.Tracers())
	passed := http.Header{}
	handler := telemetry.TakeTrace(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		request := newRequest("gemini-x", 1)
		observe(r.Context(), spans, request, refused(fanout.Overloaded, 529), answered())
		ctx, over := spans.Attempt(r.Context(), request, &request.Calls[0], &attempt)
		telemetry.PassTrace(ctx, passed)
		record := refused(fanout.Internal, 0)
		record.Outcome = engine.OutcomeReaderGone
		over(&record)
	}))
	r := httptest.NewRequest(http.MethodPost, "/fanout", nil)
	r.Header.Set("Traceparent", outside)
	r.Header.Set("Tracestate", "vendor=theirs")
	handler.ServeHTTP(httptest.NewRecorder(), r)
	if err := exporter.Shutdown(t.Context()); err != nil {
		t.Fatal(err)
	}

	byName := map[string][]*tracepb.Span{}
	for _, span := range collector.spans {
		byName[span.GetName()] = append(byName[span.GetName()], span)
		if got := hex(span.GetTraceId()); got != "0af7651916cd43dd8448eb211c80319c" {
			t.Errorf("%s is of trace %s", span.GetName(), got)
		}
	}
	if len(collector.spans) != 5 || len(byName["fanout"]) != 1 || len(byName["call"]) != 1 || len(byName["chat gemini-x"]) != 3 {
		t.Fatalf("spans: %v", byName)
	}
	root, call, chats := byName["fanout"][0], byName["call"][0], byName["chat gemini-x"]
	if hex(root.GetParentSpanId()) != "b7ad6b7169203331" || root.GetKind() != tracepb.Span_SPAN_KIND_SERVER {
		t.Error("the fan-out does not continue the request's trace")
	}
	if hex(call.GetParentSpanId()) != hex(root.GetSpanId()) || hex(chats[0].GetParentSpanId()) != hex(call.GetSpanId()) {
		t.Error("a call is not within its fan-out, or an attempt not within its call")
	}
	for i, want := range []map[string]string{
		{"error.type": "overloaded", "http.response.status_code": "529", "rex.attempt.number": "1", "rex.attempt.reason": "first"},
		{
			"gen_ai.operation.name": "chat", "gen_ai.provider.name": "gcp.gemini", "gen_ai.request.model": "gemini-x",
			"gen_ai.request.temperature": "0.2", "gen_ai.usage.input_tokens": "7", "gen_ai.usage.output_tokens": "12",
			"rex.first_token_ms": "40", "rex.queue_ms": "5", "rex.key.id": "0a1b2c3d", "rex.outcome": "finished",
		},
		{"error.type": "reader_gone"},
	} {
		got := attributes(chats[i].GetAttributes())
		for name, value := range want {
			if got[name] != value {
				t.Errorf("attempt %d: %s is %q, want %q", i, name, got[name], value)
			}
		}
		failed := chats[i].GetStatus().GetCode() == tracepb.Status_STATUS_CODE_ERROR
		if failed != (i == 0) || chats[i].GetKind() != tracepb.Span_SPAN_KIND_CLIENT {
			t.Errorf("attempt %d: status %v, kind %v", i, chats[i].GetStatus(), chats[i].GetKind())
		}
	}
	if got := attributes(root.GetAttributes()); got["rex.fanout.id"] != "run-1" || got["rex.workspace"] != "w" || got["rex.fanout.calls"] != "1" {
		t.Errorf("fan-out: %v", got)
	}
	if r := collector.resource; r["service.name"] != "rex-fanout" || r["service.version"] != "1.2.3" || r["deployment.environment.name"] != "test" {
		t.Errorf("resource: %v", r)
	}
	if want := "00-0af7651916cd43dd8448eb211c80319c-" + hex(chats[2].GetSpanId()) + "-01"; passed.Get("Traceparent") != want || passed.Get("Tracestate") != "" {
		t.Errorf("passed on: %v, want %s alone", passed, want)
	}
	if bytes.Contains(collector.bodies.Bytes(), []byte(canary)) {
		t.Error("spans tell content")
	}
}

func TestSpansThatCannotBeSentAreCountedAndSaidOnce(t *testing.T) {
	collector := newCollector(t)
	collector.refuse = true
	var log lockedBuffer
	exporter, err := telemetry.NewExporter(t.Context(), "1", slog.New(slog.NewJSONHandler(&log, nil)))
	if err != nil {
		t.Fatal(err)
	}
	const made = 12000
	_, span := exporter.Tracers().Tracer("t").Start(t.Context(), "s")
	span.End()
	for range made - 1 {
		_, span := exporter.Tracers().Tracer("t").Start(t.Context(), "s")
		span.End()
	}
	if err := exporter.Shutdown(t.Context()); err != nil {
		t.Error(err)
	}
	if exporter.Dropped() != made {
		t.Errorf("%d of %d spans are counted as dropped", exporter.Dropped(), made)
	}
	if strings.Count(log.String(), "spans are not taken") != 1 {
		t.Errorf("log: %s", log.String())
	}
}

func TestACollectorThatIsGoneHoldsUpNobody(t *testing.T) {
	t.Setenv("OTEL_EXPORTER_OTLP_ENDPOINT", "http://127.0.0.1:1")
	exporter, err := telemetry.NewExporter(t.Context(), "1", slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	_, span := exporter.Tracers().Tracer("t").Start(t.Context(), "s")
	span.End()
	ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	_ = exporter.Shutdown(ctx) // it ends, though the exporter would try again for longer
	if exporter.Dropped() != 1 {
		t.Errorf("%d dropped", exporter.Dropped())
	}
}
