package fakeprovider_test

import (
	"context"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"rex/fanout-service/fakeprovider"
)

// pacedServer is a Paced upstream and the address of its completions.
func pacedServer(t *testing.T) (*fakeprovider.Paced, string) {
	t.Helper()
	paced := &fakeprovider.Paced{}
	server := httptest.NewServer(paced)
	t.Cleanup(server.Close)
	t.Cleanup(http.DefaultClient.CloseIdleConnections)
	return paced, server.URL
}

func TestAPacedAnswerHasEachPieceOnceStreamedOrNot(t *testing.T) {
	paced, url := pacedServer(t)
	for _, stream := range []string{"true", "false"} {
		status, raw, err := post(t, url, `{"model":"paced?chunks=5&delay_ms=1","stream":`+stream+`}`)
		if err != nil || status != http.StatusOK {
			t.Fatalf("stream %s: %d %v", stream, status, err)
		}
		if got := strings.Count(raw, string(fakeprovider.Mark)); got != 5 {
			t.Errorf("stream %s: %d pieces", stream, got)
		}
		if !strings.Contains(raw, `"finish_reason":"stop"`) || !strings.Contains(raw, `"completion_tokens":5`) {
			t.Errorf("stream %s: %s", stream, raw)
		}
		if strings.HasSuffix(raw, "data: [DONE]\n\n") != (stream == "true") {
			t.Errorf("stream %s ends in %q", stream, raw[max(0, len(raw)-40):])
		}
	}
	want := fakeprovider.Counts{Begun: 2, Finished: 2, Chunks: 10}
	if got := paced.Counts(); got != want {
		t.Errorf("%+v", got)
	}
}

func TestAPacedAnswerThatNobodyReadsCountsAsAborted(t *testing.T) {
	paced, url := pacedServer(t)
	for _, body := range []string{
		`{"model":"paced?first_ms=1&delay_ms=60000","stream":true}`, // between two pieces
		`{"model":"paced?first_ms=60000","stream":true}`,            // before the header
		`{"model":"paced?first_ms=60000"}`,
	} {
		before := paced.Counts()
		ctx, leave := context.WithCancel(t.Context())
		request, err := http.NewRequestWithContext(ctx, http.MethodPost, url, strings.NewReader(body))
		if err != nil {
			t.Fatal(err)
		}
		left := make(chan struct{})
		go func() {
			defer close(left)
			if response, err := http.DefaultClient.Do(request); err == nil {
				_, _ = io.Copy(io.Discard, response.Body)
				_ = response.Body.Close()
			}
		}()
		for paced.Counts().Begun == before.Begun {
			time.Sleep(time.Millisecond)
		}
		leave()
		<-left
		for paced.Counts().Open > 0 {
			time.Sleep(time.Millisecond)
		}
		if got := paced.Counts(); got.Aborted != before.Aborted+1 || got.LastAbortNS == 0 {
			t.Errorf("%s: %+v", body, got)
		}
	}
}

func TestAPacedModelThatMakesNoSenseIsRefused(t *testing.T) {
	_, url := pacedServer(t)
	for body, want := range map[string]int{
		`{"model":"paced?chunks=many"}`:         http.StatusNotFound,
		`{"model":"paced?delay_ms=-1"}`:         http.StatusNotFound,
		`{"model":"paced?first_ms=9999999999"}`: http.StatusNotFound,
		`{"model":"other"}`:                     http.StatusNotFound,
		`{`:                                     http.StatusBadRequest,
		`{"model":"paced?chunks=1"}`:            http.StatusOK,
	} {
		if status, _, err := post(t, url, body); status != want || err != nil {
			t.Errorf("%s: %d %v", body, status, err)
		}
	}
}
