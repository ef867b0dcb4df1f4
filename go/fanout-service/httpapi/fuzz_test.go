package httpapi

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/santhosh-tekuri/jsonschema/v6"
)

// FuzzDecode checks that a body is taken exactly where the contract's schema accepts it and the
// rules hold that no schema can say. What is refused has a status, a message and no word of the
// body but names of fields.
func FuzzDecode(f *testing.F) {
	schema, err := jsonschema.NewCompiler().Compile("../api/schema/request.schema.json")
	if err != nil {
		f.Fatal(err)
	}
	for _, seed := range goldenRequests(f) {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, body []byte) {
		request, err := decode(body)
		if err == nil {
			isSound(t, &request)
			isAll(t, &request, body)
		} else if r := (*refusal)(nil); !errors.As(err, &r) || r.status != 400 && r.status != 413 || r.message == "" {
			t.Errorf("refused with %#v", err)
		}
		if exotic.Match(body) || deep(body) {
			return
		}
		value, parsing := jsonschema.UnmarshalJSON(bytes.NewReader(body))
		accepted := parsing == nil && schema.Validate(value) == nil
		if accepted != (err == nil) && !beyondSchema(err) {
			t.Errorf("the schema accepts %q: %v; the decoder said %v", body, accepted, err)
		}
	})
}

func goldenRequests(tb testing.TB) [][]byte {
	tb.Helper()
	files, err := filepath.Glob("../api/golden/requests/*/*.json")
	if err != nil || len(files) == 0 {
		tb.Fatal("no golden requests", err)
	}
	var bodies [][]byte
	for _, file := range files {
		raw, err := os.ReadFile(file)
		if err != nil {
			tb.Fatal(err)
		}
		var example struct {
			Request json.RawMessage `json:"request"`
		}
		if json.Unmarshal(raw, &example) == nil && example.Request != nil {
			raw = example.Request
		}
		bodies = append(bodies, raw)
	}
	return bodies
}

// exotic numbers are rounded before they are judged, where the schema is exact to the last digit.
var exotic = regexp.MustCompile(`[0-9.]{17}|[eE][-+]?[0-9]{3}`)

// deep says whether the body nests more than JSON readers go along with; they give up at depths of
// their own.
func deep(body []byte) bool {
	return bytes.Count(body, []byte("["))+bytes.Count(body, []byte("{")) > 1000
}

// beyondSchema says whether a refusal is for what a schema cannot see.
func beyondSchema(err error) bool {
	r := (*refusal)(nil)
	return errors.As(err, &r) && slices.Contains([]string{"Given twice.", "Call ids are unique.", "Nested too deeply.", notUnicode}, r.message)
}

// isAll checks that no call got lost.
func isAll(t *testing.T, request *asked, body []byte) {
	t.Helper()
	var sent struct {
		Calls []json.RawMessage `json:"calls"`
	}
	if err := json.Unmarshal(body, &sent); err != nil || len(sent.Calls) != len(request.Calls) {
		t.Errorf("took %d calls of %d: %v", len(request.Calls), len(sent.Calls), err)
	}
}

// isSound checks what the engine relies on.
func isSound(t *testing.T, request *asked) {
	t.Helper()
	if request.ID == "" || request.Deadline <= 0 || len(request.Calls) == 0 {
		t.Errorf("took %+v", request)
	}
	for i := range request.Calls {
		call := &request.Calls[i]
		if call.ID == "" || call.Model == "" || len(call.Messages) == 0 || call.Timeouts.Total <= 0 || call.Retry.Attempts < 1 {
			t.Errorf("took the call %+v", call)
		}
		if hedge := call.Hedge; hedge != nil && (hedge.After <= 0 || (hedge.Target.Provider == "") != (hedge.Target.Model == "")) {
			t.Errorf("took the hedge %+v", hedge)
		}
		if call.Cache != nil && (request.Workspace == "" || !call.Cache.Read && !call.Cache.Write) {
			t.Errorf("took the cache use %+v", call.Cache)
		}
	}
}

// BenchmarkDecode tells what a body costs the service for each call in it.
func BenchmarkDecode(b *testing.B) {
	for _, width := range []int{1, 10, 100} {
		calls := make([]string, width)
		for i := range calls {
			calls[i] = fmt.Sprintf(`{"id":"c%d","provider":"local","model":"smollm2-135m",`+
				`"messages":[{"role":"system","content":"Be brief."},{"role":"user","content":"Why is the sky blue?"}],`+
				`"params":{"max_tokens":512,"temperature":0.2},"timeouts_ms":{"first_token":30000},"retry":{"attempts":3}}`, i)
		}
		body := []byte(`{"v":2,"id":"r","deadline_ms":30000,"calls":[` + strings.Join(calls, ",") + `]}`)
		b.Run(fmt.Sprintf("calls=%d", width), func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				if _, err := decode(body); err != nil {
					b.Fatal(err)
				}
			}
			b.ReportMetric(float64(b.Elapsed().Microseconds())/float64(b.N*width), "µs/call")
		})
	}
}
