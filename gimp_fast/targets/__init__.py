"""Prediction targets: their losses, scores, and the rule that picks the best epoch."""
