"""Runs an extraction on the terminal: progress, tables of outcomes, and a list of failures."""

from __future__ import annotations

import csv
import io
import shutil
from collections import Counter
from collections.abc import Iterable, Sequence
from pathlib import Path

from tqdm import tqdm

from gimp_fast.errors import SHOWN
from gimp_fast.files.atomic import append_text, write_text
from gimp_fast.wsi.extraction import Outcome, extract
from gimp_fast.wsi.feature_file import PatchEncoder
from gimp_fast.wsi.options import ExtractOptions

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
    table, failures = (options.out / f"{name}{ending}.csv" for name in ("slides", "failures"))
    write_text(table, _csv_text([tuple(cells_of(Outcome(Path())))]))
    write_text(failures, _csv_text([FAILURE_COLUMNS]))
    if encoder is not None:
        print(f"encoder {encoder.name} ({encoder.weights}), {encoder.precision}")
        if encoder.name.startswith("RANDOM"):
            print("WARNING: random weights. Use these features for trials only.")
    outcomes, patches = [], 0
    with tqdm(total=len(slides), unit="slide", disable=None) as bar:

        def on_batch(size: int) -> None:
            nonlocal patches
            patches += size
            elapsed = bar.format_dict["elapsed"] or 1
            bar.set_postfix_str(f"{patches} patches, {patches / elapsed:.0f}/s")

        for outcome in extract(slides, options, encoder, on_batch):
            outcomes.append(outcome)
            append_text(table, _csv_text([cells_of(outcome).values()]))
            slide = outcome.slide_id, outcome.path
            faults = [(*slide, fault.kind, fault.found, fault.expected) for fault in outcome.faults]
            append_text(failures, _csv_text(faults))
            tqdm.write(f"{len(outcomes)}/{len(slides)} {line_of(outcome)}")
            bar.update()
    print(summary(outcomes, failures))
    return sum(outcome.status == "failed" for outcome in outcomes)


def _csv_text(rows: Iterable[Iterable[object]]) -> str:
    text = io.StringIO()
    csv.writer(text).writerows(rows)
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
        "reader": outcome.reader,
        "seconds": f"{outcome.seconds:.2f}",
        "kind": _kinds(outcome, " "),
    }


def _kinds(outcome: Outcome, separator: str) -> str:
    """The kinds of its faults, each once."""
    return separator.join(dict.fromkeys(fault.kind for fault in outcome.faults))


def line_of(outcome: Outcome) -> str:
    """The outcome of a slide in one line."""
    plan, start = outcome.plan, f"{outcome.slide_id}: {outcome.patches} patches"
    if outcome.status == "failed":
        return f"{outcome.slide_id}: FAILED ({_kinds(outcome, ', ')})"
    if plan is None:
        return f"{start}, made earlier"
    return (
        f"{start} of {plan.mpp:.4g} µm per pixel ({plan.size_level0} pixels of level 0, read from"
        f" level {plan.level}; {plan.mpp_source}), {outcome.seconds:.1f} s"
    )


def summary(outcomes: Sequence[Outcome], failures: Path) -> str:
    """Counts, and a list of what failed and why."""
    count = Counter(outcome.status for outcome in outcomes)
    patches = sum(outcome.patches for outcome in outcomes)
    lines = [
        f"{len(outcomes)} slides: {count['done']} done, {count['present']} made earlier, "
        f"{count['failed']} failed; {patches} patches"
    ]
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
