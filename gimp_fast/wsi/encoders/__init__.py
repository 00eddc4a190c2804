"""Encoders of other groups: facts, networks, weights and the names of their tensors."""
