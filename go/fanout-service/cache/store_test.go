package cache_test

import (
	"context"
	"encoding/json"
	"fmt"
	"log/slog"
	"reflect"
	"strings"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"
	"github.com/redis/go-redis/v9/maintnotifications"

	fanout "rex/fanout-service"
	"rex/fanout-service/cache"
	"rex/fanout-service/internal/redistest"
	"rex/fanout-service/internal/testlog"
)

// replica is one process' view: a cache of its own over the Redis of all.
type replica struct {
	*cache.Cache
	redis *redis.Client
	log   *testlog.Buffer
}

func newReplica(t *testing.T, address string, config cache.Config) *replica {
	t.Helper()
	client := redis.NewClient(&redis.Options{
		Addr: address, ContextTimeoutEnabled: true, MaxRetries: -1, DialTimeout: 200 * time.Millisecond, DialerRetries: 1,
		MaintNotificationsConfig: &maintnotifications.Config{Mode: maintnotifications.ModeDisabled},
	})
	log := &testlog.Buffer{}
	c := cache.New(config, cache.NewStore(client, "rex:"), slog.New(slog.NewJSONHandler(log, nil)))
	t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.Background(), 5*time.Second)
		defer cancel()
		_ = c.Close(ctx)
		_ = client.Close()
	})
	return &replica{c, client, log}
}

// flush waits until all is written; nothing may be put after it.
func (r *replica) flush(t *testing.T) {
	t.Helper()
	if err := r.Close(t.Context()); err != nil {
		t.Fatal(err)
	}
}

// until waits for what others bring about.
func until(t *testing.T, what string, condition func() bool) {
	t.Helper()
	for end := time.Now().Add(20 * time.Second); time.Now().Before(end); time.Sleep(10 * time.Millisecond) {
		if condition() {
			return
		}
	}
	t.Fatalf("never: %s", what)
}

var inMemory = cache.Config{MaxBytes: 1 << 20, TTL: time.Hour}

func redisName(digest string) string { return "rex:cache:1:{w}:" + digest }

func TestWhatOneReplicaStoresAnotherReadsWithEveryField(t *testing.T) {
	address := redistest.Start(t)
	writer, reader := newReplica(t, address, inMemory), newReplica(t, address, inMemory)
	put := &cache.Entry{
		Text: []byte(`a \"quoted\" <b>日本</b>\n\u00e9😀`), Thoughts: []byte(`hm\t<ü>`), FinishReason: fanout.FinishLength,
		Characters: len([]rune("a \"quoted\" <b>日本</b>\né😀")),
		Usage:      fanout.Usage{InputTokens: 1, OutputTokens: 2, CachedTokens: 3, ReasoningTokens: 4, Estimated: true},
		Target:     fanout.Target{Provider: "openai", Model: "gpt/4 \"x\""},
		StoredAt:   time.Now().Add(-10 * time.Minute).Truncate(time.Millisecond),
	}
	writer.Put("w", digest(1), put, writer.Mark("w"))
	writer.flush(t)

	got, age, ok := reader.Get(t.Context(), "w", digest(1))
	if !ok || age < 10*time.Minute || age > 20*time.Minute {
		t.Fatalf("age %v, %v", age, ok)
	}
	if !got.StoredAt.Equal(put.StoredAt) {
		t.Errorf("stored at %v, want %v", got.StoredAt, put.StoredAt)
	}
	got.StoredAt = put.StoredAt
	if !reflect.DeepEqual(got, put) {
		t.Errorf("got  %+v\nwant %+v", got, put)
	}
	if left := reader.redis.PTTL(t.Context(), redisName(digest(1))).Val(); left > 50*time.Minute || left < 40*time.Minute {
		t.Errorf("%v are left of an hour less ten minutes", left)
	}
	if _, _, ok := reader.Get(t.Context(), "w2", digest(1)); ok {
		t.Error("another workspace reads it")
	}
	reader.Get(t.Context(), "w", digest(1))
	if stats := reader.Stats(); stats.StoreHits != 1 || stats.MemoryHits != 1 || stats.Misses != 1 || !stats.StoreUp {
		t.Errorf("the second time it is in memory: %+v", stats)
	}
	if stats := writer.Stats(); stats.StoreWrites != 1 || stats.StoreErrors != 0 || stats.StoreDropped != 0 {
		t.Errorf("%+v", stats)
	}
}

func TestTheValueInRedisIsTheDocumentedObject(t *testing.T) {
	r := newReplica(t, redistest.Start(t), inMemory)
	e := answer(`x\n`)
	e.StoredAt = time.Now().Truncate(time.Second)
	r.Put("w", digest(1), e, r.Mark("w"))
	r.flush(t)
	want := fmt.Sprintf(`{"v":1,"text":"x\n","thoughts":null,"finish_reason":"stop","usage":{"input_tokens":7,`+
		`"output_tokens":3,"cached_tokens":0,"reasoning_tokens":0,"estimated":false},"provider":"p","model":"m",`+
		`"stored_at_ms":%d}`, e.StoredAt.UnixMilli())
	if got := r.redis.Get(t.Context(), redisName(digest(1))).Val(); got != want {
		t.Errorf("got  %s\nwant %s", got, want)
	}
}

// aValue is one that another program may have written, with a change.
func aValue(change func(map[string]any)) string {
	v := map[string]any{
		"v": 1, "text": "hi", "thoughts": nil, "finish_reason": "stop", "provider": "p", "model": "m",
		"usage":        map[string]any{"input_tokens": 1, "output_tokens": 1, "cached_tokens": 0, "reasoning_tokens": 0, "estimated": false},
		"stored_at_ms": time.Now().UnixMilli(),
	}
	if change != nil {
		change(v)
	}
	b, _ := json.Marshal(v)
	return string(b)
}

func TestAValueThatIsNoneOfOursIsAMiss(t *testing.T) {
	r := newReplica(t, redistest.Start(t), cache.Config{})
	with := func(name string, value any) string { return aValue(func(v map[string]any) { v[name] = value }) }
	without := func(name string) string { return aValue(func(v map[string]any) { delete(v, name) }) }
	good := aValue(nil)
	rows := map[string]string{
		"empty": "", "no JSON": "hello", "cut": good[:len(good)-1], "more behind": good + "{}", "a list": "[" + good + "]",
		"version": with("v", 2), "no version": without("v"), "text is a number": with("text", 5), "no text": without("text"),
		"text is null": with("text", nil), "thoughts are a list": with("thoughts", []int{}),
		"no finish": without("finish_reason"), "unknown finish": with("finish_reason", "error"), "no usage": without("usage"),
		"no model": without("model"), "no provider": with("provider", ""), "never stored": with("stored_at_ms", 0),
		"unknown field": with("score", 1), "null": "null",
	}
	corrupt := int64(0)
	for name, value := range rows {
		r.redis.Set(t.Context(), redisName(digest(1)), value, time.Hour)
		if _, _, ok := r.Get(t.Context(), "w", digest(1)); ok {
			t.Errorf("%s: served", name)
		}
		corrupt++
	}
	r.redis.Del(t.Context(), redisName(digest(1)))
	r.redis.RPush(t.Context(), redisName(digest(1)), "a list of Redis")
	if _, _, ok := r.Get(t.Context(), "w", digest(1)); ok {
		t.Error("a list was served")
	}
	if stats := r.Stats(); stats.StoreCorrupt != corrupt+1 || stats.StoreErrors != 0 || !stats.StoreUp {
		t.Errorf("%d corrupt values: %+v", corrupt+1, stats)
	}
	r.redis.Set(t.Context(), redisName(digest(1)), good, time.Hour)
	if text, ok := get(r.Cache, "w", digest(1)); !ok || text != "hi" {
		t.Errorf("the value without a fault: %q, %v", text, ok)
	}
}

func TestTextOfAnotherProgramLeavesValidAsUnicode(t *testing.T) {
	r := newReplica(t, redistest.Start(t), cache.Config{})
	for raw, want := range map[string]string{
		`plain`: "plain", `\ud83d\ude00`: "😀", `a\ud83d`: "a\ufffd", `\ude00b`: "\ufffdb", `\u0000`: "\ufffd",
		"\xff": "\ufffd", `\u00e9\"`: `\u00e9\"`, ``: ``,
	} {
		value := strings.Replace(aValue(nil), `"hi"`, `"`+raw+`"`, 1)
		r.redis.Set(t.Context(), redisName(digest(1)), value, time.Hour)
		entry, _, ok := r.Get(t.Context(), "w", digest(1))
		if !ok || string(entry.Text) != want {
			t.Errorf("%q became %q, want %q", raw, entry.Text, want)
			continue
		}
		var decoded string
		if err := json.Unmarshal([]byte(`"`+string(entry.Text)+`"`), &decoded); err != nil || entry.Characters != len([]rune(decoded)) {
			t.Errorf("%q: %d characters, %v", raw, entry.Characters, err)
		}
	}
}

// TestAnAnswerEndsByRedisClockWhateverTheWritersSaid holds in memory as well, where it was copied.
func TestAnAnswerEndsByRedisClockWhateverTheWritersSaid(t *testing.T) {
	r := newReplica(t, redistest.Start(t), inMemory)
	ahead := aValue(func(v map[string]any) { v["stored_at_ms"] = time.Now().Add(time.Hour).UnixMilli() })
	r.redis.Set(t.Context(), redisName(digest(1)), ahead, 2*time.Second)
	_, age, ok := r.Get(t.Context(), "w", digest(1))
	if !ok || age != 0 {
		t.Fatalf("age %v, %v", age, ok)
	}
	until(t, "the answer expires", func() bool { return r.redis.Exists(t.Context(), redisName(digest(1))).Val() == 0 })
	time.Sleep(5 * time.Millisecond) // Redis counts in whole milliseconds
	if _, ok := get(r.Cache, "w", digest(1)); ok {
		t.Error("memory serves what Redis has dropped")
	}
	old := aValue(func(v map[string]any) { v["stored_at_ms"] = time.Now().Add(-time.Hour).UnixMilli() })
	r.redis.Set(t.Context(), redisName(digest(2)), old, 0)
	if _, ok := get(r.Cache, "w", digest(2)); ok {
		t.Error("an answer without an end is served beyond ours")
	}
	r.redis.Set(t.Context(), redisName(digest(3)), aValue(nil), 0)
	if _, ok := get(r.Cache, "w", digest(3)); !ok {
		t.Error("an answer without an end is not served at all")
	}
}

func TestCloseWritesWhatIsQueued(t *testing.T) {
	r := newReplica(t, redistest.Start(t), cache.Config{TTL: time.Hour})
	for n := range 900 {
		put(r.Cache, "w", digest(n), strings.Repeat("x", n))
	}
	r.flush(t)
	if size := r.redis.DBSize(t.Context()).Val(); size != 900 {
		t.Errorf("%d of 900 answers were written: %+v", size, r.Stats())
	}
	put(r.Cache, "w", digest(901), "late")
	if stats := r.Stats(); stats.StoreWrites != 900 || stats.StoreDropped != 1 {
		t.Errorf("%+v", stats)
	}
}

func TestAnAnswerTooLargeForRedisStaysInMemory(t *testing.T) {
	r := newReplica(t, redistest.Start(t), cache.Config{MaxBytes: 64 << 20, TTL: time.Hour})
	for n, size := range []int{500 << 10, 1<<20 + 1} {
		put(r.Cache, "w", digest(n), strings.Repeat("x", size))
	}
	r.flush(t)
	if stats := r.Stats(); stats.StoreWrites != 1 || stats.StoreDropped != 1 {
		t.Errorf("%+v", stats)
	}
}

func TestWhatWasWrittenMakesRoomInTheQueue(t *testing.T) {
	r := newReplica(t, redistest.Start(t), cache.Config{TTL: time.Hour})
	text := strings.Repeat("x", 1000<<10)
	for n := range 12 { // more than the queue holds at once
		put(r.Cache, "w", digest(n), text)
		until(t, "the answer is written", func() bool { return r.Stats().StoreWrites == int64(n+1) })
	}
}

func TestKeysThatAreNotOfTheContractNeverReachRedis(t *testing.T) {
	r := newReplica(t, redistest.Start(t), cache.Config{TTL: time.Hour})
	for _, k := range [][2]string{{"w}:x{", digest(1)}, {"w", "short"}, {"w", strings.ToUpper(fmt.Sprintf("%064x", 0xabc))}, {"w\n", digest(1)}} {
		put(r.Cache, k[0], k[1], "x")
		if _, ok := get(r.Cache, k[0], k[1]); ok {
			t.Errorf("%q was stored", k)
		}
	}
	r.flush(t)
	if size := r.redis.DBSize(t.Context()).Val(); size != 0 {
		t.Errorf("%d keys in Redis", size)
	}
}

func TestPurgeEmptiesAWorkspaceInRedisToo(t *testing.T) {
	address := redistest.Start(t)
	writer, other := newReplica(t, address, inMemory), newReplica(t, address, inMemory)
	for n := range 1200 {
		writer.redis.Set(t.Context(), redisName(digest(n)), aValue(nil), time.Hour)
	}
	writer.redis.Set(t.Context(), "rex:cache:1:{w2}:"+digest(1), aValue(nil), time.Hour)
	if err := writer.Purge(t.Context(), "w"); err != nil {
		t.Fatal(err)
	}
	if names := writer.redis.Keys(t.Context(), "*").Val(); len(names) != 1 {
		t.Errorf("%d keys are left", len(names))
	}
	if _, ok := get(other.Cache, "w2", digest(1)); !ok {
		t.Error("another workspace's is gone")
	}
}
