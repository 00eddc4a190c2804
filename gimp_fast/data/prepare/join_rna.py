"""Finds the samples of the patients, reads them, and chooses or aligns their genes."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np

from gimp_fast.data.cohort_files import Rows, dropped_row
from gimp_fast.data.prepare.choose_genes import Choice
from gimp_fast.data.prepare.gene_reference import GeneReference
from gimp_fast.data.prepare.options import PrepareOptions, RnaOptions
from gimp_fast.data.rna.expression import open_expressions
from gimp_fast.data.rna.samples import Sample, choose_samples, describe_types
from gimp_fast.data.rna.source import ExpressionSource
from gimp_fast.data.rna.values import Expression
from gimp_fast.data.tables.labels import LabelRow
from gimp_fast.errors import Faults, Read

_SHOWN = 5  # names in one line


@dataclass(frozen=True)
class JoinedRna:
    """Expression of the cohort's patients; see also ``CohortContents``.

    Attributes:
        samples: case_id -> sample, sorted by case.
        expression: their values, in that order; without rows if there is no RNA.
        facts: origin and treatment of the values, for the manifest.
        sex_genes: symbol -> values as stored, of those that the source has, kept or not.
    """

    samples: dict[str, Sample] = field(default_factory=dict)
    expression: Expression = field(default_factory=lambda: Expression(np.empty((0, 0)), []))
    gene_sets: dict[str, tuple[int, ...]] = field(default_factory=dict)
    missing_genes: tuple[str, ...] = ()
    facts: dict[str, object] = field(default_factory=lambda: {"transform": "none"})
    dropped: Rows = field(default_factory=list)
    sex_genes: dict[str, np.ndarray] = field(default_factory=dict)


def join_rna(
    options: PrepareOptions,
    labels: Sequence[LabelRow],
    read_genes: Callable[[Path], GeneReference],
    *,
    all_samples: bool = False,
) -> Read[JoinedRna]:
    """Read the expression of the patients.

    Args:
        options: as in ``join_slides``.
        labels: rows of the patients; without any, all samples are checked.
        read_genes: reads the gene list of ``options.rna.genes_of``.
        all_samples: read the samples of patients without a row, too.
    """
    rna, genes, joined, faults = options.rna, None, JoinedRna(), Faults()
    if not rna.paths:
        return Read(joined)
    if rna.genes_of:
        with faults.collect():
            genes = read_genes(rna.genes_of)
        _check_options(rna, genes, faults)
    with faults.collect():
        source = open_expressions(
            rna.paths,
            rna.sample_sheet,
            rna.column or (genes and genes.column) or "fpkm_unstranded",
            orientation=rna.orientation,
            known_cases=frozenset(row.case_id for row in labels),
            sample_types=rna.sample_types,
            layer=rna.layer,
            workers=options.workers,
            scheduler=options.scheduler,
            duplicate_genes=rna.duplicate_genes,
        )
        wanted = () if all_samples else labels
        samples, dropped = _match(options, wanted, source, faults)
        joined = JoinedRna(samples, dropped=dropped)
        if samples:
            joined = _with_genes(joined, source, rna, genes)
            other_type, found, use = _other_types(options, wanted, source)
            if other_type:
                cautions = [*joined.facts.get("cautions", []), f"{found}; use {use}"]
                joined = replace(joined, facts=joined.facts | {"cautions": cautions})
    return faults.read(joined)


def _check_options(rna: RnaOptions, reference: GeneReference | None, faults: Faults) -> None:
    """Add a fault for each option that contradicts the gene list aligned to."""
    for name in ("gene_types", "genes", "gene_sets"):
        if getattr(rna, name):
            found = f"--{name.replace('_', '-')} and --genes-of"
            expected = "only --genes-of, which lists all genes"
            faults.add("gene-options", rna.genes_of, found, expected)
    for name in ("column", "transform"):
        asked, fixed = getattr(rna, name), reference and getattr(reference, name)
        if asked and fixed and not reference.takes(name, asked):
            expected = f"'{fixed}'"
            if reference.harmonised:
                expected += ", or a unit that orders a patient's genes alike"
            faults.add("gene-options", rna.genes_of, f"{name} '{asked}' asked for", expected)


def _other_units(expression: Expression, reference: GeneReference) -> list[str]:
    """What another unit or transform than the model's is, where it makes no difference."""
    found = {"column": expression.provenance["column"], "transform": expression.transform}
    pairs = [(value, getattr(reference, name)) for name, value in found.items()]
    return [f"{value}; the model has {own}" for value, own in pairs if value and own != value]


def _match(
    options: PrepareOptions, labels: Sequence[LabelRow], source: ExpressionSource, faults: Faults
) -> tuple[dict[str, Sample], Rows]:
    """case_id -> sample of the patients, in the order of case ids; and what is left out."""
    chosen, unused = choose_samples(source.samples)
    dropped = [_dropped(sample, reason) for sample, reason in unused]
    other_type, found, expected = _other_types(options, labels, source)
    with_rna = chosen.keys() & {row.case_id for row in labels} if labels else chosen.keys()
    is_fault = labels and not options.allow_missing_modality
    if other_type and (is_fault or not with_rna):
        faults.add("sample-types", source.path, found, expected)
    if not labels:  # all samples are wanted, or the labels are at fault and the rest is checked
        return chosen, dropped
    first_row = {row.case_id: row for row in reversed(labels)}
    reason = "patient not labelled" if all(row.label for row in labels) else "patient not listed"
    dropped += [_dropped(chosen[case], reason) for case in sorted(chosen.keys() - first_row.keys())]
    places = ", ".join(map(str, options.rna.paths))
    if not other_type and not with_rna:
        found = f"none of {len(first_row)} labelled patients, such as '{next(iter(first_row))}'"
        example = f", such as '{next(iter(chosen))}'" if chosen else ""
        faults.add("no-samples", places, found, f"some of its {len(chosen)} patients{example}")
        return {}, dropped
    type_of = {sample.case_id: sample.sample_type for sample, _ in unused}
    for case, row in sorted(first_row.items()):
        without = case not in chosen and case not in other_type
        if without and row.slide_id and not options.allow_missing_modality:
            found = f"slide '{row.slide_id}' of patient '{case}' without RNA"
            if case in type_of:
                found += f" but a sample of type {type_of[case]}"
            expected = f"a tumour sample in {places}; or --allow-missing-modality"
            faults.add("missing-rna", row.where, found, expected)
    return {case: chosen[case] for case in sorted(with_rna)}, dropped


def _other_types(
    options: PrepareOptions, labels: Sequence[LabelRow], source: ExpressionSource
) -> tuple[set[str], str, str]:
    """Patients with samples only of types that were not asked for; what to say, and to ask for."""
    patients = {row.case_id for row in labels} or {sample.case_id for sample in source.samples}
    cases, types, advice = describe_types(source.samples, patients, options.rna.sample_types)
    who = f"{len(cases)} patients" if len(cases) > 1 else "1 patient"
    found = f"{who}, such as '{min(cases, default='')}', with samples only of type {types}"
    return cases, found, advice


def _dropped(sample: Sample, reason: str) -> dict[str, str]:
    return dropped_row("rna-sample", sample.barcode, sample.case_id, reason, sample.path)


def _with_genes(
    joined: JoinedRna, source: ExpressionSource, rna: RnaOptions, reference: GeneReference | None
) -> JoinedRna:
    """The samples with their expression, its genes chosen by the options or aligned."""
    choice = Choice(rna, reference)
    expression = source.read(
        joined.samples.values(),
        rna.transform or (reference and reference.transform),
        choose=choice.choose,
        missing_values=rna.missing_values,
    )
    expression, sets, missing = choice.finish(expression)
    facts = {
        **expression.provenance,
        "transform": expression.transform,
        "samples": {case: sample.barcode for case, sample in joined.samples.items()},
    }
    if reference is not None:
        facts["aligned_to"] = str(rna.genes_of)
        if reference.harmonised and (others := _other_units(expression, reference)):
            facts["harmonised"] = others
    return replace(
        joined,
        expression=expression,
        gene_sets=sets,
        missing_genes=missing,
        facts=facts,
        sex_genes=choice.sex_genes,
    )


def rna_lines(facts: Mapping[str, Any]) -> list[str]:
    """Lines of a summary about what was unusual in the sources of expression.

    Args:
        facts: of ``JoinedRna``.
    """
    lines = []
    if ignored := facts.get("ignored_columns"):
        names = ", ".join(name or "(no name)" for name in ignored[:_SHOWN])
        columns = "1 column" if len(ignored) == 1 else f"{len(ignored)} columns"
        more = ", …" if len(ignored) > _SHOWN else ""
        lines.append(f"  ignored   {columns} of the RNA table, without expression: {names}{more}")
    if renamed := facts.get("renamed_samples"):
        new, old = next(iter(renamed.items()))
        samples = "1 sample" if len(renamed) == 1 else f"{len(renamed)} samples"
        lines.append(f"  renamed   {samples} of the RNA table: '{old}' is {new}")
    if kept := facts.get("missing_values"):
        found = f"kept: {kept['values']}, genes with some: {kept['genes']}"
        lines.append(f"  missing   values {found}; training uses the mean of its patients")
    for text in facts.get("harmonised", ()):
        lines.append(f"  unit      {text}, and reads the order of genes alone: no difference")
    return lines + [f"  caution   {text}" for text in facts.get("cautions", ())]
