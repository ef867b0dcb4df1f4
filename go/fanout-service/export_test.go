package fanout

// KindCount is how many kinds there are.
func KindCount() int { return len(kinds) }
