"""Names that are more than names: of patients, slides, classes, genes, signatures and cohorts."""

from __future__ import annotations

import csv
import io
import shutil
from dataclasses import dataclass
from pathlib import Path

import h5py
from attack import laws
from attack.corpus import CASES, GENES, PARTS, SETTINGS, SLIDES, coords, expression, features
from attack.fork import Limits, Outcome, run
from attack.mutate_bytes import NASTY
from attack.sandbox import FREE, Sandbox

THINGS = ("patient", "slide", "class", "gene", "signature", "split", "cohort")
# Of these, every thing goes through all commands; of the others, what is read first.
_WHOLE_WAY = (
    "=1+1",
    "<script>alert(1)</script>",
    "../../secret",
    "\x1b[31mred\x1b[0m",
    "é",
    "A" * 10_000,
)


@dataclass(frozen=True)
class Name:
    """A name of one thing."""

    thing: str
    text: str
    whole_way: bool = False


def names() -> list[Name]:
    nasty = dict.fromkeys(text for text in NASTY if "\ud7ff" not in text)
    return [Name(thing, text, text in _WHOLE_WAY) for thing in THINGS for text in nasty]


def carry_out(sandbox: Sandbox, name: Name) -> tuple[list[Outcome], list[str]]:
    """Prepare a cohort with the name in it; if that is allowed, use it."""
    folder = sandbox.inputs / "named"
    sandbox.empty_out()
    written = run(lambda notes: write(folder, name), folder=sandbox.work, limits=FREE)
    try:
        if written.code:  # no file can have this name
            return [], []
        before = sandbox.snapshot()
        outcomes, breaches = [], []
        for argv in _commands(name):
            outcome = sandbox.run(argv, Limits())
            outcomes.append(outcome)
            breaches += map(str, laws.of_outcome(argv[0], outcome))
            if outcome.code:
                break
        breaches += map(str, laws.of_files(before, sandbox.snapshot(), sandbox.root))
        breaches += map(str, laws.of_results(sandbox.out, outcomes[-1].output))
        return outcomes, breaches
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _commands(name: Name) -> list[tuple[str, ...]]:
    inputs = "{in}/named"
    split = name.text if name.thing == "split" else "split"
    prepare = ("prepare", "--slides", f"{inputs}/slides", "--rna", f"{inputs}/rna.csv")
    prepare += ("--labels", f"{inputs}/labels.csv", "--splits", f"{inputs}/{split}.csv")
    prepare += ("--gene-sets", f"{inputs}/sets.csv", "--pack", "fp32", "--out", "{out}/cohort")
    prepare += (f"--name={name.text}",) if name.thing == "cohort" else ()
    if not name.whole_way:
        return [prepare, ("prepare", "--verify", "{out}/cohort")]
    run, data = ("--run", "{out}/run"), ("--data", "{out}/cohort")
    cpu = ("--device", "cpu")
    return [
        prepare,
        ("train", *data, "--out", "{out}/run", *SETTINGS),
        ("predict", *run, *data, "--out", "{out}/p.csv", "--bootstrap", "20", *cpu),
        ("predict", *run, "--export", "{out}/model"),
        ("heatmap", *run, *data, "--part", "test", *cpu),
        (
            "experiments",
            "table1",
            *data,
            "--out",
            "{out}/table",
            "--only",
            "logistic_regression_rna",
            "--jobs",
            "1",
        ),
    ]


def write(folder: Path, name: Name) -> None:
    """Slides, expression, labels, a split and signatures of twelve patients, with the name."""

    def named(thing: str, text: str) -> str:
        return name.text if name.thing == thing else text

    (folder / "slides").mkdir(parents=True)
    cases = [named("patient", CASES[0]), *CASES[1:]]
    slides = [named("slide", SLIDES[0]), *SLIDES[1:]]
    genes = [named("gene", GENES[0]), *GENES[1:]]
    classes = [named("class", "X"), "Y"] * 6
    for number, slide in enumerate(slides):
        file = folder / "slides" / f"{slide}.h5"
        file.parent.mkdir(parents=True, exist_ok=True)
        with h5py.File(file, "w") as h5:
            h5["features"], h5["coords"] = features(number), coords(number)
    values = expression().tolist()
    rows = [("case_id", *genes), *((c, *row) for c, row in zip(cases, values, strict=True))]
    _write_csv(folder / "rna.csv", rows)
    header = ("case_id", "slide_id", "label")
    rows = [header, *zip(cases, slides, classes, strict=True)]
    _write_csv(folder / "labels.csv", rows)
    rows = [("case_id", "split"), *zip(cases, PARTS, strict=True)]
    _write_csv(folder / f"{named('split', 'split')}.csv", rows)
    sets = [(named("signature", "A"), "B"), *zip(genes[:5], genes[5:10], strict=True)]
    _write_csv(folder / "sets.csv", sets)


def _write_csv(file: Path, rows: list[tuple]) -> None:
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerows(rows)
    if "\0" in file.name or ".." in file.parts:
        raise ValueError(file)
    file.write_text(text.getvalue(), encoding="utf-8")
