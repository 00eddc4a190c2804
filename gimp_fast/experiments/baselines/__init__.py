"""Plain baselines: no model of the package, but the files of a run."""

from gimp_fast.experiments.baselines.cox import CoxSettings
from gimp_fast.experiments.baselines.logistic import LogisticSettings

__all__ = ["CoxSettings", "LogisticSettings"]
