"""Time until an event, which may not have been observed: by discrete hazards or Cox's model."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, ClassVar, Literal

import numpy as np
import torch
from pydantic import Field, field_validator, model_serializer
from torch import Tensor, nn

from gimp_fast.evaluation.breslow import breslow
from gimp_fast.evaluation.comparison import Difference
from gimp_fast.evaluation.kaplan_meier import Outcomes, censoring_distribution
from gimp_fast.evaluation.ridge_cox import fit_ridge_cox
from gimp_fast.evaluation.survival import harrell_c
from gimp_fast.evaluation.survival_predictions import (
    SurvivalPredictions,
    compare_all_c,
    survival_metrics,
)
from gimp_fast.targets.base import Scores, Target
from gimp_fast.targets.survival_losses import (
    bins_of_training,
    cox_loss,
    discrete_nll,
    discrete_risk,
    discrete_survival,
    interpolated_survival,
    outcome_pairs,
)
from gimp_fast.validation import Settings

_SHARES = np.linspace(0.05, 0.95, 19)  # of the training events: times at which survival is given
PROBE_STRENGTH = 30.0  # of the ridge penalty; not tuned
_LARGEST = 10_000  # times of a target in a checkpoint
_SMALLEST = 1e-7  # probability, in the loss of a prediction that excludes what happened


class SurvivalSettings(Settings):
    """How survival is learnt.

    Attributes:
        loss: ``"nll"``, the likelihood of discrete hazards (MCAT, PORPOISE, SurvPath), or
            ``"cox"``, the partial likelihood, whose risk sets are those of a batch.
        bins: K, intervals of time that hold equally many training events.
        alpha: how much less censored patients count in ``"nll"``, 0 (as much) to 1 (not at all).
        ties: of event times in ``"cox"``.
        horizons: times, in the unit of the table, for which survival is reported; null for the
            quartiles of the training events.
        linear: add to the model's outputs the risks of Cox's model with a ridge penalty, of each
            input, which is fitted before the model is trained.
    """

    loss: Literal["nll", "cox"] = "nll"
    bins: int = Field(4, ge=1)
    alpha: float = Field(0.0, ge=0, le=1)
    ties: Literal["efron", "breslow"] = "efron"
    horizons: tuple[float, ...] | None = None
    linear: bool = False

    @model_serializer(mode="wrap")
    def _as_before(self, serialize: Callable[[SurvivalSettings], dict[str, Any]]) -> dict[str, Any]:
        """Without ``linear`` where it is the default, as before there was this choice."""
        values = serialize(self)
        if not self.linear:
            values.pop("linear", None)
        return values

    @field_validator("horizons")
    @classmethod
    def _rise(cls, horizons: tuple[float, ...] | None) -> tuple[float, ...] | None:
        if horizons is not None and (
            not horizons or horizons[0] <= 0 or list(horizons) != sorted(set(horizons))
        ):
            raise ValueError("times above 0, rising")
        return horizons

    @property
    def num_outputs(self) -> int:
        """Outputs of a model."""
        return self.bins if self.loss == "nll" else 1


class Survival(nn.Module, Target):
    """The truth is time and event, (B, 2) float64; predictions are risk and survival, (B, 1 + T).

    Survival is given at T ``times``. For the likelihood of discrete hazards, outputs are the logits
    of K hazards and the risk is minus the sum of survival after each interval; for Cox's model,
    the only output is the logarithm of the hazard ratio, and the baseline is Breslow's of the
    validation patients: training patients are fitted too well to be a scale for others.

    Attributes:
        edges: (K + 1,) buffer, bounds of the intervals; later times are in the last.
        times: (T,) buffer, rising, with the horizons among them.
        hazard: (T,) buffer, cumulated baseline hazard; zero but for Cox's model.
        horizons: for which survival is reported.
        unit: of all times, e.g. ``"days"``.
    """

    kind: ClassVar[str] = "survival"
    measures = ("c_index", "loss")
    truth_columns = ("time", "event")

    def __init__(
        self,
        settings: SurvivalSettings,
        edges: Tensor,
        times: Tensor,
        horizons: Sequence[float],
        unit: str,
    ):
        super().__init__()
        self.settings, self.unit, self.horizons = settings, unit, tuple(horizons)
        self.num_outputs = settings.num_outputs
        self.register_buffer("edges", edges.double())
        self.register_buffer("times", times.double())
        self.register_buffer("hazard", torch.zeros(len(times), dtype=torch.float64))
        self._share: Any = None

    @classmethod
    def fit(cls, settings: SurvivalSettings, truth: np.ndarray, unit: str) -> Survival:
        """From the training patients, (n, 2); ValueError if they have too few events."""
        time, event = truth[:, 0], truth[:, 1] > 0
        edges = bins_of_training(*map(torch.as_tensor, (time, event)), settings.bins).numpy()
        edges[-1] = np.nextafter(max(time.max(), edges[-2]), np.inf)
        of_events = time[event]
        horizons = settings.horizons or tuple(np.quantile(of_events, [0.25, 0.5, 0.75]).tolist())
        times = np.unique([*np.quantile(of_events, _SHARES), *edges[1:], *horizons])
        as_tensors = (torch.as_tensor(np.asarray(x, np.float64)) for x in (edges, times))
        return cls(settings, *as_tensors, horizons, unit)

    def facts(self) -> dict[str, Any]:
        """What a checkpoint says of it; the buffers are among its weights."""
        return {
            "kind": self.kind,
            "settings": self.settings.model_dump(mode="json"),
            "unit": self.unit,
            "horizons": list(self.horizons),
            "sizes": [len(self.edges), len(self.times)],
        }

    @classmethod
    def of_facts(cls, facts: dict[str, Any]) -> Survival:
        """As :meth:`facts` says, with buffers that wait for their values."""
        sizes = [int(size) for size in facts["sizes"]]
        if not all(2 <= size <= _LARGEST for size in sizes):
            raise ValueError(f"a target of {sizes} times")
        edges, times = map(torch.zeros, sizes)
        settings = SurvivalSettings.model_validate(facts["settings"])
        return cls(settings, edges, times, facts["horizons"], facts["unit"])

    @property
    def joint(self) -> bool:
        """Whether the loss is Cox's."""
        return self.settings.loss == "cox"

    @property
    def num_predictions(self) -> int:
        """The risk, and survival at each of ``times``."""
        return 1 + len(self.times)

    @contextlib.contextmanager
    def of_batch(self, share: Any) -> Iterator[None]:
        """Within, risk sets are those of the batch of all ranks."""
        self._share = share
        try:
            yield
        finally:
            self._share = None

    def bins(self, truth: Tensor) -> Tensor:
        """(B,) int64, the interval of each patient's time."""
        return torch.searchsorted(self.edges[1:-1], truth[:, 0].contiguous(), right=True)

    def explained(self, outputs: Tensor) -> Tensor:
        """The risk."""
        return discrete_risk(outputs[None])[0] if self.settings.loss == "nll" else outputs[0]

    def groups(self, truth: np.ndarray) -> np.ndarray:
        """With the event, or censored."""
        return np.where(truth[:, 1] > 0, "with the event", "censored")

    def pairs(self, truth: Tensor) -> tuple[Tensor, Tensor]:
        """Patients with the event in one interval are alike.

        Two differ if one had the event, and the other's time is in a later interval. Others are no
        pair: what was not observed cannot say. This is ours; the paper has classes.
        """
        return outcome_pairs(self.bins(truth), truth[:, 1] > 0)

    def probe(
        self, vectors: np.ndarray, truth: np.ndarray, asked: np.ndarray, wanted: np.ndarray
    ) -> Scores:
        """``loss``, 1 minus the C-index of Cox's model with a ridge penalty, and ``c_index``."""
        model = fit_ridge_cox(vectors, outcomes_of(truth), PROBE_STRENGTH)
        try:
            found = float(harrell_c(outcomes_of(wanted), model.risk(asked)))
        except ValueError:  # no two patients whose order is known
            return {"loss": float("nan")}
        return {"loss": 1 - found, "c_index": found}

    def loss(self, outputs: Tensor, truth: Tensor) -> Tensor:
        event = truth[:, 1] > 0
        if self.settings.loss == "nll":
            return discrete_nll(outputs, self.bins(truth), event, alpha=self.settings.alpha)
        if self._share is None:
            whole = cox_loss(outputs[:, 0], truth[:, 0], event, ties=self.settings.ties)
            return whole.expand(len(outputs))
        share = self._share
        risk, time, event = (share.gather(x) for x in (outputs[:, 0], truth[:, 0], event))
        whole = share.of_all(cox_loss(risk, time, event, ties=self.settings.ties))
        # Their mean over the whole batch, as every loss is averaged, is this rank's share.
        return (whole * share.total / len(outputs)).expand(len(outputs))

    def predictions(self, outputs: Tensor) -> Tensor:
        if self.settings.loss == "nll":
            outputs = outputs.double()
            survival = discrete_survival(outputs)
            found = interpolated_survival(survival, self.edges, self.times)
            return torch.cat([discrete_risk(outputs)[:, None], found], dim=1).float()
        risk = outputs[:, :1].double()
        return torch.cat([risk, torch.exp(-self.hazard * risk.exp())], dim=1).float()

    def scores(self, predictions: np.ndarray, truth: np.ndarray) -> Scores:
        """``loss``, of the survival between ``edges``, and ``c_index``, if a pair is comparable."""
        if not np.isfinite(predictions).all():
            return {"loss": float("nan")}
        found = {"loss": self._likelihood(predictions, truth)}
        with contextlib.suppress(ValueError):  # no two patients whose order is known
            found["c_index"] = float(harrell_c(outcomes_of(truth), predictions[:, 0]))
        return found

    def _likelihood(self, predictions: np.ndarray, truth: np.ndarray) -> float:
        """Mean negative log-likelihood of the intervals: the same measure for both losses."""
        edges, times = self.edges.cpu().numpy(), self.times.cpu().numpy()
        after = predictions[:, 1 + np.searchsorted(times, edges[1:])]  # (n, K)
        before = np.concatenate([np.ones((len(after), 1)), after[:, :-1]], axis=1)
        rows, bins = np.arange(len(after)), self.bins(torch.as_tensor(truth)).numpy()
        of_event = before[rows, bins] - after[rows, bins]
        chance = np.where(truth[:, 1] > 0, of_event, after[rows, bins])
        return float(-np.log(chance.clip(_SMALLEST, 1)).mean())

    def survival_at_horizons(self, predictions: np.ndarray) -> np.ndarray:
        """(n, horizons) of predictions (n, 1 + T)."""
        places = np.searchsorted(self.times.cpu().numpy(), self.horizons)
        return predictions[:, 1 + places]

    @property
    def prediction_columns(self) -> tuple[str, ...]:
        """``risk``, and ``survival_<horizon>`` in the unit of the times."""
        return ("risk", *(f"survival_{horizon:g}" for horizon in self.horizons))

    def reported(self, predictions: np.ndarray) -> np.ndarray:
        return np.concatenate([predictions[:, :1], self.survival_at_horizons(predictions)], axis=1)

    def metrics(
        self,
        reported: np.ndarray,
        truth: np.ndarray,
        training: np.ndarray,
        weights: np.ndarray,
    ) -> dict[str, Any]:
        """``c_index`` (Harrell's), ``uno_c``, ``mean_auc``, ``integrated_brier`` … at horizons."""
        found = self._of_one_model(reported, truth)
        censoring = {0: censoring_distribution(outcomes_of(training))}
        return survival_metrics(found, weights, censoring)

    def compared(
        self,
        predictions: Mapping[str, np.ndarray],
        reference: str,
        truth: np.ndarray,
        weights: np.ndarray,
    ) -> dict[str, dict[str, Difference | None]]:
        """Of ``c_index``, Harrell's."""
        models = {
            name: self._of_one_model(self.reported(values), truth)
            for name, values in predictions.items()
        }
        found = compare_all_c(models, reference, weights)
        return {name: {"c_index": difference} for name, difference in found.items()}

    def _of_one_model(self, reported: np.ndarray, truth: np.ndarray) -> SurvivalPredictions:
        """One prediction of each patient."""
        rows = np.arange(len(truth))
        return SurvivalPredictions(
            rows,
            np.zeros_like(rows),
            np.zeros_like(rows),
            outcomes_of(truth),
            reported[:, 0].astype(np.float64),
            reported[:, 1:].astype(np.float64),
            np.array(self.horizons),
        )

    @torch.no_grad()
    def calibrate(self, outputs: Callable[[], Tensor], truth: Tensor) -> bool:
        """Fit the baseline of Cox's model."""
        if self.settings.loss == "nll":
            return False
        risk = outputs()[:, 0].double().cpu().numpy()
        baseline = breslow(outcomes_of(truth.cpu().numpy()), risk)
        place = np.searchsorted(baseline.times, self.times.cpu().numpy(), side="right")
        found = np.exp(np.r_[-np.inf, baseline.log_hazard][place])
        self.hazard.copy_(torch.as_tensor(found))
        return True


def outcomes_of(truth: np.ndarray) -> Outcomes:
    """The columns of (n, 2) by name."""
    return Outcomes(truth[:, 0], truth[:, 1] > 0)
