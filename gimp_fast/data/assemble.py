"""``prepare``: checks slides, RNA, labels and splits, and joins them into a cohort folder.

Every fault is collected and reported together; nothing is written before all checks have passed.
What is left out on purpose is recorded with its reason, never dropped in silence.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import TypeVar

import numpy as np

from gimp_fast.data.cohort import Rows
from gimp_fast.data.expression import (
    Expression,
    ExpressionSource,
    Sample,
    choose_samples,
    open_expression,
)
from gimp_fast.data.slides import SUFFIXES, SlideInfo, open_slide
from gimp_fast.data.tables import LabelRow, make_split, read_labels, read_split, split_files
from gimp_fast.data.writer import CohortContents, check_free, write_cohort
from gimp_fast.errors import Fault, FaultError

SCAN_BYTES = 32 << 20  # float32 bytes held at a time while features are checked
SYNTHETIC_ENCODER = "synthetic"
T = TypeVar("T")


@dataclass(frozen=True)
class PrepareOptions:
    """What to join; see ``python -m gimp_fast.prepare --help``."""

    slides: tuple[Path, ...]
    rna: Path
    labels: Path
    out: Path
    sample_sheet: Path | None = None
    splits: tuple[Path, ...] = ()
    rna_column: str = "fpkm_unstranded"
    transform: str | None = None
    allow_missing_modality: bool = False
    name: str | None = None
    synthetic: bool = False
    seed: int = 0
    progress: bool = False


@dataclass
class Findings:
    """Faults, and what is left out on purpose."""

    faults: list[Fault] = field(default_factory=list)
    dropped: Rows = field(default_factory=list)

    def add(self, kind: str, where: str | Path, found: str, expected: str) -> None:
        self.faults.append(Fault(kind, str(where), found, expected))

    def drop(self, item: str, id: str, case_id: str, reason: str, source: str | Path) -> None:
        row = {"item": item, "id": id, "case_id": case_id, "reason": reason, "source": str(source)}
        self.dropped.append(row)

    def attempt(self, action: Callable[[], T], default: T) -> T:
        """The action's result; its faults are noted and ``default`` stands in for it."""
        try:
            return action()
        except FaultError as error:
            self.faults += error.faults
            return default


def prepare(options: PrepareOptions) -> CohortContents:
    """Check everything, then write the cohort folder.

    Returns:
        What was written.

    Raises:
        FaultError: all faults found; nothing has been written.
        GimpError: the folder could not be written.
    """
    contents = assemble(options)
    write_cohort(options.out, contents)
    return contents


def assemble(options: PrepareOptions) -> CohortContents:
    """Check and join without writing; FaultError with every fault."""
    findings = Findings()
    findings.attempt(lambda: check_free(options.out), None)
    labels = _labelled(options, findings)
    source = findings.attempt(
        lambda: open_expression(options.rna, options.sample_sheet, options.rna_column), None
    )
    files = _slide_files(options, findings)
    wanted = _match_slides(labels, files, options, findings)
    infos = _check_slides(wanted or files, findings, options.progress)
    samples = _match_samples(labels, source, options, findings)
    expression = _read_expression(source, samples, options, findings)
    splits = _splits(labels, options, findings)
    _check_classes(labels, options, findings)
    if findings.faults:
        raise FaultError(findings.faults, "the cohort")
    return _join(options, labels, infos, samples, expression, splits, findings.dropped)


def _labelled(options: PrepareOptions, findings: Findings) -> list[LabelRow]:
    """Rows of patients with a label; the others are recorded."""
    rows, faults = findings.attempt(lambda: read_labels(options.labels), ([], []))
    findings.faults += faults
    for row in rows:
        if not row.label:
            item = "slide" if row.slide_id else "patient"
            findings.drop(item, row.slide_id or row.case_id, row.case_id, "no label", row.where)
    return [row for row in rows if row.label]


def _slide_files(options: PrepareOptions, findings: Findings) -> dict[str, Path]:
    """slide_id -> feature file."""
    files: dict[str, Path] = {}
    for folder in options.slides:
        found = sorted(f for f in folder.glob("*") if f.suffix in SUFFIXES)
        if not found:
            what = "no .h5 or .pt file directly inside" if folder.is_dir() else "no such folder"
            findings.add("missing-file", folder, what, "a folder of feature files")
        for file in found:
            if file.stem in files:
                other = f"a second file of slide '{file.stem}' ({files[file.stem]})"
                findings.add("duplicate-slide", file, other, "one feature file a slide")
            files.setdefault(file.stem, file)
    return files


def _match_slides(
    labels: list[LabelRow], files: dict[str, Path], options: PrepareOptions, findings: Findings
) -> dict[str, Path]:
    """slide_id -> file of the labelled slides."""
    wanted: dict[str, Path] = {}
    for row in labels:
        if row.slide_id in files:
            wanted[row.slide_id] = files[row.slide_id]
        elif row.slide_id:
            found = f"no feature file of slide '{row.slide_id}'"
            folders = ", ".join(map(str, options.slides))
            findings.add("missing-slide-file", row.where, found, f"a .h5 or .pt in {folders}")
        elif not options.allow_missing_modality:
            found = f"patient '{row.case_id}' without a slide_id"
            findings.add("missing-slide", row.where, found, "a slide; --allow-missing-modality")
    if labels:
        for slide_id in sorted(files.keys() - wanted.keys()):
            findings.drop("slide", slide_id, "", "not labelled", files[slide_id])
    return wanted


def _check_slides(
    files: dict[str, Path], findings: Findings, progress: bool
) -> dict[str, SlideInfo]:
    """Read every feature once; note unreadable, empty, non-finite and odd-width files."""
    from tqdm import tqdm

    infos: dict[str, SlideInfo] = {}
    bar = tqdm(files.items(), "checking slides", unit="slide", disable=not progress)
    for slide_id, path in bar:
        info = findings.attempt(lambda path=path: _scan(path, findings), None)
        if info is not None:
            infos[slide_id] = info
    _check_agreement(infos, findings)
    return infos


def _scan(path: Path, findings: Findings) -> SlideInfo:
    with open_slide(path) as slide:
        info = slide.info
        where = f"{path}[{info.dataset}]" if info.dataset else str(path)
        if info.num_patches == 0:
            findings.add("empty-bag", where, "0 patches", "one patch or more")
            return info
        step = max(1, SCAN_BYTES // (4 * info.feature_dim))
        bad, first = 0, -1
        for start in range(0, info.num_patches, step):
            rows = slide.read(start, min(start + step, info.num_patches))
            faulty = np.flatnonzero(~np.isfinite(rows).all(axis=1))
            if len(faulty) and not bad:
                first = start + int(faulty[0])
            bad += len(faulty)
        if bad:
            found = f"NaN or infinity in {bad} of {info.num_patches} rows, first in row {first}"
            findings.add("features-not-finite", where, found, "finite features")
        return info


def _check_agreement(infos: dict[str, SlideInfo], findings: Findings) -> None:
    """One width and one encoder for all: features of two networks cannot be mixed."""
    known = [info for info in infos.values() if info.num_patches]
    if not known:
        return
    width = Counter(info.feature_dim for info in known).most_common(1)[0][0]
    for info in known:
        if info.feature_dim != width:
            found = f"{info.feature_dim} channels"
            findings.add("feature-width", info.path, found, f"{width} as in most slides")
    encoders = Counter(info.encoder for info in known if info.encoder)
    main = encoders.most_common(1)[0][0] if encoders else None
    for info in known:
        if info.encoder and info.encoder != main:
            found = f"encoder '{info.encoder}'"
            findings.add("mixed-encoders", info.path, found, f"'{main}' as in most slides")


def _match_samples(
    labels: list[LabelRow],
    source: ExpressionSource | None,
    options: PrepareOptions,
    findings: Findings,
) -> dict[str, Sample]:
    """case_id -> sample of the labelled patients, in the order of case ids."""
    if source is None:
        return {}
    chosen, dropped = choose_samples(source.samples)
    for sample, reason in dropped:
        findings.drop("rna-sample", sample.barcode, sample.case_id, reason, sample.path)
    if not labels:
        return chosen  # the labels are at fault; the expression can be checked all the same
    first_row = {row.case_id: row for row in reversed(labels)}
    for case in sorted(chosen.keys() - first_row.keys()):
        sample = chosen[case]
        findings.drop("rna-sample", sample.barcode, case, "patient not labelled", sample.path)
    for case, row in sorted(first_row.items()):
        if case in chosen:
            continue
        if not row.slide_id:
            found = f"patient '{case}' with neither slide nor RNA"
            findings.add("missing-rna", row.where, found, "at least one of them")
        elif not options.allow_missing_modality:
            found = f"slide '{row.slide_id}' of patient '{case}' without RNA"
            expected = f"a tumour sample in {source.path}; or --allow-missing-modality"
            findings.add("missing-rna", row.where, found, expected)
    return {case: chosen[case] for case in sorted(first_row.keys() & chosen.keys())}


def _read_expression(
    source: ExpressionSource | None,
    samples: dict[str, Sample],
    options: PrepareOptions,
    findings: Findings,
) -> Expression:
    nothing = Expression(np.empty((0, 0), np.float32), [], options.transform or "as given")
    if source is None or not samples:
        return nothing
    return findings.attempt(lambda: source.read(samples.values(), options.transform), nothing)


def _splits(labels: list[LabelRow], options: PrepareOptions, findings: Findings) -> dict[str, Rows]:
    """Split name -> rows of case_id, split, in the order of case ids."""
    label_of = {row.case_id: row.label for row in labels}
    if not labels:
        return {}
    if not options.splits:
        parts = findings.attempt(lambda: make_split(label_of, options.seed), {})
        return {"split_0": _split_rows(parts)}
    # Patients dropped for want of a label may be named by a split.
    unlabelled = {row["case_id"] for row in findings.dropped if row["reason"] == "no label"}
    case_of_slide = {row.slide_id: row.case_id for row in labels if row.slide_id}
    for row in findings.dropped:
        if row["reason"] == "no label" and row["item"] == "slide":
            case_of_slide[row["id"]] = row["case_id"]
    known = set(label_of) | unlabelled
    splits = {}
    for file in findings.attempt(lambda: split_files(options.splits), []):
        parts = findings.attempt(
            lambda file=file: read_split(file, case_of_slide, known), dict[str, str]()
        )
        for case in sorted(parts.keys() - label_of.keys()):
            findings.drop("split-entry", case, case, "no label", file)
        if parts:
            for case in sorted(label_of.keys() - parts.keys()):
                findings.drop("split-entry", case, case, "in no part of this split", file)
        splits[file.stem] = _split_rows({c: p for c, p in parts.items() if c in label_of})
    return splits


def _split_rows(parts: dict[str, str]) -> Rows:
    return [{"case_id": case, "split": part} for case, part in sorted(parts.items())]


def _check_classes(labels: list[LabelRow], options: PrepareOptions, findings: Findings) -> None:
    classes = {row.label for row in labels}
    if len(classes) == 1:
        found = f"only the class '{classes.pop()}'"
        findings.add("one-class", options.labels, found, "two classes or more")


def _join(
    options: PrepareOptions,
    labels: list[LabelRow],
    infos: dict[str, SlideInfo],
    samples: dict[str, Sample],
    expression: Expression,
    splits: dict[str, Rows],
    dropped: Rows,
) -> CohortContents:
    encoder = next((info.encoder for info in infos.values() if info.encoder), None)
    slides = [
        _slide_row(row, infos[row.slide_id])
        for row in sorted(labels, key=lambda row: (row.case_id, row.slide_id))
        if row.slide_id
    ]
    provenance = {
        "source": str(options.rna),
        "column": None if options.rna.is_file() else options.rna_column,
        "transform": expression.transform,
        "samples": {case: sample.barcode for case, sample in samples.items()},
    }
    return CohortContents(
        name=options.name or options.out.resolve().name,
        synthetic=options.synthetic or encoder == SYNTHETIC_ENCODER,
        classes=tuple(sorted({row.label for row in labels})),
        feature_dim=next((info.feature_dim for info in infos.values()), 0),
        encoder=encoder,
        expression_info=provenance,
        patients=_patient_rows(labels, slides, samples),
        slides=slides,
        genes=expression.genes,
        dropped=dropped,
        splits=splits,
        expression=expression.values,
    )


def _patient_rows(labels: list[LabelRow], slides: Rows, samples: Iterable[str]) -> Rows:
    label_of = {row.case_id: row.label for row in labels}
    lengths: dict[str, list[int]] = {case: [] for case in label_of}
    for row in slides:
        lengths[row["case_id"]].append(int(row["num_patches"]))
    return [
        {
            "case_id": case,
            "label": label_of[case],
            "has_rna": str(int(case in samples)),
            "num_slides": str(len(lengths[case])),
            "num_patches": str(sum(lengths[case])),
        }
        for case in sorted(label_of)
    ]


def _slide_row(row: LabelRow, info: SlideInfo) -> dict[str, str]:
    return {
        "case_id": row.case_id,
        "slide_id": row.slide_id,
        "path": str(info.path),
        "format": info.format,
        "dataset": info.dataset,
        "num_patches": str(info.num_patches),
        "dtype": info.dtype,
        "has_coords": str(int(info.has_coords)),
        "encoder": info.encoder or "",
        "mpp": f"{info.mpp:g}" if info.mpp else "",
        "patch_size": str(info.patch_size or ""),
    }
