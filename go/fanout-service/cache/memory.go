package cache

import (
	"hash/maphash"
	"sync"
	"time"
)

const (
	maxShards = 16
	minShard  = 1 << 20 // bytes; a smaller bound in all has fewer shards instead
	// One answer may take this part of a shard: a larger one would push out many that are asked
	// for more often, and is left to the Store.
	largestPart = 8
	// overhead is what an entry takes beside its texts: the structs, the map's slot and the
	// pointers of the list, rounded up.
	overhead = 512
)

// memory is a least recently used cache bounded in bytes. Its shards each have a part of the bound
// and a lock of their own.
type memory struct {
	seed   maphash.Seed
	shards []shard
}

// newMemory returns a memory for so many bytes; 0 or less holds nothing.
func newMemory(maxBytes int64) *memory {
	m := &memory{seed: maphash.MakeSeed()}
	if maxBytes <= 0 {
		return m
	}
	m.shards = make([]shard, min(max(maxBytes/minShard, 1), maxShards))
	for i := range m.shards {
		s := &m.shards[i]
		s.maxBytes = maxBytes / int64(len(m.shards))
		s.nodes = map[key]*node{}
		s.ends.newer, s.ends.older = &s.ends, &s.ends
	}
	return m
}

// shard is a map into a ring, which runs from the newest over the oldest back to ends.
type shard struct {
	mu       sync.Mutex
	maxBytes int64
	bytes    int64
	nodes    map[key]*node
	ends     node // ends.older is the newest entry, ends.newer the oldest
	evicted  int64
	hits     int64
}

type node struct {
	key          key
	entry        *Entry
	expires      time.Time // holds a monotonic reading: a step of the wall clock changes nothing
	bytes        int64
	newer, older *node
}

func (m *memory) shard(k key) *shard {
	if len(m.shards) == 0 {
		return nil
	}
	return &m.shards[maphash.Comparable(m.seed, k)%uint64(len(m.shards))]
}

// get returns the entry and makes it the newest, or nil.
func (m *memory) get(k key, now time.Time) *Entry {
	s := m.shard(k)
	if s == nil {
		return nil
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	n := s.nodes[k]
	if n == nil {
		return nil
	}
	if !now.Before(n.expires) {
		s.remove(n)
		return nil
	}
	n.unlink()
	s.link(n)
	s.hits++
	return n.entry
}

// put keeps the entry in the place of what was there before, and pushes out the oldest until there
// is room. An entry too large for the shard leaves nothing under its key.
func (m *memory) put(k key, entry *Entry, expires time.Time) {
	s := m.shard(k)
	if s == nil {
		return
	}
	n := &node{key: k, entry: entry, expires: expires, bytes: size(k, entry)}
	s.mu.Lock()
	defer s.mu.Unlock()
	if before := s.nodes[k]; before != nil {
		s.remove(before)
	}
	if n.bytes > s.maxBytes/largestPart {
		return
	}
	for s.bytes+n.bytes > s.maxBytes {
		s.remove(s.ends.newer)
		s.evicted++
	}
	s.nodes[k] = n
	s.bytes += n.bytes
	s.link(n)
}

func (m *memory) purge(workspace string) {
	for i := range m.shards {
		s := &m.shards[i]
		s.mu.Lock()
		for k, n := range s.nodes {
			if k.workspace == workspace {
				s.remove(n)
			}
		}
		s.mu.Unlock()
	}
}

func (m *memory) count(stats *Stats) {
	for i := range m.shards {
		s := &m.shards[i]
		s.mu.Lock()
		stats.Bytes += s.bytes
		stats.Entries += int64(len(s.nodes))
		stats.Evicted += s.evicted
		stats.MemoryHits += s.hits
		s.mu.Unlock()
	}
}

func (s *shard) remove(n *node) {
	n.unlink()
	delete(s.nodes, n.key)
	s.bytes -= n.bytes
}

func (s *shard) link(n *node) {
	n.newer, n.older = &s.ends, s.ends.older
	n.newer.older, n.older.newer = n, n
}

func (n *node) unlink() { n.newer.older, n.older.newer = n.older, n.newer }

// size is what an entry counts against the bound, in bytes.
func size(k key, e *Entry) int64 {
	texts := len(k.workspace) + len(k.digest) + len(e.Text) + len(e.Thoughts) +
		len(e.Target.Provider) + len(e.Target.Model) + len(e.FinishReason)
	return int64(texts) + overhead
}
