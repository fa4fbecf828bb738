"""evomerge: a distributed evolutionary merge optimizer."""
