package limit

import (
	"container/heap"
	"container/list"
	"time"
)

// waiter is an attempt whose turn has not come.
type waiter struct {
	lane      *lane
	workspace string
	deadline  time.Time // zero: none
	tokens    float64

	at     int           // in its heap, -1 when it waits no more
	ready  chan struct{} // closed when permit or err is set
	permit *Permit
	err    error
}

func (w *waiter) waits() bool { return w.at >= 0 }

// waitingRoom is a provider's queue. The workspaces that wait take turns; inside a workspace the
// earliest deadline goes first. Models that cannot be asked now hold nobody else up.
type waitingRoom struct {
	size  int
	turns list.List // of *party, next turn first
	of    map[string]*party
}

// party is a workspace that waits.
type party struct {
	turn  *list.Element
	name  string
	size  int
	lanes map[*lane]*byDeadline
}

// add lets w wait. first is for one that had its turn and could not use it.
func (q *waitingRoom) add(w *waiter, first bool) {
	p := q.of[w.workspace]
	if p == nil {
		if q.of == nil {
			q.of = map[string]*party{}
		}
		p = &party{name: w.workspace, lanes: map[*lane]*byDeadline{}}
		p.turn = q.turns.PushBack(p)
		q.of[w.workspace] = p
	}
	if first {
		q.turns.MoveToFront(p.turn)
	}
	if p.lanes[w.lane] == nil {
		p.lanes[w.lane] = &byDeadline{}
	}
	heap.Push(p.lanes[w.lane], w)
	p.size++
	q.size++
	w.lane.waiting++
}

// next is the waiter whose turn it is among those whose lanes may go, nil when there is none.
func (q *waitingRoom) next(may func(*lane) bool) *waiter {
	for turn := q.turns.Front(); turn != nil; turn = turn.Next() {
		var first *waiter
		for l, waiters := range turn.Value.(*party).lanes {
			if may(l) && (first == nil || sooner((*waiters)[0], first)) {
				first = (*waiters)[0]
			}
		}
		if first != nil {
			return first
		}
	}
	return nil
}

// remove takes w out; served says that its workspace had its turn.
func (q *waitingRoom) remove(w *waiter, served bool) {
	p := q.of[w.workspace]
	waiters := p.lanes[w.lane]
	heap.Remove(waiters, w.at)
	w.at = -1
	if len(*waiters) == 0 {
		delete(p.lanes, w.lane)
	}
	p.size--
	q.size--
	w.lane.waiting--
	if p.size == 0 {
		q.turns.Remove(p.turn)
		delete(q.of, p.name)
	} else if served {
		q.turns.MoveToBack(p.turn)
	}
}

// surplus is the waiter that makes room for one of a workspace when the queue is full: the one with
// the latest deadline of the workspace with most waiters, nil when that has no more than the
// newcomer's would have then. Otherwise one workspace could keep all others out by filling the
// queue, and its turns would be the only ones.
func (q *waitingRoom) surplus(workspace string) *waiter {
	own := 0
	if p := q.of[workspace]; p != nil {
		own = p.size
	}
	var most *party
	for turn := q.turns.Front(); turn != nil; turn = turn.Next() {
		if p := turn.Value.(*party); most == nil || p.size > most.size {
			most = p
		}
	}
	if most == nil || most.size <= own+1 {
		return nil
	}
	var last *waiter
	for _, waiters := range most.lanes {
		for _, w := range *waiters {
			if last == nil || sooner(last, w) {
				last = w
			}
		}
	}
	return last
}

// each calls do for the waiters of a lane, or of all lanes when it is nil. do may remove the
// waiter.
func (q *waitingRoom) each(of *lane, do func(*waiter)) {
	var all []*waiter
	for turn := q.turns.Front(); turn != nil; turn = turn.Next() {
		for l, waiters := range turn.Value.(*party).lanes {
			if of == nil || l == of {
				all = append(all, *waiters...)
			}
		}
	}
	for _, w := range all {
		do(w)
	}
}

func sooner(a, b *waiter) bool {
	switch {
	case a.deadline.IsZero():
		return false
	case b.deadline.IsZero():
		return true
	default:
		return a.deadline.Before(b.deadline)
	}
}

// byDeadline implements heap.Interface.
type byDeadline []*waiter

func (h *byDeadline) Len() int           { return len(*h) }
func (h *byDeadline) Less(i, k int) bool { return sooner((*h)[i], (*h)[k]) }
func (h *byDeadline) Swap(i, k int) {
	(*h)[i], (*h)[k] = (*h)[k], (*h)[i]
	(*h)[i].at, (*h)[k].at = i, k
}

// Push implements heap.Interface.
func (h *byDeadline) Push(w any) {
	w.(*waiter).at = len(*h)
	*h = append(*h, w.(*waiter))
}

// Pop implements heap.Interface.
func (h *byDeadline) Pop() any {
	last := len(*h) - 1
	w := (*h)[last]
	(*h)[last] = nil
	*h = (*h)[:last]
	return w
}
