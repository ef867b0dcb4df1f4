package telemetry

import (
	"os"
	"runtime"
	"runtime/metrics"
	"strconv"
	"strings"
	"syscall"
	"time"
)

// Gauge adds a metric that is read when somebody asks. It must be added before the first request.
// read calls emit once for each sample, with the values of the labels.
func (m *Metrics) Gauge(name, help string, labels []string, read func(emit func(value float64, labels ...string))) {
	m.add("gauge", name, help, labels, read)
}

// Counter is Gauge for numbers that only grow.
func (m *Metrics) Counter(name, help string, read func() float64) {
	m.add("counter", name, help, nil, func(emit func(float64, ...string)) { emit(read()) })
}

func (m *Metrics) add(kind, name, help string, labels []string, read func(emit func(value float64, labels ...string))) {
	m.gauges = append(m.gauges, func(e *exposition) {
		e.metric(name, kind, help, labels...)
		read(e.sample)
	})
}

// clockTicks is the unit of times in /proc: USER_HZ, 100 on every Linux.
const clockTicks = 100

var started = time.Now()

// runtimeGauges are the numbers of the process and of Go's runtime that matter here, under the
// names that Prometheus' own client gives them.
func runtimeGauges(e *exposition) {
	e.metric("go_goroutines", "gauge", "Goroutines that exist.")
	e.sample(float64(runtime.NumGoroutine()))
	samples := []metrics.Sample{
		{Name: "/memory/classes/heap/objects:bytes"}, {Name: "/memory/classes/total:bytes"},
		{Name: "/gc/cycles/total:gc-cycles"}, {Name: "/sched/gomaxprocs:threads"}, {Name: "/gc/gomemlimit:bytes"},
	}
	metrics.Read(samples)
	for i, row := range []struct{ name, kind, help string }{
		{"go_memstats_heap_alloc_bytes", "gauge", "Heap in use."},
		{"go_memstats_sys_bytes", "gauge", "Memory mapped by the runtime."},
		{"go_gc_cycles_total", "counter", "Garbage collections."},
		{"go_sched_gomaxprocs_threads", "gauge", "Threads that run Go code at once."},
		{"go_gc_gomemlimit_bytes", "gauge", "The runtime's soft limit of memory."},
	} {
		if samples[i].Value.Kind() == metrics.KindUint64 {
			e.metric(row.name, row.kind, row.help)
			e.sample(float64(samples[i].Value.Uint64()))
		}
	}
	processGauges(e)
}

// processGauges are left out where there is no /proc.
func processGauges(e *exposition) {
	e.metric("process_start_time_seconds", "gauge", "When the process began, in seconds since 1970.")
	e.sample(float64(started.UnixMilli()) / 1000)
	if stat, err := os.ReadFile("/proc/self/stat"); err == nil {
		// The second field is a name in brackets that may hold spaces.
		fields := strings.Fields(string(stat[strings.LastIndexByte(string(stat), ')')+1:]))
		if len(fields) > 21 {
			user, _ := strconv.ParseFloat(fields[11], 64)
			system, _ := strconv.ParseFloat(fields[12], 64)
			pages, _ := strconv.ParseFloat(fields[21], 64)
			e.metric("process_cpu_seconds_total", "counter", "CPU time used.")
			e.sample((user + system) / clockTicks)
			e.metric("process_resident_memory_bytes", "gauge", "Memory that is resident.")
			e.sample(pages * float64(os.Getpagesize()))
		}
	}
	if open, err := os.ReadDir("/proc/self/fd"); err == nil {
		e.metric("process_open_fds", "gauge", "Open file descriptors.")
		e.sample(float64(len(open)))
	}
	var limit syscall.Rlimit
	if syscall.Getrlimit(syscall.RLIMIT_NOFILE, &limit) == nil {
		e.metric("process_max_fds", "gauge", "Most file descriptors that may be open.")
		e.sample(float64(limit.Cur))
	}
}
