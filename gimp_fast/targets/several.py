"""Several targets at once: one model answers them from outputs that stand side by side."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Sequence
from functools import cache
from itertools import accumulate, pairwise
from typing import Any, ClassVar

import numpy as np
import torch
from torch import Tensor, nn

from gimp_fast.targets.base import Scores, Target
from gimp_fast.targets.member import Member, check_columns

UNKNOWN = "not known"


class Several(nn.Module, Target):
    """Truth, outputs and predictions are those of the members, side by side.

    The truth is (B, ·) float64, a class as its place, NaN where a patient's value is not known.

    The loss of a patient is the weighted mean of the losses of the members whose value is known. A
    loss of patients together, Cox's, has the patients of the batch whose value is known, of all
    ranks, and counts for each of them. What is not known has no part in a gradient.

    Attributes:
        members: in their order.
        outputs, truths, reports: place of each member's columns among the outputs, those of the
            truth, and those of :meth:`reported`.
    """

    kind: ClassVar[str] = "several"

    def __init__(self, members: Sequence[Member]):
        """ValueError for no member, or columns that would have the same name in a table."""
        super().__init__()
        self.members = tuple(members)
        if not self.members:
            raise ValueError("found no target; expected one or more")
        self.outputs = _side_by_side(m.num_outputs for m in self.members)
        self.truths = _side_by_side(len(m.truth_columns) for m in self.members)
        self.reports = _side_by_side(len(m.prediction_columns) for m in self.members)
        self._predictions = _side_by_side(m.num_predictions for m in self.members)
        self.num_outputs = self.outputs[-1].stop
        self.measures = (
            "loss",
            *(f"{m.name}:{x}" for m in self.members for x in m.target.measures),
        )
        # What these targets took from training is saved, and moves to a GPU, with the model.
        self.fitted = nn.ModuleDict(
            {
                str(place): member.target
                for place, member in enumerate(self.members)
                if not member.classes
            }
        )
        self._weights = [member.weight for member in self.members]
        self._share: Any = None
        check_columns(self.members)

    @property
    def truth_columns(self) -> tuple[str, ...]:
        return tuple(c for m in self.members for c in m.prefixed(m.truth_columns))

    @property
    def prediction_columns(self) -> tuple[str, ...]:
        return tuple(c for m in self.members for c in m.prefixed(m.prediction_columns))

    def facts(self) -> dict[str, Any]:
        return {"kind": self.kind, "targets": [member.facts() for member in self.members]}

    def known(self, truth: Any) -> Any:
        """(B, members) bool, of which the value of each patient is known; tensor or array."""
        first = [truth[:, columns.start] for columns in self.truths]
        if isinstance(truth, Tensor):
            return ~torch.stack(first, 1).isnan()
        return ~np.isnan(np.stack(first, 1))

    @contextlib.contextmanager
    def of_batch(self, share: Any) -> Iterator[None]:
        self._share = share
        try:
            yield
        finally:
            self._share = None

    def loss(self, outputs: Tensor, truth: Tensor) -> Tensor:
        known = self.known(truth)  # (B, members)
        dtype = torch.promote_types(outputs.dtype, torch.float32)
        weight = known * outputs.new_tensor(self._weights, dtype=dtype)
        weight = weight / weight.sum(1, keepdim=True).where(known.any(1, keepdim=True), 1.0)
        # An empty sum joins the outputs to the loss also where nothing is known.
        total = weight.new_zeros(len(outputs)) + outputs[:0].sum()
        for place, member in enumerate(self.members):
            own, rows = weight[:, place], known[:, place].nonzero()[:, 0]
            if member.target.joint:
                losses = self._joint_loss(place, outputs, truth, own)
            elif len(rows):
                asked, answer = self._of(place, outputs[rows], truth[rows])
                losses = member.target.loss(asked, answer)
            else:
                continue
            total = total.index_add(0, rows, own[rows] * losses.to(total.dtype))
        return total

    def _joint_loss(self, place: int, outputs: Tensor, truth: Tensor, weight: Tensor) -> Tensor:
        """The loss of all ranks' patients together, for each of this rank's: a scalar.

        Args:
            weight: (B,) of this rank's patients, 0 where the value is not known.
        """
        parts = outputs[:, self.outputs[place]], truth[:, self.truths[place]], weight
        if self._share is not None:
            parts = [self._share.gather(part) for part in parts]
        asked, answer, weights = parts
        rows = weights.nonzero()[:, 0]
        if not len(rows):
            return outputs[:0].sum()
        member = self.members[place]
        whole = member.target.loss(asked[rows], member.typed(answer[rows])).mean()
        fixed = whole.detach()
        if not weight.any():
            return fixed
        # Only this rank's patients carry a gradient, which is that of the whole batch's loss: they
        # have as much of it as all patients of whom the value is known.
        return fixed + (whole - fixed) * (weights.sum() / weight.sum())

    def _of(self, place: int, outputs: Tensor, truth: Tensor) -> tuple[Tensor, Tensor]:
        """A member's outputs and truth, of patients whose value is known."""
        member = self.members[place]
        return outputs[:, self.outputs[place]], member.typed(truth[:, self.truths[place]])

    def predictions(self, outputs: Tensor) -> Tensor:
        pairs = zip(self.members, self.outputs, strict=True)
        return torch.cat([m.target.predictions(outputs[:, columns]) for m, columns in pairs], 1)

    def reported(self, predictions: np.ndarray) -> np.ndarray:
        pairs = zip(self.members, self._predictions, strict=True)
        return np.concatenate([m.target.reported(predictions[:, at]) for m, at in pairs], axis=1)

    def truth_of(self, place: int, truth: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Rows of the patients whose value of a member is known, and the truth of these."""
        rows = np.flatnonzero(self.known(truth)[:, place])
        return rows, self.members[place].typed(truth[rows, self.truths[place]])

    def predictions_of(self, place: int, predictions: np.ndarray) -> np.ndarray:
        """A member's predictions (n, ·) among those of all."""
        return predictions[:, self._predictions[place]]

    def scores(self, predictions: np.ndarray, truth: np.ndarray) -> Scores:
        """``loss``, and ``<member>:<score>`` of the members' scores.

        The loss is the mean of the members', of whom each counts for its patients as in
        :meth:`loss`.
        """

        def of(place: int) -> tuple[np.ndarray, Scores]:
            rows, answer = self.truth_of(place, truth)
            said = self.predictions_of(place, predictions)[rows]
            return rows, self.members[place].target.scores(said, answer) if len(rows) else {}

        return self._joined(of, truth)

    def probe(
        self, vectors: np.ndarray, truth: np.ndarray, asked: np.ndarray, wanted: np.ndarray
    ) -> Scores:
        """Scores of a linear model for each member, named and averaged as by :meth:`scores`."""

        def of(place: int) -> tuple[np.ndarray, Scores]:
            fitted, answer = self.truth_of(place, truth)
            rows, expected = self.truth_of(place, wanted)
            if not len(rows):
                return rows, {}
            target = self.members[place].target
            return rows, target.probe(vectors[fitted], answer, asked[rows], expected)

        return self._joined(of, wanted)

    def _joined(self, of: Callable[[int], tuple[np.ndarray, Scores]], truth: np.ndarray) -> Scores:
        """The scores of the members, of the rows that ``of`` says, and their mean loss."""
        weight = self.known(truth) * np.array(self._weights)
        weight = weight / weight.sum(1, keepdims=True)
        found, total = {}, 0.0
        for place, member in enumerate(self.members):
            rows, scores = of(place)
            if not len(rows):
                continue
            if "loss" not in scores:
                return scores
            total += float(weight[rows, place].sum()) * scores["loss"]
            found |= {f"{member.name}:{name}": value for name, value in scores.items()}
        if not np.isfinite(total):
            return {"loss": float("nan")}
        return {"loss": total / len(truth), **found}

    def rank(self, scores: Scores, select: str) -> tuple[float, ...]:
        name, _, measure = select.rpartition(":")
        if not name:
            return super().rank(scores, select)
        member = next(member for member in self.members if member.name == name)
        named = f"{name}:"
        own = {key.removeprefix(named): x for key, x in scores.items() if key.startswith(named)}
        if "loss" not in own:  # no validation patient of the stage has a value
            return (-float("inf"),)
        return (*member.target.rank(own, measure), -scores["loss"])

    def pairs(self, truth: Tensor) -> tuple[Tensor, Tensor]:
        """Two patients are alike if they are by every target of which both values are known.

        They differ if they do by any of these. Others are no pair, such as two without a common
        value. This is ours; the paper has classes.
        """
        known = self.known(truth)  # (B, members)
        filled = truth.nan_to_num(0.0)  # not left out, which would wait for a GPU
        alike = torch.ones(len(truth), len(truth), dtype=torch.bool, device=truth.device)
        differ, compared = torch.zeros_like(alike), torch.zeros_like(alike)
        for place, member in enumerate(self.members):
            both = known[:, None, place] & known[None, :, place]
            positive, negative = member.target.pairs(member.typed(filled[:, self.truths[place]]))
            alike = alike & (positive | ~both)
            differ = differ | (negative & both)
            compared = compared | both
        return alike & compared, differ

    def explained(self, outputs: Tensor) -> Tensor:
        """That of the first member."""
        return self.members[0].target.explained(outputs[self.outputs[0]])

    def groups(self, truth: np.ndarray) -> np.ndarray:
        """Those of the first member, and patients whose value of it is not known."""
        member, words = self.members[0], np.full(len(truth), UNKNOWN, dtype=object)
        rows, answer = self.truth_of(0, truth)
        words[rows] = (
            np.array(member.classes)[answer] if member.classes else member.target.groups(answer)
        )
        return words.astype(str)

    def calibrate(self, outputs: Callable[[], Tensor], truth: Tensor) -> bool:
        known, once = self.known(truth).cpu(), cache(outputs)

        def own(place: int, rows: Tensor) -> Tensor:
            found = once()
            return found[rows.to(found.device)][:, self.outputs[place]]

        changed = [
            member.target.calibrate(
                lambda place=place, rows=rows: own(place, rows),
                member.typed(truth[rows.to(truth.device)][:, self.truths[place]]),
            )
            for place, member in enumerate(self.members)
            if len(rows := known[:, place].nonzero()[:, 0])
        ]
        return any(changed)


def _side_by_side(widths: Any) -> tuple[slice, ...]:
    """Slices of so many columns, one after the other."""
    return tuple(slice(*ends) for ends in pairwise(accumulate(widths, initial=0)))
