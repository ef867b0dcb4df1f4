package fanout

import (
	"crypto/sha256"
	"encoding/hex"
	"log/slog"
	"unique"
)

// Key is a provider's key. However it is printed, logged or marshalled, only its ID shows: the
// secret stands behind a handle, because fmt asks no method of a value in an unexported field, and
// prints what it finds there. Keys of one secret are equal.
type Key struct {
	secret unique.Handle[string] // zero when there is none
	id     string
}

// NewKey wraps a secret; "" is the key of providers that need none.
func NewKey(text string) Key {
	if text == "" {
		return Key{id: "none"}
	}
	sum := sha256.Sum256([]byte(text))
	return Key{secret: unique.Make(text), id: hex.EncodeToString(sum[:4])}
}

// Reveal returns the secret, for the one header that carries it; "" when there is none.
func (k Key) Reveal() string {
	if k.secret == (unique.Handle[string]{}) {
		return ""
	}
	return k.secret.Value()
}

// ID names the key: the first 8 hex digits of its SHA-256, "none" for no key.
func (k Key) ID() string { return k.id }

// String implements fmt.Stringer.
func (k Key) String() string { return "key " + k.id }

// GoString implements fmt.GoStringer: %#v must not show the secret either.
func (k Key) GoString() string { return k.String() }

// LogValue implements slog.LogValuer.
func (k Key) LogValue() slog.Value { return slog.StringValue(k.id) }

// MarshalText implements encoding.TextMarshaler, for JSON.
func (k Key) MarshalText() ([]byte, error) { return []byte(k.String()), nil }
