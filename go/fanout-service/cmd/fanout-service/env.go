package main

import (
	"fmt"
	"math"
	"os"
	"strconv"
	"strings"
)

// environment is what the service reads of the outside; nothing else in this module does, but for
// the OTEL_* variables, which the SDK reads, and those of proxies, which net/http does.
type environment struct {
	get func(string) string // "" when unset
	all []string            // "NAME=value"
}

// reader reads variables into typed values. Each may also be given as NAME_FILE, the path of a
// file that holds it. The first fault stays in err, names its variable, and never repeats a value:
// it may be a secret.
type reader struct {
	environment
	err error
}

func (r *reader) fail(format string, args ...any) {
	if r.err == nil {
		r.err = fmt.Errorf(format, args...)
	}
}

// text reads NAME, or the file that NAME_FILE names, without white space around it.
func (r *reader) text(name, fallback string) string {
	value, path := strings.TrimSpace(r.get(name)), r.get(name+"_FILE")
	if path == "" {
		if value == "" {
			return fallback
		}
		return value
	}
	if value != "" {
		r.fail("%s and %s_FILE are both set; keep one", name, name)
		return fallback
	}
	content, err := os.ReadFile(path) //nolint:gosec // the operator names the file
	if err != nil {
		r.fail("%s_FILE: the file cannot be read", name)
		return fallback
	}
	if value = strings.TrimSpace(string(content)); value == "" {
		return fallback
	}
	return value
}

// integer reads a whole number between least and most.
func (r *reader) integer(name string, fallback, least, most int64) int64 {
	value := r.text(name, "")
	if value == "" {
		return fallback
	}
	n, err := strconv.ParseInt(value, 10, 64)
	if err != nil || n < least || n > most {
		if most == math.MaxInt64 {
			r.fail("%s takes a whole number of at least %d", name, least)
		} else {
			r.fail("%s takes a whole number from %d to %d", name, least, most)
		}
		return fallback
	}
	return n
}

// flag reads 1 or 0, or the words people write for them.
func (r *reader) flag(name string, fallback bool) bool {
	switch strings.ToLower(r.text(name, "")) {
	case "":
		return fallback
	case "1", "true", "yes", "on":
		return true
	case "0", "false", "no", "off":
		return false
	default:
		r.fail("%s takes 1 or 0", name)
		return fallback
	}
}

// list reads what commas or line ends separate, without empty items.
func (r *reader) list(name string) []string {
	var items []string
	for _, item := range strings.FieldsFunc(r.text(name, ""), func(c rune) bool { return c == ',' || c == '\n' }) {
		if item = strings.TrimSpace(item); item != "" {
			items = append(items, item)
		}
	}
	return items
}
