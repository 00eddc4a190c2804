"""Training: configuration, stages, checkpoints, evaluation."""

from gimp_fast.training.config import TrainConfig, load_config, presets
from gimp_fast.training.engine import train

__all__ = ["TrainConfig", "load_config", "presets", "train"]


def __dir__() -> list[str]:
    return sorted(__all__)
