"""The paper's tables and figures on any prepared cohort, each with one command."""

from gimp_fast.experiments.command import main

__all__ = ["main"]
