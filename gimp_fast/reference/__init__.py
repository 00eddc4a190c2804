"""The specification of every op: the mathematics in the shortest torch, never optimised."""
