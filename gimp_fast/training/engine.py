"""genes → pretrain → finetune → evaluate: runs the stages, checkpoints every epoch, resumes."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from tqdm import tqdm

from gimp_fast.data import Cohort, open_cohort
from gimp_fast.data.parallel import available_cores
from gimp_fast.errors import GimpError
from gimp_fast.models import GiMP, GiMPConfig
from gimp_fast.training.checkpoint import (
    load_checkpoint,
    load_model,
    pack_optimizer,
    save_checkpoint,
    under_prefix,
    unpack_optimizer,
    with_prefix,
)
from gimp_fast.training.config import StageSettings, TrainConfig
from gimp_fast.training.loader import BatchLoader, num_batches, plan_epoch
from gimp_fast.training.results import evaluate_run
from gimp_fast.training.run_folder import RunFolder
from gimp_fast.training.sampling import PatientReader
from gimp_fast.training.scaling import GeneScaler
from gimp_fast.training.stages import Scores, Stage, StageContext, stages_of

Log = Callable[[str], None]


def train(
    config: TrainConfig, data: Path | Cohort, out: Path, *, resume: bool = False, log: Log = print
) -> dict[str, Any]:
    """Run every stage on a cohort and evaluate on its test patients (GiMP section 3.1).

    Every epoch ends with a checkpoint, and an epoch's random numbers depend on the seed, the stage
    and the epoch alone: on a CPU, a run that was killed and resumed ends in the same weights and
    metrics as one that was not.

    Args:
        config: validated configuration.
        data: cohort folder or open cohort.
        out: run folder; must not hold a run, unless it is to be resumed.
        resume: go on after the last checkpoint of the run in `out`; start anew if there is none.
        log: receives one line of text for each event.

    Returns:
        What ``metrics.json`` holds.

    Raises:
        GimpError: the cohort, the split, the configuration or the run folder do not fit each other.
    """
    cohort = data if isinstance(data, Cohort) else open_cohort(data)
    if config.threads is not None:
        torch.set_num_threads(config.threads)
    device = _device(config)
    split_name, split = _split(cohort, config)
    folder = RunFolder(out)
    folder.check(config, resume=resume)
    context, provenance = _prepare(config, cohort, split_name, split, device)
    # Only now: a request that cannot be carried out must not occupy the folder.
    folder.begin(config, resume=resume)
    try:
        _run_stages(context, folder, provenance, log)
        return evaluate_run(context, folder, cohort, split_name, log)
    finally:
        folder.close()


def _device(config: TrainConfig) -> torch.device:
    name = config.device
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
    try:
        device = torch.device(name)
        torch.empty(0, device=device)
    except (RuntimeError, AssertionError) as error:
        raise GimpError(f"device '{config.device}' cannot be used: {error}") from error
    return device


def _split(cohort: Cohort, config: TrainConfig) -> tuple[str, dict[str, list[str]]]:
    name = config.split
    if name is None:
        if len(cohort.split_names) != 1:
            raise GimpError(
                f"{cohort.path}: has {len(cohort.split_names)} splits; "
                f"choose one with --split: {', '.join(cohort.split_names)}"
            )
        name = cohort.split_names[0]
    split = cohort.split(name)
    for part in ("train", "val", "test"):
        if not split.get(part):
            raise GimpError(f"{cohort.path}: split '{name}' has no patients in '{part}'")
    return name, split


def _prepare(
    config: TrainConfig,
    cohort: Cohort,
    split_name: str,
    split: dict[str, list[str]],
    device: torch.device,
) -> tuple[StageContext, dict[str, Any]]:
    """Model, reader, and the provenance that every checkpoint carries."""
    scaler = None
    if config.modalities != "slide":
        scaler = _fit_scaler(config, cohort, split_name, split["train"])
    # Reading processes would each keep a copy.
    cache_gb = 0.0 if config.workers not in (0, "auto") else config.cache_gb
    reader = PatientReader(cohort, config.modalities, scaler, cache_gb)
    split = {part: [c for c in cases if reader.usable(c)] for part, cases in split.items()}
    if not all(split.values()):
        raise GimpError(
            f"{cohort.path}: split '{split_name}' has patients with the modality "
            f"'{config.modalities}' in {', '.join(p for p in split if split[p]) or 'no part'} only"
        )
    torch.manual_seed(config.seed)
    try:
        model_config = GiMPConfig(
            **config.model.model_dump(),
            num_classes=len(cohort.classes),
            feature_dim=cohort.feature_dim or 1,
            num_genes=0 if scaler is None else len(scaler.mean),
            gene_sets=tuple(cohort.gene_sets.values()) if scaler and cohort.gene_sets else None,
            modalities=config.modalities,
        )
        model = GiMP(model_config, backend=config.backend).to(device)
    except ValueError as error:
        raise GimpError(f"model: {error}") from error
    context = StageContext(config, model, reader, split, device)
    provenance = {
        "model": model_config.model_dump(mode="json"),
        "cohort": {
            "name": cohort.name,
            "synthetic": cohort.synthetic,
            "fingerprint": cohort.fingerprint,
            "split": split_name,
            "classes": list(cohort.classes),
            **_gene_provenance(cohort, scaler),
            "expression": cohort.expression_facts,
            "expression_transform": cohort.expression_transform,
            "encoder": cohort.encoder,
            "mpp": cohort.mpp,
            "patch_size": cohort.patch_size,
            "patch_order": cohort.patch_order,
        },
    }
    return context, provenance


def _fit_scaler(
    config: TrainConfig, cohort: Cohort, split_name: str, train_cases: list[str]
) -> GeneScaler:
    if cohort.missing_genes:
        raise GimpError(
            f"{cohort.path}: {len(cohort.missing_genes)} genes of the list it was aligned to are "
            "missing; such a cohort is for prediction, not for training"
        )
    if cohort.gene_sets and config.most_variable_genes:
        raise GimpError("most_variable_genes: the cohort's genes come in sets, which stay whole")
    fitted_on = [c for c in train_cases if cohort.has_expression(c)]
    if not fitted_on:
        raise GimpError(f"{cohort.path}: split '{split_name}' trains on no patient with RNA")
    return GeneScaler.fit(
        cohort.expression(fitted_on),
        scaling=config.gene_scaling,
        most_variable=config.most_variable_genes,
    )


def _gene_provenance(cohort: Cohort, scaler: GeneScaler | None) -> dict[str, Any]:
    """The ordered genes that the model reads: without them it cannot be used on a new patient."""
    if scaler is None:
        return {"gene_ids": [], "gene_names": [], "gene_sets": {}}
    columns = range(len(cohort.gene_ids)) if scaler.columns is None else scaler.columns
    return {
        "gene_ids": [cohort.gene_ids[i] for i in columns],
        "gene_names": [cohort.gene_names[i] for i in columns],
        "gene_sets": {name: list(columns) for name, columns in cohort.gene_sets.items()},
    }


def _workers(config: TrainConfig, reader: PatientReader) -> int:
    if config.workers != "auto":
        return config.workers
    return 0 if reader.fits_in_memory else min(4, max(1, available_cores() - 1))


def _run_stages(
    context: StageContext, folder: RunFolder, provenance: dict[str, Any], log: Log
) -> None:
    last, state = None, {"stage": None, "epoch": 0, "rows": 0}
    if folder.checkpoint("last").exists():
        last, state = load_checkpoint(folder.checkpoint("last"))
        found, expected = state["cohort"]["fingerprint"], provenance["cohort"]["fingerprint"]
        if found != expected:
            raise GimpError(
                f"{folder.checkpoint('last')}: the run was trained on another cohort "
                f"(fingerprint {found[:12]}, this one has {expected[:12]})"
            )
        log(f"resuming after {state['stage']} epoch {state['epoch']}")
    folder.keep_metrics(state["rows"])
    kinds = stages_of(context.config)
    names = [kind.name for kind in kinds]
    first = names.index(state["stage"]) if state["stage"] else 0
    for number, kind in enumerate(kinds):
        if number < first:
            continue
        resumed = (last, state) if state["stage"] == kind.name else None
        if number and resumed is None:
            load_model(folder.checkpoint(names[number - 1]), context.model)
        stage = kind(context)
        state = _StageRun(stage, number, folder, provenance, state["rows"]).run(resumed, log)


class _StageRun:
    """The epochs of one stage."""

    def __init__(
        self, stage: Stage, number: int, folder: RunFolder, provenance: dict[str, Any], rows: int
    ):
        self.stage, self.number, self.folder = stage, number, folder
        self.provenance, self.rows = provenance, rows
        self.context, self.settings = stage.context, stage.settings
        if not stage.train_cases or not stage.val_cases:
            raise GimpError(
                f"stage '{stage.name}': found {len(stage.train_cases)} training and "
                f"{len(stage.val_cases)} validation patients that it can use; expected some"
            )
        self.optimizer = _adamw(stage)
        pin = self.context.device.type == "cuda"
        self.loader = BatchLoader(
            stage.fetcher(), _workers(self.context.config, self.context.reader), pin
        )
        self.best: dict[str, Any] | None = None

    def run(self, resumed: tuple[dict[str, Tensor], dict] | None, log: Log) -> dict[str, Any]:
        """Train the epochs that are left; returns the state of the last checkpoint."""
        done = 0 if resumed is None else self._restore(*resumed)
        stage, epochs = self.stage, self.settings.epochs
        began = time.perf_counter()
        bar = tqdm(range(done + 1, epochs + 1), stage.name, disable=None, leave=False)
        for epoch in bar:
            row = self._epoch(epoch)
            improved = self.best is None or stage.rank(row["val"]) > stage.rank(self.best["val"])
            if improved:
                self.best = {"epoch": epoch, "val": row["val"]}
            self.rows += 1
            self.folder.append_metrics(row, self.rows)
            if improved if stage.keeps_best else epoch == epochs:
                self._save(stage.name, epoch, with_optimizer=False)
            self._save("last", epoch)
            bar.set_postfix_str(_scores_text(row["val"]))
        if epochs > done:
            kept = f"keeps epoch {self.best['epoch']}, " if stage.keeps_best else ""
            scores = self.best["val"] if stage.keeps_best else row["val"]
            log(
                f"{stage.name}: {epochs} epochs on {len(stage.train_cases)} patients, "
                f"{kept}validation {_scores_text(scores)}  [{time.perf_counter() - began:.0f} s]"
            )
        return {"stage": stage.name, "epoch": epochs, "rows": self.rows}

    def _epoch(self, epoch: int) -> dict[str, Any]:
        stage, settings = self.stage, self.settings
        # All randomness of an epoch comes from here, so that a resumed run repeats it.
        seeds = [self.context.config.seed, self.number, epoch]
        torch.manual_seed(int(np.random.default_rng([*seeds, 1]).integers(2**62)))
        stage.train_mode()
        began = time.perf_counter()
        totals: Scores = {}
        steps = num_batches(len(stage.train_cases), settings.batch_size)
        plans = plan_epoch(stage.train_cases, settings.batch_size, seeds)
        for plan, batch in zip(plans, self.loader(plans), strict=True):
            lr = learning_rate(settings, (epoch - 1) * steps + plan.step, steps)
            for group in self.optimizer.param_groups:
                group["lr"] = lr
            for name, value in self._step(batch, plan.case_ids).items():
                totals[name] = totals.get(name, 0.0) + value * len(plan.case_ids)
        train_scores = {name: total / len(stage.train_cases) for name, total in totals.items()}
        val_scores = stage.validate()
        self._check_finite(val_scores, stage.val_cases)
        return {
            "stage": stage.name,
            "epoch": epoch,
            "train": train_scores,
            "val": val_scores,
            "lr": lr,
            "seconds": round(time.perf_counter() - began, 3),
        }

    def _step(self, batch: Any, cases: Sequence[str]) -> Scores:
        losses = self.stage.losses(batch)
        scores = {name: value.item() for name, value in losses.items()}
        self._check_finite(scores, cases)
        self.optimizer.zero_grad(set_to_none=True)
        losses["loss"].backward()
        if self.settings.clip_norm is not None:
            parameters = [p for group in self.optimizer.param_groups for p in group["params"]]
            torch.nn.utils.clip_grad_norm_(parameters, self.settings.clip_norm)
        self.optimizer.step()
        return scores

    def _check_finite(self, scores: Scores, cases: Sequence[str]) -> None:
        if not math.isfinite(scores["loss"]):
            raise GimpError(
                f"stage '{self.stage.name}': found a loss of {scores['loss']} on patients "
                f"{', '.join(cases)}; expected a finite one. A lower lr or clip_norm may help."
            )

    def _save(self, name: str, epoch: int, with_optimizer: bool = True) -> None:
        tensors = with_prefix("model", self.context.model.state_dict())
        state = self.provenance | {
            "stage": self.stage.name,
            "epoch": epoch,
            "rows": self.rows,
            "best": self.best,
        }
        scaler = self.context.reader.scaler
        if scaler is not None:
            tensors["scaler.mean"] = torch.from_numpy(scaler.mean)
            tensors["scaler.std"] = torch.from_numpy(scaler.std)
        if with_optimizer:
            packed, state["optimizer_groups"] = pack_optimizer(self.optimizer)
            tensors |= with_prefix("optimizer", packed)
            if self.stage.extra is not None:
                tensors |= with_prefix("extra", self.stage.extra.state_dict())
        save_checkpoint(self.folder.checkpoint(name), tensors, state)

    def _restore(self, tensors: dict[str, Tensor], state: dict[str, Any]) -> int:
        self.context.model.load_state_dict(under_prefix("model", tensors))
        if self.stage.extra is not None:
            self.stage.extra.load_state_dict(under_prefix("extra", tensors))
        packed = under_prefix("optimizer", tensors)
        unpack_optimizer(self.optimizer, packed, state["optimizer_groups"])
        self.best = state["best"]
        return state["epoch"]


def learning_rate(settings: StageSettings, step: int, steps_per_epoch: int) -> float:
    """Linear warm-up, then a cosine from the peak to zero over the epochs that are left."""
    warmup = settings.warmup_epochs * steps_per_epoch
    if step < warmup:
        return settings.lr * (step + 1) / (warmup + 1)
    total = settings.epochs * steps_per_epoch
    progress = (step - warmup) / max(total - warmup, 1)
    return settings.lr * 0.5 * (1 + math.cos(math.pi * min(progress, 1.0)))


def _adamw(stage: Stage) -> torch.optim.AdamW:
    parameters = stage.parameters()
    groups = [
        {
            "params": [p for p in parameters if p.dim() >= 2],
            "weight_decay": stage.settings.weight_decay,
        },
        {"params": [p for p in parameters if p.dim() < 2], "weight_decay": 0.0},
    ]
    return torch.optim.AdamW(groups, lr=stage.settings.lr)


def _scores_text(scores: Scores) -> str:
    return ", ".join(f"{name} {value:.3f}" for name, value in scores.items())
