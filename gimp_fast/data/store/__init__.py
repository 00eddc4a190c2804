"""The packed feature store: all slides of a cohort in one file, windows in one contiguous read."""
