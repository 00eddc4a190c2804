"""The mathematics in the shortest torch: the specification, never optimised."""
