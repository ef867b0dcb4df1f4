package fanout_test

import (
	"bytes"
	"encoding/json"
	"fmt"
	"log/slog"
	"slices"
	"strings"
	"testing"

	fanout "rex/fanout-service"
)

func TestAKeyShowsItsHandleHoweverItIsPrinted(t *testing.T) {
	const text = "sk-canary-0123456789"
	key := fanout.NewKey(text)
	hidden := struct{ key fanout.Key }{key}
	shown := struct{ Key fanout.Key }{key}
	var out bytes.Buffer
	log := slog.New(slog.NewJSONHandler(&out, nil))
	log.Info("key", "key", key, "shown", shown)
	body, err := json.Marshal(shown)
	if err != nil {
		t.Fatal(err)
	}
	out.Write(body)
	for _, verb := range []string{"%v", "%+v", "%#v", "%s", "%q", "%x", "%d"} {
		fmt.Fprintf(&out, verb+verb+verb+verb, key, hidden, shown, &hidden)
	}
	for _, secret := range []string{text, fmt.Sprintf("%x", text), key.ID()} {
		if strings.Contains(out.String(), secret) {
			t.Errorf("the secret shows: %s", out.String())
		}
	}
	if key.Reveal() != text || fanout.NewKey("").Reveal() != "" || (fanout.Key{}).Reveal() != "" {
		t.Error("the secret is not what was given")
	}
	if key != fanout.NewKey(text) || key == fanout.NewKey("another") || fanout.NewKey("") == key {
		t.Error("keys of one secret are not equal, or of two are")
	}
	if key.ID() != fanout.NewKey(text).ID() || key.ID() == fanout.NewKey("another").ID() || fanout.NewKey("").ID() != "none" {
		t.Error("the names of keys do not tell them apart")
	}
}

func TestTheKeysOfAProviderAreNumberedInTheirOrder(t *testing.T) {
	for _, c := range []struct{ given, handles, secrets []string }{
		{[]string{"b", "", "a", "b", "c"}, []string{"1", "2", "3"}, []string{"b", "a", "c"}},
		{[]string{""}, []string{"none"}, []string{""}},
		{nil, []string{"none"}, []string{""}},
	} {
		var handles, secrets []string
		for _, key := range fanout.NewKeys(c.given...) {
			handles, secrets = append(handles, key.Handle()), append(secrets, key.Reveal())
		}
		if !slices.Equal(handles, c.handles) || !slices.Equal(secrets, c.secrets) {
			t.Errorf("%q: %q of %q", c.given, handles, secrets)
		}
	}
}
