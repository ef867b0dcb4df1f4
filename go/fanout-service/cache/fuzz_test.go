package cache

import (
	"bytes"
	"encoding/json"
	"testing"
	"time"
	"unicode/utf8"

	fanout "rex/fanout-service"
)

// FuzzValue reads anything Redis may hold: it is refused, or it is an answer that can go out as it
// stands and that survives being stored again.
func FuzzValue(f *testing.F) {
	good, err := encode(&Entry{
		Text: []byte(`a\n\ud83d\ude00`), Thoughts: []byte("hm"), FinishReason: fanout.FinishStop,
		Target: fanout.Target{Provider: "p", Model: "m"}, StoredAt: time.UnixMilli(1),
	})
	if err != nil {
		f.Fatal(err)
	}
	f.Add(good)
	f.Add(bytes.Replace(good, []byte(`\ude00`), []byte(`\u0000`), 1))
	f.Add(bytes.Replace(good, []byte("hm"), []byte("\xff"), 1))
	f.Add([]byte(`{"v":1,"text":""}`))
	f.Fuzz(func(t *testing.T, data []byte) {
		e, err := decode(data)
		if err != nil {
			return
		}
		for _, text := range [][]byte{e.Text, e.Thoughts} {
			var decoded string
			if err := json.Unmarshal([]byte(`"`+string(text)+`"`), &decoded); err != nil || !utf8.Valid(text) || bytes.ContainsRune([]byte(decoded), 0) {
				t.Fatalf("%q is no inside of a JSON string: %v", text, err)
			}
		}
		again, err := encode(e)
		if err != nil {
			t.Fatalf("%v", err)
		}
		if second, err := decode(again); err != nil || !bytes.Equal(second.Text, e.Text) || second.Characters != e.Characters ||
			!bytes.Equal(second.Thoughts, e.Thoughts) || second.Usage != e.Usage || !second.StoredAt.Equal(e.StoredAt) {
			t.Fatalf("%s became %s, %v", data, again, err)
		}
	})
}
