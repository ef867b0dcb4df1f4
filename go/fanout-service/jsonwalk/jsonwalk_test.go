package jsonwalk_test

import (
	"encoding/json"
	"strings"
	"testing"
	"unicode/utf8"

	"rex/fanout-service/jsonwalk"
)

func skips(raw string) bool {
	c := jsonwalk.New([]byte(raw))
	c.Skip()
	return c.End() == nil
}

func TestTheGrammarIsStrict(t *testing.T) {
	for _, raw := range []string{
		`{}`, `[]`, ` { "a" : [ 1 , -2.5e+7 , true , false , null , "x\n\u00e9" , {} ] } `, `0`, `-0.1`, `""`,
	} {
		if !skips(raw) {
			t.Errorf("refused %s", raw)
		}
	}
	for _, raw := range []string{
		``, `{`, `}`, `{"a"}`, `{"a":}`, `{"a":1,}`, `[1,]`, `[1 2]`, `{"a":1 "b":2}`, `{a:1}`, `01`, `1.`, `.5`, `1e`, `-`,
		`"`, `"\x"`, `"\u12g4"`, `"\u12"`, "\"\n\"", `tru`, `nul`, `{} {}`, `{}x`, `[1}`, `{"a":1]`, `,`, `+1`,
		strings.Repeat("[", 100) + strings.Repeat("]", 100),
	} {
		if skips(raw) {
			t.Errorf("accepted %s", raw)
		}
	}
}

func TestWhatIsNotAskedForIsSkipped(t *testing.T) {
	c := jsonwalk.New([]byte(`{"x":{"text":"no"},"te\u0078t":"a\"b","n":[1,{"n":2}],"n":7}`))
	text, number := "", int64(0)
	for c.Open('{'); c.More('}'); {
		switch string(c.Key()) {
		case "text":
			inside, _ := c.String()
			text = string(inside)
		case "n":
			if n, ok := c.Int(); ok {
				number = n
			}
		default:
			c.Skip()
		}
	}
	if c.End() != nil || text != `a\"b` || number != 7 {
		t.Errorf("text %q, number %d, %v", text, number, c.End())
	}
}

func TestAValueOfAnotherTypeIsSkippedAndWhatFollowsIsRead(t *testing.T) {
	for _, odd := range []string{`null`, `7`, `"x"`, `true`, `[{"n":9}]`, `{"m":[9]}`} {
		c := jsonwalk.New([]byte(`{"object":` + odd + `,"list":` + odd + `,"member":` + odd + `,"n":3,"after":"z"}`))
		var read []string
		n, after, member := int64(0), "", []byte(nil)
		for c.Open('{'); c.More('}'); {
			switch string(c.Key()) {
			case "object":
				for c.Object(); c.More('}'); {
					read = append(read, string(c.Key()))
					c.Skip()
				}
			case "list":
				for c.List(); c.More(']'); {
					read = append(read, string(c.Raw()))
				}
			case "member":
				member = c.Member("n")
			case "n":
				n = c.Count()
			case "after":
				inside, _ := c.String()
				after = string(inside)
			}
		}
		want := map[string]string{`[{"n":9}]`: `{"n":9}`, `{"m":[9]}`: "m"}[odd]
		if c.End() != nil || strings.Join(read, " ") != want || n != 3 || after != "z" || member != nil {
			t.Errorf("%s: read %q, %d, %q, %q, %v", odd, read, n, after, member, c.End())
		}
	}
}

func TestCountsAndMembersAreReadOrAreNot(t *testing.T) {
	for raw, want := range map[string]int64{`0`: 0, `12`: 12, `-4`: -1, `1.5`: -1, `1e3`: -1, `"3"`: -1, `null`: -1, `99999999999999999999`: -1, `[1]`: -1} {
		c := jsonwalk.New([]byte(raw))
		if got := c.Count(); got != want || c.End() != nil {
			t.Errorf("%s: %d, %v", raw, got, c.End())
		}
	}
	for raw, want := range map[string]string{`{"a":1,"text":"x\n","b":[]}`: `x\n`, `{"text":5}`: "", `{}`: "", `"text"`: "", `[]`: ""} {
		c := jsonwalk.New([]byte(raw))
		if got := c.Member("text"); string(got) != want || c.End() != nil {
			t.Errorf("%s: %q, %v", raw, got, c.End())
		}
	}
	for raw, want := range map[string]int64{`{"a":[],"n":7,"b":{}}`: 7, `{"n":"7"}`: -1, `{}`: -1, `7`: -1} {
		c := jsonwalk.New([]byte(raw))
		if got := c.MemberCount("n"); got != want || c.End() != nil {
			t.Errorf("%s: %d, %v", raw, got, c.End())
		}
	}
	for _, raw := range []string{`{"a":`, `{"a"`, `[`, `{"text":"x"`} {
		c := jsonwalk.New([]byte(raw))
		for c.Object(); c.More('}'); {
			c.Key()
			c.Skip()
		}
		if c.End() == nil {
			t.Errorf("accepted %s", raw)
		}
	}
}

// FuzzCursor checks that we accept what encoding/json accepts, and nothing else.
func FuzzCursor(f *testing.F) {
	for _, seed := range []string{`{"a":[1,2,{"b":null}]}`, `"\ud83c\udf0d"`, `[1e5,-0]`, `{"a":1,}`} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, raw string) {
		if strings.Count(raw, "[")+strings.Count(raw, "{") > 60 {
			t.Skip("deeper than we go")
		}
		if got, want := skips(raw), json.Valid([]byte(raw)); got != want {
			t.Errorf("%q: accepted %v, encoding/json %v", raw, got, want)
		}
	})
}

// repaired passes pieces through Text and decodes what came out, as our reader would.
func repaired(t *testing.T, pieces ...string) (text string) {
	t.Helper()
	var repair jsonwalk.Text
	decode := func(piece []byte, n int) {
		var plain string
		if err := json.Unmarshal([]byte(`"`+string(piece)+`"`), &plain); err != nil {
			t.Errorf("%q is no JSON string: %v", piece, err)
		}
		if n != utf8.RuneCountInString(plain) {
			t.Errorf("%q: counted %d characters", plain, n)
		}
		text += plain
	}
	for _, piece := range pieces {
		decode(repair.Add([]byte(piece)))
	}
	decode(repair.Rest())
	return text
}

func TestTextIsRepaired(t *testing.T) {
	cases := []struct {
		name   string
		pieces []string
		want   string
	}{
		{"plain", []string{"hello", " world"}, "hello world"},
		{"escapes stay", []string{`a\n\t\"\\\/b\u00e9`}, "a\n\t\"\\/bé"},
		{"a control character stays", []string{`\u0007`}, "\u0007"},
		{"NUL", []string{`a\u0000b`}, "a\ufffdb"},
		{"a pair", []string{`\ud83c\udf0d`}, "🌍"},
		{"a pair in two pieces", []string{`x\ud83c`, `\udf0dy`}, "x🌍y"},
		{"a lone high", []string{`\ud83cx`}, "\ufffdx"},
		{"a lone high at a border", []string{`\ud83c`, `x`}, "\ufffdx"},
		{"two highs", []string{`\ud83c\ud83c\udf0d`}, "\ufffd🌍"},
		{"a lone low", []string{`\udf0dx`}, "\ufffdx"},
		{"a high at the end", []string{`x\ud83c`}, "x\ufffd"},
		{"a high, then NUL", []string{`\ud83c`, `\u0000`}, "\ufffd\ufffd"},
		{"invalid UTF-8", []string{"a\xffb\xc3(\xe2\x82"}, "a\ufffdb\ufffd(\ufffd\ufffd"},
		{"U+FFFD itself", []string{"\ufffd", `\ufffd`}, "\ufffd\ufffd"},
	}
	for _, c := range cases {
		t.Run(c.name, func(t *testing.T) {
			if got := repaired(t, c.pieces...); got != c.want {
				t.Errorf("got %q, want %q", got, c.want)
			}
		})
	}
}

// FuzzText cuts the inside of a JSON string in two at any escape: the outcome must be what
// encoding/json makes of the whole, but for U+0000.
func FuzzText(f *testing.F) {
	f.Add(`x\ud83c\udf0dy`, 7)
	f.Add(`\ud83c\ud83c`, 6)
	f.Add("\xff\\u0000", 1)
	f.Fuzz(func(t *testing.T, inside string, cut int) {
		var want string
		whole := `"` + inside + `"`
		if json.Unmarshal([]byte(whole), &want) != nil {
			t.Skip("no JSON string")
		}
		if cut < 0 || cut > len(inside) || !json.Valid([]byte(`"`+inside[:cut]+`"`)) || !json.Valid([]byte(`"`+inside[cut:]+`"`)) ||
			cut < len(inside) && !utf8.RuneStart(inside[cut]) {
			cut = 0
		}
		got := repaired(t, inside[:cut], inside[cut:])
		if want := strings.ReplaceAll(want, "\x00", "\ufffd"); got != want {
			t.Errorf("got %q, want %q", got, want)
		}
	})
}

func BenchmarkCursor(b *testing.B) {
	data := []byte(`{"id":"chatcmpl-AbCdEfGhIjKlMnOpQrStUvWxYz012","object":"chat.completion.chunk","created":1787000000,` +
		`"model":"some-model-2026-07-18","service_tier":"default","system_fingerprint":"fp_0ba0d124f1",` +
		`"choices":[{"index":0,"delta":{"content":" hello\n"},"logprobs":null,"finish_reason":null}],"usage":null}`)
	b.ReportAllocs()
	b.SetBytes(int64(len(data)))
	for range b.N {
		c := jsonwalk.New(data)
		c.Skip()
		if c.End() != nil {
			b.Fatal("refused")
		}
	}
}
