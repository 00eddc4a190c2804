"""A run on disk: its layout, its checkpoints and its records."""
