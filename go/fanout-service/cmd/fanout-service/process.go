package main

import (
	"io/fs"
	"math"
	"os"
	"path"
	"runtime/debug"
	"strconv"
	"strings"
	"syscall"
)

// Descriptors kept for what is no call and no reader: the log, listeners, Redis, the collector, a
// scrape. A fifth of the rest is left for hedges and for connections that are idle.
const (
	reserved        = 256
	connectionShare = 0.8
)

// leastConnections is what one call needs: its own connection and its reader's. A service with fewer
// would say that it is ready, and take nothing.
const leastConnections = 2

// connectionsFor is how many connections of calls and readers there are file descriptors for, at
// least those of one call.
func connectionsFor(descriptors uint64) int {
	if descriptors > math.MaxInt32 {
		descriptors = math.MaxInt32
	}
	return max(leastConnections, int(connectionShare*(float64(descriptors)-reserved)))
}

// descriptors is how many this process may open; Go has raised it to the hard limit by now.
func descriptors() uint64 {
	var limit syscall.Rlimit
	if err := syscall.Getrlimit(syscall.RLIMIT_NOFILE, &limit); err != nil {
		return 1024
	}
	return limit.Cur
}

// memoryShare of a container's memory is what the heap may grow to before the collector works
// harder: beyond the limit the kernel ends the process.
const memoryShare = 0.85

// boundMemory sets GOMEMLIMIT by the cgroup, when neither is said otherwise.
func boundMemory(env environment) {
	if env.get("GOMEMLIMIT") != "" {
		return
	}
	if limit, ok := memoryLimit(os.DirFS("/")); ok {
		debug.SetMemoryLimit(int64(memoryShare * float64(limit)))
	}
}

// memoryLimit is the least limit of this process's cgroup and those above it, of version 2 or 1.
func memoryLimit(root fs.FS) (int64, bool) {
	groups, err := fs.ReadFile(root, "proc/self/cgroup")
	if err != nil {
		return 0, false
	}
	least := int64(math.MaxInt64)
	for line := range strings.Lines(string(groups)) {
		// Like 0::/a/b, or 4:memory:/a/b in version 1.
		parts := strings.SplitN(strings.TrimSpace(line), ":", 3)
		if len(parts) != 3 {
			continue
		}
		base, file := "sys/fs/cgroup", "memory.max"
		if parts[1] == "memory" {
			base, file = "sys/fs/cgroup/memory", "memory.limit_in_bytes"
		} else if parts[1] != "" {
			continue
		}
		for group := path.Clean("/" + parts[2]); ; group = path.Dir(group) {
			raw, err := fs.ReadFile(root, path.Join(base, group, file))
			if n, bad := strconv.ParseInt(strings.TrimSpace(string(raw)), 10, 64); err == nil && bad == nil && n > 0 {
				least = min(least, n)
			}
			if group == "/" {
				break
			}
		}
	}
	// Version 1 says "none" with a number no machine has.
	return least, least < 1<<60
}
