"""What a run is doing, for the person who waits for it: status, stacks, and who hangs."""
