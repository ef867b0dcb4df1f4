package loadtest

import (
	"bytes"
	"errors"
	"io"
	"strconv"
	"time"
)

var (
	eventBegin = []byte(`{"type":"`)
	callBegin  = []byte(`,"call":"`)
	endBegin   = []byte(`"end":{`)
)

var errNoEnd = errors.New("cut")

// readLines takes the service's stream. It looks at bytes and decodes nothing: the generator must
// cost less than what it loads. A Paced upstream's text holds nothing that looks like an event.
func readLines(body io.Reader, answers []Answer) error {
	ended := false
	err := eachLine(body, func(line []byte, at time.Time) {
		readEvents(line, at, answers)
		ended = ended || bytes.Contains(line, endBegin) && line[len(line)-1] == '\n'
	})
	if err == nil && !ended {
		return errNoEnd
	}
	return err
}

// readEvents notes every event of a line.
func readEvents(line []byte, at time.Time, answers []Answer) {
	next := bytes.Index(line, eventBegin)
	for next >= 0 {
		event := line[next+len(eventBegin):]
		if next = bytes.Index(event, eventBegin); next >= 0 {
			event, line = event[:next], event
		}
		note(event, at, answers)
	}
}

// note reads one event: chunk","call":"0","at_ms":410,"text":"…"}
func note(event []byte, at time.Time, answers []Answer) {
	kind, rest, _ := bytes.Cut(event, []byte{'"'})
	id, _, _ := bytes.Cut(bytes.TrimPrefix(rest, callBegin), []byte{'"'})
	call, err := strconv.Atoi(string(id))
	if err != nil || call < 0 || call >= len(answers) {
		return
	}
	answer := &answers[call]
	switch string(kind) {
	case "chunk":
		if answer.First.IsZero() {
			answer.First = at
		}
		answer.Chunks += bytes.Count(rest, mark)
	case "finished":
		answer.End = at
	case "failed":
		answer.End = at
		answer.Failure = word(rest, `"kind":"`)
	}
}

// word is the text behind a name, up to its closing quote; "?" without one.
func word(event []byte, name string) string {
	_, rest, found := bytes.Cut(event, []byte(name))
	text, _, closed := bytes.Cut(rest, []byte{'"'})
	if !found || !closed {
		return "?"
	}
	return string(text)
}

// readCalls takes the service's answer in one piece ("stream": false).
func readCalls(body io.Reader, answers []Answer) error {
	raw, err := io.ReadAll(body)
	if err != nil {
		return err
	}
	at := time.Now()
	parts := bytes.Split(raw, []byte(`{"call":"`))
	if len(parts) != len(answers)+1 || !bytes.Contains(raw, endBegin) {
		return errNoEnd
	}
	for i, part := range parts[1:] {
		answers[i] = Answer{First: at, End: at, Chunks: bytes.Count(part, mark)}
		if bytes.Contains(part, []byte(`{"type":"failed"`)) {
			answers[i].Failure = word(part, `"kind":"`)
		}
	}
	return nil
}
