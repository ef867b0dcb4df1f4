package loadtest

import (
	"fmt"
	"os"
	"strconv"
	"strings"
	"syscall"
	"time"
)

// ticksPerSecond is what /proc counts CPU time in (USER_HZ; 100 on every Linux that runs Go).
const ticksPerSecond = 100

// Usage is what a measured span cost.
type Usage struct {
	Seconds       float64 `json:"seconds"`
	CPUSeconds    float64 `json:"cpu_seconds"`    // of the target's processes
	ClientSeconds float64 `json:"client_seconds"` // CPU of this process
	OthersCores   float64 `json:"others_cores"`   // CPU of what has no part in the measurement
}

// meter reads the clocks of a span; its zero is when begin returned it.
type meter struct {
	target              Target
	at                  time.Time
	target0, own, total float64
	beside              float64
}

func begin(target Target) *meter {
	return &meter{
		target: target, at: time.Now(), target0: cpuSeconds(target.PIDs), own: ownCPU(), total: machineCPU(),
		beside: cpuSeconds(target.Beside),
	}
}

// end is the usage since begin.
func (m *meter) end() Usage {
	u := Usage{
		Seconds:       time.Since(m.at).Seconds(),
		CPUSeconds:    cpuSeconds(m.target.PIDs) - m.target0,
		ClientSeconds: ownCPU() - m.own,
	}
	others := machineCPU() - m.total - u.CPUSeconds - u.ClientSeconds - (cpuSeconds(m.target.Beside) - m.beside)
	if u.Seconds > 0 {
		u.OthersCores = max(0, others/u.Seconds)
	}
	return u
}

// cpuSeconds is the user and system time of processes so far; one that has ended counts nothing.
func cpuSeconds(pids []int) float64 {
	total := 0.0
	for _, pid := range pids {
		total += statSeconds(fmt.Sprintf("/proc/%d/stat", pid), ')', 12, 13)
	}
	return total
}

// machineCPU is the busy time of all CPUs so far: user, nice, system, irq, softirq.
func machineCPU() float64 { return statSeconds("/proc/stat", 'u', 1, 2, 3, 6, 7) }

// statSeconds adds up fields of a /proc file's first line, counted behind the last given byte of it.
func statSeconds(path string, behind byte, fields ...int) float64 {
	raw, err := os.ReadFile(path) //nolint:gosec // a path of /proc
	if err != nil {
		return 0
	}
	line, _, _ := strings.Cut(string(raw), "\n")
	words := strings.Fields(line[strings.LastIndexByte(line, behind):])
	ticks := 0.0
	for _, field := range fields {
		if field < len(words) {
			n, _ := strconv.ParseFloat(words[field], 64) // not a number counts as none
			ticks += n
		}
	}
	return ticks / ticksPerSecond
}

func ownCPU() float64 {
	var usage syscall.Rusage
	if syscall.Getrusage(syscall.RUSAGE_SELF, &usage) != nil {
		return 0
	}
	return time.Duration(usage.Utime.Nano() + usage.Stime.Nano()).Seconds()
}

// rssMiB is the resident memory of processes.
func rssMiB(pids []int) float64 {
	total := 0.0
	for _, pid := range pids {
		raw, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
		if err != nil {
			continue
		}
		_, rest, _ := strings.Cut(string(raw), "VmRSS:")
		if words := strings.Fields(rest); len(words) > 0 {
			kib, _ := strconv.ParseFloat(words[0], 64) // not a number counts as none
			total += kib / 1024
		}
	}
	return total
}

// openFiles is how many descriptors processes hold: their sockets, but for a handful.
func openFiles(pids []int) int {
	total := 0
	for _, pid := range pids {
		entries, err := os.ReadDir(fmt.Sprintf("/proc/%d/fd", pid))
		if err == nil {
			total += len(entries)
		}
	}
	return total
}
