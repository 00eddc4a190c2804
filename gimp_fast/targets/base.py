"""What a model is asked about a patient: its outputs, its loss, and how well it did."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager, nullcontext
from dataclasses import asdict
from typing import Any, ClassVar

import numpy as np
import torch
from torch import Tensor

from gimp_fast.evaluation.comparison import Difference
from gimp_fast.evaluation.intervals import patient_weights

Scores = dict[str, float]


class Target(ABC):
    """A question that has an answer for each patient.

    A model gives ``num_outputs`` numbers for each patient and knows nothing else of the target. The
    truth of B patients is one tensor, (B,) or (B, ·), of the columns that the cohort has.

    Attributes:
        kind: ``"class"``, ``"survival"``, ``"regression"`` or ``"several"``.
        num_outputs: K, outputs of a model.
        num_predictions: columns of :meth:`predictions`, of targets that are no classes.
        truth_columns, prediction_columns: names in ``predictions.csv``, of targets that are no
            classes.
        measures: scores that can choose an epoch (``finetune.select``); the first is the default.
        joint: whether the loss is one of all patients together, as Cox's; each then has it whole.
    """

    kind: ClassVar[str]
    num_outputs: int
    num_predictions: int
    truth_columns: tuple[str, ...] = ()
    prediction_columns: tuple[str, ...] = ()
    measures: tuple[str, ...]
    joint: bool = False

    @abstractmethod
    def loss(self, outputs: Tensor, truth: Tensor) -> Tensor:
        """The loss of each patient, (B,), from outputs (B, K); their mean is minimised."""

    @abstractmethod
    def predictions(self, outputs: Tensor) -> Tensor:
        """What is said of each patient, (B, ·) float32, from outputs (B, K).

        Predictions of several models can be averaged.
        """

    @abstractmethod
    def scores(self, predictions: np.ndarray, truth: np.ndarray) -> Scores:
        """Numbers by name of the validation patients, at least ``"loss"``.

        If a prediction is not finite, there is only a loss, NaN.
        """

    def in_training(self, outputs: Tensor, truth: Tensor) -> dict[str, Tensor]:
        """What is reported of a training step besides the loss: name -> (B,), to be averaged."""
        return {}

    @abstractmethod
    def pairs(self, truth: Tensor) -> tuple[Tensor, Tensor]:
        """Which patients are alike, and which are known to differ: two (B, B) bool.

        Triplets of pre-training are made of them. No patient is a pair with themselves.
        """

    @abstractmethod
    def probe(
        self, vectors: np.ndarray, truth: np.ndarray, asked: np.ndarray, wanted: np.ndarray
    ) -> Scores:
        """How well a linear model of vectors does, at least its ``"loss"``.

        Args:
            vectors: (n, d) of patients that it is fitted on, with their ``truth``.
            asked: (m, d) of patients that it predicts; ``wanted`` is their truth.
        """

    def facts(self) -> dict[str, Any]:
        """What a checkpoint says of it."""
        return {"kind": self.kind}

    @abstractmethod
    def explained(self, outputs: Tensor) -> Tensor:
        """The scalar of one patient's outputs (K,) whose gradient says what a prediction is due to.

        What moves all outputs without changing the prediction must not change it.
        """

    def groups(self, truth: np.ndarray) -> np.ndarray:
        """(n,) unicode, a word for each patient by which a picture colours them."""
        return np.full(len(truth), "patients")

    def reported(self, predictions: np.ndarray) -> np.ndarray:
        """(n, prediction columns), what is written of predictions (n, ·)."""
        return predictions

    def metrics(
        self,
        reported: np.ndarray,
        truth: np.ndarray,
        training: np.ndarray,
        weights: np.ndarray,
    ) -> dict[str, Any]:
        """Name -> estimate, of n patients.

        Args:
            reported, truth: of these patients; see :meth:`reported`.
            training: the truth of the training patients.
            weights: (R, n) of the bootstrap.
        """
        raise NotImplementedError

    def evaluated(
        self,
        predictions: np.ndarray,
        truth: np.ndarray,
        training: np.ndarray,
        resamples: int,
        seed: int,
    ) -> dict[str, Any]:
        """``n``, and each score with its 95 % interval, as ``metrics.json`` has them.

        Args:
            predictions, truth: of n patients.
            training: the truth of the training patients.
            resamples, seed: of the bootstrap.
        """
        weights = patient_weights(len(truth), resamples, seed)
        found = self.metrics(self.reported(predictions), truth, training, weights)
        named = {name: asdict(value) for name, value in found.items() if value is not None}
        return {"n": len(truth), **named}

    def compared(
        self,
        predictions: Mapping[str, np.ndarray],
        reference: str,
        truth: np.ndarray,
        weights: np.ndarray,
    ) -> dict[str, dict[str, Difference | None]]:
        """How much better or worse each predicts than the reference: name -> score -> difference.

        Args:
            predictions: name -> (n, ·) of the same patients, as :meth:`predictions` gives them.
            reference: one of the names.
            truth: of the n patients.
            weights: (R, n) of the bootstrap.

        Returns:
            p values are corrected for the number of names. None for a score that is not defined.
            The reference is absent; by default there is no score.
        """
        return {}

    def calibrate(self, outputs: Callable[[], Tensor], truth: Tensor) -> bool:
        """Fit to validation patients what they decide; whether predictions may have changed."""
        return False

    def of_batch(self, share: Any) -> AbstractContextManager:
        """Within, :meth:`loss` is of this rank's part of a batch, of which ``share`` knows all."""
        return nullcontext()

    def rank(self, scores: Scores, select: str) -> tuple[float, ...]:
        """The rank of an epoch: the largest is the best. Ties go to the lower loss.

        Args:
            scores: of the validation patients.
            select: one of ``measures``.
        """
        if select == "loss":
            return (-scores["loss"],)
        return (scores.get(select, 0.0), -scores["loss"])


def pairs_of_groups(group: Tensor) -> tuple[Tensor, Tensor]:
    """:meth:`Target.pairs` where (B,) groups say who is alike, and all others differ."""
    same = group[:, None] == group[None, :]  # (B, B)
    return same & ~torch.eye(len(group), dtype=torch.bool, device=group.device), ~same
