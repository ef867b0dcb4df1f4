package main

import (
	"fmt"
	"math"
	"os"
	"regexp"
	"slices"
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
	err  error
	read []string // the variables that were asked for
}

func (r *reader) fail(format string, args ...any) {
	if r.err == nil {
		r.err = fmt.Errorf(format, args...)
	}
}

// text reads NAME, or the file that NAME_FILE names, without white space around it.
func (r *reader) text(name, fallback string) string {
	r.read = append(r.read, name, name+"_FILE")
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

// serviceLink is what Kubernetes sets in every container for a service whose name begins with
// rex-fanout.
var serviceLink = regexp.MustCompile(`^REX_FANOUT(_[A-Z0-9_]+)?_(SERVICE_HOST|SERVICE_PORT|PORT)(_[A-Z0-9_]+)?$`)

// unknown refuses variables of this service that nothing has read: a bound misspelt is a bound
// somebody believes to be in force. It comes after all others.
func (r *reader) unknown() {
	const rexs = "REX_FANOUT_URL" // where Rex finds the service; both may share one environment
	for _, pair := range r.all {
		name, value, _ := strings.Cut(pair, "=")
		if strings.HasPrefix(name, "REX_FANOUT_") && value != "" && strings.TrimSuffix(name, "_FILE") != rexs &&
			!slices.Contains(r.read, name) && !serviceLink.MatchString(name) {
			r.fail("%s: there is no such variable", name)
		}
	}
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
