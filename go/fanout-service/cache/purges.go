package cache

import "sync"

// maxPurged bounds how many workspaces' purges are counted: names come with requests.
const maxPurged = 10_000

// purges counts purges, so that what began before one is not kept after it.
type purges struct {
	mu    sync.RWMutex // held to read while something is kept: no purge begins meanwhile
	epoch uint64       // counts as a purge of every workspace
	of    map[string]uint64
}

// Mark is a moment between two purges of a workspace.
type Mark struct {
	workspace     string
	epoch, number uint64
}

func (p *purges) mark(workspace string) Mark {
	p.mu.RLock()
	defer p.mu.RUnlock()
	return p.now(workspace)
}

func (p *purges) now(workspace string) Mark {
	return Mark{workspace: workspace, epoch: p.epoch, number: p.of[workspace]}
}

// since says whether the mark's workspace was purged after it.
func (p *purges) since(m Mark) bool { return p.mark(m.workspace) != m }

// unless keeps something, unless the mark's workspace was purged after it.
func (p *purges) unless(m Mark, keep func()) {
	p.mu.RLock()
	defer p.mu.RUnlock()
	if p.now(m.workspace) == m {
		keep()
	}
}

// add counts a purge. When there are too many workspaces to count, it counts as one of all: then
// answers on their way are not kept, and that is all.
func (p *purges) add(workspace string) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if len(p.of) >= maxPurged {
		p.of = nil
		p.epoch++
	}
	if p.of == nil {
		p.of = map[string]uint64{}
	}
	p.of[workspace]++
}
