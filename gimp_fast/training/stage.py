"""What every training stage has: its context, its patients, its step, and its validation."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from gimp_fast.data import Cohort
from gimp_fast.models import PatientModel
from gimp_fast.models.outputs import Outputs, autocast, outputs_of
from gimp_fast.targets.base import Scores
from gimp_fast.training.config import TrainConfig
from gimp_fast.training.distributed import ALONE, Ranks, Share
from gimp_fast.training.loader import StepPlan, plan_epoch
from gimp_fast.training.sampling import HIDE_NOTHING, PatientReader
from gimp_fast.training.stage_settings import StageSettings


@dataclass(frozen=True)
class StageContext:
    """What every stage needs: configuration, model, data, device and ranks."""

    config: TrainConfig
    model: PatientModel
    reader: PatientReader
    split: dict[str, list[str]]
    device: torch.device
    ranks: Ranks = ALONE

    def predict(self, case_ids: Sequence[str], hide: int = HIDE_NOTHING) -> Outputs:
        """Outputs of the model for patients, in their order.

        Ranks take turns at the batches; every rank gets the whole result. ``hide`` is what the
        model is not shown, as in :meth:`PatientReader.inputs`.
        """
        self.model.eval()
        outputs: dict[int, Outputs] = {}
        plans = plan_epoch(case_ids, self.config.finetune.batch_size, [], shuffle=False)
        for plan in plans[self.ranks.rank :: self.ranks.size]:
            hidden = np.full(len(plan.case_ids), hide)
            inputs = self.reader.inputs(plan.case_ids, hidden).to(self.device)
            outputs[plan.step] = outputs_of(self.model, inputs, self.device, self.config.precision)
        for part in self.ranks.gather(outputs):
            outputs |= part
        return Outputs.joined([outputs[plan.step] for plan in plans])


class Stage(ABC):
    """One stage of a run.

    Attributes:
        name: as in metrics and checkpoints.
        section: of the configuration with its settings; by default that of its name.
        keeps_best: True to keep the best validation epoch, False to keep the last.
        train_cases, val_cases: the patients that the stage can use.
        leaves_unused: True if a step may not use some parameters, such as the tokens that replace
            absent modalities.
        recordable: True if a CUDA graph can replay a step: it never waits for the GPU, and all
            that the CPU decides is in the batch.
        number_shift: added to the number of the stage in its run, of which random numbers are made.
        extra: a module outside the model that the checkpoints must save too.
    """

    name: str
    section: str
    keeps_best: bool
    leaves_unused = False
    recordable = False
    number_shift = 0

    def __init_subclass__(cls, **kwargs):
        super().__init_subclass__(**kwargs)
        if "name" in vars(cls) and "section" not in vars(cls):
            cls.section = cls.name

    def __init__(self, context: StageContext):
        self.context = context
        self.settings: StageSettings = getattr(context.config, self.section)
        self.extra: nn.Module | None = None
        can_use = partial(self.can_use, context.reader.cohort, context.config)
        self.train_cases = list(filter(can_use, context.split["train"]))
        self.val_cases = list(filter(can_use, context.split["val"]))

    @staticmethod
    @abstractmethod
    def can_use(cohort: Cohort, config: TrainConfig, case_id: str) -> bool:
        """True if the patient has the modalities that the stage trains on."""

    @abstractmethod
    def trained_modules(self) -> Iterator[nn.Module]:
        """Modules that the stage trains."""

    @abstractmethod
    def fetcher(self) -> Callable[[StepPlan], Any]:
        """A function that reads the batch of a step; picklable, for reading in another process."""

    @abstractmethod
    def losses(self, batch: Any, share: Share) -> dict[str, Tensor]:
        """This rank's share of the scalars of one step; ``"loss"`` is minimised.

        Args:
            batch: what ``fetcher`` read, on the device.
            share: this rank's part of the whole batch. Summed over ranks, the scalars and the
                gradients are those of the whole batch.
        """

    @torch.no_grad()
    def validate(self) -> Scores:
        """Scores of the validation patients, the same on every rank; ``"loss"`` is always there.

        By default their mean losses, on the same windows and masks after every epoch. Ranks take
        turns at the batches.
        """
        context, fetch, ranks = self.context, self.fetcher(), self.context.ranks
        context.model.eval()
        plans = plan_epoch(
            self.val_cases, self.settings.batch_size, [context.config.seed], shuffle=False
        )
        totals, summed = Counter(), Counter()
        for plan in plans[ranks.rank :: ranks.size]:
            losses = self.losses(fetch(plan).to(context.device), Share(ALONE, plan.total))
            totals.update({name: value.item() * plan.total for name, value in losses.items()})
        for part in ranks.gather(totals):  # a rank without a batch has none
            summed.update(part)
        return {name: total / len(self.val_cases) for name, total in summed.items()}

    def rank(self, scores: Scores) -> tuple[float, ...]:
        """A key that orders epochs: the largest is the best."""
        return (-scores["loss"],)

    def parameters(self) -> list[nn.Parameter]:
        """Parameters of the optimiser."""
        return [p for module in self.trained_modules() for p in module.parameters()]

    def train_mode(self) -> None:
        """Train the stage's modules; freeze all others and turn off their dropout."""
        model = self.context.model.eval()
        model.requires_grad_(False)
        model.training = True  # of itself alone: the patients of a step are computed together
        for module in self.trained_modules():
            module.train()
        for parameter in self.parameters():
            parameter.requires_grad_(True)

    def autocast(self):
        return autocast(self.context.device, self.context.config.precision)


class StageModule(nn.Module):
    """A stage's step as a module, so that DistributedDataParallel and compile can wrap it."""

    def __init__(self, stage: Stage):
        super().__init__()
        self.parameters_of_stage = nn.ParameterList(stage.parameters())
        self._losses = stage.losses

    def forward(self, batch: Any, share: Share) -> dict[str, Tensor]:
        return self._losses(batch, share)
