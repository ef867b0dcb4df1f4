package memory_test

import (
	"bytes"
	"errors"
	"io"
	"strings"
	"sync"
	"testing"
	"testing/iotest"

	"rex/fanout-service/provider/memory"
)

const mib = 1 << 20

func TestReadersShareTheBoundAndGiveBack(t *testing.T) {
	bound := memory.New(3 * mib)
	first, second := bound.Hold(), bound.Hold()
	if err := first.Resize(2*mib, memory.Free); err != nil {
		t.Fatal(err)
	}
	if err := second.Resize(2 * mib); !errors.Is(err, memory.ErrFull) {
		t.Errorf("two of two thirds: %v", err)
	}
	if err := second.Resize(memory.Free, memory.Free); err != nil {
		t.Errorf("small buffers cost nothing: %v", err)
	}
	_ = first.Resize()
	if err := second.Resize(2 * mib); err != nil {
		t.Errorf("after the first gave back: %v", err)
	}
}

func TestNoMoreIsHeldThanTheBoundHoweverManyAsk(t *testing.T) {
	bound := memory.New(10 * mib)
	var all sync.WaitGroup
	var mu sync.Mutex
	held, most, refused := 0, 0, 0
	for range 16 {
		all.Go(func() {
			for range 500 {
				hold := bound.Hold()
				err := hold.Resize(mib)
				mu.Lock()
				if err == nil {
					held++
					most = max(most, held)
				} else {
					refused++
				}
				mu.Unlock()
				if err == nil {
					mu.Lock()
					held--
					mu.Unlock()
					_ = hold.Resize()
				}
			}
		})
	}
	all.Wait()
	if most > 10 {
		t.Errorf("%d MiB were held of 10", most)
	}
	hold := bound.Hold()
	if err := hold.Resize(10 * mib); err != nil {
		t.Errorf("not all came back (%d were refused)", refused)
	}
}

func TestABodyIsReadUpToItsLimitAndTheBound(t *testing.T) {
	body := strings.Repeat("0123456789abcdef", mib/16)
	for _, c := range []struct {
		name  string
		bound *memory.Bound
		limit int
		want  int
		err   error
	}{
		{"within both", memory.New(4 * mib), 2 * mib, mib, nil},
		{"no bound", nil, 2 * mib, mib, nil},
		{"at the limit", nil, mib, mib, nil},
		{"over the limit", nil, mib - 1, mib, nil},
		{"over the bound", memory.New(mib / 2), 2 * mib, 0, memory.ErrFull},
	} {
		hold := c.bound.Hold()
		got, err := hold.ReadAll(iotest.HalfReader(strings.NewReader(body)), c.limit)
		if !errors.Is(err, c.err) || len(got) != c.want || !bytes.HasPrefix([]byte(body), got) {
			t.Errorf("%s: %d bytes, %v", c.name, len(got), err)
		}
	}
	broken := errors.New("broken")
	hold := memory.New(mib).Hold()
	if _, err := hold.ReadAll(io.MultiReader(strings.NewReader("a"), iotest.ErrReader(broken)), mib); !errors.Is(err, broken) {
		t.Errorf("a broken body: %v", err)
	}
}
