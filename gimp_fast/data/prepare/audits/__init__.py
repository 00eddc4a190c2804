"""Looks for leaks and mistakes in expression that no single value shows."""
