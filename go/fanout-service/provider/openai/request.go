package openai

import (
	fanout "rex/fanout-service"
	"rex/fanout-service/provider"
)

// Request implements provider.Wire.
func (wire) Request(call *fanout.Call, quirks provider.Quirks) (path string, body []byte, err error) {
	fields := map[string]any{
		"model":    call.Model,
		"messages": messages(call.Messages),
		"stream":   !call.Whole,
	}
	if !call.Whole && !quirks.OmitStreamOptions {
		fields["stream_options"] = map[string]bool{"include_usage": true}
	}
	params := &call.Params
	if params.MaxTokens != nil {
		fields[or(quirks.MaxTokensParam, "max_tokens")] = *params.MaxTokens
	}
	if params.Temperature != nil {
		fields["temperature"] = *params.Temperature
	}
	if params.TopP != nil {
		fields["top_p"] = *params.TopP
	}
	if params.Seed != nil {
		fields[or(quirks.SeedParam, "seed")] = *params.Seed
	}
	if len(params.Stop) > 0 {
		fields["stop"] = params.Stop
	}
	if params.ResponseFormat != nil {
		fields["response_format"] = params.ResponseFormat
	}
	body, err = provider.Encode(fields)
	return "/chat/completions", body, err
}

type message struct {
	Role    string `json:"role"`
	Content any    `json:"content"` // text, or a list of parts
}

type part struct {
	Type     string    `json:"type"`
	Text     *string   `json:"text,omitempty"`
	ImageURL *imageURL `json:"image_url,omitempty"`
}

type imageURL struct {
	URL string `json:"url"`
}

func messages(given []fanout.Message) []message {
	out := make([]message, len(given))
	for i := range given {
		out[i] = message{Role: given[i].Role, Content: given[i].Content}
		if len(given[i].Parts) > 0 {
			out[i].Content = parts(given[i].Parts)
		}
	}
	return out
}

func parts(given []fanout.Part) []part {
	out := make([]part, len(given))
	for i := range given {
		p := &given[i]
		switch {
		case p.URL != "":
			out[i] = part{Type: "image_url", ImageURL: &imageURL{p.URL}}
		case p.Data != "":
			out[i] = part{Type: "image_url", ImageURL: &imageURL{"data:" + p.MediaType + ";base64," + p.Data}}
		default:
			out[i] = part{Type: "text", Text: &p.Text}
		}
	}
	return out
}

func or(name, fallback string) string {
	if name != "" {
		return name
	}
	return fallback
}
