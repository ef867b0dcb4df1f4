package gemini

import (
	"encoding/json"
	"net/url"
	"path"
	"strings"

	fanout "rex/fanout-service"
	"rex/fanout-service/provider"
)

type request struct {
	Contents          []content         `json:"contents"`
	SystemInstruction *content          `json:"systemInstruction,omitempty"`
	GenerationConfig  *generationConfig `json:"generationConfig,omitempty"`
}

type content struct {
	Role  string `json:"role,omitempty"`
	Parts []part `json:"parts"`
}

type part struct {
	Text       *string   `json:"text,omitempty"`
	InlineData *blob     `json:"inlineData,omitempty"`
	FileData   *fileData `json:"fileData,omitempty"`
}

type blob struct {
	MimeType string `json:"mimeType"`
	Data     string `json:"data"`
}

type fileData struct {
	MimeType string `json:"mimeType,omitempty"`
	FileURI  string `json:"fileUri"`
}

type generationConfig struct {
	MaxOutputTokens    *int64          `json:"maxOutputTokens,omitempty"`
	Temperature        *float64        `json:"temperature,omitempty"`
	TopP               *float64        `json:"topP,omitempty"`
	Seed               *int64          `json:"seed,omitempty"`
	StopSequences      []string        `json:"stopSequences,omitempty"`
	ResponseMimeType   string          `json:"responseMimeType,omitempty"`
	ResponseJSONSchema json.RawMessage `json:"responseJsonSchema,omitempty"`
	ThinkingConfig     *thinkingConfig `json:"thinkingConfig,omitempty"`
}

type thinkingConfig struct {
	IncludeThoughts bool `json:"includeThoughts"`
}

// Request implements provider.Wire.
func (wire) Request(call *fanout.Call, _ provider.Quirks) (resource string, body []byte, err error) {
	system, turns := provider.Conversation(call.Messages)
	out := request{Contents: contents(turns), GenerationConfig: config(call)}
	for i := range system {
		if out.SystemInstruction == nil {
			out.SystemInstruction = &content{}
		}
		out.SystemInstruction.Parts = append(out.SystemInstruction.Parts, parts(&system[i])...)
	}
	body, err = provider.Encode(&out)
	resource = "/models/" + url.PathEscape(strings.TrimPrefix(call.Model, "models/"))
	if call.Whole {
		return resource + ":generateContent", body, err
	}
	return resource + ":streamGenerateContent?alt=sse", body, err
}

// config is nil when the call leaves all of it open.
func config(call *fanout.Call) *generationConfig {
	params := &call.Params
	format := provider.ReadFormat(params.ResponseFormat)
	if params.MaxTokens == nil && params.Temperature == nil && params.TopP == nil && params.Seed == nil &&
		len(params.Stop) == 0 && !format.JSON && !call.Thoughts {
		return nil
	}
	out := &generationConfig{
		MaxOutputTokens: params.MaxTokens, Temperature: params.Temperature, TopP: params.TopP,
		Seed: params.Seed, StopSequences: params.Stop, ResponseJSONSchema: format.Schema,
	}
	if format.JSON {
		out.ResponseMimeType = "application/json"
	}
	if call.Thoughts {
		out.ThinkingConfig = &thinkingConfig{IncludeThoughts: true}
	}
	return out
}

func contents(turns []fanout.Message) []content {
	out := make([]content, len(turns))
	for i := range turns {
		role := turns[i].Role
		if role == "assistant" {
			role = "model"
		}
		out[i] = content{Role: role, Parts: parts(&turns[i])}
	}
	return out
}

func parts(message *fanout.Message) []part {
	given := provider.PartsOf(message)
	out := make([]part, len(given))
	for i := range given {
		p := &given[i]
		switch {
		case p.URL != "":
			out[i] = part{FileData: &fileData{MimeType: imageType(p.URL), FileURI: p.URL}}
		case p.Data != "":
			out[i] = part{InlineData: &blob{MimeType: p.MediaType, Data: p.Data}}
		default:
			out[i] = part{Text: &p.Text}
		}
	}
	return out
}

// imageType is what an address's ending says, "" when it says nothing: then the API looks itself.
func imageType(address string) string {
	parsed, err := url.Parse(address)
	if err != nil {
		return ""
	}
	switch strings.ToLower(path.Ext(parsed.Path)) {
	case ".png":
		return "image/png"
	case ".jpg", ".jpeg":
		return "image/jpeg"
	case ".gif":
		return "image/gif"
	case ".webp":
		return "image/webp"
	default:
		return ""
	}
}
