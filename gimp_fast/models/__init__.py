"""Models: slides and genes of patients in, classes out."""

from __future__ import annotations

from gimp_fast.models.gimp import GeneClassifier, GiMP, GiMPConfig, GiMPSettings

_MODELS = {"gimp": (GiMP, GiMPConfig)}

__all__ = ["GeneClassifier", "GiMP", "GiMPConfig", "GiMPSettings", "available", "build"]


def available() -> tuple[str, ...]:
    """Names that :func:`build` knows."""
    return tuple(_MODELS)


def build(name: str, config):
    """The model called `name`.

    Args:
        name: one of :func:`available`.
        config: its configuration, as an object or as a mapping of its fields.

    Raises:
        ValueError: unknown name, or a configuration that does not validate.
    """
    if name not in _MODELS:
        raise ValueError(f"unknown model {name!r}; expected one of {available()}")
    model, config_class = _MODELS[name]
    return model(config_class.model_validate(config))
