package provider

import (
	"bytes"
	"encoding/json"

	fanout "rex/fanout-service"
)

// Encode writes a request's body. Text keeps its <, > and &: escaping them is for web pages.
func Encode(body any) ([]byte, error) {
	var out bytes.Buffer
	encoder := json.NewEncoder(&out)
	encoder.SetEscapeHTML(false)
	if err := encoder.Encode(body); err != nil {
		return nil, err
	}
	return bytes.TrimSuffix(out.Bytes(), []byte("\n")), nil
}

// Format is a response_format as OpenAI's API has it, for the formats that say it otherwise.
type Format struct {
	JSON   bool            // json_object or json_schema
	Schema json.RawMessage // of json_schema
}

// ReadFormat reads a response_format; what it does not know is the zero Format.
func ReadFormat(raw json.RawMessage) Format {
	var fields struct {
		Type       string `json:"type"`
		JSONSchema struct {
			Schema json.RawMessage `json:"schema"`
		} `json:"json_schema"`
	}
	if json.Unmarshal(raw, &fields) != nil {
		return Format{}
	}
	switch fields.Type {
	case "json_object":
		return Format{JSON: true}
	case "json_schema":
		return Format{JSON: true, Schema: fields.JSONSchema.Schema}
	default:
		return Format{}
	}
}

// Conversation parts the system's messages from the others: two formats keep them apart. Both keep
// their order; a system message in the middle goes to the front with the rest.
func Conversation(messages []fanout.Message) (system, turns []fanout.Message) {
	for _, message := range messages {
		if message.Role == "system" {
			system = append(system, message)
		} else {
			turns = append(turns, message)
		}
	}
	return system, turns
}

// PartsOf is the content of a message as parts, one part of text where it is text alone.
func PartsOf(message *fanout.Message) []fanout.Part {
	if len(message.Parts) > 0 {
		return message.Parts
	}
	return []fanout.Part{{Text: message.Content}}
}
