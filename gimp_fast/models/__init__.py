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
from gimp_fast.models.gene_classifier import GeneClassifier
from gimp_fast.models.gimp import GiMP, GiMPConfig, GiMPSettings
from gimp_fast.models.inputs import PatientInputs, Presence
from gimp_fast.models.kronecker import PORPOISE, PathomicFusion
from gimp_fast.models.mcat import MCAT
from gimp_fast.models.mean_pool import MeanPool
from gimp_fast.models.mgca import MGCA
from gimp_fast.models.refers import REFERS
from gimp_fast.models.snn import SNN
from gimp_fast.models.survpath import SurvPath
from gimp_fast.models.transmil import TransMIL
from gimp_fast.plugins import Registry

_MODELS: Registry[type[PatientModel]] = Registry(
    "model",
    {
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
        "survpath": SurvPath,
        "mgca": MGCA,
        "biovil": BioViL,
        "refers": REFERS,
        "gimp": GiMP,
    },
)

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
    "expected_model",
    "model_class",
    "register",
]


def available() -> tuple[str, ...]:
    """Names of the models that :func:`build` can make."""
    return tuple(_MODELS)


def register(name: str, model_class: type[PatientModel]) -> None:
    """Add a model under a name, for :func:`build` and for training with ``method=<name>``.

    Call it before the name is used. A file of your own does so in every process if the commands
    get it as ``--plugin file.py``, see docs/extending.md::

        class LinearSettings(ModelSettings):
            dropout: float = 0.0

        class Linear(PatientModel):
            title, settings_class, reads = "Linear", LinearSettings, ("rna",)

            def __init__(self, config, backend="auto"):
                super().__init__(config)
                self.dropout = nn.Dropout(config.dropout)
                self.head = nn.Linear(config.num_genes, config.num_outputs)

            def vectors(self, inputs):  # (B, G), from which self.head makes the logits
                return self.dropout(inputs.genes)

        models.register("linear", Linear)

    Args:
        name: the name of the method in configurations and runs.
        model_class: constructed as ``model_class(config, backend=...)``.

    Raises:
        ValueError: the name is taken.
        TypeError: not a :class:`PatientModel` with ``title``, ``settings_class``, ``config_class``
            and ``reads``.
    """
    if not (isinstance(model_class, type) and issubclass(model_class, PatientModel)):
        raise TypeError(
            f"model {name!r}: found {model_class!r}; expected a subclass of PatientModel"
        )
    facts = ("title", "settings_class", "config_class", "reads")
    if missing := [fact for fact in facts if not hasattr(model_class, fact)]:
        raise TypeError(f"model {name!r}: {model_class.__name__} lacks {', '.join(missing)}")
    _MODELS.add(name, model_class)


def model_class(name: str) -> type[PatientModel]:
    """The class of a model.

    Raises:
        ValueError: unknown name.
    """
    return _MODELS.get(name)


def expected_model(name: object) -> str:
    """What was expected instead of a name that no model has."""
    return _MODELS.expected(name)


def build(name: str, config: Sizes | Mapping[str, Any], backend: str = "auto") -> PatientModel:
    """A new model.

    Args:
        name: one of :func:`available`.
        config: its configuration, as an object or as a mapping of its fields.
        backend: for its operators, see :func:`gimp_fast.ops.available_backends`.

    Raises:
        ValueError: unknown name.
        FieldsError: fields that the model does not have, or values that do not fit them.
    """
    cls = model_class(name)
    return cls(cls.config_class.model_validate(config), backend=backend)


def __dir__() -> list[str]:
    return sorted(__all__)
