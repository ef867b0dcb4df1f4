package main

import (
	"fmt"
	"log/slog"
	"math"
	"net"
	"net/netip"
	"strconv"
	"strings"
	"time"

	"github.com/redis/go-redis/v9"
	"github.com/redis/go-redis/v9/maintnotifications"

	"rex/fanout-service/cache"
	"rex/fanout-service/limit"
	"rex/fanout-service/retry"
)

// settings is everything the environment and the file it names decide.
type settings struct {
	listen string // host:port, or unix: and a path
	drain  time.Duration
	level  slog.Level

	providers providers
	allowed   []netip.Prefix // networks that providers may be in besides the public one
	limits    limit.Config
	retry     retry.Config
	cache     *cache.Config // nil: off
	redis     *redis.Options

	maxConnections int   // at once, of calls and readers; 0: as many as there are file descriptors for
	maxBytes       int64 // of text that waits for readers
	maxBody        int64 // of a request

	spans      bool
	passTrace  bool     // tell providers the trace they are part of
	workspaces []string // that have labels of their own in metrics; none: the first that come
	pprof      string   // "" for off
}

// Defaults of settings.
const (
	defaultListen   = "127.0.0.1:8099"
	defaultDrain    = 10 // seconds
	defaultTTL      = 24 * 60 * 60
	defaultCache    = 64 << 20
	defaultMaxBytes = 256 << 20
	defaultMaxBody  = 16 << 20
)

func readSettings(env environment) (settings, error) {
	r := &reader{environment: env}
	s := settings{
		listen:         r.address("REX_FANOUT_LISTEN", defaultListen),
		drain:          time.Duration(r.integer("REX_FANOUT_DRAIN_SECONDS", defaultDrain, 0, 3600)) * time.Second,
		level:          r.level("REX_FANOUT_LOG_LEVEL"),
		providers:      r.providers(),
		allowed:        r.networks("REX_FANOUT_ALLOW_ADDRESSES"),
		cache:          r.cache(),
		redis:          r.redis("REX_REDIS_URL"),
		maxConnections: int(r.integer("REX_FANOUT_MAX_CONNECTIONS", 0, leastConnections, 1e6)),
		maxBytes:       r.integer("REX_FANOUT_MAX_BYTES", defaultMaxBytes, 1<<20, math.MaxInt64),
		maxBody:        r.integer("REX_FANOUT_MAX_BODY_BYTES", defaultMaxBody, 1<<10, 1<<30),
		spans:          r.flag("OTEL_ENABLED", false),
		passTrace:      r.flag("REX_FANOUT_TRACE_PROVIDERS", true),
		pprof:          r.loopback("REX_FANOUT_PPROF_LISTEN"),
	}
	s.providers.written = append(s.providers.written, r.proxies()...)
	r.file("REX_FANOUT_CONFIG", &s)
	if most := int(r.integer("REX_FANOUT_MAX_CONCURRENT", 0, 1, 1e6)); most > 0 {
		if s.limits.Default.MaxConcurrent > 0 {
			r.fail("REX_FANOUT_MAX_CONCURRENT is also in the file of REX_FANOUT_CONFIG; keep one")
		}
		s.limits.Default.MaxConcurrent = most
	}
	r.unknown()
	return s, r.err
}

// address reads host:port, or unix: and a path.
func (r *reader) address(name, fallback string) string {
	value := r.text(name, fallback)
	if path, isFile := strings.CutPrefix(value, "unix:"); isFile && path != "" {
		return value
	}
	if _, port, err := net.SplitHostPort(value); err != nil || !isPort(port) {
		r.fail("%s takes host:port with a port from 0 to 65535, or unix: and the path of a socket file", name)
	}
	return value
}

func isPort(text string) bool {
	_, err := strconv.ParseUint(text, 10, 16)
	return err == nil
}

func (r *reader) level(name string) slog.Level {
	switch strings.ToUpper(r.text(name, "INFO")) {
	case "DEBUG":
		return slog.LevelDebug
	case "INFO":
		return slog.LevelInfo
	case "WARNING", "WARN":
		return slog.LevelWarn
	case "ERROR":
		return slog.LevelError
	default:
		r.fail("%s takes DEBUG, INFO, WARNING or ERROR", name)
		return slog.LevelInfo
	}
}

// networks reads prefixes like 10.0.0.0/8; a lone address is a network of one.
func (r *reader) networks(name string) []netip.Prefix {
	var found []netip.Prefix
	for _, item := range r.list(name) {
		prefix, err := netip.ParsePrefix(item)
		if address, lone := netip.ParseAddr(item); lone == nil {
			prefix, err = netip.PrefixFrom(address, address.BitLen()), nil
		}
		if err != nil {
			r.fail("%s takes networks like 10.1.0.0/16, separated by commas", name)
			return nil
		}
		found = append(found, prefix.Masked())
	}
	return found
}

// cache reads whether answers are kept. CACHE_ENABLED counts where REX_CACHE_ENABLED is not set.
func (r *reader) cache() *cache.Config {
	config := &cache.Config{
		MaxBytes: r.integer("REX_CACHE_BYTES", defaultCache, 0, math.MaxInt64),
		TTL:      time.Duration(r.integer("REX_CACHE_TTL_SECONDS", defaultTTL, 1, 366*24*60*60)) * time.Second,
	}
	if !r.flag("REX_CACHE_ENABLED", r.flag("CACHE_ENABLED", true)) {
		return nil
	}
	return config
}

// redisPool bounds the connections to Redis; commands are sent many at a time.
const redisPool = 64

func (r *reader) redis(name string) *redis.Options {
	value := r.text(name, "")
	if value == "" {
		return nil
	}
	options, err := redis.ParseURL(value)
	if err != nil {
		// The error may repeat the address, and that a password.
		r.fail("%s takes an address like redis://:password@host:6379/0, or rediss:// for TLS", name)
		return nil
	}
	limit.SetTimeouts(options)
	options.PoolTimeout = options.ReadTimeout
	options.PoolSize = redisPool
	options.DisableIdentity = true
	// Notices of a managed Redis that moves: they cost a command for each connection.
	options.MaintNotificationsConfig = &maintnotifications.Config{Mode: maintnotifications.ModeDisabled}
	return options
}

// loopback reads an address to listen on that nobody else can reach.
func (r *reader) loopback(name string) string {
	value := r.text(name, "")
	if value == "" {
		return ""
	}
	host, port, err := net.SplitHostPort(value)
	address, literal := netip.ParseAddr(host)
	if err != nil || !isPort(port) || host != "localhost" && (literal != nil || !address.IsLoopback()) {
		r.fail("%s takes an address on loopback, like 127.0.0.1:6060: profiles show memory", name)
		return ""
	}
	return value
}

// describe says what is configured, without addresses and keys.
func (s *settings) describe() string {
	var out strings.Builder
	for _, known := range s.providers.known {
		state := "not configured"
		if known.Configured {
			state = "configured"
		}
		for _, config := range s.providers.configs {
			if config.Name == known.Name && len(config.Keys) > 1 {
				state = fmt.Sprintf("configured, %d keys", len(config.Keys))
			}
		}
		fmt.Fprintf(&out, "%-12s %s\n", known.Name, state)
	}
	on := map[bool]string{true: "on", false: "off"}
	fmt.Fprintf(&out, "\n%-12s %s\n", "cache", on[s.cache != nil])
	if s.cache != nil {
		fmt.Fprintf(&out, "%-12s %d bytes in memory, for %s\n", "", s.cache.MaxBytes, s.cache.TTL)
	}
	fmt.Fprintf(&out, "%-12s %s\n", "redis", on[s.redis != nil])
	fmt.Fprintf(&out, "%-12s %d rules besides the default\n", "limits", len(s.limits.Rules))
	fmt.Fprintf(&out, "%-12s %d connections at once, %d bytes of text, %d bytes a request\n", "bounds", s.maxConnections, s.maxBytes, s.maxBody)
	fmt.Fprintf(&out, "%-12s %s\n%-12s %s\n", "spans", on[s.spans], "pprof", on[s.pprof != ""])
	return out.String()
}
