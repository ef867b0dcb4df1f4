package anthropic

import (
	"encoding/json"

	fanout "rex/fanout-service"
	"rex/fanout-service/provider"
)

// defaultMaxTokens is for calls that leave open what the format requires. Every model takes it.
const defaultMaxTokens = 4096

// jsonPrompt asks for what the format has no parameter for.
const jsonPrompt = "Answer with one JSON object and nothing else."

type request struct {
	Model         string        `json:"model"`
	MaxTokens     int64         `json:"max_tokens"`
	System        []block       `json:"system,omitempty"`
	Messages      []message     `json:"messages"`
	Stream        bool          `json:"stream"`
	Temperature   *float64      `json:"temperature,omitempty"`
	TopP          *float64      `json:"top_p,omitempty"`
	StopSequences []string      `json:"stop_sequences,omitempty"`
	OutputConfig  *outputConfig `json:"output_config,omitempty"`
}

type message struct {
	Role    string `json:"role"`
	Content any    `json:"content"` // text, or a list of blocks
}

type block struct {
	Type   string  `json:"type"`
	Text   *string `json:"text,omitempty"`
	Source *source `json:"source,omitempty"`
}

type source struct {
	Type      string `json:"type"`
	MediaType string `json:"media_type,omitempty"`
	Data      string `json:"data,omitempty"`
	URL       string `json:"url,omitempty"`
}

type outputConfig struct {
	Format outputFormat `json:"format"`
}

type outputFormat struct {
	Type   string          `json:"type"`
	Schema json.RawMessage `json:"schema"`
}

// Request implements provider.Wire.
func (wire) Request(call *fanout.Call, _ provider.Quirks) (path string, body []byte, err error) {
	system, turns := provider.Conversation(call.Messages)
	params := &call.Params
	out := request{
		Model: call.Model, MaxTokens: defaultMaxTokens, Stream: !call.Whole,
		Messages: messages(turns), System: prompt(system),
		TopP: params.TopP, StopSequences: params.Stop,
	}
	if params.MaxTokens != nil {
		out.MaxTokens = *params.MaxTokens
	}
	if params.Temperature != nil {
		temperature := min(*params.Temperature, 1)
		out.Temperature = &temperature
	}
	format := provider.ReadFormat(params.ResponseFormat)
	switch {
	case format.Schema != nil:
		out.OutputConfig = &outputConfig{outputFormat{Type: "json_schema", Schema: format.Schema}}
	case format.JSON:
		sentence := jsonPrompt
		out.System = append(out.System, block{Type: "text", Text: &sentence})
	}
	body, err = provider.Encode(&out)
	return "/messages", body, err
}

// prompt is the system prompt, a block for each part. Empty ones, which the API refuses, say nothing.
func prompt(system []fanout.Message) (out []block) {
	for i := range system {
		for _, b := range blocks(provider.PartsOf(&system[i])) {
			if b.Text == nil || *b.Text != "" {
				out = append(out, b)
			}
		}
	}
	return out
}

func messages(turns []fanout.Message) []message {
	out := make([]message, len(turns))
	for i := range turns {
		out[i] = message{Role: turns[i].Role, Content: turns[i].Content}
		if len(turns[i].Parts) > 0 {
			out[i].Content = blocks(turns[i].Parts)
		}
	}
	return out
}

func blocks(parts []fanout.Part) []block {
	out := make([]block, len(parts))
	for i := range parts {
		p := &parts[i]
		switch {
		case p.URL != "":
			out[i] = block{Type: "image", Source: &source{Type: "url", URL: p.URL}}
		case p.Data != "":
			out[i] = block{Type: "image", Source: &source{Type: "base64", MediaType: p.MediaType, Data: p.Data}}
		default:
			out[i] = block{Type: "text", Text: &p.Text}
		}
	}
	return out
}
