"""Models: slides and genes of patients in, classes out."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from gimp_fast.models.abmil import ABMIL
from gimp_fast.models.base import (
    Modalities,
    ModelSettings,
    Outcome,
    PatientModel,
    Representation,
    Sizes,
)
from gimp_fast.models.biovil import BioViL
from gimp_fast.models.clam import CLAMMB, CLAMSB
from gimp_fast.models.dsmil import DSMIL
from gimp_fast.models.gimp import GeneClassifier, GiMP, GiMPConfig, GiMPSettings
from gimp_fast.models.inputs import PatientInputs, Presence
from gimp_fast.models.mcat import MCAT
from gimp_fast.models.mean_pool import MeanPool
from gimp_fast.models.mgca import MGCA
from gimp_fast.models.pathomic_fusion import PathomicFusion
from gimp_fast.models.porpoise import PORPOISE
from gimp_fast.models.refers import REFERS
from gimp_fast.models.snn import SNN
from gimp_fast.models.transmil import TransMIL

_MODELS: dict[str, type[PatientModel]] = {
    "mean_pool": MeanPool,
    "abmil": ABMIL,
    "dsmil": DSMIL,
    "clam_sb": CLAMSB,
    "clam_mb": CLAMMB,
    "transmil": TransMIL,
    "snn": SNN,
    "porpoise": PORPOISE,
    "pathomic_fusion": PathomicFusion,
    "mcat": MCAT,
    "mgca": MGCA,
    "biovil": BioViL,
    "refers": REFERS,
    "gimp": GiMP,
}

__all__ = [
    "GeneClassifier",
    "GiMP",
    "GiMPConfig",
    "GiMPSettings",
    "Modalities",
    "ModelSettings",
    "Outcome",
    "PatientInputs",
    "PatientModel",
    "Presence",
    "Representation",
    "Sizes",
    "available",
    "build",
    "model_class",
]


def available() -> tuple[str, ...]:
    """Names that :func:`build` knows."""
    return tuple(_MODELS)


def model_class(name: str) -> type[PatientModel]:
    """The class of the model called `name`.

    Raises:
        ValueError: unknown name.
    """
    if name not in _MODELS:
        raise ValueError(f"unknown model {name!r}; expected one of {', '.join(_MODELS)}")
    return _MODELS[name]


def build(name: str, config: Sizes | Mapping[str, Any], backend: str = "auto") -> PatientModel:
    """The model called `name`.

    Args:
        name: one of :func:`available`.
        config: its configuration, as an object or as a mapping of its fields.
        backend: of the operators, see :func:`gimp_fast.ops.available_backends`.

    Raises:
        ValueError: unknown name, or a configuration that does not validate.
    """
    chosen = model_class(name)
    return chosen(chosen.config_class.model_validate(config), backend=backend)
