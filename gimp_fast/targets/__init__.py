"""Prediction targets: their losses, scores, and the rule that picks the best epoch.

A target is one of K classes, the time until an event, or a number. A target of your own may change
how classes are learnt: see :class:`Classification`, and :func:`register`.
"""

from __future__ import annotations

from gimp_fast.plugins import Registry
from gimp_fast.targets.base import Target
from gimp_fast.targets.classification import Classification

_TARGETS: Registry[Classification] = Registry("target", {"classification": Classification()})

__all__ = ["Classification", "Target", "available", "expected_target", "register", "target"]


def available() -> tuple[str, ...]:
    """Names of the targets that training can use as ``target=<name>``."""
    return tuple(_TARGETS)


def register(name: str, target: Classification) -> None:
    """Add a target under a name, for training with ``target=<name>``::

        class Smoothed(targets.Classification):
            def loss(self, logits, labels):
                return F.cross_entropy(logits, labels, reduction="none", label_smoothing=0.1)

        targets.register("smoothed", Smoothed())

    It may replace the loss of each patient, the scores of the validation patients, and which epoch
    is the best. It cannot replace what is predicted, which is one of the cohort's classes, nor the
    metrics and the report of a run.

    Raises:
        ValueError: the name is taken.
        TypeError: no :class:`Classification`.
    """
    if not isinstance(target, Classification):
        raise TypeError(
            f"target {name!r}: found {target!r}; expected an instance of a subclass of "
            "Classification"
        )
    _TARGETS.add(name, target)


def target(name: str) -> Classification:
    """The target of a name; ValueError if there is none."""
    return _TARGETS.get(name)


def expected_target(name: object) -> str:
    """What was expected instead of a name that no target has."""
    return _TARGETS.expected(name)


def __dir__() -> list[str]:
    return sorted(__all__)
