"""What the driver of a run is made of: its journal, what it loads, and the requests it sends."""
