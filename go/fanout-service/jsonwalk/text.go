package jsonwalk

import (
	"bytes"
	"unicode/utf16"
	"unicode/utf8"
)

// Text repairs the pieces of one answer: the insides of JSON strings, valid by the grammar, come
// in; they leave valid as Unicode too. Lone surrogates, invalid UTF-8 and U+0000 become U+FFFD,
// because what reads us would refuse them. A surrogate pair cut in two between pieces is healed.
type Text struct {
	high rune // a high surrogate that ended the last piece and waits for its other half
	buf  []byte
}

// Add returns the piece, repaired, and its number of code points; the result is valid until the
// next call. Most pieces need no repair and are returned as they are.
func (t *Text) Add(piece []byte) (repaired []byte, characters int) {
	if t.high == 0 && bytes.IndexByte(piece, '\\') < 0 && utf8.Valid(piece) {
		return piece, utf8.RuneCount(piece)
	}
	t.buf = t.buf[:0]
	for len(piece) > 0 {
		r, size := next(piece)
		raw := piece[:size]
		piece = piece[size:]
		if t.high != 0 {
			pair := utf16.DecodeRune(t.high, r)
			t.high = 0
			characters++
			t.buf = utf8.AppendRune(t.buf, pair) // U+FFFD unless r is the other half
			if pair != utf8.RuneError {
				continue
			}
		}
		if r >= 0xd800 && r < 0xdc00 {
			t.high = r
			continue
		}
		characters++
		switch {
		case r == 0, r >= 0xdc00 && r < 0xe000:
			t.buf = utf8.AppendRune(t.buf, utf8.RuneError)
		case r == utf8.RuneError:
			t.buf = utf8.AppendRune(t.buf, r)
		default:
			t.buf = append(t.buf, raw...)
		}
	}
	return t.buf, characters
}

// Rest returns what still waits when the answer is over: nothing, or one replacement character.
func (t *Text) Rest() (piece []byte, characters int) {
	if t.high == 0 {
		return nil, 0
	}
	t.high = 0
	return []byte(string(utf8.RuneError)), 1
}

// next decodes one character of the inside of a JSON string and says how many bytes it takes.
func next(b []byte) (r rune, size int) {
	if b[0] != '\\' {
		return utf8.DecodeRune(b)
	}
	if b[1] != 'u' {
		return rune(b[1]), 2 // which character it is does not matter: it is kept as it stands
	}
	r, _ = hex4(b[2:])
	return r, 6
}

func hex4(b []byte) (r rune, ok bool) {
	if len(b) < 4 {
		return 0, false
	}
	for _, digit := range b[:4] {
		switch {
		case digit >= '0' && digit <= '9':
			digit -= '0'
		case digit >= 'a' && digit <= 'f':
			digit -= 'a' - 10
		case digit >= 'A' && digit <= 'F':
			digit -= 'A' - 10
		default:
			return 0, false
		}
		r = r<<4 | rune(digit)
	}
	return r, true
}
