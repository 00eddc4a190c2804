"""The tables and figures that the command can make, by name."""

from __future__ import annotations

from collections.abc import Sequence

from gimp_fast.experiments.classes.paper import DELTAS, PAPER_TABLES, paper_experiment
from gimp_fast.experiments.rows import Experiment
from gimp_fast.experiments.survival.rows import SURVIVAL, survival_experiment

EXPERIMENTS = (*PAPER_TABLES, SURVIVAL)


def experiment(name: str, deltas: Sequence[float] = DELTAS) -> Experiment:
    """The table of this name; ``deltas`` are the margins of ``"delta"``."""
    return survival_experiment() if name == SURVIVAL else paper_experiment(name, deltas)
