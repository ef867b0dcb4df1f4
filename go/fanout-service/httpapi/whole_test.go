package httpapi_test

import (
	"bufio"
	"context"
	"encoding/json"
	"io"
	"net/http"
	"strings"
	"testing"
	"time"

	"rex/fanout-service/engine"
	"rex/fanout-service/httpapi"
)

type wholeAnswer struct {
	Calls []struct {
		Call     string  `json:"call"`
		Text     string  `json:"text"`
		Thoughts *string `json:"thoughts"`
		Events   []event `json:"events"`
		Result   event   `json:"result"`
	} `json:"calls"`
	End struct {
		Finished int `json:"finished"`
		Failed   int `json:"failed"`
	} `json:"end"`
}

// whole sends calls and reads their answers in one piece.
func (s *service) whole(calls ...callSpec) wholeAnswer {
	s.t.Helper()
	response := s.post(s.t.Context(), bodyWith(s.t, map[string]any{"stream": false}, calls...))
	defer func() { _ = response.Body.Close() }()
	raw, err := io.ReadAll(response.Body)
	if err != nil {
		s.t.Fatal(err)
	}
	if response.StatusCode != http.StatusOK || response.Header.Get("Content-Type") != "application/json" {
		s.t.Fatalf("%d %s", response.StatusCode, raw)
	}
	fits(s.t, "whole", raw)
	var answer wholeAnswer
	if err := json.Unmarshal(raw, &answer); err != nil {
		s.t.Fatal(err)
	}
	return answer
}

func TestAWholeAnswerSaysWhatAStreamWould(t *testing.T) {
	for name, want := range stories {
		t.Run(name, func(t *testing.T) {
			answer := newService(t).whole(want.call)
			got := answer.Calls[0]
			told := outcome{}
			for _, e := range append(got.Events, got.Result) {
				told.add(t, e)
			}
			story := strings.ReplaceAll(strings.ReplaceAll(want.story, ", chunk", ""), ", thought", "")
			if strings.Join(told.story, ", ") != story || got.Text != want.text {
				t.Errorf("told %q with %q", told.story, got.Text)
			}
			if asked := want.call["thoughts"] == true; asked != (got.Thoughts != nil) || asked && *got.Thoughts == "" {
				t.Errorf("the thoughts are %s", show(got.Thoughts))
			}
		})
	}
}

func TestWholeAnswersComeInTheOrderOfTheRequestHoweverTheyEnd(t *testing.T) {
	answer := newService(t).whole(call("slow", "ok?delay_ms=20"), call("bad", "http-500"), call("fast", "ok"), call("cut", "cut"))
	var order, texts []string
	for _, each := range answer.Calls {
		order, texts = append(order, each.Call), append(texts, each.Text)
	}
	if strings.Join(order, " ") != "slow bad fast cut" || strings.Join(texts, "|") != twelve+"||"+twelve+"|"+three {
		t.Errorf("%q %q", order, texts)
	}
	if answer.End.Finished != 2 || answer.End.Failed != 2 {
		t.Errorf("%+v", answer.End)
	}
}

func TestAWholeAnswerIsInFlightUntilItsReaderHasIt(t *testing.T) {
	s := newService(t, func(_ *engine.Config, options *httpapi.Options) { options.Patience = time.Minute })
	answer := bufio.NewReader(s.slowly(map[string]any{"stream": false}))
	if _, err := answer.Peek(1); err != nil { // more follows than the sockets hold
		t.Fatal(err)
	}
	if n := s.engine.InFlight(); n != 1 {
		t.Errorf("%d fan-outs are in flight while an answer is written", n)
	}
	if n := s.engine.Stats().Bytes; n < 8_000_000 {
		t.Errorf("%d bytes are on the books of an answer that waits for its reader", n)
	}
	drained := make(chan error, 1)
	go func() { drained <- s.engine.Drain(t.Context()) }()
	s.wait("the drain", s.engine.Draining)
	response, err := http.ReadResponse(answer, nil)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = response.Body.Close() }()
	raw, err := io.ReadAll(response.Body)
	if err != nil || !json.Valid(raw) || len(raw) < 8<<20 {
		t.Errorf("the answer was cut at %d bytes: %v", len(raw), err)
	}
	if err := <-drained; err != nil {
		t.Error(err)
	}
}

func TestLeavingStopsTheCallsOfAWholeAnswer(t *testing.T) {
	s := newService(t)
	ctx, leave := context.WithCancel(t.Context())
	defer leave()
	left := make(chan error)
	go func() {
		request, err := http.NewRequestWithContext(ctx, http.MethodPost, s.url+"/fanout",
			strings.NewReader(bodyWith(t, map[string]any{"stream": false}, call("A", "stall"), call("B", "no-headers"))))
		if err == nil {
			request.Header.Set("Content-Type", "application/json")
			var response *http.Response
			if response, err = s.client.Do(request); err == nil {
				_ = response.Body.Close()
			}
		}
		left <- err
	}()
	s.wait("two calls upstream", func() bool { return len(s.fake.Log()) == 2 })
	leave()
	if err := <-left; err == nil {
		t.Error("there was an answer")
	}
	s.aborted(2)
	s.wait("the end of the fan-out", func() bool { return s.engine.InFlight() == 0 })
}
