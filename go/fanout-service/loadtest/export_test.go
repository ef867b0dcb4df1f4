package loadtest

// OpenLoop and ReadEvents are tested by themselves: what they get wrong, every figure gets wrong.
var (
	OpenLoop   = openLoop
	ReadLines  = readLines
	MachineCPU = machineCPU
)
