"""Heatmaps: weights of patches and genes, where they lie, and their files and pictures."""
