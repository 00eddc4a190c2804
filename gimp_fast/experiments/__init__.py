"""Tables of methods on prepared cohorts, each with one command: the paper's, and survival."""

from gimp_fast.experiments.command import main

__all__ = ["main"]
