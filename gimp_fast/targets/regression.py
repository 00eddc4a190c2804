"""A number for each patient, learnt by squared errors."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

import numpy as np
import torch
from torch import Tensor, nn

from gimp_fast.evaluation.comparison import Difference
from gimp_fast.evaluation.regression import compare_numbers, regression_metrics
from gimp_fast.targets.base import Scores, Target, pairs_of_groups

_PROBE_STRENGTH = 30.0  # of the ridge penalty; not tuned


class Regression(nn.Module, Target):
    """The truth is a number, (B,) float64; predictions are numbers in its unit, (B, 1).

    The model learns standardised numbers: ``mean``, ``sd`` and ``quartiles`` are buffers, of the
    training patients.
    """

    kind: ClassVar[str] = "regression"
    measures = ("loss", "correlation")
    num_outputs = num_predictions = 1
    truth_columns, prediction_columns = ("truth",), ("prediction",)

    def __init__(
        self, mean: float = 0.0, sd: float = 1.0, quartiles: Sequence[float] = (0.0, 0.0, 0.0)
    ):
        super().__init__()
        self.register_buffer("quartiles", torch.tensor(quartiles, dtype=torch.float64))
        self.register_buffer("mean", torch.tensor(mean, dtype=torch.float64))
        self.register_buffer("sd", torch.tensor(sd, dtype=torch.float64))

    @classmethod
    def fit(cls, truth: np.ndarray) -> Regression:
        """From the training patients, (n,); ValueError if they are all equal."""
        sd = float(truth.std())
        if not sd > 0:
            raise ValueError(
                f"found the same value, {truth[0]:g}, for all {len(truth)} training patients; "
                "expected values that differ"
            )
        return cls(float(truth.mean()), sd, np.quantile(truth, [0.25, 0.5, 0.75]).tolist())

    def facts(self) -> dict[str, Any]:
        """What a checkpoint says of it; the buffers are among its weights."""
        return {"kind": self.kind}

    @classmethod
    def of_facts(cls, facts: dict[str, Any]) -> Regression:
        """As :meth:`facts` says, with buffers that wait for their values."""
        return cls()

    def loss(self, outputs: Tensor, truth: Tensor) -> Tensor:
        """Squared errors of the standardised numbers."""
        wanted = (truth - self.mean) / self.sd
        return (outputs[:, 0].float() - wanted.float()).square()

    def explained(self, outputs: Tensor) -> Tensor:
        """The number itself."""
        return outputs[0]

    def pairs(self, truth: Tensor) -> tuple[Tensor, Tensor]:
        """Patients between the same two quartiles of training are alike, all others differ."""
        return pairs_of_groups(torch.searchsorted(self.quartiles, truth.contiguous(), right=True))

    def probe(
        self, vectors: np.ndarray, truth: np.ndarray, asked: np.ndarray, wanted: np.ndarray
    ) -> Scores:
        """Scores of ridge regression."""
        # Here: it takes seconds, and brings scipy, for a probe that few runs ask for.
        from sklearn.linear_model import Ridge
        from sklearn.pipeline import make_pipeline
        from sklearn.preprocessing import StandardScaler

        model = make_pipeline(StandardScaler(), Ridge(_PROBE_STRENGTH)).fit(vectors, truth)
        return self.scores(model.predict(asked)[:, None], wanted)

    def predictions(self, outputs: Tensor) -> Tensor:
        return (outputs[:, :1].double() * self.sd + self.mean).float()

    def scores(self, predictions: np.ndarray, truth: np.ndarray) -> Scores:
        """``loss``, mean squared error in standard deviations, and Pearson's ``correlation``."""
        found = predictions[:, 0].astype(np.float64)
        if not np.isfinite(found).all():
            return {"loss": float("nan")}
        scores = {"loss": float(np.square((found - truth) / float(self.sd)).mean())}
        if len(found) > 1 and found.std() > 0 and truth.std() > 0:
            scores["correlation"] = float(np.corrcoef(found, truth)[0, 1])
        return scores

    def metrics(
        self,
        reported: np.ndarray,
        truth: np.ndarray,
        training: np.ndarray,
        weights: np.ndarray,
    ) -> dict[str, Any]:
        """See :func:`gimp_fast.evaluation.regression.regression_metrics`."""
        return regression_metrics(reported[:, 0].astype(np.float64), truth, weights)

    def compared(
        self,
        predictions: Mapping[str, np.ndarray],
        reference: str,
        truth: np.ndarray,
        weights: np.ndarray,
    ) -> dict[str, dict[str, Difference | None]]:
        """Of ``mean_absolute_error``, which is better if it is lower, and of ``correlation``."""
        numbers = {name: values[:, 0].astype(np.float64) for name, values in predictions.items()}
        return compare_numbers(numbers, reference, truth, weights)
