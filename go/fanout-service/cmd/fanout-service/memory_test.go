package main

import (
	"bytes"
	"log/slog"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"
)

// seconds is calls in flight that stay the same for a while.
func seconds(n, calls int) []int { return slices.Repeat([]int{calls}, n) }

func TestABurstIsOverOnceWhenMostOfItsCallsHaveEnded(t *testing.T) {
	cases := []struct {
		name  string
		calls [][]int // one after the other
		want  []int   // seconds in which a burst is over
	}{
		{"nobody asks", [][]int{seconds(100, 0)}, nil},
		{"a thousand are no burst", [][]int{seconds(5, 1000), seconds(100, 0)}, nil},
		{"more are", [][]int{seconds(5, 1001), seconds(200, 0)}, []int{5}},
		{"a tenth is left", [][]int{seconds(5, 2000), seconds(100, 200)}, nil},
		{"less than a tenth", [][]int{seconds(5, 2000), seconds(100, 199)}, []int{5}},
		{"falling slowly", [][]int{seconds(5, 5000), seconds(40, 1000), seconds(10, 499)}, []int{45}},
		{"too slowly to be one", [][]int{seconds(5, 5000), seconds(60, 1000), seconds(100, 499)}, nil},
		{"two within a minute", [][]int{seconds(5, 5000), seconds(5, 0), seconds(5, 5000), seconds(100, 0)}, []int{5, 65}},
		{"two that are apart", [][]int{seconds(5, 5000), seconds(95, 0), seconds(5, 5000), seconds(100, 0)}, []int{5, 105}},
	}
	for _, c := range cases {
		t.Run(c.name, func(t *testing.T) {
			var b burst
			var got []int
			for second, calls := range slices.Concat(c.calls...) {
				if highest, over := b.over(calls); over {
					got = append(got, second)
					if highest <= burstCalls {
						t.Errorf("over with %d calls", highest)
					}
				}
			}
			if !slices.Equal(got, c.want) {
				t.Errorf("over at %v, want %v", got, c.want)
			}
		})
	}
}

func TestMemoryAndIdleConnectionsAreGivenBackAfterABurst(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var log bytes.Buffer
		var calls, closed atomic.Int32
		calls.Store(5000)
		stop := returnMemory(func() int { return int(calls.Load()) }, func() { closed.Add(1) }, slog.New(slog.NewJSONHandler(&log, nil)))
		time.Sleep(3 * time.Second)
		synctest.Wait()
		if closed.Load() != 0 {
			t.Error("given back while all are in flight")
		}
		calls.Store(3)
		time.Sleep(200 * time.Second)
		stop()
		if closed.Load() != 1 || strings.Count(log.String(), `"calls":5000`) != 1 {
			t.Errorf("given back %d times: %s", closed.Load(), log.String())
		}
	})
}
