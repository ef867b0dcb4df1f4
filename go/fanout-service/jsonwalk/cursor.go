// Package jsonwalk reads the few fields a stream event needs straight from its bytes: strict
// about the JSON grammar, without allocation, and without decoding what nobody asks for.
//
// Text keeps its JSON escapes from the provider to our reader: it is checked and repaired
// (see Text), never unescaped and escaped again.
package jsonwalk

import (
	"encoding/json"
	"errors"
	"strconv"
)

// ErrSyntax says that the bytes are not JSON, or not of the shape that was asked for.
var ErrSyntax = errors.New("jsonwalk: malformed JSON")

const maxDepth = 64

// Cursor walks one JSON text. Errors stick: after the first, every method does nothing.
//
//	for c.Open('{'); c.More('}'); {
//		switch string(c.Key()) {
//		case "text": text, ok := c.String()
//		default: c.Skip()
//		}
//	}
type Cursor struct {
	b       []byte
	i       int
	first   bool // no element of the innermost open container has been read yet
	skipped bool // Object or List found another type: the next More says no
	depth   int
	err     error
}

// New returns a cursor before the first value of b.
func New(b []byte) Cursor { return Cursor{b: b} }

// End checks that nothing but white space is left and returns the first error.
func (c *Cursor) End() error {
	c.space()
	if c.err == nil && c.i != len(c.b) {
		c.fail()
	}
	return c.err
}

// Err returns the first error so far. JSON that is nested deeper than 64 levels is one.
func (c *Cursor) Err() error { return c.err }

// Peek returns the first byte of the next value, 0 at the end or after an error.
func (c *Cursor) Peek() byte {
	c.space()
	if c.err != nil || c.i >= len(c.b) {
		return 0
	}
	return c.b[c.i]
}

// Open enters an object ('{') or a list ('[').
func (c *Cursor) Open(bracket byte) {
	if c.Peek() != bracket || c.depth == maxDepth {
		c.fail()
		return
	}
	c.i++
	c.depth++
	c.first = true
}

// Object enters an object, or skips a value of another type: then the More that follows says no.
func (c *Cursor) Object() { c.enter('{') }

// List enters a list, or skips a value of another type like Object.
func (c *Cursor) List() { c.enter('[') }

func (c *Cursor) enter(bracket byte) {
	if c.Peek() == bracket {
		c.Open(bracket)
		return
	}
	c.Skip()
	c.skipped = true
}

// More says whether the open container has another element; at its end it leaves the container.
func (c *Cursor) More(bracket byte) bool {
	if c.skipped {
		c.skipped = false
		return false
	}
	next := c.Peek()
	switch {
	case c.err != nil:
		return false
	case next == bracket:
		c.i++
		c.depth--
		c.first = false
		return false
	case c.first:
		c.first = false
		return true
	case next == ',':
		c.i++
		if c.Peek() == bracket { // a trailing comma
			c.fail()
			return false
		}
		return true
	default:
		c.fail()
		return false
	}
}

// Key reads the name of the next member. Names with escapes are unescaped.
func (c *Cursor) Key() []byte {
	if c.Peek() != '"' {
		c.fail()
		return nil
	}
	start := c.i
	escaped := c.string()
	key := c.slice(start)
	if c.Peek() != ':' {
		c.fail()
		return nil
	}
	c.i++
	if escaped {
		var plain string
		if json.Unmarshal(key, &plain) != nil {
			c.fail()
			return nil
		}
		return []byte(plain)
	}
	return key[1 : len(key)-1]
}

// String reads a string and returns its inside as it stands, escapes and all. A value of another
// type is skipped, and ok is false.
func (c *Cursor) String() (inside []byte, ok bool) {
	if c.Peek() != '"' {
		c.Skip()
		return nil, false
	}
	start := c.i
	c.string()
	whole := c.slice(start)
	if c.err != nil {
		return nil, false
	}
	return whole[1 : len(whole)-1], true
}

// Int reads a whole number. Any other value is skipped, and ok is false.
func (c *Cursor) Int() (n int64, ok bool) {
	raw := c.Raw()
	if c.err != nil {
		return 0, false
	}
	n, err := strconv.ParseInt(string(raw), 10, 64)
	return n, err == nil
}

// Count reads a whole number that cannot be negative; any other value is skipped and -1.
func (c *Cursor) Count() int64 {
	if n, ok := c.Int(); ok && n >= 0 {
		return n
	}
	return -1
}

// Member reads an object for one string; nil when it has none, or the value is no object.
func (c *Cursor) Member(name string) (inside []byte) {
	for c.Object(); c.More('}'); {
		if string(c.Key()) == name {
			inside, _ = c.String()
		} else {
			c.Skip()
		}
	}
	return inside
}

// MemberCount reads an object for one Count; -1 when it has none, or the value is no object.
func (c *Cursor) MemberCount(name string) int64 {
	n := int64(-1)
	for c.Object(); c.More('}'); {
		if string(c.Key()) == name {
			n = c.Count()
		} else {
			c.Skip()
		}
	}
	return n
}

// Raw reads any value and returns its bytes.
func (c *Cursor) Raw() []byte {
	c.space()
	start := c.i
	c.Skip()
	return c.slice(start)
}

// Skip reads past any value, checking its grammar.
func (c *Cursor) Skip() {
	switch c.Peek() {
	case '{':
		for c.Open('{'); c.More('}'); {
			c.Key()
			c.Skip()
		}
	case '[':
		for c.Open('['); c.More(']'); {
			c.Skip()
		}
	case '"':
		c.string()
	case 't':
		c.word("true")
	case 'f':
		c.word("false")
	case 'n':
		c.word("null")
	default:
		c.number()
	}
}

func (c *Cursor) fail() {
	if c.err == nil {
		c.err = ErrSyntax
	}
}

func (c *Cursor) slice(start int) []byte {
	if c.err != nil {
		return nil
	}
	return c.b[start:c.i]
}

func (c *Cursor) space() {
	for c.i < len(c.b) {
		switch c.b[c.i] {
		case ' ', '\t', '\n', '\r':
			c.i++
		default:
			return
		}
	}
}

func (c *Cursor) word(word string) {
	if c.err != nil {
		return
	}
	if len(c.b)-c.i < len(word) || string(c.b[c.i:c.i+len(word)]) != word {
		c.fail()
		return
	}
	c.i += len(word)
}

// plain marks the bytes a string may hold without a closer look.
var plain = func() (table [256]bool) {
	for b := 0x20; b < 256; b++ {
		table[b] = b != '"' && b != '\\'
	}
	return table
}()

// string reads past a string that starts at the cursor and says whether it holds escapes.
func (c *Cursor) string() (escaped bool) {
	if c.err != nil {
		return false
	}
	b, i := c.b, c.i+1
	for {
		for i < len(b) && plain[b[i]] {
			i++
		}
		if i >= len(b) || b[i] < 0x20 {
			c.fail()
			return escaped
		}
		if b[i] == '"' {
			c.i = i + 1
			return escaped
		}
		escaped = true
		n := escapeLength(b[i:])
		if n == 0 {
			c.fail()
			return escaped
		}
		i += n
	}
}

// escapeLength is the length of the escape sequence at the start of b, 0 when there is none.
func escapeLength(b []byte) int {
	if len(b) < 2 {
		return 0
	}
	switch b[1] {
	case '"', '\\', '/', 'b', 'f', 'n', 'r', 't':
		return 2
	case 'u':
		if _, ok := hex4(b[2:]); ok {
			return 6
		}
	}
	return 0
}

// number reads past a number: -?(0|[1-9][0-9]*)(\.[0-9]+)?([eE][+-]?[0-9]+)?
func (c *Cursor) number() {
	if c.err != nil {
		return
	}
	c.accept("-")
	switch {
	case c.accept("0"):
	case c.digits():
	default:
		c.fail()
		return
	}
	if c.accept(".") && !c.digits() {
		c.fail()
		return
	}
	if c.accept("eE") {
		c.accept("+-")
		if !c.digits() {
			c.fail()
		}
	}
}

func (c *Cursor) accept(any string) bool {
	if c.i < len(c.b) {
		for k := range len(any) {
			if c.b[c.i] == any[k] {
				c.i++
				return true
			}
		}
	}
	return false
}

func (c *Cursor) digits() bool {
	start := c.i
	for c.i < len(c.b) && c.b[c.i] >= '0' && c.b[c.i] <= '9' {
		c.i++
	}
	return c.i > start
}
