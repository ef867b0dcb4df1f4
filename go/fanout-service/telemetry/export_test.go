package telemetry

// Waiting counts the spans that wait to be sent.
func (e *Exporter) Waiting() int {
	e.batches.mu.Lock()
	defer e.batches.mu.Unlock()
	return len(e.batches.waiting)
}
