package fakeprovider

import (
	"iter"
	"math/rand/v2"
	"strings"
)

var lexicon = strings.Fields(`light air sky blue red wave sun cloud water river stone hill tree leaf
	wind rain snow warm cold bright dark small large quick slow early late near far simple plain
	reason cause effect measure value model answer question claim detail example result`)

var subjects = []string{"The sky", "A prism", "Sunlight", "The air", "A river", "The model", "This effect", "The answer"}
var verbs = []string{"scatters", "bends", "carries", "explains", "follows", "changes", "supports", "limits"}
var objects = []string{
	"short waves more than long ones", "what the eye can see", "the colour of the light",
	"a simple rule", "the cause of the effect", "every part of the claim", "less than one expects",
}

// spaced are the same words as they stand within a text.
var spaced = func() []string {
	out := make([]string, len(lexicon))
	for i, word := range lexicon {
		out[i] = " " + word
	}
	return out
}()

func (s *session) random() *rand.Rand {
	seed := uint64(s.number("seed", 1))      //nolint:gosec // number is never negative
	return rand.New(rand.NewPCG(seed, seed)) //nolint:gosec // a script repeats itself
}

// words is the script's answer in pieces of one word: n words, or what chunks= or words= asks. They
// are drawn one by one, so that an answer may have millions.
func words(s *session, n int) iter.Seq[string] {
	n = s.number("words", s.number("chunks", n))
	return func(yield func(string) bool) {
		random, from := s.random(), lexicon
		for range n {
			if !yield(from[random.IntN(len(from))]) {
				return
			}
			from = spaced
		}
	}
}

// prose is n paragraphs of four seeded sentences, in pieces of one word.
func prose(s *session, paragraphs int) iter.Seq[string] {
	random := s.random()
	pick := func(from []string) string { return from[random.IntN(len(from))] }
	var text strings.Builder
	for p := range paragraphs {
		if p > 0 {
			text.WriteString("\n\n")
		}
		for i := range 4 {
			if i > 0 {
				text.WriteByte(' ')
			}
			text.WriteString(pick(subjects) + " " + pick(verbs) + " " + pick(objects) + ".")
		}
	}
	return split(text.String())
}

// split cuts text before each space, so that the pieces joined are the text.
func split(text string) iter.Seq[string] {
	return func(yield func(string) bool) {
		for rest := text; rest != ""; {
			cut := strings.IndexByte(rest[1:], ' ') + 1
			if cut == 0 {
				cut = len(rest)
			}
			if !yield(rest[:cut]) {
				return
			}
			rest = rest[cut:]
		}
	}
}
