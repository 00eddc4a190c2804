"""A model of several targets, explained for one of them."""

from __future__ import annotations

from typing import Any

from gimp_fast.errors import GimpError, one_of
from gimp_fast.heatmaps.protocols import ExplainedModel
from gimp_fast.targets import Target
from gimp_fast.targets.several import Several


class OneTarget:
    """A trained model whose columns and classes are those of one of its targets.

    Args:
        trained: the model, of several targets.
        place: of the target among them.

    Attributes:
        name: of the target.
        target: itself.
        asked: where a cohort has its truth: a name, or None for the labels.
        place: slice of its outputs among those of the model.
    """

    def __init__(self, trained: ExplainedModel, place: int):
        several = trained.model.target
        member = several.members[place]
        self._trained = trained
        self.name, self.target, self.asked = member.name, member.target, member.asked
        self.place = several.outputs[place]
        self.classes = member.classes
        self.columns = member.classes or member.prefixed(member.prediction_columns)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._trained, name)

    def __repr__(self) -> str:
        return f"{self._trained!r}, explained for '{self.name}'"


def explained_for(trained: ExplainedModel, name: str | None) -> ExplainedModel:
    """The model to explain: of several targets, that of a name, or the first for None.

    Raises:
        GimpError: the model does not predict it, or predicts one target alone.
    """
    several = trained.model.target
    if not isinstance(several, Several):
        if name is not None:
            raise GimpError(
                f"--target: found '{name}'; expected none, because {trained.source} predicts one "
                "target alone"
            )
        return trained
    names = [member.name for member in several.members]
    if name is not None and name not in names:
        raise GimpError(
            f"--target: found '{name}'; expected {one_of(name, names)}, which {trained.source} "
            "predicts"
        )
    return OneTarget(trained, names.index(name) if name is not None else 0)


def question(trained: ExplainedModel) -> tuple[Target, slice]:
    """What is explained, and the place of its outputs among those of the model."""
    if isinstance(trained, OneTarget):
        return trained.target, trained.place
    return trained.model.target, slice(None)
