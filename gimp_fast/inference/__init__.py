"""Trained models on new patients: loaded from runs and exports, run, exported."""

from gimp_fast.inference.load import load
from gimp_fast.inference.model import TrainedModel

__all__ = ["TrainedModel", "load"]
