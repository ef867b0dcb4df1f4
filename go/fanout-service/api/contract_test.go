package api_test

import (
	"bufio"
	"bytes"
	"encoding/json"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/santhosh-tekuri/jsonschema/v6"

	"rex/fanout-service/api"
)

func schema(t *testing.T, name string) *jsonschema.Schema {
	t.Helper()
	compiler := jsonschema.NewCompiler()
	for _, each := range []string{"line", "whole"} { // one refers to the other by its id
		raw, err := os.ReadFile("schema/" + each + ".schema.json")
		if err != nil {
			t.Fatal(err)
		}
		if err := compiler.AddResource("rex:fanout/v2/"+each, parse(t, raw)); err != nil {
			t.Fatal(err)
		}
	}
	compiled, err := compiler.Compile("schema/" + name + ".schema.json")
	if err != nil {
		t.Fatal(err)
	}
	return compiled
}

func parse(t *testing.T, raw []byte) any {
	t.Helper()
	value, err := jsonschema.UnmarshalJSON(bytes.NewReader(raw))
	if err != nil {
		t.Fatal(err)
	}
	return value
}

// golden runs check on every file that matches the pattern; there must be some.
func golden(t *testing.T, pattern string, check func(t *testing.T, raw []byte)) {
	t.Helper()
	files, err := filepath.Glob("golden/" + pattern)
	if err != nil || len(files) == 0 {
		t.Fatalf("no golden files at %s (%v)", pattern, err)
	}
	for _, file := range files {
		t.Run(filepath.Base(file), func(t *testing.T) {
			raw, err := os.ReadFile(file)
			if err != nil {
				t.Fatal(err)
			}
			check(t, raw)
		})
	}
}

func TestTheSchemaAcceptsValidRequests(t *testing.T) {
	request := schema(t, "request")
	golden(t, "requests/valid/*.json", func(t *testing.T, raw []byte) {
		if err := request.Validate(parse(t, raw)); err != nil {
			t.Error(err)
		}
	})
}

func TestTheSchemaRefusesInvalidRequests(t *testing.T) {
	request := schema(t, "request")
	golden(t, "requests/invalid/*.json", func(t *testing.T, raw []byte) {
		var example struct {
			BySchema bool            `json:"by_schema"`
			Request  json.RawMessage `json:"request"`
		}
		if err := json.Unmarshal(raw, &example); err != nil {
			t.Fatal(err)
		}
		refused := request.Validate(parse(t, example.Request)) != nil
		if refused != example.BySchema {
			t.Errorf("refused by the schema: %v, the file says %v", refused, example.BySchema)
		}
	})
}

func TestTheSchemaTellsStreamsApart(t *testing.T) {
	line := schema(t, "line")
	faults := func(t *testing.T, raw []byte) (n int) {
		lines := bufio.NewScanner(bytes.NewReader(raw))
		for lines.Scan() {
			if line.Validate(parse(t, lines.Bytes())) != nil {
				n++
			}
		}
		return n
	}
	golden(t, "streams/valid/*.ndjson", func(t *testing.T, raw []byte) {
		if faults(t, raw) != 0 {
			t.Error("refused")
		}
	})
	golden(t, "streams/invalid/*.ndjson", func(t *testing.T, raw []byte) {
		if faults(t, raw) == 0 {
			t.Error("accepted")
		}
	})
}

func TestTheSchemaTellsWholeAnswersApart(t *testing.T) {
	whole := schema(t, "whole")
	golden(t, "wholes/valid/*.json", func(t *testing.T, raw []byte) {
		if err := whole.Validate(parse(t, raw)); err != nil {
			t.Error(err)
		}
	})
	golden(t, "wholes/invalid/*.json", func(t *testing.T, raw []byte) {
		if whole.Validate(parse(t, raw)) == nil {
			t.Error("accepted")
		}
	})
}

func TestTheSchemaTellsStatesOfTargetsApart(t *testing.T) {
	targets := schema(t, "targets")
	golden(t, "targets/valid/*.json", func(t *testing.T, raw []byte) {
		if err := targets.Validate(parse(t, raw)); err != nil {
			t.Error(err)
		}
	})
	golden(t, "targets/invalid/*.json", func(t *testing.T, raw []byte) {
		if targets.Validate(parse(t, raw)) == nil {
			t.Error("accepted")
		}
	})
}

func TestTheSchemaKnowsEveryKind(t *testing.T) {
	raw, err := os.ReadFile("kinds.json")
	if err != nil {
		t.Fatal(err)
	}
	inSchema, err := os.ReadFile("schema/line.schema.json")
	if err != nil {
		t.Fatal(err)
	}
	var file struct {
		Kinds []struct {
			Kind string `json:"kind"`
		} `json:"kinds"`
	}
	if err := json.Unmarshal(raw, &file); err != nil {
		t.Fatal(err)
	}
	for _, row := range file.Kinds {
		if !strings.Contains(string(inSchema), `"`+row.Kind+`"`) {
			t.Errorf("%s is not in line.schema.json", row.Kind)
		}
	}
}

func TestProvidersHaveUsableNames(t *testing.T) {
	form := regexp.MustCompile(`^[a-z][a-z0-9_-]{0,31}$`)
	seen := map[string]bool{}
	for _, p := range api.Providers() {
		if !form.MatchString(p.Name) || seen[p.Name] {
			t.Errorf("name %q is malformed or taken", p.Name)
		}
		seen[p.Name] = true
		if p.BaseURLEnv == "" || p.KeyRequired && p.APIKeyEnv == "" {
			t.Errorf("%s cannot be configured", p.Name)
		}
		if p.Wire != "openai" && p.Wire != "anthropic" && p.Wire != "gemini" {
			t.Errorf("%s speaks %q", p.Name, p.Wire)
		}
		if strings.HasSuffix(p.BaseURL, "/") {
			t.Errorf("%s: the address ends with a slash", p.Name)
		}
	}
}
