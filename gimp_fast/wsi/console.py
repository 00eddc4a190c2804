"""Runs an extraction for a person: progress, tables of outcomes, and what failed."""

from __future__ import annotations

import contextlib
import csv
import shutil
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path

from tqdm import tqdm

from gimp_fast.errors import GimpError, one_line
from gimp_fast.wsi.extraction import ExtractOptions, Outcome, PatchEncoder, extract

OUTCOME_COLUMNS = (
    "slide_id", "file", "status", "patches", "mpp", "patch_size_level0", "level", "level0_mpp",
    "mpp_source", "tissue_fraction", "saturation_threshold", "reader", "seconds", "kind",
)  # fmt: skip
FAILURE_COLUMNS = ("slide_id", "file", "kind", "found", "expected")


def run_and_report(
    slides: Sequence[Path],
    options: ExtractOptions,
    encoder: PatchEncoder | None,
    shard: str | None = None,
) -> int:
    """Extract; print a line a slide, and failures at the end; write both as tables.

    Each run writes ``slides.csv`` and ``failures.csv`` anew, a line as soon as a slide is through;
    shares of the slides have tables of their own (``slides-3of8.csv``).

    Returns:
        How many slides failed.
    """
    ending = "" if shard is None else "-" + shard.replace("/", "of")
    if encoder is not None:
        print(f"encoder {encoder.name} ({encoder.weights}), {encoder.precision}")
    if encoder is not None and encoder.name.startswith("RANDOM"):
        print("WARNING: random weights. Use these features for trials only.")
    tables = _Tables(options.out, ending)
    outcomes, patches = [], Counter()
    with tables, tqdm(total=len(slides), unit="slide", disable=None) as bar:

        def on_batch(number: int) -> None:
            patches["all"] += number
            elapsed = bar.format_dict["elapsed"] or 1
            bar.set_postfix_str(f"{patches['all']} patches, {patches['all'] / elapsed:.0f}/s")

        for outcome in extract(slides, options, encoder, on_batch):
            outcomes.append(outcome)
            tables.write(outcome)
            tqdm.write(f"{len(outcomes)}/{len(slides)} {line_of(outcome)}")
            bar.update()
    print(summary(outcomes, options.out / f"failures{ending}.csv"))
    return sum(outcome.status == "failed" for outcome in outcomes)


class _Tables:
    """``slides.csv`` and ``failures.csv``, open; GimpError where they cannot be written."""

    def __init__(self, folder: Path, ending: str):
        self._folder = folder
        with _disk_errors(folder), contextlib.ExitStack() as undo:
            folder.mkdir(parents=True, exist_ok=True)
            self._files = [
                undo.enter_context(
                    (folder / f"{name}{ending}.csv").open("w", newline="", encoding="utf-8")
                )
                for name in ("slides", "failures")
            ]
            self._done, self._failed = map(csv.writer, self._files)
            self._done.writerow(OUTCOME_COLUMNS)
            self._failed.writerow(FAILURE_COLUMNS)
            undo.pop_all()

    def write(self, outcome: Outcome) -> None:
        with _disk_errors(self._folder):
            self._done.writerow(row_of(outcome))
            for fault in outcome.faults:
                cells = (outcome.slide_id, outcome.path, fault.kind, fault.found, fault.expected)
                self._failed.writerow(cells)
            for file in self._files:
                file.flush()

    def __enter__(self) -> _Tables:
        return self

    def __exit__(self, *exception: object) -> None:
        for file in self._files:
            file.close()


@contextlib.contextmanager
def _disk_errors(folder: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise GimpError(f"{folder}: cannot be written ({one_line(error)})") from error


def row_of(outcome: Outcome) -> list[object]:
    """The cells of ``OUTCOME_COLUMNS``; empty where nothing is known."""
    plan = outcome.plan
    of_plan: tuple = ("",) * 5
    if plan is not None:
        of_plan = (
            f"{plan.mpp:.6g}", plan.size_level0, plan.level, f"{plan.level0_mpp:.6g}",
            plan.mpp_source,
        )  # fmt: skip
    return [
        outcome.slide_id,
        outcome.path,
        outcome.status,
        outcome.patches,
        *of_plan,
        "" if outcome.tissue is None else f"{outcome.tissue:.4f}",
        "" if outcome.threshold is None else f"{outcome.threshold:g}",
        outcome.reader,
        f"{outcome.seconds:.2f}",
        " ".join(dict.fromkeys(fault.kind for fault in outcome.faults)),
    ]


def line_of(outcome: Outcome) -> str:
    """What became of a slide, in one line."""
    if outcome.status == "failed":
        kinds = ", ".join(dict.fromkeys(fault.kind for fault in outcome.faults))
        return f"{outcome.slide_id}: FAILED ({kinds})"
    if outcome.status == "present" or outcome.plan is None:
        return f"{outcome.slide_id}: {outcome.patches} patches, made earlier"
    plan = outcome.plan
    return (
        f"{outcome.slide_id}: {outcome.patches} patches of {plan.mpp:.4g} µm a pixel"
        f" ({plan.size_level0} pixels of level 0, read from level {plan.level}; {plan.mpp_source}),"
        f" {outcome.seconds:.1f} s"
    )


def summary(outcomes: Sequence[Outcome], failures: Path) -> str:
    """Counts, and a table of what failed and why."""
    count = Counter(outcome.status for outcome in outcomes)
    patches = sum(outcome.patches for outcome in outcomes)
    lines = [
        f"{len(outcomes)} slides: {count['done']} done, {count['present']} made earlier, "
        f"{count['failed']} failed; {patches} patches"
    ]
    bad = [outcome for outcome in outcomes if outcome.faults]
    if bad:
        width = min(
            max(len(outcome.slide_id) for outcome in bad), shutil.get_terminal_size()[0] // 2
        )
        lines.append(f"failed, and listed in {failures}:")
        for outcome in bad:
            for fault in outcome.faults:
                lines.append(f"  {outcome.slide_id:<{width}}  {fault.kind}: found {fault.found}; "
                             f"expected {fault.expected}")  # fmt: skip
    return "\n".join(lines)
