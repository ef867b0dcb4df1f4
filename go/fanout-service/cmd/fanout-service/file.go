package main

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"reflect"
	"strings"
	"time"

	"rex/fanout-service/limit"
)

// file is what REX_FANOUT_CONFIG may hold: what does not fit in a variable, and no secret.
type file struct {
	Limits struct {
		Default rule   `json:"default"`
		Rules   []rule `json:"rules"`
	} `json:"limits"`
	Retry struct {
		BudgetRatio *float64 `json:"budget_ratio"` // retries for each first attempt
		BudgetFloor *int     `json:"budget_floor"` // retries that are always allowed in 10 s
		BaseMS      *int64   `json:"base_ms"`
		CapMS       *int64   `json:"cap_ms"`
	} `json:"retry"`
	MetricWorkspaces []string `json:"metric_workspaces"`
}

// rule is a limit.Rule as it is written; a field that is left out is inherited.
type rule struct {
	Provider          string `json:"provider"`
	Model             string `json:"model"`
	MaxConcurrent     int    `json:"max_concurrent"`
	Adaptive          *bool  `json:"adaptive"`
	Queue             *int   `json:"queue"`
	RequestsPerMinute int64  `json:"requests_per_minute"`
	TokensPerMinute   int64  `json:"tokens_per_minute"`
}

// file reads the file that a variable names into s. A field nobody knows is refused: it is a
// limit somebody believes to be in force.
func (r *reader) file(name string, s *settings) {
	r.read = append(r.read, name)
	path := r.get(name)
	if path == "" {
		return
	}
	content, err := os.ReadFile(path) //nolint:gosec // the operator names the file
	if err != nil {
		r.fail("%s: the file cannot be read", name)
		return
	}
	var f file
	decoder := json.NewDecoder(bytes.NewReader(content))
	err = decoder.Decode(&f)
	if err == nil {
		err = strict(json.NewDecoder(bytes.NewReader(content)), reflect.TypeFor[file](), "")
	}
	if err == nil && decoder.More() {
		err = errors.New("something follows the object")
	}
	if err == nil {
		err = f.into(s)
	}
	if err != nil {
		r.fail("%s: %s", name, inWords(err))
	}
}

// inWords names the field that a JSON error is about.
func inWords(err error) string {
	if wrong := (*json.UnmarshalTypeError)(nil); errors.As(err, &wrong) && wrong.Field != "" {
		return fmt.Sprintf("%s takes no %s", wrong.Field, wrong.Value)
	}
	if errors.Is(err, io.EOF) {
		return "the file is empty"
	}
	return strings.TrimPrefix(err.Error(), "json: ")
}

func (f *file) into(s *settings) error {
	known := map[string]bool{}
	for _, each := range s.providers.known {
		known[each.Name] = true
	}
	of, err := f.Limits.Default.limit("limits.default", known)
	if err != nil {
		return err
	}
	if of.Provider != "" || of.Model != "" {
		return errors.New("limits.default is for all: it takes no provider and model")
	}
	s.limits.Default = of
	for i := range f.Limits.Rules {
		at := fmt.Sprintf("limits.rules[%d]", i)
		of, err := f.Limits.Rules[i].limit(at, known)
		if err != nil {
			return err
		}
		if of.Provider == "" {
			return fmt.Errorf("%s.provider is missing; what is for all is limits.default", at)
		}
		for _, before := range s.limits.Rules {
			if before.Provider == of.Provider && before.Model == of.Model {
				return fmt.Errorf("%s is for the same as a rule before it: which of them holds?", at)
			}
		}
		s.limits.Rules = append(s.limits.Rules, of)
	}
	s.workspaces = f.MetricWorkspaces
	return f.retry(s)
}

// limit checks a rule; at is where it stands in the file.
func (r *rule) limit(at string, known map[string]bool) (limit.Rule, error) {
	for _, each := range []struct {
		field string
		value int64
	}{
		{"max_concurrent", int64(r.MaxConcurrent)},
		{"requests_per_minute", r.RequestsPerMinute}, {"tokens_per_minute", r.TokensPerMinute},
	} {
		if each.value < 0 {
			return limit.Rule{}, fmt.Errorf("%s.%s is negative", at, each.field)
		}
	}
	if r.Model != "" && r.Provider == "" {
		return limit.Rule{}, fmt.Errorf("%s.model needs a provider", at)
	}
	if r.Queue != nil && *r.Queue < 1 {
		return limit.Rule{}, fmt.Errorf("%s.queue takes 1 or more; left out, it is inherited", at)
	}
	if r.Model != "" && r.Queue != nil {
		return limit.Rule{}, fmt.Errorf("%s.queue is a provider's: a rule with a model takes none", at)
	}
	if r.Provider != "" && !known[r.Provider] {
		return limit.Rule{}, fmt.Errorf("%s.provider: there is no provider %q", at, r.Provider)
	}
	of := limit.Rule{
		Provider: r.Provider, Model: r.Model, MaxConcurrent: r.MaxConcurrent, Adaptive: r.Adaptive,
		RequestsPerMinute: r.RequestsPerMinute, TokensPerMinute: r.TokensPerMinute,
	}
	if r.Queue != nil {
		of.Queue = *r.Queue
	}
	return of, nil
}

func (f *file) retry(s *settings) error {
	if ratio := f.Retry.BudgetRatio; ratio != nil {
		if *ratio <= 0 || *ratio > 1 {
			return errors.New("retry.budget_ratio takes more than 0 and at most 1")
		}
		s.retry.BudgetRatio = *ratio
	}
	if floor := f.Retry.BudgetFloor; floor != nil {
		if *floor < 0 {
			return errors.New("retry.budget_floor is negative")
		}
		s.retry.BudgetFloor = *floor
		if *floor == 0 {
			s.retry.BudgetFloor = -1 // 0 would mean the default there
		}
	}
	for _, each := range []struct {
		field string
		ms    *int64
		into  *time.Duration
	}{{"base_ms", f.Retry.BaseMS, &s.retry.Base}, {"cap_ms", f.Retry.CapMS, &s.retry.Cap}} {
		if each.ms == nil {
			continue
		}
		if *each.ms < 1 || *each.ms > 3_600_000 {
			return fmt.Errorf("retry.%s takes 1 to 3600000", each.field)
		}
		*each.into = time.Duration(*each.ms) * time.Millisecond
	}
	if of := s.retry.WithDefaults(); of.Base > of.Cap {
		return fmt.Errorf("retry.base_ms, the longest first wait, is over retry.cap_ms, the longest of all, which is %d", of.Cap.Milliseconds())
	}
	return nil
}
