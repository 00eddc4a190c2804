"""Runs the stages genes → pretrain → finetune → evaluate, in one process or many, and resumes."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import Any

import torch

from gimp_fast.data import Cohort, open_cohort
from gimp_fast.data.names import PARTS
from gimp_fast.errors import GimpError, is_out_of_memory, one_line, one_of
from gimp_fast.files.locks import claim
from gimp_fast.models import build
from gimp_fast.ops.backends import choose_device
from gimp_fast.runs.checkpoint import RecentCheckpoints, load_model
from gimp_fast.runs.folder import RunFolder
from gimp_fast.tasks.processes import available_cores
from gimp_fast.training.claim import check_folder, claim_folder
from gimp_fast.training.config import TrainConfig
from gimp_fast.training.covariate_scaling import CovariateScaler
from gimp_fast.training.distributed import Ranks, ranks_of_environment
from gimp_fast.training.evaluate_run import evaluate_run
from gimp_fast.training.fit_linear import fit_linear_part
from gimp_fast.training.fit_scalers import fit_gene_scaler, fit_slide_scaler
from gimp_fast.training.patients import check_classes, check_several, facts_of_patients
from gimp_fast.training.provenance import provenance_of
from gimp_fast.training.sampling import PatientReader
from gimp_fast.training.stage import StageContext
from gimp_fast.training.stage_run import StageRun
from gimp_fast.training.stages import stages_of
from gimp_fast.training.stops import StopRequests
from gimp_fast.training.task import asked_of, check_measure, fitted_target, model_config_of

Log = Callable[[str], None]


def train(
    config: TrainConfig,
    data: Path | Cohort,
    out: Path,
    *,
    resume: bool = False,
    stages: Sequence[str] | None = None,
    log: Log = print,
) -> dict[str, Any]:
    """Run every stage on a cohort and evaluate on its test patients (GiMP section 3.1).

    Every epoch ends with a checkpoint, long epochs save more in between, and SIGTERM or SIGUSR1
    saves one and raises StoppedError. On a CPU, a run that was killed or stopped and then resumed
    ends with the same weights and metrics as an uninterrupted one. Under torchrun, every rank calls
    this function; the result is that of one process with the same batches, up to rounding and
    dropout.

    Args:
        config: validated configuration.
        data: cohort folder or open cohort.
        out: run folder; must not hold a run, unless that run is to be resumed.
        resume: continue after the last checkpoint of the run in `out`; start if there is none.
        stages: names of the stages to run, e.g. ``["pretrain"]``; each starts from the weights that
            an earlier stage left in `out`, if any. None runs all stages of the configuration.
            Without ``finetune`` nothing is evaluated.
        log: called with one line of text for each event.

    Returns:
        The contents of ``metrics.json``, on every rank. Without ``finetune``: stage -> the epoch
        that is kept and its validation scores.

    Raises:
        GimpError: the cohort, the split, the configuration and the run folder do not fit each
            other; the loss is not finite; or a file cannot be read or written.
        StoppedError: a signal asked the run to stop; its state is saved.
        KeyboardInterrupt: Ctrl-C; the state is saved, too, unless it came twice.
    """
    cohort = data if isinstance(data, Cohort) else open_cohort(data)
    if config.threads is not None:
        torch.set_num_threads(config.threads)
    kind = choose_device(config.device).type
    with ranks_of_environment(kind, config.rank_timeout_minutes) as ranks, StopRequests() as stops:
        return _train(config, cohort, Path(out), ranks, stops, resume, stages, log)


def _train(
    config: TrainConfig,
    cohort: Cohort,
    out: Path,
    ranks: Ranks,
    stops: StopRequests,
    resume: bool,
    stages: Sequence[str] | None,
    log: Log,
) -> dict[str, Any]:
    names = [kind.name for kind in stages_of(config)]
    unknown = [name for name in stages or () if name not in names]
    if unknown:
        raise GimpError(f"stages: found {unknown[0]}; expected {one_of(unknown[0], names)}")
    wanted = names if stages is None else [name for name in names if name in stages]
    log = log if ranks.writes else lambda text: None
    device = choose_device(config.device)
    if device.type == "cuda" and ranks.size > 1:
        device = torch.device("cuda", ranks.local)
        torch.cuda.set_device(device)
    split_name = cohort.only_split(config.split)
    folder = RunFolder(out, wandb=config.wandb)
    check_folder(folder, config, resume=resume)
    _check_earlier(names, wanted, folder)
    context, provenance = _prepare(config, cohort, split_name, device, ranks)
    for text in cohort.cautions_of(context.split, context.reader.target):
        log(f"caution: {text}")
    if hint := hint_for_missing(config, cohort, context.split):
        log(hint)
    if ranks.writes:
        provenance |= facts_of_patients(context, cohort, log)
    # Only now: a run that cannot start must not claim the folder.
    ranks.sum([0.0])  # wait until all ranks have checked it
    with claim(out, advice="choose another --out") if ranks.writes else nullcontext():
        if ranks.writes:
            claim_folder(folder, config, resume=resume, ranks=ranks)
        try:
            best = _run_stages(context, folder, provenance, stops, wanted, log)
            if "finetune" not in wanted:
                return best
            with memory_errors(config, "finetune", "finetune"):
                return evaluate_run(context, folder, cohort, split_name, log)
        finally:
            folder.close()


def hint_for_missing(
    config: TrainConfig, cohort: Cohort, split: Mapping[str, Sequence[str]]
) -> str | None:
    """What patients who lack a modality gain from ``model.missing=heads``; None without any."""
    has_tokens = config.modalities == "both" and getattr(config.model, "missing", None) == "token"
    if not has_tokens or not config.is_valid_with("model", missing="heads"):
        return None
    cases = [case for part in split.values() for case in part]
    without = {
        "RNA": sum(not cohort.has_expression(case) for case in cases),
        "slides": sum(not cohort.has_slides(case) for case in cases),
    }
    lacking = " and ".join(f"{n} of {len(cases)} lack {what}" for what, n in without.items() if n)
    if not lacking:
        return None
    return (
        f"hint: of the patients, {lacking}. --set model.missing=heads gives them an answer of "
        "their own, which is mostly the better one: see docs/training.md"
    )


def _check_earlier(names: Sequence[str], wanted: Sequence[str], folder: RunFolder) -> None:
    """GimpError if a stage would begin without an earlier one that the configuration has."""
    last = max(map(names.index, wanted), default=0)
    for name in names[:last]:
        if name not in wanted and not folder.checkpoint(name).exists():
            raise GimpError(
                f"--stages {' '.join(wanted)}: found no {folder.checkpoint(name)}; expected the "
                f"weights of stage '{name}', which comes first: run it, or set {name}.epochs=0"
            )


def _prepare(
    config: TrainConfig,
    cohort: Cohort,
    split_name: str,
    device: torch.device,
    ranks: Ranks,
) -> tuple[StageContext, dict[str, Any]]:
    """The context of the stages, and the facts that every checkpoint stores."""
    split, scaler = cohort.split(split_name), None
    for part in PARTS:
        if not split[part]:
            raise GimpError(f"{cohort.path}: split '{split_name}' has no patients in '{part}'")
    if config.modalities != "slide":
        scaler = fit_gene_scaler(config, cohort, split_name)
    # With reading processes, each would keep its own copy.
    cache_gb = 0.0 if config.workers not in (0, "auto") else config.cache_gb
    asked = asked_of(config, cohort)
    slide_scaler = None
    if config.site_shrinkage is not None and config.modalities != "rna":
        slide_scaler = fit_slide_scaler(config.site_shrinkage, cohort, split_name, asked)
    covariates = None
    if config.covariates:
        covariates = CovariateScaler.fit(cohort, config.covariates, split["train"])
    reader = PatientReader(
        cohort,
        config.modalities,
        scaler,
        cache_gb,
        slide_scaler=slide_scaler,
        target=asked,
        covariates=covariates,
    )
    split = {
        part: [
            case
            for case in cases
            if cohort.usable(case, config.modalities) and cohort.knows(case, asked)
        ]
        for part, cases in split.items()
    }
    if not all(split.values()):
        raise GimpError(
            f"{cohort.path}: split '{split_name}' has patients with the modality "
            f"'{config.modalities}' in {', '.join(p for p in split if split[p]) or 'no part'} only"
        )
    classes = cohort.classes_of(asked)
    if isinstance(asked, tuple):
        check_several(config, cohort, split_name, split, asked)
    elif classes:
        check_classes(config, cohort, split_name, split, asked)
    target = fitted_target(config, cohort, asked, split["train"])
    check_measure(config, target)
    torch.manual_seed(config.seed)
    model_config = model_config_of(config, cohort, covariates.width if covariates else 0)
    try:
        model = build(config.method, model_config, backend=config.backend)
    except ValueError as error:
        raise GimpError(f"model: {error}") from error
    model.target = target
    if model.linear_part is not None:
        reader.crossed = fit_linear_part(model.linear_part, reader, split, split_name)
        model.linear_part.refitted = False  # until test patients are predicted
        model.start_from_linear_part()
    model.to(device)
    context = StageContext(config, model, reader, split, device, ranks)
    provenance = provenance_of(config, cohort, split_name, context, covariates)
    return context, provenance


def _workers(config: TrainConfig, reader: PatientReader) -> int:
    if config.workers != "auto":
        return config.workers
    return 0 if reader.fits_in_memory else min(4, max(1, available_cores() - 1))


def _run_stages(
    context: StageContext,
    folder: RunFolder,
    provenance: dict[str, Any],
    stops: StopRequests,
    wanted: Sequence[str],
    log: Log,
) -> dict[str, Any]:
    """Run the chosen stages; returns the kept epoch of each."""
    config, ranks, best = context.config, context.ranks, {}
    recent = RecentCheckpoints(folder.checkpoints, config.keep_checkpoints)
    # All ranks continue from the file that rank 0 finds intact.
    found = ranks.from_first(recent.load(log) if ranks.writes else None)
    last, state = found or (None, {"stage": None, "epoch": 0, "rows": 0, "step": 0})
    if last is not None:
        fingerprint, expected = state["cohort"]["fingerprint"], provenance["cohort"]["fingerprint"]
        if fingerprint != expected:
            raise GimpError(
                f"{folder.checkpoint('last')}: the run was trained on another cohort "
                f"(fingerprint {fingerprint[:12]}, this one has {expected[:12]})"
            )
        step = f", step {state['step']} of the next" if state["step"] else ""
        log(f"resuming after {state['stage']} epoch {state['epoch']}{step}")
    if ranks.writes:
        folder.keep_metrics(state["rows"])
    kinds = stages_of(config)
    names = [kind.name for kind in kinds]
    first = names.index(state["stage"] or names[0])
    for number, kind in enumerate(kinds):
        if number < first or kind.name not in wanted:
            continue
        resumed = (last, state) if state["stage"] == kind.name else None
        before = [folder.checkpoint(name) for name in reversed(names[:number])]
        earlier = next(filter(Path.exists, before), None)
        if earlier is not None and resumed is None:
            load_model(earlier, context.model)
        workers = _workers(config, context.reader)
        with memory_errors(config, kind.name, kind.section):
            stage_run = StageRun(
                kind(context), number, folder, provenance, state["rows"], stops, workers, log
            )
            state = stage_run.run(resumed)
        best[kind.name] = stage_run.progress.best
    return best


@contextmanager
def memory_errors(config: TrainConfig, stage: str, section: str) -> Iterator[None]:
    """Turn memory that runs out in a stage into a GimpError that says what needs less."""
    try:
        yield
    except (MemoryError, RuntimeError) as error:
        if not is_out_of_memory(error):
            raise
        settings = getattr(config, section)
        less = [f"{section}.batch_size (now {settings.batch_size})"]
        if hasattr(settings, "window"):
            less.append(f"{section}.window (now {settings.window})")
        fields = type(config.model).model_fields
        if not getattr(config.model, "checkpoint_layers", True) and "checkpoint_layers" in fields:
            less.append("model.checkpoint_layers=true")
        raise GimpError(
            f"memory ran out in stage '{stage}' ({one_line(error)}). What needs less: "
            f"{', '.join(less)}; `--dry-run` shows the memory of each stage, and `--fit SIZE` "
            "finds the batch of pre-training. Once more memory is free, --resume continues this "
            "run; other settings need another --out."
        ) from error
