"""Collects what the audits of expression need from the joined inputs of ``prepare``."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from gimp_fast.data.prepare.audits.profiles import Audited
from gimp_fast.data.prepare.audits.sex import sexes_of
from gimp_fast.data.prepare.join_rna import JoinedRna
from gimp_fast.data.prepare.join_splits import JoinedSplits
from gimp_fast.data.prepare.join_targets import JoinedTargets
from gimp_fast.data.prepare.options import PrepareOptions
from gimp_fast.data.rna.samples import Sample
from gimp_fast.data.tables.labels import LabelRow


def audited_of(
    options: PrepareOptions,
    rows: Sequence[LabelRow],
    rna: JoinedRna,
    splits: JoinedSplits,
    targets: JoinedTargets,
) -> Audited:
    """The patients with RNA, as the audits read them."""
    groups = {"class": {row.case_id: row.label for row in rows if row.label}}
    for target in targets.targets:
        if target.kind == "class":
            names = {case: target.classes[int(place)] for case, place in target.values.items()}
            groups[f"class of target '{target.name}'"] = names
    for name, parts in splits.rows.items():
        groups[f"part of split '{name}'"] = {row["case_id"]: row["split"] for row in parts}
    table = options.clinical or options.labels or options.cases
    return Audited(
        cases=tuple(rna.samples),
        values=rna.expression.values,
        groups=groups,
        sources=dict(_sources(rna.samples, options.rna.paths)),
        sites=splits.sites,
        sex_genes=rna.sex_genes,
        sexes=sexes_of(table) if rna.sex_genes else {},
    )


def _sources(samples: Mapping[str, Sample], paths: Sequence[Path]) -> Iterator[tuple[str, str]]:
    """(case id, the file or folder given by --rna that has the sample), if there are several."""
    for case, sample in samples.items() if len(paths) > 1 else ():
        for path in paths:
            if sample.path == path or path in sample.path.parents:
                yield case, str(path)
                break
