package main

import (
	"encoding/json"
	"net/netip"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"testing/fstest"
	"time"

	"rex/fanout-service/limit"
)

func TestProvidersAreConfiguredByTheEnvironment(t *testing.T) {
	s, err := readSettings(env(map[string]string{
		"REX_LOCAL_BASE_URL":               "http://127.0.0.1:9/v1/",
		"OPENAI_API_KEY":                   canary,
		"GEMINI_API_KEY_FILE":              fileOf(t, canary+"\n"),
		"ANTHROPIC_API_KEY":                "one, two,one,",
		"MISTRAL_API_KEY_FILE":             fileOf(t, "one\r\ntwo\n\nthree"),
		"VLLM_BASE_URL":                    "http://127.0.0.1:8/v1",
		"GROQ_BASE_URL":                    "https://groq.example/v1", // an address without a key does not suffice
		"REX_PROVIDER_MINE_BASE_URL":       "https://mine.example/v1",
		"REX_PROVIDER_MINE_API_KEY":        canary,
		"REX_PROVIDER_CLAUDE_BASE_URL":     "https://claude.example",
		"REX_PROVIDER_CLAUDE_WIRE":         "anthropic",
		"REX_PROVIDER_FILED_BASE_URL_FILE": fileOf(t, "https://filed.example/v1"),
		"REX_PROVIDER_OTHER_BASE_URL":      "",
	}))
	if err != nil {
		t.Fatal(err)
	}
	got := map[string]string{}
	for _, p := range s.providers.configs {
		line := p.Wire + " " + p.BaseURL
		for _, key := range p.Keys {
			line += " " + key.Reveal()
		}
		got[p.Name] = strings.TrimSpace(line)
	}
	want := map[string]string{
		"local":     "openai http://127.0.0.1:9/v1",
		"openai":    "openai https://api.openai.com/v1 " + canary,
		"google":    "gemini https://generativelanguage.googleapis.com/v1beta " + canary,
		"anthropic": "anthropic https://api.anthropic.com/v1 one two",
		"mistral":   "openai https://api.mistral.ai/v1 one two three",
		"vllm":      "openai http://127.0.0.1:8/v1",
		"mine":      "openai https://mine.example/v1 " + canary,
		"claude":    "anthropic https://claude.example",
		"filed":     "openai https://filed.example/v1",
	}
	for name, line := range want {
		if got[name] != line {
			t.Errorf("%s: %q, want %q", name, got[name], line)
		}
	}
	if len(got) != len(want) {
		t.Errorf("configured: %v", got)
	}
}

func TestAnEmptyEnvironmentHasTheDocumentedDefaults(t *testing.T) {
	s, err := readSettings(env(nil))
	if err != nil {
		t.Fatal(err)
	}
	if s.listen != "127.0.0.1:8099" || s.drain != 10*time.Second || s.cache == nil || s.cache.TTL != 24*time.Hour ||
		s.cache.MaxBytes != 64<<20 || s.redis != nil || s.maxBytes != 256<<20 || s.maxBody != 16<<20 || s.spans || !s.passTrace || s.pprof != "" {
		t.Errorf("%+v", s)
	}
}

func TestEverySettingReachesItsPlace(t *testing.T) {
	s, err := readSettings(env(map[string]string{
		"REX_FANOUT_LISTEN": "unix:/run/rex.sock", "REX_FANOUT_DRAIN_SECONDS": "3", "REX_FANOUT_LOG_LEVEL": "warning",
		"REX_FANOUT_ALLOW_ADDRESSES": "10.1.0.0/16, 192.168.1.9,fd00::/8", "REX_REDIS_URL_FILE": fileOf(t, "redis://:secret@127.0.0.1:6379/2\n"),
		"REX_CACHE_TTL_SECONDS": "60", "REX_CACHE_BYTES": "1048576", "REX_FANOUT_MAX_CONNECTIONS": "7", "REX_FANOUT_MAX_BYTES": "2097152",
		"REX_FANOUT_MAX_BODY_BYTES": "4096", "REX_FANOUT_MAX_CONCURRENT": "9", "OTEL_ENABLED": "1", "REX_FANOUT_TRACE_PROVIDERS": "0",
		"REX_FANOUT_PPROF_LISTEN": "localhost:6060",
		"REX_FANOUT_CONFIG": fileOf(t, `{"limits": {"default": {"queue": 5}, "rules": [{"provider": "openai", "model": "m", "adaptive": false, "tokens_per_minute": 8}]},
			"retry": {"budget_ratio": 0.5, "budget_floor": 0, "base_ms": 10, "cap_ms": 20}, "metric_workspaces": ["acme"]}`),
	}))
	if err != nil {
		t.Fatal(err)
	}
	fixed := false
	for name, pair := range map[string][2]any{
		"listen":       {s.listen, "unix:/run/rex.sock"},
		"drain":        {s.drain, 3 * time.Second},
		"level":        {s.level.String(), "WARN"},
		"allowed":      {s.allowed, []netip.Prefix{netip.MustParsePrefix("10.1.0.0/16"), netip.MustParsePrefix("192.168.1.9/32"), netip.MustParsePrefix("fd00::/8")}},
		"redis":        {[]any{s.redis.Addr, s.redis.DB, s.redis.MaxRetries}, []any{"127.0.0.1:6379", 2, -1}},
		"cache":        {[]any{s.cache.TTL, s.cache.MaxBytes}, []any{time.Minute, 1 << 20}},
		"bounds":       {[]any{s.maxConnections, s.maxBytes, s.maxBody}, []any{7, 2 << 20, 4096}},
		"default rule": {s.limits.Default, limit.Rule{MaxConcurrent: 9, Queue: 5}},
		"rules":        {s.limits.Rules, []limit.Rule{{Provider: "openai", Model: "m", Adaptive: &fixed, TokensPerMinute: 8}}},
		"retry":        {[]any{s.retry.BudgetRatio, s.retry.BudgetFloor, s.retry.Base, s.retry.Cap}, []any{.5, -1, 10 * time.Millisecond, 20 * time.Millisecond}},
		"others":       {[]any{s.spans, s.passTrace, s.pprof, s.workspaces}, []any{true, false, "localhost:6060", []string{"acme"}}},
	} {
		got, _ := json.Marshal(pair[0])
		want, _ := json.Marshal(pair[1])
		if string(got) != string(want) {
			t.Errorf("%s: %s, want %s", name, got, want)
		}
	}
}

func TestTheCacheIsSwitchedOffByEitherName(t *testing.T) {
	for _, row := range []struct {
		pairs map[string]string
		on    bool
	}{
		{map[string]string{"REX_CACHE_ENABLED": "0"}, false},
		{map[string]string{"CACHE_ENABLED": "0"}, false},
		{map[string]string{"CACHE_ENABLED": "0", "REX_CACHE_ENABLED": "1"}, true},
		{map[string]string{"CACHE_ENABLED": "1", "REX_CACHE_ENABLED": "off"}, false},
	} {
		if s, err := readSettings(env(row.pairs)); err != nil || (s.cache != nil) != row.on {
			t.Errorf("%v: on is %v, %v", row.pairs, s.cache != nil, err)
		}
	}
}

func TestAWrongEnvironmentIsRefusedByNameAndWithoutItsSecrets(t *testing.T) {
	for _, row := range []struct {
		name  string
		pairs map[string]string
	}{
		{"OPENAI_BASE_URL", map[string]string{"OPENAI_BASE_URL": "https://user:" + canary + "@openai.example/v1"}},
		{"REX_LOCAL_BASE_URL", map[string]string{"REX_LOCAL_BASE_URL": "file:///etc/passwd"}},
		{"VLLM_BASE_URL", map[string]string{"VLLM_BASE_URL": "https://vllm.example/v1?key=" + canary}},
		{"OPENAI_API_KEY", map[string]string{"OPENAI_API_KEY": canary + "\r\nX-Evil: 1"}},
		{"OPENAI_API_KEY_FILE", map[string]string{"OPENAI_API_KEY_FILE": "/nowhere/" + canary}},
		{"OPENAI_API_KEY and OPENAI_API_KEY_FILE are both set", map[string]string{"OPENAI_API_KEY": canary, "OPENAI_API_KEY_FILE": fileOf(t, canary)}},
		{"REX_PROVIDER_LOCAL_BASE_URL", map[string]string{"REX_PROVIDER_LOCAL_BASE_URL": "http://127.0.0.1:1/v1"}},
		{"REX_PROVIDER_X_BASE_URL and REX_PROVIDER_X_BASE_URL_FILE are both set", map[string]string{
			"REX_PROVIDER_X_BASE_URL": "http://127.0.0.1:1/v1", "REX_PROVIDER_X_BASE_URL_FILE": fileOf(t, "http://127.0.0.1:1/v1"),
		}},
		{"REX_PROVIDER_X_WIRE", map[string]string{"REX_PROVIDER_X_BASE_URL": "http://127.0.0.1:1/v1", "REX_PROVIDER_X_WIRE": "soap"}},
		{"REX_FANOUT_DRAIN_SECONDS", map[string]string{"REX_FANOUT_DRAIN_SECONDS": "soon"}},
		{"REX_FANOUT_LOG_LEVEL", map[string]string{"REX_FANOUT_LOG_LEVEL": "LOUD"}},
		{"REX_FANOUT_MAX_CONNECTIONS takes", map[string]string{"REX_FANOUT_MAX_CONNECTIONS": "1"}}, // one call needs two
		{"REX_FANOUT_MAX_BYTES", map[string]string{"REX_FANOUT_MAX_BYTES": "-1"}},
		{"REX_FANOUT_MAX_BODY_BYTES", map[string]string{"REX_FANOUT_MAX_BODY_BYTES": "1e6"}},
		{"REX_FANOUT_MAX_CONCURRENT", map[string]string{"REX_FANOUT_MAX_CONCURRENT": "many"}},
		{"REX_FANOUT_ALLOW_ADDRESSES", map[string]string{"REX_FANOUT_ALLOW_ADDRESSES": "10.0.0.0/8,inside.example"}},
		{"REX_REDIS_URL", map[string]string{"REX_REDIS_URL": "http://:" + canary + "@host"}},
		{"REX_CACHE_ENABLED", map[string]string{"REX_CACHE_ENABLED": "maybe"}},
		{"REX_CACHE_TTL_SECONDS", map[string]string{"REX_CACHE_TTL_SECONDS": "0"}},
		{"REX_CACHE_BYTES", map[string]string{"REX_CACHE_BYTES": "64MiB"}},
		{"OTEL_ENABLED", map[string]string{"OTEL_ENABLED": "2"}},
		{"REX_FANOUT_TRACE_PROVIDERS", map[string]string{"REX_FANOUT_TRACE_PROVIDERS": "none"}},
		{"REX_FANOUT_PPROF_LISTEN", map[string]string{"REX_FANOUT_PPROF_LISTEN": "0.0.0.0:6060"}},
		{"REX_FANOUT_PPROF_LISTEN", map[string]string{"REX_FANOUT_PPROF_LISTEN": ":6060"}},
		{"REX_FANOUT_PPROF_LISTEN", map[string]string{"REX_FANOUT_PPROF_LISTEN": "192.168.0.7:6060"}},
		{"REX_FANOUT_PPROF_LISTEN", map[string]string{"REX_FANOUT_PPROF_LISTEN": "127.0.0.1:http"}},
		{"REX_FANOUT_LISTEN takes", map[string]string{"REX_FANOUT_LISTEN": "nope"}},
		{"REX_FANOUT_LISTEN takes", map[string]string{"REX_FANOUT_LISTEN": "127.0.0.1:99999"}},
		{"REX_FANOUT_LISTEN takes", map[string]string{"REX_FANOUT_LISTEN": "unix:"}},
		{"REX_PROVIDER_X_API_KEY: REX_PROVIDER_X_BASE_URL is missing", map[string]string{"REX_PROVIDER_X_API_KEY": canary}},
		{"REX_PROVIDER_X_API_KEY_FILE: REX_PROVIDER_X_BASE_URL is missing", map[string]string{"REX_PROVIDER_X_API_KEY_FILE": fileOf(t, canary)}},
		{"REX_PROVIDER_X_WIRE: REX_PROVIDER_X_BASE_URL is missing", map[string]string{"REX_PROVIDER_X_WIRE": "gemini"}},
		{"REX_FANOUT_MAX_CONCURENT: there is no such variable", map[string]string{"REX_FANOUT_MAX_CONCURENT": canary}},
		{"REX_FANOUT_CONFIG", map[string]string{"REX_FANOUT_CONFIG": "/nowhere"}},
	} {
		_, err := readSettings(env(row.pairs))
		if err == nil || !strings.Contains(err.Error(), row.name) || strings.Contains(err.Error(), canary) {
			t.Errorf("%s: %v", row.name, err)
		}
	}
}

func TestAnEnvironmentMayBeSharedWithRexAndWithKubernetes(t *testing.T) {
	if _, err := readSettings(env(map[string]string{
		"REX_FANOUT": "go", "REX_FANOUT_URL": "http://127.0.0.1:8099", "REX_FANOUT_LISTEN": "[::1]:0",
		"REX_FANOUT_SERVICE_HOST": "10.0.0.1", "REX_FANOUT_PORT": "tcp://10.0.0.1:8099", "REX_FANOUT_SERVICE_PORT_8099_TCP_ADDR": "10.0.0.1",
		"REX_FANOUT_MISSPELT": "",
	})); err != nil {
		t.Error(err)
	}
}

func TestAFaultInTheFileIsToldByItsField(t *testing.T) {
	for content, field := range map[string]string{
		`{"limit": {}}`: `"limit"`,
		`{"limits": {"rules": [{"provider": "openai", "max_concurent": 3}]}}`:                                                       `"max_concurent"`,
		`{"limits": {"rules": [{"provider": "openai", "max_concurrent": "many"}]}}`:                                                 "limits.rules.max_concurrent takes no string",
		`{"limits": {"rules": [{"provider": "openai"}, {"model": "m"}]}}`:                                                           "limits.rules[1].model needs a provider",
		`{"limits": {"rules": [{"queue": 3}]}}`:                                                                                     "limits.rules[0].provider is missing",
		`{"limits": {"rules": [{"provider": "opneai"}]}}`:                                                                           `limits.rules[0].provider: there is no provider "opneai"`,
		`{"limits": {"rules": [{"provider": "openai", "model": "m", "queue": 3}]}}`:                                                 "limits.rules[0].queue",
		`{"limits": {"default": {"provider": "openai"}}}`:                                                                           "limits.default is for all",
		`{"limits": {"default": {"queue": -1}}}`:                                                                                    "limits.default.queue takes 1 or more",
		`{"limits": {"default": {"queue": 0}}}`:                                                                                     "limits.default.queue takes 1 or more",
		`{"limits": {"default": {"tokens_per_minute": -1}}}`:                                                                        "limits.default.tokens_per_minute is negative",
		`{"limits": {"rules": [{"provider": "groq"}, {"provider": "openai", "model": "m"}, {"provider": "openai", "model": "m"}]}}`: "limits.rules[2] is for the same as a rule before it",
		`{"limits": {"default": {"queue": 5, "queue": 6}}}`:                                                                         "limits.default.queue is there twice",
		`{"limits": {"rules": [{"Provider": "openai"}]}}`:                                                                           `unknown field "Provider" in limits.rules[0].Provider`,
		`{"Retry": {}}`:                   `unknown field "Retry"`,
		`{"retry": {"base_ms": 10000}}`:   "retry.base_ms, the longest first wait, is over retry.cap_ms",
		`{"retry": {"cap_ms": 100}}`:      "which is 100",
		`{"retry": {"budget_ratio": 2}}`:  "retry.budget_ratio",
		`{"retry": {"budget_floor": -2}}`: "retry.budget_floor",
		`{"retry": {"cap_ms": 0}}`:        "retry.cap_ms",
		`{} {}`:                           "something follows",
		``:                                "empty",
	} {
		_, err := readSettings(env(map[string]string{"REX_FANOUT_CONFIG": fileOf(t, content)}))
		if err == nil || !strings.HasPrefix(err.Error(), "REX_FANOUT_CONFIG: ") || !strings.Contains(err.Error(), field) {
			t.Errorf("%s: %v, want %s", content, err, field)
		}
	}
	_, err := readSettings(env(map[string]string{
		"REX_FANOUT_CONFIG": fileOf(t, `{"limits": {"default": {"max_concurrent": 3}}}`), "REX_FANOUT_MAX_CONCURRENT": "4",
	}))
	if err == nil || !strings.Contains(err.Error(), "REX_FANOUT_MAX_CONCURRENT") {
		t.Errorf("a limit given twice: %v", err)
	}
}

func TestTheDocumentedVariablesAreThoseThatAreRead(t *testing.T) {
	page, err := os.ReadFile("../../../../docs/settings.md")
	if err != nil {
		t.Fatal(err)
	}
	var documented []string
	for _, row := range regexp.MustCompile("(?m)^\\| `([A-Z_]+)` \\| Go service \\|").FindAllStringSubmatch(string(page), -1) {
		documented = append(documented, row[1])
	}
	read := []string{"GOMEMLIMIT"} // by the runtime
	recorded := env(nil)
	recorded.get = func(name string) string {
		if !strings.HasSuffix(name, "_FILE") && !strings.Contains(strings.ToUpper(name), "_PROXY") && !slices.Contains(read, name) {
			read = append(read, name)
		}
		return ""
	}
	if _, err = readSettings(recorded); err != nil {
		t.Fatal(err)
	}
	read = slices.DeleteFunc(read, func(name string) bool { // these have a table of their own
		return strings.HasSuffix(name, "_BASE_URL") || strings.HasSuffix(name, "_API_KEY")
	})
	slices.Sort(documented)
	slices.Sort(read)
	if !slices.Equal(documented, read) {
		t.Errorf("documented %v\nread       %v", documented, read)
	}
	example := regexp.MustCompile("(?s)```json\n(.*?)```").FindStringSubmatch(string(page))
	if example == nil {
		t.Fatal("the file has no example")
	}
	if s, err := readSettings(env(map[string]string{"REX_FANOUT_CONFIG": fileOf(t, example[1])})); err != nil || len(s.limits.Rules) != 2 {
		t.Errorf("the documented file is refused: %v", err)
	}
}

func TestMemoryIsBoundedByTheTightestCgroup(t *testing.T) {
	file := func(content string) *fstest.MapFile { return &fstest.MapFile{Data: []byte(content + "\n")} }
	for name, row := range map[string]struct {
		root  fstest.MapFS
		limit int64
		ok    bool
	}{
		"version 2":         {fstest.MapFS{"proc/self/cgroup": file("0::/a/b"), "sys/fs/cgroup/a/b/memory.max": file("max"), "sys/fs/cgroup/a/memory.max": file("1000"), "sys/fs/cgroup/memory.max": file("2000")}, 1000, true},
		"a container's own": {fstest.MapFS{"proc/self/cgroup": file("0::/"), "sys/fs/cgroup/memory.max": file("2000")}, 2000, true},
		"version 1":         {fstest.MapFS{"proc/self/cgroup": file("5:cpu:/x\n4:memory:/x"), "sys/fs/cgroup/memory/x/memory.limit_in_bytes": file("3000")}, 3000, true},
		"none":              {fstest.MapFS{"proc/self/cgroup": file("4:memory:/"), "sys/fs/cgroup/memory/memory.limit_in_bytes": file("9223372036854771712")}, 0, false},
		"no cgroups":        {fstest.MapFS{}, 0, false},
	} {
		if got, ok := memoryLimit(row.root); ok != row.ok || ok && got != row.limit {
			t.Errorf("%s: %d %v", name, got, ok)
		}
	}
}

func TestConnectionsAreBoundedByFileDescriptors(t *testing.T) {
	for descriptors, want := range map[uint64]int{20000: 15795, 1024: 614, 100: 2, 1 << 63: 1717986712} {
		if got := connectionsFor(descriptors); got != want {
			t.Errorf("%d descriptors: %d connections, want %d", descriptors, got, want)
		}
	}
}

func fileOf(t *testing.T, content string) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "file")
	if err := os.WriteFile(path, []byte(content), 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}
