"""What a notebook does with the package, in one call each; the commands call the same functions."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from gimp_fast.data.cohort import Cohort, open_cohort
from gimp_fast.data.prepare.assemble import Checked, check
from gimp_fast.data.prepare.cohort_writer import write_cohort
from gimp_fast.data.prepare.options import PrepareOptions, RnaOptions
from gimp_fast.errors import GimpError, one_of
from gimp_fast.options import make_options
from gimp_fast.runs import layout
from gimp_fast.runs.gene_list import read_gene_reference

if TYPE_CHECKING:
    from gimp_fast.training import TrainConfig

__all__ = ["check_cohort", "open_cohort", "prepare_cohort", "train_model"]


def prepare_cohort(options: PrepareOptions | None = None, **fields: Any) -> Cohort:
    """Check slides, RNA, labels and splits, write them as a cohort folder, and open it.

        cohort = prepare_cohort(
            slides="h5_files", rna="gdc_download", labels="labels.csv", out="cohort"
        )

    Args:
        options: what to join.
        **fields: fields of ``PrepareOptions`` and ``RnaOptions``, instead of ``options`` or to
            replace some of them. Text is accepted for a path, and one value where several are
            possible; ``rna`` is the path or paths of expression.

    Raises:
        FaultError: all faults of the input; nothing has been written.
        GimpError: no ``out``, an unknown field, or a folder that cannot be written.
    """
    options = _options(options, fields)
    if options.out is None:
        raise GimpError("prepare_cohort: found no `out`; expected the folder to write")
    write_cohort(options.out, check_cohort(options).need_contents(), options.progress)
    return open_cohort(options.out)


def check_cohort(options: PrepareOptions | None = None, **fields: Any) -> Checked:
    """What ``prepare_cohort`` would write with these options, and all faults; writes nothing."""
    return check(_options(options, fields), read_gene_reference)


def train_model(
    cohort: str | Path | Cohort,
    out: str | Path,
    config: TrainConfig | None = None,
    *,
    preset: str | None = None,
    resume: bool = False,
    stages: Sequence[str] | None = None,
    report: bool = True,
    log: Callable[[str], None] = print,
    **fields: Any,
) -> dict[str, Any]:
    """Train a model on a cohort, evaluate it on the test patients, and write ``report.html``.

        metrics = train_model("cohort", "runs/first", preset="small", method="mcat", seed=1)
        metrics["test"]["accuracy"]

    Args:
        cohort: cohort folder, or an open cohort.
        out: run folder; must not hold a run, unless that run is to be resumed.
        config: the configuration; None makes one of ``preset`` and ``fields``.
        preset: a name of :func:`gimp_fast.training.presets`; None is ``"paper"``.
        resume: continue after the last checkpoint of the run in ``out``, with its saved
            configuration; ``log`` is told which settings were asked otherwise. Start if there is no
            run.
        stages: names of the stages to run; None runs all.
        report: write ``report.html`` once the model is evaluated.
        log: called with one line of text for each event.
        **fields: fields of :class:`gimp_fast.training.TrainConfig`; a mapping changes some fields
            of a section, e.g. ``finetune={"lr": 3e-4}``.

    Returns:
        The contents of ``metrics.json``; see :func:`gimp_fast.training.train`.

    Raises:
        GimpError: the cohort, the configuration or the run folder do not fit, or the loss is not
            finite.
        StoppedError: a signal asked the run to stop; its state is saved.
    """
    from gimp_fast.report import write_report
    from gimp_fast.training import load_config, train
    from gimp_fast.training.claim import resumed_config
    from gimp_fast.training.config import asked_values
    from gimp_fast.training.distributed import is_first_rank

    if config is not None and fields:
        raise GimpError(f"train_model: found a config and {', '.join(fields)}; expected either")
    if config is None and resume and (Path(out) / layout.CONFIG).exists():
        config, ignored = resumed_config(Path(out), asked_values(preset, fields=fields))
        for line in ignored:
            log(line)
    elif config is None:
        config = load_config(preset or "paper", fields=fields)
    metrics = train(config, cohort, Path(out), resume=resume, stages=stages, log=log)
    evaluated = stages is None or "finetune" in stages
    if report and evaluated and is_first_rank():
        log("report: drawing figures")
        log(f"report: {write_report(out)}")
    return metrics


def _options(options: PrepareOptions | None, fields: dict[str, Any]) -> PrepareOptions:
    """The options with these fields; those of ``RnaOptions`` go to ``options.rna``."""
    options = options or PrepareOptions()
    rna = fields.get("rna", options.rna)
    if not isinstance(rna, RnaOptions):
        fields, rna = fields | {"paths": rna}, options.rna
    unknown = [name for name in fields if name not in vars(options) | vars(rna)]
    if unknown:
        expected = one_of(unknown[0], sorted((vars(options) | vars(rna)).keys() - {"paths"}))
        raise GimpError(f"prepare_cohort: found {', '.join(unknown)}; expected {expected}")
    of_rna = {name: value for name, value in fields.items() if name in vars(rna)}
    others = {name: value for name, value in fields.items() if name not in vars(rna)}
    rna = make_options(RnaOptions, **vars(rna) | of_rna)
    return make_options(PrepareOptions, **vars(options) | others | {"rna": rna})
