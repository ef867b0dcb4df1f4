package httpapi

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"net/http"
	"slices"
	"strconv"
	"unicode/utf16"
	"unicode/utf8"

	"rex/fanout-service/jsonwalk"
)

// refusal is why a request is not taken.
type refusal struct {
	status  int
	kind    string
	message string
	field   string // like "calls[0].model"; "" when the fault is not in a field
}

func (r *refusal) Error() string { return r.message }

func invalid(field, format string, args ...any) error {
	return &refusal{http.StatusBadRequest, "invalid_request", fmt.Sprintf(format, args...), field}
}

func tooLarge(field, format string, args ...any) error {
	return &refusal{http.StatusRequestEntityTooLarge, "invalid_request", fmt.Sprintf(format, args...), field}
}

// fields reads JSON strictly and knows where it is: names are case-sensitive, unknown and repeated
// ones are refused, types are not converted, and every fault carries its path. The path is put
// together on the way out, so that only faults pay for it.
type fields struct{ walk *jsonwalk.Cursor }

// newFields returns the fields of a body, whose grammar is right from here on.
func newFields(body []byte) (fields, error) {
	if !json.Valid(body) {
		// Worded without repeating what was sent.
		at := int64(len(body))
		if fault := (*json.SyntaxError)(nil); errors.As(json.Unmarshal(body, new(json.RawMessage)), &fault) {
			at = fault.Offset
		}
		return fields{}, invalid("", "Not valid JSON, at byte %d.", at)
	}
	walk := jsonwalk.New(body)
	return fields{&walk}, nil
}

// reader reads one value. The field of its refusal is a path from there.
type reader func() error

// member is a field of an object. There are at most 64 of them.
type member struct {
	name string
	read reader
}

// object reads an object with the given members; the required ones must be there.
func (f fields) object(members []member, required ...string) error {
	if f.walk.Peek() != '{' {
		return invalid("", "Expected an object.")
	}
	f.walk.Open('{')
	var seen uint64 // a bit for each member
	for f.walk.More('}') {
		key := f.walk.Key()
		at := slices.IndexFunc(members, func(m member) bool { return m.name == string(key) })
		switch {
		case at < 0:
			return invalid(shown(key), "Unknown field.")
		case seen&(1<<at) != 0:
			return invalid(members[at].name, "Given twice.")
		}
		seen |= 1 << at
		if err := members[at].read(); err != nil {
			return within(members[at].name, err)
		}
	}
	for _, name := range required {
		if at := slices.IndexFunc(members, func(m member) bool { return m.name == name }); seen&(1<<at) == 0 {
			return invalid(name, "Required.")
		}
	}
	return nil
}

// list reads a list of at least one and at most limit elements; over makes the error beyond it.
func (f fields) list(limit int, over func(field, format string, args ...any) error, element reader) error {
	if f.walk.Peek() != '[' {
		return invalid("", "Expected a list.")
	}
	f.walk.Open('[')
	n := 0
	for ; f.walk.More(']'); n++ {
		if n == limit {
			return over("", "At most %d.", limit)
		}
		if err := element(); err != nil {
			return within(fmt.Sprintf("[%d]", n), err)
		}
	}
	if n == 0 {
		return invalid("", "At least one.")
	}
	return nil
}

func (f fields) text() (string, error) {
	if f.walk.Peek() != '"' {
		return "", invalid("", "Expected text.")
	}
	raw := f.walk.Raw()
	inside := raw[1 : len(raw)-1]
	if !isUnicode(inside) {
		return "", invalid("", notUnicode)
	}
	if bytes.IndexByte(inside, '\\') < 0 {
		return string(inside), nil
	}
	var text string
	err := json.Unmarshal(raw, &text)
	return text, err
}

func (f fields) truth() (bool, error) {
	switch f.walk.Peek() {
	case 't', 'f':
		return f.walk.Raw()[0] == 't', nil
	}
	return false, invalid("", "Expected true or false.")
}

func (f fields) integer(from, to int64) (int64, error) {
	if !f.isNumber() {
		return 0, invalid("", "Expected a whole number.")
	}
	raw := string(f.walk.Raw())
	n, err := strconv.ParseInt(raw, 10, 64)
	if err != nil {
		// 1.0 and 1e3 are whole numbers too, in JSON's and the schema's eyes.
		float, floatErr := strconv.ParseFloat(raw, 64)
		if floatErr != nil || float != math.Trunc(float) || math.Abs(float) > 1<<53 {
			return 0, outside(from, to)
		}
		n = int64(float)
	}
	if n < from || n > to {
		return 0, outside(from, to)
	}
	return n, nil
}

func outside(from, to int64) error {
	if from == to {
		return invalid("", "Expected %d.", to)
	}
	return invalid("", "Expected a whole number from %d to %d.", from, to)
}

func (f fields) number() (float64, error) {
	if !f.isNumber() {
		return 0, invalid("", "Expected a number.")
	}
	n, err := strconv.ParseFloat(string(f.walk.Raw()), 64)
	if err != nil {
		return 0, invalid("", "Expected a number.")
	}
	return n, nil
}

func (f fields) isNumber() bool {
	first := f.walk.Peek()
	return first == '-' || '0' <= first && first <= '9'
}

// rawObject reads an object of any shape.
func (f fields) rawObject() (json.RawMessage, error) {
	if f.walk.Peek() != '{' {
		return nil, invalid("", "Expected an object.")
	}
	raw := f.walk.Raw()
	if !isUnicode(raw) {
		return nil, invalid("", notUnicode)
	}
	return bytes.Clone(raw), nil
}

const notUnicode = "The text holds invalid UTF-8, half of a surrogate pair, or U+0000."

// isUnicode says whether the text in a piece of JSON reaches a provider as it was sent. The grammar
// allows for bytes and escapes that are no text; readers replace them, each in its own way, and
// nobody would hear of it.
func isUnicode(piece []byte) bool {
	if !utf8.Valid(piece) {
		return false
	}
	for at := bytes.IndexByte(piece, '\\'); at >= 0; at = bytes.IndexByte(piece, '\\') {
		piece = piece[at:]
		unit, ok := escapedUnit(piece)
		if !ok {
			piece = piece[2:] // like \n
			continue
		}
		piece = piece[6:]
		if utf16.IsSurrogate(unit) {
			other, _ := escapedUnit(piece)
			if utf16.DecodeRune(unit, other) == utf8.RuneError {
				return false
			}
			piece = piece[6:]
		} else if unit == 0 {
			return false
		}
	}
	return true
}

// escapedUnit reads \uXXXX at the beginning of a piece whose grammar is right.
func escapedUnit(piece []byte) (unit rune, ok bool) {
	if len(piece) < 6 || piece[0] != '\\' || piece[1] != 'u' {
		return 0, false
	}
	n, err := strconv.ParseUint(string(piece[2:6]), 16, 16)
	return rune(n), err == nil
}

// within puts a place in front of the field of a refusal.
func within(place string, err error) error {
	if r := (*refusal)(nil); errors.As(err, &r) {
		if r.field != "" && r.field[0] != '[' {
			place += "."
		}
		r.field = place + r.field
	}
	return err
}

// shown is a name that was sent, as it is repeated to the sender.
func shown(name []byte) string {
	const longest = 64
	if len(name) > longest {
		return string(name[:longest]) + "…"
	}
	return string(name)
}
