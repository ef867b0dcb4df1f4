package telemetry_test

import (
	"net/http"
	"testing"

	fanout "rex/fanout-service"
	"rex/fanout-service/limit"
	"rex/fanout-service/telemetry"
)

func TestARefusedKeyIsShown(t *testing.T) {
	m := telemetry.NewMetrics(nil)
	observe(t.Context(), m, newRequest("m", 1), answered())
	limiter := limit.New(limit.Config{}, nil, nil)
	m.Watch(telemetry.Sources{Limiter: limiter})
	key := fanout.NewKey("secret")
	for _, row := range []struct {
		shown   float64
		outcome limit.Outcome
	}{
		{0, limit.Outcome{}},
		{1, limit.Outcome{Failure: &fanout.Failure{Kind: fanout.Auth, Status: http.StatusUnauthorized}}},
	} {
		permit, err := limiter.Admit(t.Context(), limit.Ask{Target: fanout.Target{Provider: "google", Model: "m"}, Keys: []fanout.Key{key}})
		if err != nil {
			t.Fatal(err)
		}
		permit.Done(row.outcome)
		name := `rex_fanout_key_refused{key="` + key.Handle() + `",model="m",provider="google"}`
		if shown, there := scrape(t, m)[name]; !there || shown != row.shown {
			t.Errorf("%s: %v %v, want %v", name, shown, there, row.shown)
		}
	}
}
