package engine

import (
	"math/rand/v2"
	"strings"
	"testing"
)

// Any sequence of code points, in all the forms that JSON has for them, is counted right and cut
// only between them.
func TestEscapedTextIsCutBetweenCodePoints(t *testing.T) {
	symbols := []string{"a", "é", "日", "😀", `\n`, `\"`, `\\`, `\u00e9`, `\ud83d\ude00`, `\uD83D\uDE00`, `\uDBFF\uDFFF`}
	for seed := range uint64(200) {
		random := rand.New(rand.NewPCG(seed, 1))
		var text strings.Builder
		borders := map[int]bool{0: true}
		count := random.IntN(100)
		for range count {
			text.WriteString(symbols[random.IntN(len(symbols))])
			borders[text.Len()] = true
		}
		if got := codePoints([]byte(text.String())); got != count {
			t.Fatalf("%q: %d code points, want %d", text.String(), got, count)
		}
		limit := 1 + random.IntN(40)
		at := 0
		for at < text.Len() {
			size := cut([]byte(text.String()[at:]), limit)
			if size <= 0 || size > max(limit, 12) || !borders[at+size] {
				t.Fatalf("%q is cut at %d", text.String(), at+size)
			}
			for border := at + size + 1; border <= min(at+limit, text.Len()); border++ {
				if borders[border] {
					t.Fatalf("%q is cut at %d, though %d fits", text.String(), at+size, border)
				}
			}
			at += size
		}
	}
}

func TestTextThatIsNoJSONIsNotCutBeyondItsEnd(t *testing.T) {
	for _, text := range []string{`\`, `\u`, `\u12`, `\ud83d`, `\ud83d\`, `\ud83d\u`, "\xff", "\xe6\x97"} {
		if codePoints([]byte(text)) == 0 {
			t.Errorf("%q holds nothing", text)
		}
		if size := cut([]byte(text), 1); size < 1 || size > len(text) {
			t.Errorf("%q is cut at %d", text, size)
		}
	}
}
