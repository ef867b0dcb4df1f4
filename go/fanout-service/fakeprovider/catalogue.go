package fakeprovider

import (
	"fmt"
	"slices"
	"strconv"
	"strings"
)

// script is one scripted answer.
type script struct {
	name    string // "<n>" stands for a number
	does    string
	options string // of its own, with defaults
	on      string // the wires it is about, "" for every one
	streams ending // how a streamed answer of it ends
	whole   ending // how an answer in one piece ends, where that differs
	plays   bool   // it runs another script in its place
	run     func(*session)
}

// ending is how a client sees an answer end.
type ending string

const (
	completely ending = "complete" // with all that a regular answer ends with
	short      ending = "short"    // the body ends well, the answer does not
	broken     ending = "broken"   // the connection breaks
	open       ending = "open"     // not until the client leaves
	refused    ending = "refused"  // an HTTP status of failure
	odd        ending = "odd"      // 200, and a body that is no answer of the kind asked for
)

// catalogue is every behaviour the server knows.
var catalogue = slices.Concat(answers, framings, content, refusals, breaks, moods)

// chapters are the catalogue's parts as the document shows them.
var chapters = []struct {
	title   string
	scripts []script
}{
	{"Answers", answers},
	{"Answers in other framings", framings},
	{"Answers with odd content", content},
	{"Refusals", refusals},
	{"Stalls and broken connections", breaks},
	{"Behaviour that remembers", moods},
}

// find resolves a script by name; "prose-3" and "http-503" carry a number.
func (s *Server) find(name string) (*script, int) {
	if found, ok := s.byName[name]; ok {
		return found, 0
	}
	at := strings.LastIndexByte(name, '-')
	if at < 0 {
		return nil, 0
	}
	number, err := strconv.Atoi(name[at+1:])
	if err != nil || number < 0 {
		return nil, 0
	}
	return s.byName[name[:at]+"-<n>"], number
}

func (c *script) speaks(w wire) bool {
	return c.on == "" || slices.Contains(strings.Fields(c.on), w.name())
}

// Catalogue is CATALOGUE.md: every script and option.
func Catalogue() string {
	var b strings.Builder
	b.WriteString(preface)
	for _, chapter := range chapters {
		fmt.Fprintf(&b, "\n## %s\n\n| script | what it does | ends |\n|---|---|---|\n", chapter.title)
		for _, one := range chapter.scripts {
			does := one.does
			if one.options != "" {
				does += " Options: " + one.options + "."
			}
			if one.on != "" {
				does += " Only " + strings.Join(strings.Fields(one.on), ", ") + "."
			}
			ends := string(one.streams)
			if one.whole != "" {
				ends += "; in one piece " + string(one.whole)
			}
			fmt.Fprintf(&b, "| `%s` | %s | %s |\n", one.name, strings.ReplaceAll(does, "|", `\|`), ends)
		}
	}
	return b.String()
}

const preface = `# The scripts of the scripted upstream

Written by ` + "`go run ./cmd/fakeprovider --catalogue > fakeprovider/CATALOGUE.md`" + `; a test compares it with the code.

The request's model names the script, with options after a question mark: ` + "`ok?delay_ms=5&chunks=40&seed=3`" + `. In Gemini's paths the whole of it is escaped; the bare form is understood too. What a script remembers, it remembers for the model as it was written: an option nobody reads, like ` + "`id=7`" + `, gives a test a state of its own.

An answer ends *complete*, *short* (the body ends well, the answer does not), *broken* (the connection breaks), *refused* (an HTTP status), *odd* (200 with something else), or stays *open* until the client leaves. Without stream a script takes the same time and sends one JSON body; a script that would not have finished breaks off in the middle of it.

## Options of every answer

| option | meaning |
|---|---|
| ` + "`delay_ms`" + ` | pause between pieces; ` + "`jitter_ms`" + ` adds up to so much, seeded |
| ` + "`first_ms`" + ` | pause between what opens the stream and the first piece |
| ` + "`chunks`" + ` or ` + "`words`" + ` | how many pieces of one word |
| ` + "`seed`" + ` | of the text and of the jitter (1) |
| ` + "`think`" + ` | so many pieces of reasoning before the answer (0) |
| ` + "`finish`" + ` | the finish reason, in the wire's own word |
| ` + "`cached`, `reasoning`" + ` | those counts in the usage (0) |
| ` + "`usage`" + ` | this JSON for every number of the usage |
| ` + "`thought_field`" + ` | OpenAI's member for reasoning (` + "`reasoning_content`" + `) |

` + "`max_tokens`" + ` in the request cuts an answer after so many pieces, with the finish reason for it. A word of the request is one input token, a piece of the answer one output token.
`
