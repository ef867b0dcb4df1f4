package httpapi

import (
	"encoding/json"
	"errors"
	"os"
	"path/filepath"
	"testing"
)

// FuzzDecode checks that a body is either taken, and then valid JSON within the rules, or refused
// with a status and a message.
func FuzzDecode(f *testing.F) {
	files, err := filepath.Glob("../api/golden/requests/*/*.json")
	if err != nil || len(files) == 0 {
		f.Fatal("no golden requests", err)
	}
	for _, file := range files {
		raw, err := os.ReadFile(file)
		if err != nil {
			f.Fatal(err)
		}
		var example struct {
			Request json.RawMessage `json:"request"`
		}
		if json.Unmarshal(raw, &example) == nil && example.Request != nil {
			raw = example.Request
		}
		f.Add(raw)
	}
	f.Fuzz(func(t *testing.T, body []byte) {
		request, err := decode(body)
		if err != nil {
			var r *refusal
			if !errors.As(err, &r) || r.status < 400 || r.status > 413 || r.message == "" {
				t.Errorf("refused with %#v", err)
			}
			return
		}
		if !json.Valid(body) || request.ID == "" || request.Deadline <= 0 || len(request.Calls) == 0 {
			t.Errorf("took %q as %+v", body, request)
		}
		for _, call := range request.Calls {
			if call.ID == "" || call.Model == "" || len(call.Messages) == 0 || call.Timeouts.Total <= 0 {
				t.Errorf("took the call %+v", call)
			}
		}
	})
}
