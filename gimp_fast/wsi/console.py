"""Runs an extraction on the terminal: progress, tables of outcomes, and a list of failures."""

from __future__ import annotations

import contextlib
import csv
import shutil
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from tqdm import tqdm

from gimp_fast.errors import GimpError, one_line
from gimp_fast.wsi.extraction import Outcome, extract
from gimp_fast.wsi.feature_file import PatchEncoder
from gimp_fast.wsi.options import ExtractOptions

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
    """The number of slides that failed, after extracting all and printing a line for each.

    Each run writes new ``slides.csv`` and ``failures.csv``, row by row as slides are finished; the
    parts of a sharded run have tables of their own (``slides-3of8.csv``).
    """
    ending = "" if shard is None else "-" + shard.replace("/", "of")
    if encoder is not None:
        print(f"encoder {encoder.name} ({encoder.weights}), {encoder.precision}")
        if encoder.name.startswith("RANDOM"):
            print("WARNING: random weights. Use these features for trials only.")
    failures = options.out / f"failures{ending}.csv"
    outcomes, patches = [], 0
    with (
        _table(options.out / f"slides{ending}.csv", OUTCOME_COLUMNS) as add_outcome,
        _table(failures, FAILURE_COLUMNS) as add_failure,
        tqdm(total=len(slides), unit="slide", disable=None) as bar,
    ):

        def on_batch(size: int) -> None:
            nonlocal patches
            patches += size
            elapsed = bar.format_dict["elapsed"] or 1
            bar.set_postfix_str(f"{patches} patches, {patches / elapsed:.0f}/s")

        for outcome in extract(slides, options, encoder, on_batch):
            outcomes.append(outcome)
            add_outcome(outcome_row(outcome))
            for fault in outcome.faults:
                add_failure(outcome_row(outcome) | fault.as_dict())
            tqdm.write(f"{len(outcomes)}/{len(slides)} {line_of(outcome)}")
            bar.update()
    print(summary(outcomes, failures))
    return sum(outcome.status == "failed" for outcome in outcomes)


@contextlib.contextmanager
def _table(path: Path, columns: Sequence[str]) -> Iterator[Callable[[dict[str, object]], None]]:
    """A new csv; the function that it yields adds a row to the file at once.

    Raises:
        GimpError: the file cannot be written.
    """

    @contextlib.contextmanager
    def disk_errors() -> Iterator[None]:
        try:
            yield
        except OSError as error:
            raise GimpError(f"{path}: cannot be written ({one_line(error)})") from error

    with disk_errors():
        path.parent.mkdir(parents=True, exist_ok=True)
        file = path.open("w", buffering=1, newline="", encoding="utf-8")
    with file:
        table = csv.DictWriter(file, columns, extrasaction="ignore")
        with disk_errors():
            table.writeheader()

        def add(cells: dict[str, object]) -> None:
            with disk_errors():
                table.writerow(cells)

        yield add


def outcome_row(outcome: Outcome) -> dict[str, object]:
    """The cells of ``OUTCOME_COLUMNS`` that are known."""
    cells: dict[str, object] = {
        "slide_id": outcome.slide_id,
        "file": outcome.path,
        "status": outcome.status,
        "patches": outcome.patches,
        "reader": outcome.reader,
        "seconds": f"{outcome.seconds:.2f}",
        "kind": " ".join(outcome.kinds),
    }
    if plan := outcome.plan:
        cells |= {
            "mpp": f"{plan.mpp:.6g}",
            "patch_size_level0": plan.size_level0,
            "level": plan.level,
            "level0_mpp": f"{plan.level0_mpp:.6g}",
            "mpp_source": plan.mpp_source,
        }
    if tissue := outcome.tissue:
        cells |= {
            "tissue_fraction": f"{tissue.fraction:.4f}",
            "saturation_threshold": f"{tissue.threshold:g}",
        }
    return cells


def line_of(outcome: Outcome) -> str:
    """The outcome of a slide in one line."""
    plan = outcome.plan
    if outcome.status == "failed":
        return f"{outcome.slide_id}: FAILED ({', '.join(outcome.kinds)})"
    if outcome.status == "present" or plan is None:
        return f"{outcome.slide_id}: {outcome.patches} patches, made earlier"
    return (
        f"{outcome.slide_id}: {outcome.patches} patches of {plan.mpp:.4g} µm per pixel"
        f" ({plan.size_level0} pixels of level 0, read from level {plan.level}; {plan.mpp_source}),"
        f" {outcome.seconds:.1f} s"
    )


def summary(outcomes: Sequence[Outcome], failures: Path) -> str:
    """Counts, and a list of what failed and why."""
    count = Counter(outcome.status for outcome in outcomes)
    patches = sum(outcome.patches for outcome in outcomes)
    lines = [
        f"{len(outcomes)} slides: {count['done']} done, {count['present']} made earlier, "
        f"{count['failed']} failed; {patches} patches"
    ]
    failed = [outcome for outcome in outcomes if outcome.faults]
    if failed:
        longest = max(len(outcome.slide_id) for outcome in failed)
        width = min(longest, shutil.get_terminal_size()[0] // 2)
        lines.append(f"failures, also listed in {failures}:")
        lines += [
            f"  {outcome.slide_id:<{width}}  {fault.kind}: found {fault.found}; "
            f"expected {fault.expected}"
            for outcome in failed
            for fault in outcome.faults
        ]
    return "\n".join(lines)
