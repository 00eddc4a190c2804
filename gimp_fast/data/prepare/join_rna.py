"""Finds the samples of labelled patients, reads them, and chooses or aligns their genes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from gimp_fast.data.prepare.findings import Findings
from gimp_fast.data.prepare.gene_reference import GeneReference, read_gene_reference
from gimp_fast.data.rna import (
    Expression,
    ExpressionSource,
    Sample,
    align_expression,
    choose_samples,
    filter_genes,
    open_expressions,
    read_gene_list,
    read_gene_sets,
)
from gimp_fast.data.tables import LabelRow
from gimp_fast.errors import Fault


@dataclass(frozen=True)
class RnaOptions:
    """Which expression to read, and what of it; see ``python -m gimp_fast.prepare --help``.

    Attributes:
        paths: folders of GDC files, or tables.
        sample_sheet: GDC's; None looks for it in the folder.
        column: unit to read from GDC files; None for FPKM, or that of ``genes_of``.
        transform: one of ``expression.TRANSFORMS``; None for the usual one of the source.
        orientation: of tables: ``auto``, ``genes-in-rows`` or ``samples-in-rows``.
        layer: of an AnnData file.
        sample_types: TCGA's codes of the samples that count.
        gene_types: biotypes to keep; all if empty.
        genes: file with the genes to keep, in the order to keep them.
        gene_sets: file of signatures; their genes are kept.
        genes_of: cohort, run or checkpoint whose gene list, unit and transform to take over.
    """

    paths: tuple[Path, ...] = ()
    sample_sheet: Path | None = None
    column: str | None = None
    transform: str | None = None
    orientation: str = "auto"
    layer: str | None = None
    sample_types: tuple[str, ...] = ("01",)
    gene_types: tuple[str, ...] = ()
    genes: Path | None = None
    gene_sets: Path | None = None
    genes_of: Path | None = None

    @property
    def given(self) -> bool:
        return bool(self.paths)


@dataclass(frozen=True)
class JoinedRna:
    """Expression of the cohort's patients.

    Attributes:
        samples: case_id -> sample, sorted by case.
        expression: their values, in that order.
        gene_sets: signature -> columns.
        missing_genes: genes of the list it was aligned to that are not measured (NaN).
        facts: where it comes from and what was done, for the manifest.
    """

    samples: dict[str, Sample] = field(default_factory=dict)
    expression: Expression | None = None
    gene_sets: dict[str, tuple[int, ...]] = field(default_factory=dict)
    missing_genes: tuple[str, ...] = ()
    facts: dict[str, object] = field(default_factory=lambda: {"transform": "none"})


def join_rna(
    options: RnaOptions,
    labels: Sequence[LabelRow],
    findings: Findings,
    *,
    optional: bool,
    others: bool = False,
    workers: int | None = None,
) -> JoinedRna:
    """Read the expression of the patients wanted.

    Args:
        options: what to read.
        labels: rows of the patients wanted; without any, every patient is checked.
        findings: takes faults, and what is left out.
        optional: whether a patient may have no RNA.
        others: read those of whom there is no row, too.
        workers: processes that read files; None for one a core.
    """
    if not options.given:
        return JoinedRna()
    reference = None
    if options.genes_of:
        reference = findings.attempt(lambda: read_gene_reference(options.genes_of), None)
        findings.faults += _reference_faults(options, reference)
    column = options.column or (reference and reference.column) or "fpkm_unstranded"
    transform = options.transform or (reference and reference.transform)
    source = findings.attempt(
        lambda: open_expressions(
            options.paths,
            options.sample_sheet,
            column,
            orientation=options.orientation,
            known_cases=frozenset(row.case_id for row in labels),
            sample_types=options.sample_types,
            layer=options.layer,
            workers=workers,
        ),
        None,
    )
    if source is None:
        return JoinedRna()
    if others:
        labels = ()
    samples = _match_samples(labels, source, options, optional, findings)
    if not samples:
        return JoinedRna()
    read = findings.attempt(lambda: source.read(samples.values(), transform), None)
    if read is None:
        return JoinedRna(samples)
    return findings.attempt(
        lambda: _choose_genes(samples, read, options, reference, findings), JoinedRna(samples)
    )


def _reference_faults(options: RnaOptions, reference: GeneReference | None) -> list[Fault]:
    """What was asked for and would not be what the model was trained on."""
    faults = []
    for name in ("gene_types", "genes", "gene_sets"):
        if getattr(options, name):
            flag = f"--{name.replace('_', '-')}"
            expected = "the genes of --genes-of, unchosen"
            faults.append(Fault("gene-options", flag, "a choice of genes beside it", expected))
    for name in ("column", "transform"):
        asked, used = getattr(options, name), reference and getattr(reference, name)
        if asked and used and asked != used:
            where, expected = str(options.genes_of), f"{name} '{used}' as there"
            faults.append(Fault("gene-options", where, f"{name} '{asked}' asked for", expected))
    return faults


def _match_samples(
    labels: Sequence[LabelRow],
    source: ExpressionSource,
    options: RnaOptions,
    optional: bool,
    findings: Findings,
) -> dict[str, Sample]:
    """case_id -> sample of the patients wanted, in the order of case ids."""
    chosen, dropped = choose_samples(source.samples)
    for sample, reason in dropped:
        findings.drop("rna-sample", sample.barcode, sample.case_id, reason, sample.path)
    if not labels:
        return chosen  # all are wanted; or the labels are at fault, and the rest can be checked
    first_row = {row.case_id: row for row in reversed(labels)}
    reason = "patient not labelled" if all(row.label for row in labels) else "patient not listed"
    for case in sorted(chosen.keys() - first_row.keys()):
        sample = chosen[case]
        findings.drop("rna-sample", sample.barcode, case, reason, sample.path)
    if not first_row.keys() & chosen.keys():
        places = ", ".join(map(str, options.paths))
        found = f"none of {len(first_row)} labelled patients, such as '{next(iter(first_row))}'"
        ids = f", such as '{next(iter(chosen))}'" if chosen else ""
        findings.add("no-samples", places, found, f"some of its {len(chosen)} patients{ids}")
        return {}
    others = {sample.case_id: sample.sample_type for sample, _ in dropped}
    places = ", ".join(map(str, options.paths))
    for case, row in sorted(first_row.items()):
        if case not in chosen and row.slide_id and not optional:
            found = f"slide '{row.slide_id}' of patient '{case}' without RNA"
            if case in others:
                found += f" but a sample of type {others[case]}"
            expected = f"a tumour sample in {places}; or --allow-missing-modality"
            findings.add("missing-rna", row.where, found, expected)
    return {case: chosen[case] for case in sorted(first_row.keys() & chosen.keys())}


def _choose_genes(
    samples: dict[str, Sample],
    read: Expression,
    options: RnaOptions,
    reference: GeneReference | None,
    findings: Findings,
) -> JoinedRna:
    expression, sets, missing = read, {}, ()
    if reference is not None:
        aligned = align_expression(read, reference.gene_ids, reference.gene_names)
        missing = aligned.missing
        names = reference.gene_names or ("",) * len(reference.gene_ids)
        genes = [
            {"gene_id": id, "gene_name": name, "gene_type": ""}
            for id, name in zip(reference.gene_ids, names, strict=True)
        ]
        expression = replace(read, values=aligned.values, genes=genes)
        sets = reference.gene_sets
    elif options.gene_types or options.genes or options.gene_sets:
        expression, sets = filter_genes(
            read,
            gene_types=options.gene_types,
            gene_list=options.genes and read_gene_list(options.genes),
            gene_sets=options.gene_sets and read_gene_sets(options.gene_sets),
        )
    findings.dropped_genes += expression.dropped_genes
    facts = {
        **expression.provenance,
        "transform": expression.transform,
        "samples": {case: sample.barcode for case, sample in samples.items()},
    }
    if reference is not None:
        facts["aligned_to"] = str(options.genes_of)
    return JoinedRna(samples, expression, sets, missing, facts)
