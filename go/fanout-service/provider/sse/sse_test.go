package sse_test

import (
	"bytes"
	"errors"
	"io"
	"slices"
	"strings"
	"testing"
	"testing/iotest"

	"rex/fanout-service/provider/sse"
)

// readAll returns the data of every event, and the error that ended the stream.
func readAll(src io.Reader, limit int) (events []string, err error) {
	r := sse.NewReader(src, limit, nil)
	for {
		data, err := r.Next()
		if err != nil {
			return events, err
		}
		events = append(events, string(data))
	}
}

// sources deliver a stream in ways that must not matter.
var sources = map[string]func(string) io.Reader{
	"whole":            func(s string) io.Reader { return strings.NewReader(s) },
	"a byte at a time": func(s string) io.Reader { return iotest.OneByteReader(strings.NewReader(s)) },
	"half reads":       func(s string) io.Reader { return iotest.HalfReader(strings.NewReader(s)) },
	"error with data":  func(s string) io.Reader { return iotest.DataErrReader(strings.NewReader(s)) },
}

func TestEventsAreReadAsTheStandardSays(t *testing.T) {
	cases := []struct {
		name, stream string
		want         []string
	}{
		{"one event", "data: a\n\n", []string{"a"}},
		{"CRLF", "data: a\r\n\r\ndata: b\r\n\r\n", []string{"a", "b"}},
		{"CR", "data: a\r\rdata: b\r\r", []string{"a", "b"}},
		{"mixed ends", "data: a\r\n\ndata: b\r\rdata: c\n\r\n", []string{"a", "b", "c"}},
		{"byte order mark", "\ufeffdata: a\n\n", []string{"a"}},
		{"a mark in the middle is no mark", "data: a\n\n\ufeffdata: b\n\n", []string{"a"}},
		{"no space", "data:a\n\n", []string{"a"}},
		{"only one space is taken", "data:  a\n\n", []string{" a"}},
		{"several data lines", "data: a\ndata: b\n\n", []string{"a\nb"}},
		{"empty data", "data:\n\ndata\n\n", []string{"", ""}},
		{"other fields", "event: x\nid: 1\nretry: 2\ndata: a\nfoo: bar\n\n", []string{"a"}},
		{"comments", ": hi\n\n:\ndata: a\n: between\ndata: b\n\n", []string{"a\nb"}},
		{"names that only begin alike", "database: x\ndata: a\n\n", []string{"a"}},
		{"an event without its blank line does not count", "data: a\n\ndata: b\n", []string{"a"}},
		{"a line without its end does not count", "data: a\n\ndata: b", []string{"a"}},
		{"blank lines", "\n\n\ndata: a\n\n\n\n", []string{"a"}},
		{"nothing", "", nil},
		{"split code points", "data: naïve 🌍\n\n", []string{"naïve 🌍"}},
	}
	for _, c := range cases {
		for how, source := range sources {
			t.Run(c.name+", "+how, func(t *testing.T) {
				got, err := readAll(source(c.stream), 1<<20)
				if !slices.Equal(got, c.want) || !errors.Is(err, io.EOF) {
					t.Errorf("got %q (%v), want %q", got, err, c.want)
				}
			})
		}
	}
}

func TestLongLinesWorkUpToTheLimit(t *testing.T) {
	for _, size := range []int{1023, 1024, 2047, 2048, 4096, 64<<10 - 1, 64 << 10, 64<<10 + 1, 1 << 20} {
		long := strings.Repeat("x", size)
		got, err := readAll(strings.NewReader("data: "+long+"\n\ndata: after\n\n"), 2<<20)
		if len(got) != 2 || got[0] != long || got[1] != "after" || !errors.Is(err, io.EOF) {
			t.Errorf("%d bytes: %d events, %v", size, len(got), err)
		}
	}
}

func TestTheLimitIsExact(t *testing.T) {
	for beyond, want := range map[int]error{0: io.EOF, 1: sse.ErrTooLong} {
		stream := "data: " + strings.Repeat("x", 4096-len("data: ")+beyond) + "\n\n"
		for how, source := range sources {
			if got, err := readAll(source(stream), 4096); !errors.Is(err, want) || (len(got) == 1) != (beyond == 0) {
				t.Errorf("4096 %+d bytes, %s: %d events, %v", beyond, how, len(got), err)
			}
		}
	}
}

func TestLinesOfJSONInNoEventAreKept(t *testing.T) {
	for stream, want := range map[string]string{
		"{\"error\": {\n  \"code\": 503\n}}":                   "{\"error\": {\n\"code\": 503\n}}\n",
		"data: a\n\n[{\"error\":{}}]\r\n":                      "[{\"error\":{}}]\n",
		"id: 1\nevent: x\n: {\nretry: 2\nfoo\ndata: {\n\ndata": "",
		"":                             "",
		strings.Repeat("{}\n", 40_000): strings.Repeat("{}\n", 64<<10/3),
	} {
		for how, source := range sources {
			r := sse.NewReader(source(stream), 1<<20, nil)
			for {
				if _, err := r.Next(); err != nil {
					break
				}
			}
			if got := string(r.Stray()); got != want || string(r.Stray()) != want {
				t.Errorf("%.40q, %s: kept %.40q, want %.40q", stream, how, got, want)
			}
		}
	}
}

func TestTooLongIsAnErrorAndNeverASilentEnd(t *testing.T) {
	line := "data: " + strings.Repeat("x", 5000)
	for name, stream := range map[string]string{
		"one line":          line + "\n\n",
		"many data lines":   strings.Repeat(line[:900]+"\n", 6) + "\n",
		"a line unfinished": line,
	} {
		if _, err := readAll(strings.NewReader(stream), 4096); !errors.Is(err, sse.ErrTooLong) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func TestErrorsOfTheSourceArePassedOn(t *testing.T) {
	broken := errors.New("broken")
	src := io.MultiReader(strings.NewReader("data: a\n\ndata: b"), iotest.ErrReader(broken))
	got, err := readAll(src, 1<<20)
	if !slices.Equal(got, []string{"a"}) || !errors.Is(err, broken) {
		t.Errorf("got %q, %v", got, err)
	}
}

// FuzzReader compares the reader with a plain reading of the standard.
func FuzzReader(f *testing.F) {
	for _, seed := range []string{"data: a\n\n", "\ufeffdata:a\r\ndata: b\r\r: c\n\ndata", "event: x\rdata\r\n\r\n"} {
		f.Add([]byte(seed), uint8(3))
	}
	f.Fuzz(func(t *testing.T, stream []byte, step uint8) {
		want := plain(stream)
		got, err := readAll(&stepReader{stream, int(step)%7 + 1}, 1<<20)
		if !errors.Is(err, io.EOF) || !slices.Equal(got, want) {
			t.Errorf("got %q (%v), want %q", got, err, want)
		}
	})
}

// plain reads a whole stream the slow way.
func plain(stream []byte) (events []string) {
	text := strings.TrimPrefix(string(stream), "\ufeff")
	text = strings.ReplaceAll(strings.ReplaceAll(text, "\r\n", "\n"), "\r", "\n")
	lines := strings.Split(text, "\n")
	var data []string
	for _, line := range lines[:len(lines)-1] {
		name, value, _ := strings.Cut(line, ":")
		switch {
		case line == "" && data != nil:
			events = append(events, strings.Join(data, "\n"))
			data = nil
		case name == "data" && line != "":
			data = append(data, strings.TrimPrefix(value, " "))
		}
	}
	return events
}

type stepReader struct {
	rest []byte
	step int
}

func (r *stepReader) Read(p []byte) (int, error) {
	if len(r.rest) == 0 {
		return 0, io.EOF
	}
	n := copy(p, r.rest[:min(r.step, len(r.rest))])
	r.rest = r.rest[n:]
	return n, nil
}

func BenchmarkNext(b *testing.B) {
	event := []byte("data: " + strings.Repeat("x", 330) + "\n\n")
	stream := bytes.Repeat(event, 1000)
	b.SetBytes(int64(len(event)))
	b.ReportAllocs()
	var r *sse.Reader
	for i := range b.N {
		if i%1000 == 0 {
			r = sse.NewReader(bytes.NewReader(stream), 1<<20, nil)
		}
		if _, err := r.Next(); err != nil {
			b.Fatal(err)
		}
	}
}
