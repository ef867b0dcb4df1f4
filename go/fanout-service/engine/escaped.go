package engine

import "unicode/utf8"

// Text travels as the inside of a JSON string. These functions see the code points in it.

// symbol is the length in bytes of the first code point of escaped text, which is not empty.
func symbol(text []byte) int {
	switch {
	case text[0] != '\\':
		_, size := utf8.DecodeRune(text)
		return size
	case len(text) < 2 || text[1] != 'u':
		return min(2, len(text))
	case len(text) >= 12 && text[6] == '\\' && isHighSurrogate(text[2:4]):
		return 12
	default:
		return min(6, len(text))
	}
}

// isHighSurrogate looks at the first two of four hex digits.
func isHighSurrogate(digits []byte) bool {
	if digits[0] != 'd' && digits[0] != 'D' {
		return false
	}
	switch digits[1] {
	case '8', '9', 'a', 'b', 'A', 'B':
		return true
	default:
		return false
	}
}

// codePoints counts the code points of escaped text.
func codePoints(text []byte) (count int) {
	for len(text) > 0 {
		text = text[symbol(text):]
		count++
	}
	return count
}

// cut returns as many bytes of escaped text as fit a limit without splitting a code point; at
// least one code point.
func cut(text []byte, limit int) int {
	if len(text) <= limit {
		return len(text)
	}
	at := symbol(text)
	for at < len(text) {
		next := at + symbol(text[at:])
		if next > limit {
			break
		}
		at = next
	}
	return at
}
