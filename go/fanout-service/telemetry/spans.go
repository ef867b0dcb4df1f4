package telemetry

import (
	"context"
	"net/http"
	"sync"

	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/codes"
	"go.opentelemetry.io/otel/propagation"
	semconv "go.opentelemetry.io/otel/semconv/v1.40.0"
	"go.opentelemetry.io/otel/trace"

	fanout "rex/fanout-service"
	"rex/fanout-service/engine"
)

// Names of attributes that OpenTelemetry's conventions do not have.
const (
	attrFanoutID     = attribute.Key("rex.fanout.id")
	attrRequestID    = attribute.Key("rex.request.id")
	attrWorkspace    = attribute.Key("rex.workspace")
	attrWidth        = attribute.Key("rex.fanout.calls")
	attrCallID       = attribute.Key("rex.call.id")
	attrAttemptsMade = attribute.Key("rex.call.attempts")
	attrCacheResult  = attribute.Key("rex.cache")
	attrNumber       = attribute.Key("rex.attempt.number")
	attrReason       = attribute.Key("rex.attempt.reason")
	attrKeyID        = attribute.Key("rex.key.id")
	attrOutcome      = attribute.Key("rex.outcome")
	attrQueueMS      = attribute.Key("rex.queue_ms")
	attrConnectMS    = attribute.Key("rex.connect_ms")
	attrFirstTokenMS = attribute.Key("rex.first_token_ms")
)

// Kinds of spans, made once: a slice of options would be made for every span.
var (
	serverSpan = []trace.SpanStartOption{trace.WithSpanKind(trace.SpanKindServer)}
	clientSpan = []trace.SpanStartOption{trace.WithSpanKind(trace.SpanKindClient)}
)

// NewSpans makes a span of every fan-out and, within it, of every call, by the conventions for
// spans of generative AI clients and without content. Most calls make one attempt: their span is the
// attempt's too, because spans are the dearest that is told of a call. The attempts of the others
// have spans of their own within the call's. Attributes are set once, at the end: a span costs little
// more than its creation.
func NewSpans(tracers trace.TracerProvider) engine.Observer {
	return &spans{tracers.Tracer("rex/fanout-service")}
}

type spans struct{ tracer trace.Tracer }

func (s *spans) Fanout(ctx context.Context, request *fanout.Request) (context.Context, func(*engine.FanoutRecord)) {
	ctx, span := s.tracer.Start(ctx, "fanout", serverSpan...)
	if !span.IsRecording() {
		return ctx, func(*engine.FanoutRecord) { span.End() }
	}
	return ctx, func(record *engine.FanoutRecord) {
		attrs := append(make([]attribute.KeyValue, 0, 5), attrFanoutID.String(request.ID),
			attrWidth.Int(len(request.Calls)), attrOutcome.String(record.Outcome))
		if request.RequestID != "" {
			attrs = append(attrs, attrRequestID.String(request.RequestID))
		}
		if request.Workspace != "" {
			attrs = append(attrs, attrWorkspace.String(request.Workspace))
		}
		span.SetAttributes(attrs...)
		span.End()
	}
}

func (s *spans) Call(ctx context.Context, _ *fanout.Request, call *fanout.Call) (context.Context, func(*engine.CallRecord)) {
	ctx, span := s.tracer.Start(ctx, "chat "+call.Model, clientSpan...)
	if !span.IsRecording() {
		return ctx, func(*engine.CallRecord) { span.End() }
	}
	c := &callSpan{tracer: s.tracer, ctx: ctx, span: span, call: call}
	return context.WithValue(ctx, callKey{}, c), c.over
}

func (s *spans) Attempt(ctx context.Context, _ *fanout.Request, call *fanout.Call, attempt *engine.Attempt) (context.Context, func(*engine.AttemptRecord)) {
	c, _ := ctx.Value(callKey{}).(*callSpan)
	if c != nil && c.begin(attempt) {
		return ctx, c.firstOver
	}
	ctx, span := s.tracer.Start(ctx, "chat "+attempt.Target.Model, clientSpan...)
	if !span.IsRecording() {
		return ctx, func(*engine.AttemptRecord) { span.End() }
	}
	made := *attempt // the engine may use its Attempt again
	return ctx, func(record *engine.AttemptRecord) {
		describeAttempt(span, call, &made, record)
		span.End()
	}
}

// describeAttempt sets all that the span of an attempt tells.
func describeAttempt(span trace.Span, call *fanout.Call, made *engine.Attempt, record *engine.AttemptRecord) {
	buffer := newBuffer()
	defer buffer.free()
	attrs := appendAttempt(buffer[:0], call, record)
	attrs = append(attrs, attrNumber.Int(made.Number), attrReason.String(string(made.Reason)))
	describe(span, attrs, made.Target, record.Outcome, record.Failure)
}

// describe sets the attributes of a span that is about to end, with those that all have, and its
// status. What somebody stopped on purpose is no error, nor is that a reader left, whatever failure
// that made.
func describe(span trace.Span, attrs []attribute.KeyValue, target fanout.Target, outcome string, failure *fanout.Failure) {
	attrs = append(attrs, providerName(target.Provider), semconv.GenAIRequestModel(target.Model), attrOutcome.String(outcome))
	if failure != nil {
		attrs = append(attrs, semconv.ErrorTypeKey.String(outcome))
		if failure.Status != 0 {
			attrs = append(attrs, semconv.HTTPResponseStatusCode(failure.Status))
		}
		if !stopped(outcome) {
			span.SetStatus(codes.Error, failure.Message())
		}
	}
	span.SetAttributes(attrs...)
}

// buffer has room for the attributes of any span; spans copy them.
type buffer [20]attribute.KeyValue

var buffers = sync.Pool{New: func() any { return new(buffer) }}

func newBuffer() *buffer { return buffers.Get().(*buffer) }

func (b *buffer) free() {
	*b = buffer{} // it must not hold on to what is over
	buffers.Put(b)
}

// appendAttempt adds what only an attempt has.
func appendAttempt(attrs []attribute.KeyValue, call *fanout.Call, record *engine.AttemptRecord) []attribute.KeyValue {
	attrs = append(attrs, semconv.GenAIOperationNameChat)
	if record.KeyID != "" {
		attrs = append(attrs, attrKeyID.String(record.KeyID))
	}
	attrs = appendParams(attrs, &call.Params)
	timing := &record.Timing
	for _, phase := range [...]struct {
		key  attribute.Key
		took int64
	}{
		{attrQueueMS, between(timing.Queued, timing.Admitted)},
		{attrConnectMS, between(timing.Admitted, timing.Connect)},
		{attrFirstTokenMS, between(timing.Admitted, timing.FirstToken)},
	} {
		if phase.took >= 0 {
			attrs = append(attrs, phase.key.Int64(phase.took))
		}
	}
	if record.Usage != nil {
		attrs = append(attrs, semconv.GenAIUsageInputTokens(int(record.Usage.InputTokens)),
			semconv.GenAIUsageOutputTokens(int(record.Usage.OutputTokens)))
	}
	return attrs
}

func appendParams(attrs []attribute.KeyValue, params *fanout.Params) []attribute.KeyValue {
	if params.MaxTokens != nil {
		attrs = append(attrs, semconv.GenAIRequestMaxTokens(int(*params.MaxTokens)))
	}
	if params.Temperature != nil {
		attrs = append(attrs, semconv.GenAIRequestTemperature(*params.Temperature))
	}
	if params.TopP != nil {
		attrs = append(attrs, semconv.GenAIRequestTopP(*params.TopP))
	}
	if params.Seed != nil {
		attrs = append(attrs, semconv.GenAIRequestSeed(int(*params.Seed)))
	}
	return attrs
}

// conventional holds the conventions' names of providers that we call otherwise.
var conventional = map[string]attribute.KeyValue{
	"google":  semconv.GenAIProviderNameGCPGemini,
	"mistral": semconv.GenAIProviderNameMistralAI,
}

func providerName(name string) attribute.KeyValue {
	if known, ok := conventional[name]; ok {
		return known
	}
	return semconv.GenAIProviderNameKey.String(name)
}

// TakeTrace lets requests that come with a W3C traceparent become part of the trace they name.
func TakeTrace(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.Header.Get("Traceparent") != "" {
			r = r.WithContext(propagation.TraceContext{}.Extract(r.Context(), propagation.HeaderCarrier(r.Header)))
		}
		next.ServeHTTP(w, r)
	})
}

// PassTrace adds the traceparent of ctx's span to the header of a request to a provider. Not its
// tracestate: that may hold what others wrote for their own systems.
func PassTrace(ctx context.Context, header http.Header) {
	propagation.TraceContext{}.Inject(ctx, propagation.HeaderCarrier(header))
	header.Del("Tracestate")
}
