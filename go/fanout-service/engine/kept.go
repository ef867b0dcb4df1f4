package engine

import (
	"time"

	fanout "rex/fanout-service"
	"rex/fanout-service/cache"
)

// kept is the answer of an attempt on its way into the cache. What it holds is on the engine's books.
type kept struct {
	key   string
	since cache.Mark
	entry cache.Entry
	bytes int64
}

// keep collects the answer for the cache, until the function that it returns is called.
func (w *attempts) keep(key string) (release func()) {
	w.kept = &kept{key: key, since: w.engine.cache.Mark(w.request.Workspace)}
	return func() { w.kept.release(w.engine) }
}

// release takes what was collected off the books.
func (k *kept) release(e *Engine) {
	e.bytes.Add(-k.bytes)
	k.bytes = 0
}

// collect adds a piece of the answer, or of the reasoning.
func (w *attempts) collect(as fanout.EventType, text []byte, characters int) {
	if w.kept == nil {
		return
	}
	entry := &w.kept.entry
	if as == fanout.Chunk {
		entry.Text = append(entry.Text, text...)
		entry.Characters += characters
	} else {
		entry.Thoughts = append(entry.Thoughts, text...)
	}
	w.kept.bytes += int64(len(text))
	w.engine.bytes.Add(int64(len(text)))
}

// put stores the answer of an attempt, if it is complete.
func (w *attempts) put(a *attempt) {
	if w.kept == nil || a.answer.FinishReason != fanout.FinishStop {
		return
	}
	entry := &w.kept.entry
	entry.FinishReason, entry.Usage, entry.Target, entry.StoredAt = a.answer.FinishReason, *a.usage, a.Target, time.Now()
	w.engine.cache.Put(w.request.Workspace, w.kept.key, entry, w.kept.since)
}

// startOver forgets what a failed attempt has said.
func (w *attempts) startOver() {
	w.listener.startOver()
	if w.kept != nil {
		entry := &w.kept.entry
		entry.Text, entry.Thoughts, entry.Characters = entry.Text[:0], entry.Thoughts[:0], 0
		w.kept.release(w.engine)
	}
}
