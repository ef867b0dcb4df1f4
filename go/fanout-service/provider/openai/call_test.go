package openai_test

import (
	"testing"

	fanout "rex/fanout-service"
	"rex/fanout-service/provider"
	"rex/fanout-service/provider/openai"
	"rex/fanout-service/provider/providertest"
)

// BenchmarkCall measures what a call costs besides its deltas and its connection.
func BenchmarkCall(b *testing.B) {
	client := providertest.Offline("text/event-stream", subject.TextEvent("x")+subject.EndEvents, nil)
	upstream := openai.New(provider.Config{BaseURL: "http://offline"}, client)
	call := providertest.Call()
	b.ReportAllocs()
	for range b.N {
		if _, err := upstream.Stream(b.Context(), call, fanout.NewKey(""), &providertest.Sink{T: b}); err != nil {
			b.Fatal(err)
		}
	}
}
