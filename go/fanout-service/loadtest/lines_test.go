package loadtest_test

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"rex/fanout-service/loadtest"
)

const twoCalls = `{"n":1,"ev":[{"type":"queued","call":"0","at_ms":0},{"type":"started","call":"1","at_ms":1,"attempt":1}]}
{"n":2,"ev":[{"type":"chunk","call":"1","at_ms":4,"text":" w~rds w~rds"},{"type":"chunk","call":"0","at_ms":4,"text":" w~rds"}]}
{"n":3,"ev":[]}
{"n":4,"ev":[{"type":"chunk","call":"1","at_ms":5,"text":" w~rds"},{"type":"failed","call":"0","at_ms":6,"kind":"timeout.stall","message":"?"}]}
{"n":5,"ev":[{"type":"finished","call":"1","at_ms":9,"finish_reason":"stop"}],"end":{"calls":2,"finished":1,"failed":1,"elapsed_ms":9}}
`

func TestEveryPieceOfEveryCallIsCountedWhereverTheStreamIsCut(t *testing.T) {
	answers := make([]loadtest.Answer, 2)
	if err := loadtest.ReadLines(strings.NewReader(twoCalls), answers); err != nil {
		t.Fatal(err)
	}
	if answers[0].Chunks != 1 || answers[1].Chunks != 3 {
		t.Errorf("%+v", answers)
	}
	if answers[0].Failure != "timeout.stall" || answers[1].Failure != "" {
		t.Errorf("%+v", answers)
	}
	if answers[0].First.IsZero() || answers[1].End.IsZero() || answers[1].End.Before(answers[1].First) {
		t.Errorf("%+v", answers)
	}
	for cut := range len(twoCalls) {
		if loadtest.ReadLines(strings.NewReader(twoCalls[:cut]), make([]loadtest.Answer, 2)) == nil {
			t.Fatalf("a stream cut at byte %d passed for whole", cut)
		}
	}
}

func TestALineLongerThanTheBufferIsReadWhole(t *testing.T) {
	long := strings.Repeat(" w~rds", 20_000)
	stream := strings.Replace(twoCalls, " w~rds w~rds", long, 1)
	answers := make([]loadtest.Answer, 2)
	if err := loadtest.ReadLines(strings.NewReader(stream), answers); err != nil || answers[1].Chunks != 20_001 {
		t.Errorf("%d chunks, %v", answers[1].Chunks, err)
	}
}

func TestTheContractsOwnStreamsAreRead(t *testing.T) {
	paths, err := filepath.Glob("../api/golden/streams/valid/*.ndjson")
	if err != nil || len(paths) == 0 {
		t.Fatalf("no golden streams: %v", err)
	}
	for _, path := range paths {
		raw, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		if err := loadtest.ReadLines(strings.NewReader(string(raw)), make([]loadtest.Answer, 1)); err != nil {
			t.Errorf("%s: %v", filepath.Base(path), err)
		}
	}
}
