package httpapi

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math"
	"net/http"
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
// ones are refused, types are not converted, and every fault carries its path.
type fields struct{ dec *json.Decoder }

func newFields(body []byte) fields {
	dec := json.NewDecoder(bytes.NewReader(body))
	dec.UseNumber()
	return fields{dec}
}

// member reads the value of one field, whose path it is given.
type member func(path string) error

// object reads an object with the given members; the required ones must be there.
func (f fields) object(path string, members map[string]member, required ...string) error {
	if err := f.open('{', path, "an object"); err != nil {
		return err
	}
	seen := make(map[string]bool, len(members))
	for f.dec.More() {
		token, err := f.token()
		if err != nil {
			return err
		}
		name, _ := token.(string)
		at := join(path, name)
		read, known := members[name]
		switch {
		case !known:
			return invalid(at, "Unknown field.")
		case seen[name]:
			return invalid(at, "Given twice.")
		}
		seen[name] = true
		if err := read(at); err != nil {
			return err
		}
	}
	if _, err := f.token(); err != nil {
		return err
	}
	for _, name := range required {
		if !seen[name] {
			return invalid(join(path, name), "Required.")
		}
	}
	return nil
}

// list reads a list of at least one and at most limit elements; over makes the error beyond it.
func (f fields) list(path string, limit int, over func(field, format string, args ...any) error, element member) error {
	if err := f.open('[', path, "a list"); err != nil {
		return err
	}
	return f.elements(path, limit, over, element)
}

// elements reads a list whose bracket has been read.
func (f fields) elements(path string, limit int, over func(field, format string, args ...any) error, element member) error {
	n := 0
	for ; f.dec.More(); n++ {
		if n == limit {
			return over(path, "At most %d.", limit)
		}
		if err := element(fmt.Sprintf("%s[%d]", path, n)); err != nil {
			return err
		}
	}
	if n == 0 {
		return invalid(path, "At least one.")
	}
	_, err := f.token()
	return err
}

func (f fields) text(path string) (string, error) {
	token, err := f.token()
	if err != nil {
		return "", err
	}
	text, ok := token.(string)
	if !ok {
		return "", invalid(path, "Expected text.")
	}
	return text, nil
}

func (f fields) truth(path string) (bool, error) {
	token, err := f.token()
	if err != nil {
		return false, err
	}
	truth, ok := token.(bool)
	if !ok {
		return false, invalid(path, "Expected true or false.")
	}
	return truth, nil
}

func (f fields) whole(path string, from, to int64) (int64, error) {
	token, err := f.token()
	if err != nil {
		return 0, err
	}
	number, ok := token.(json.Number)
	if !ok {
		return 0, invalid(path, "Expected a whole number.")
	}
	n, err := number.Int64()
	if err != nil {
		// 1.0 and 1e3 are whole numbers too, in JSON's and the schema's eyes.
		float, floatErr := number.Float64()
		if floatErr != nil || float != math.Trunc(float) || math.Abs(float) > 1<<53 {
			return 0, invalid(path, "Expected a whole number from %d to %d.", from, to)
		}
		n = int64(float)
	}
	if n < from || n > to {
		return 0, invalid(path, "Expected a whole number from %d to %d.", from, to)
	}
	return n, nil
}

func (f fields) number(path string) (float64, error) {
	token, err := f.token()
	if err != nil {
		return 0, err
	}
	number, ok := token.(json.Number)
	if !ok {
		return 0, invalid(path, "Expected a number.")
	}
	n, err := number.Float64()
	if err != nil {
		return 0, invalid(path, "Expected a number.")
	}
	return n, nil
}

// rawObject reads an object of any shape.
func (f fields) rawObject(path string) (json.RawMessage, error) {
	var raw json.RawMessage
	if err := f.dec.Decode(&raw); err != nil {
		return nil, f.syntax(err)
	}
	if len(raw) == 0 || raw[0] != '{' {
		return nil, invalid(path, "Expected an object.")
	}
	return raw, nil
}

// end checks that nothing follows.
func (f fields) end() error {
	if _, err := f.dec.Token(); !errors.Is(err, io.EOF) {
		return invalid("", "Something follows the JSON object.")
	}
	return nil
}

func (f fields) open(bracket json.Delim, path, what string) error {
	token, err := f.token()
	if err != nil {
		return err
	}
	if token != bracket {
		return invalid(path, "Expected %s.", what)
	}
	return nil
}

func (f fields) token() (json.Token, error) {
	token, err := f.dec.Token()
	if err != nil {
		return nil, f.syntax(err)
	}
	return token, nil
}

// syntax words a fault without repeating what was sent.
func (f fields) syntax(error) error {
	return invalid("", "Not valid JSON, at byte %d.", f.dec.InputOffset())
}

func join(path, name string) string {
	const longest = 64 // of a name that was sent: it is repeated to the sender
	if len(name) > longest {
		name = name[:longest] + "…"
	}
	if path == "" {
		return name
	}
	return path + "." + name
}
