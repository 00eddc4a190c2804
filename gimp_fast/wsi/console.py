"""Runs an extraction on the terminal: progress, tables of outcomes, and a list of failures."""

from __future__ import annotations

import contextlib
import csv
import io
import shutil
import time
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

from tqdm import tqdm

from gimp_fast.errors import SHOWN, counted
from gimp_fast.files.atomic import append_text, write_text
from gimp_fast.files.locks import claim
from gimp_fast.files.safe_text import guarded
from gimp_fast.wsi.extraction import Outcome

FAILURE_COLUMNS = ("slide_id", "file", "kind", "found", "expected")


def run_and_report(
    slides: Sequence[Path],
    out: Path,
    extract: Callable[[Progress], Iterable[Outcome]],
    shard: str | None = None,
) -> int:
    """The number of slides that failed, after extracting all and printing a line for each.

    Each run writes new ``slides.csv`` and ``failures.csv``, row by row as slides are finished; the
    parts of a sharded run have tables of their own (``slides-3of8.csv``).

    Args:
        slides: in the order of the tables.
        out: folder of the tables.
        extract: yields the outcome of each slide, in any order.
        shard: as in ``--shard``.

    Raises:
        GimpError: another process extracts into this folder, or this part of it.
    """
    ending = "" if shard is None else "-" + shard.replace("/", "of")
    with claim(out, f".lock{ending}", "choose another --out or --shard"):
        return _run(slides, out, extract, ending)


def _run(
    slides: Sequence[Path],
    out: Path,
    extract: Callable[[Progress], Iterable[Outcome]],
    ending: str,
) -> int:
    table, failures = (out / f"{name}{ending}.csv" for name in ("slides", "failures"))
    write_text(table, _csv_text([tuple(cells_of(Outcome(Path())))]))
    write_text(failures, _csv_text([FAILURE_COLUMNS]))
    outcomes: list[Outcome] = []
    with Progress(len(slides)) as progress:
        for outcome in extract(progress):
            outcomes.append(outcome)
            append_text(table, _csv_text([cells_of(outcome).values()]))
            append_text(failures, _csv_text(_failures_of(outcome)))
            progress.write(f"{len(outcomes)}/{len(slides)} {line_of(outcome)}")
            for caution in outcome.cautions:
                progress.write(f"  CAUTION: {caution}")
            progress.slide(outcome)
    places = {path: place for place, path in enumerate(slides)}
    in_order = sorted(outcomes, key=lambda outcome: places[outcome.path])
    if in_order != outcomes:
        cells = [tuple(cells_of(Outcome(Path())))]
        write_text(table, _csv_text(cells + [cells_of(one).values() for one in in_order]))
        rows = [row for outcome in in_order for row in _failures_of(outcome)]
        write_text(failures, _csv_text([FAILURE_COLUMNS, *rows]))
    print(summary(in_order, failures))
    return sum(outcome.status == "failed" for outcome in outcomes)


def _failures_of(outcome: Outcome) -> list[tuple[object, ...]]:
    slide = outcome.slide_id, outcome.path
    return [(*slide, fault.kind, fault.found, fault.expected) for fault in outcome.faults]


class Progress(contextlib.AbstractContextManager):
    """A bar of slides on a terminal: what is being done, and the time left once it is known."""

    def __init__(self, slides: int):
        form = "{percentage:3.0f}%|{bar}| {n_fmt}/{total_fmt} [{elapsed}{postfix}]"
        self._bar = tqdm(total=slides, disable=None, bar_format=form)
        self._slides, self._patches, self._stage = slides, 0, "starting"
        self._finished, self._made, self._began = 0, 0, time.perf_counter()

    def stage(self, slide_id: str, stage: str) -> None:
        self._start = time.perf_counter()
        self.say(f"{slide_id}: {stage}")

    def say(self, stage: str) -> None:
        """What is being done, if no slide is the only one at a time."""
        self._patches, self._stage = 0, stage
        self._show()

    def batch(self, size: int) -> None:
        self._patches += size
        self._show()

    def slide(self, outcome: Outcome) -> None:
        self._finished += 1
        # Slides of an earlier run tell nothing about the time left.
        self._made += outcome.status == "done"
        self._bar.update()
        self._show()

    def _show(self) -> None:
        parts = [self._stage]
        if self._patches:
            rate = self._patches / (time.perf_counter() - self._start)
            parts.append(f"{self._patches:,} done, {rate:.0f}/s")
        if self._made:
            passed = time.perf_counter() - self._began
            left = passed / self._made * (self._slides - self._finished)
            parts.append(f"about {tqdm.format_interval(left)} left")
        self._bar.set_postfix_str(", ".join(parts))

    def write(self, line: str) -> None:
        """A line above the bar."""
        self._bar.write(line)

    def __exit__(self, *exception: object) -> None:
        self._bar.close()


def _csv_text(rows: Iterable[Iterable[object]]) -> str:
    text = io.StringIO()
    for row in rows:
        csv.writer(text).writerow(["" if cell is None else guarded(str(cell)) for cell in row])
    return text.getvalue()


def cells_of(outcome: Outcome) -> dict[str, object]:
    """The row of a slide by column; None where nothing is known."""
    plan, tissue = outcome.plan, outcome.tissue
    return {
        "slide_id": outcome.slide_id,
        "file": outcome.path,
        "status": outcome.status,
        "patches": outcome.patches,
        "mpp": plan and f"{plan.mpp:.6g}",
        "patch_size_level0": plan and plan.size_level0,
        "level": plan and plan.level,
        "level0_mpp": plan and f"{plan.level0_mpp:.6g}",
        "mpp_source": plan and plan.mpp_source,
        "tissue_fraction": tissue and f"{tissue.fraction:.4f}",
        "saturation_threshold": tissue and f"{tissue.threshold:g}",
        "pen_fraction": tissue and f"{tissue.pens:.4f}",
        "reader": outcome.reader,
        "seconds": f"{outcome.seconds:.2f}",
        "kind": _kinds(outcome, " "),
        "cautions": "; ".join(outcome.cautions),
    }


def _kinds(outcome: Outcome, separator: str) -> str:
    """The kinds of its faults, each once."""
    return separator.join(dict.fromkeys(fault.kind for fault in outcome.faults))


def line_of(outcome: Outcome) -> str:
    """The outcome of a slide in one line."""
    plan, tissue = outcome.plan, outcome.tissue
    start = f"{outcome.slide_id}: {_patches(outcome.patches)}"
    if outcome.status == "failed":
        return f"{outcome.slide_id}: FAILED ({_kinds(outcome, ', ')})"
    if plan is None:
        return f"{start}, made earlier"
    pens = f"; pens on {tissue.pens:.1%} left out" if tissue and tissue.pens else ""
    return (
        f"{start} of {plan.mpp:.4g} µm per pixel ({plan.size_level0} pixels of level 0, read from"
        f" level {plan.level}; {plan.mpp_source}{pens}), {outcome.seconds:.1f} s"
    )


def _patches(count: int) -> str:
    return counted(count, "patch", "patches")


def summary(outcomes: Sequence[Outcome], failures: Path) -> str:
    """Counts, and a list of what failed and why."""
    count = Counter(outcome.status for outcome in outcomes)
    lines = [
        f"{counted(len(outcomes), 'slide')}: {count['done']} done, {count['present']} made "
        f"earlier, {count['failed']} failed; {_patches(sum(o.patches for o in outcomes))}"
    ]
    warned = sum(bool(outcome.cautions) for outcome in outcomes)
    if warned:
        lines.append(f"{counted(warned, 'slide')} with a CAUTION above: look at the overlay first")
    faults = [(outcome.slide_id, fault) for outcome in outcomes for fault in outcome.faults]
    if faults:
        longest = max(len(slide_id) for slide_id, _ in faults)
        width = min(longest, shutil.get_terminal_size()[0] // 2)
        lines.append(f"failures, all listed in {failures}:")
        seen: Counter[str] = Counter()
        for slide_id, fault in faults:
            seen[fault.kind] += 1
            if seen[fault.kind] <= SHOWN:
                why = f"{fault.kind}: found {fault.found}; expected {fault.expected}"
                lines.append(f"  {slide_id:<{width}}  {why}")
        more = {kind: number - SHOWN for kind, number in seen.items() if number > SHOWN}
        lines += [f"  … and {number} more of {kind}" for kind, number in more.items()]
    return "\n".join(lines)
