package loadtest

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
)

// Measure runs the measurement that "what" of the request names (rate, jobs, hold, leave or storm)
// with the rest of the request as its settings, and returns its result.
func Measure(ctx context.Context, request []byte) (any, error) {
	var named struct {
		What string          `json:"what"`
		Spec json.RawMessage `json:"spec"`
	}
	if err := json.Unmarshal(request, &named); err != nil {
		return nil, err
	}
	switch named.What {
	case "rate":
		return measured[Rate, RateResult](ctx, named.Spec)
	case "jobs":
		return measured[Jobs, JobsResult](ctx, named.Spec)
	case "hold":
		return measured[Hold, HoldResult](ctx, named.Spec)
	case "leave":
		return measured[Leave, LeaveResult](ctx, named.Spec)
	case "storm":
		return measured[Storm, StormResult](ctx, named.Spec)
	default:
		return nil, fmt.Errorf("there is no measurement %q", named.What)
	}
}

// measured reads the settings of a measurement, strictly, and runs it.
func measured[M interface {
	Run(ctx context.Context) (R, error)
}, R any](ctx context.Context, spec []byte) (any, error) {
	var m M
	decoder := json.NewDecoder(bytes.NewReader(spec))
	decoder.DisallowUnknownFields()
	if err := decoder.Decode(&m); err != nil {
		return nil, err
	}
	return m.Run(ctx)
}
