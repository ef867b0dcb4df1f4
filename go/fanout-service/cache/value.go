package cache

import (
	"bytes"
	"encoding/json"
	"errors"
	"io"
	"time"

	fanout "rex/fanout-service"
	"rex/fanout-service/jsonwalk"
)

// valueVersion is part of the key in Redis too, so that versions do not meet.
const valueVersion = 1

// value is an entry as it is kept in Redis: one JSON object with all of these fields and no others,
// which any program may read or write. A change of it is a new version.
type value struct {
	Version      int                 `json:"v"` // 1
	Text         json.RawMessage     `json:"text"`
	Thoughts     json.RawMessage     `json:"thoughts"` // a string or null
	FinishReason fanout.FinishReason `json:"finish_reason"`
	Usage        *fanout.Usage       `json:"usage"`
	Provider     string              `json:"provider"`
	Model        string              `json:"model"`
	StoredAtMS   int64               `json:"stored_at_ms"` // Unix time, by the clock of who stored it
}

// errForeign says that a value in Redis is none of ours, or damaged.
var errForeign = errors.New("not a cached answer")

// encode writes an entry as a value. Its texts are escaped already and go in as they are.
func encode(e *Entry) ([]byte, error) {
	v := value{
		Version: valueVersion, Text: quoted(e.Text), FinishReason: e.FinishReason, Usage: &e.Usage,
		Provider: e.Target.Provider, Model: e.Target.Model, StoredAtMS: e.StoredAt.UnixMilli(),
	}
	if len(e.Thoughts) > 0 {
		v.Thoughts = quoted(e.Thoughts)
	}
	var b bytes.Buffer
	b.Grow(len(e.Text) + len(e.Thoughts) + 512)
	encoder := json.NewEncoder(&b)
	encoder.SetEscapeHTML(false)
	if err := encoder.Encode(v); err != nil {
		return nil, err
	}
	return bytes.TrimSuffix(b.Bytes(), []byte("\n")), nil
}

// decode reads a value, or returns errForeign: what is served from it goes out as it stands.
func decode(data []byte) (*Entry, error) {
	decoder := json.NewDecoder(bytes.NewReader(data))
	decoder.DisallowUnknownFields()
	var v value
	if decoder.Decode(&v) != nil {
		return nil, errForeign
	}
	if _, err := decoder.Token(); !errors.Is(err, io.EOF) {
		return nil, errForeign
	}
	if v.Version != valueVersion || !known(v.FinishReason) || v.Usage == nil || v.StoredAtMS <= 0 ||
		v.Provider == "" || v.Model == "" {
		return nil, errForeign
	}
	e := &Entry{
		FinishReason: v.FinishReason, Usage: *v.Usage, StoredAt: time.UnixMilli(v.StoredAtMS),
		Target: fanout.Target{Provider: v.Provider, Model: v.Model},
	}
	var ok bool
	if e.Text, e.Characters, ok = inside(v.Text); !ok {
		return nil, errForeign
	}
	if len(v.Thoughts) > 0 && string(v.Thoughts) != "null" {
		if e.Thoughts, _, ok = inside(v.Thoughts); !ok {
			return nil, errForeign
		}
	}
	return e, nil
}

func known(reason fanout.FinishReason) bool {
	return reason == fanout.FinishStop || reason == fanout.FinishLength || reason == fanout.FinishToolCalls
}

func quoted(inside []byte) json.RawMessage {
	raw := make([]byte, 0, len(inside)+2)
	return append(append(append(raw, '"'), inside...), '"')
}

// inside returns the inside of a JSON string as fanout.Sink wants it, with its code points. What
// another program wrote may hold lone surrogates and the like, which are repaired.
func inside(raw json.RawMessage) (escaped []byte, characters int, ok bool) {
	if len(raw) < 2 || raw[0] != '"' {
		return nil, 0, false
	}
	var text jsonwalk.Text
	escaped, characters = text.Add(raw[1 : len(raw)-1])
	rest, more := text.Rest()
	return append(bytes.Clone(escaped), rest...), characters + more, true
}
