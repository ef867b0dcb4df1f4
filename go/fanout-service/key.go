package fanout

import (
	"crypto/sha256"
	"encoding/hex"
	"log/slog"
	"slices"
	"strconv"
	"unique"
)

// Key is a provider's key. However it is printed, logged or marshalled, only its Handle shows: the
// secret stands behind a pointer, because fmt asks no method of a value in an unexported field, and
// prints what it finds there. Keys of one secret are equal.
type Key struct {
	secret unique.Handle[string] // zero when there is none
	handle string
}

const noKey = "none"

// NewKeys wraps a provider's secrets, in the operator's order and each once. Without any it is the
// one key of providers that need none.
func NewKeys(texts ...string) []Key {
	var keys []Key
	for _, text := range texts {
		key := NewKey(text)
		if text == "" || slices.ContainsFunc(keys, func(other Key) bool { return other.secret == key.secret }) {
			continue
		}
		key.handle = strconv.Itoa(len(keys) + 1)
		keys = append(keys, key)
	}
	if keys == nil {
		keys = []Key{NewKey("")}
	}
	return keys
}

// NewKey wraps a provider's only secret; "" is the key of providers that need none.
func NewKey(text string) Key {
	if text == "" {
		return Key{handle: noKey}
	}
	return Key{secret: unique.Make(text), handle: "1"}
}

// Reveal returns the secret, for the one header that carries it; "" when there is none.
func (k Key) Reveal() string {
	if k.secret == (unique.Handle[string]{}) {
		return ""
	}
	return k.secret.Value()
}

// ID tells the keys of a provider apart, also between processes: the first 8 hex digits of its
// SHA-256, "none" for no key. It is not for showing: a short key could be found by trying.
func (k Key) ID() string {
	secret := k.Reveal()
	if secret == "" {
		return noKey
	}
	sum := sha256.Sum256([]byte(secret))
	return hex.EncodeToString(sum[:4])
}

// Handle is what people see of the key: its place among the provider's, "1", "2" …, "none" for no
// key. It says nothing about the secret.
func (k Key) Handle() string { return k.handle }

// String implements fmt.Stringer.
func (k Key) String() string { return "key " + k.handle }

// GoString implements fmt.GoStringer: %#v must not show the secret either.
func (k Key) GoString() string { return k.String() }

// LogValue implements slog.LogValuer.
func (k Key) LogValue() slog.Value { return slog.StringValue(k.handle) }

// MarshalText implements encoding.TextMarshaler, for JSON.
func (k Key) MarshalText() ([]byte, error) { return []byte(k.String()), nil }
