package fakeprovider_test

import (
	"context"
	"encoding/json"
	"errors"
	"net/http"
	"os"
	"regexp"
	"strings"
	"testing"
	"time"

	"rex/fanout-service/fakeprovider"
)

func TestTheCatalogueIsWrittenDown(t *testing.T) {
	written, err := os.ReadFile("CATALOGUE.md")
	if err != nil {
		t.Fatal(err)
	}
	if string(written) != fakeprovider.Catalogue() {
		t.Error("run: go run ./cmd/fakeprovider --catalogue > fakeprovider/CATALOGUE.md")
	}
}

// row is a script as the catalogue tells of it.
type row struct {
	name, wires   string
	stream, whole string
}

func rows(t *testing.T) []row {
	t.Helper()
	only := regexp.MustCompile(` Only ([a-z, ]+)\.$`)
	var out []row
	for line := range strings.SplitSeq(fakeprovider.Catalogue(), "\n") {
		cells := strings.Split(line, " | ")
		if len(cells) != 3 || !strings.HasPrefix(cells[0], "| `") {
			continue
		}
		r := row{name: strings.Trim(cells[0], "| `"), wires: strings.Join(wires, ", ")}
		if match := only.FindStringSubmatch(cells[1]); match != nil {
			r.wires = match[1]
		}
		var split bool
		r.stream, r.whole, split = strings.Cut(strings.TrimSuffix(cells[2], " |"), "; in one piece ")
		if !split {
			r.whole = r.stream
		}
		out = append(out, r)
	}
	if len(out) < 80 {
		t.Fatalf("only %d scripts read", len(out))
	}
	return out
}

// brief are options that make every script short, or its one fault early.
func brief(name string) string {
	name = strings.NewReplacer("prose-<n>", "prose-1", "http-<n>", "http-503").Replace(name)
	size := "100000"
	if name == "cut-at" {
		size = "40"
	}
	return name + "?delay_ms=1&first_ms=1&slow_ms=1&late_ms=1&percent=100&bytes=" + size
}

func TestEveryScriptEndsAsTheCatalogueSays(t *testing.T) {
	for _, r := range rows(t) {
		for _, wire := range strings.Split(r.wires, ", ") {
			for _, stream := range []bool{true, false} {
				name, want := wire+"/"+r.name, r.stream
				if !stream {
					name, want = name+"/whole", r.whole
				}
				t.Run(name, func(t *testing.T) {
					t.Parallel()
					u := start(t, fakeprovider.Options{})
					ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
					defer cancel()
					if want == "open" {
						ctx, cancel = context.WithTimeout(ctx, 100*time.Millisecond)
						defer cancel()
					}
					got := u.send(u.request(ctx, wire, brief(r.name), stream))
					if ended := endOf(wire, stream, got); ended != want {
						t.Errorf("ended %s, want %s: %d %v %.300q", ended, want, got.status, got.err, got.body)
					}
					entry := u.settled()[0]
					if entry.Finished != (want != "open") || (entry.AbortedAt != nil) != (want == "open") {
						t.Errorf("%+v", entry)
					}
				})
			}
		}
	}
}

// endOf tells an ending from what a client can see, by each format's own rules.
func endOf(wire string, stream bool, got reply) string {
	switch {
	case got.err != nil && !cameInTime(got.err):
		return "open"
	case got.err != nil:
		return "broken"
	case got.status >= http.StatusMultipleChoices:
		return "refused"
	case got.header.Get("Content-Encoding") != "":
		return "odd"
	}
	events := []string{got.body}
	media := "application/json"
	if stream {
		events, media = data(got.body), "text/event-stream"
	}
	if got.header.Get("Content-Type") != media {
		return "odd"
	}
	finished, last := false, ""
	for _, event := range events {
		var chunk struct {
			Choices []struct {
				FinishReason string `json:"finish_reason"`
			}
			Candidates []struct{ FinishReason string }
			Delta      struct {
				StopReason string `json:"stop_reason"`
			}
			StopReason string `json:"stop_reason"`
			Type       string
		}
		last = event
		if json.Unmarshal([]byte(event), &chunk) != nil {
			continue
		}
		last = chunk.Type
		finished = finished || chunk.StopReason != "" || chunk.Delta.StopReason != ""
		for _, choice := range chunk.Choices {
			finished = finished || choice.FinishReason != ""
		}
		for _, candidate := range chunk.Candidates {
			finished = finished || candidate.FinishReason != ""
		}
	}
	marker := map[string]string{"openai": "[DONE]", "anthropic": "message_stop"}[wire]
	switch {
	case !stream && !finished:
		return "odd"
	case !stream:
		return "complete"
	case finished && (marker == "" || last == marker || strings.Contains(got.body, marker)):
		return "complete"
	case strings.Contains(got.body, "promptFeedback"):
		return "odd"
	default:
		return "short"
	}
}

// cameInTime says that an error is not the test's own time running out.
func cameInTime(err error) bool {
	return !errors.Is(err, context.DeadlineExceeded) && !errors.Is(err, context.Canceled)
}
