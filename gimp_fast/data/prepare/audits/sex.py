"""Sex by genes against sex by the clinical table: where they differ, samples may be swapped."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path

import numpy as np

from gimp_fast.data.prepare.audits.profiles import Audited, logarithms
from gimp_fast.data.rna.gene_lists import gene_key
from gimp_fast.data.rna.values import Expression
from gimp_fast.data.tables.clinical import open_clinical, read_columns
from gimp_fast.errors import Faults

FEMALE, MALE = "female", "male"
# Of women, whose second X chromosome it silences; then of the Y chromosome.
_XIST = {"XIST": "ENSG00000229807"}
_OF_Y = {
    "RPS4Y1": "ENSG00000129824", "DDX3Y": "ENSG00000067048", "KDM5D": "ENSG00000012817",
    "UTY": "ENSG00000183878", "EIF1AY": "ENSG00000198692", "USP9Y": "ENSG00000114374",
    "ZFY": "ENSG00000067646",
}  # fmt: skip
SEX_GENES = _XIST | _OF_Y
# The last part of the name, in lower case: GDC has cases.demographic.gender or gender.demographic.
_COLUMNS = ("sex", "gender", "gender.demographic", "sex_at_birth")
_WORDS = {"f": FEMALE, "female": FEMALE, "woman": FEMALE, "m": MALE, "male": MALE, "man": MALE}
_FEWEST = 5  # patients of each sex
_TOLD = 0.8  # share of either sex that a gene must tell: a tumour can lose its Y, or silence XIST
_SHOWN = 5


def sex_genes_of(expression: Expression) -> dict[str, np.ndarray]:
    """Symbol -> (n,) values of the genes that expression has, by symbol or Ensembl id; copies."""
    symbol_of = {id: symbol for symbol, id in SEX_GENES.items()} | {s: s for s in SEX_GENES}
    found = {}
    for column, row in enumerate(expression.genes):
        symbol = symbol_of.get(gene_key(row["gene_id"])) or symbol_of.get(row["gene_name"])
        if symbol:
            found.setdefault(symbol, expression.values[:, column].copy())
    return found


def sexes_of(table: Path | None) -> dict[str, str]:
    """case id -> sex, from the first column of a clinical table that has it; else empty.

    A patient whose rows disagree, and a word that is no sex, are left out: nobody asked for the
    column, so they are no faults.
    """
    faults, found = Faults(), {}
    if table is None or not table.is_file():
        return {}
    with faults.collect():
        opened = open_clinical(table)
        named = [name for name in opened.header if _is_sex(name)]
        cells = read_columns(opened, named[:1], faults).columns if named else {}
        for cell in (cell for column in cells.values() for cell in column.names()):
            if sex := _WORDS.get(cell.text.lower()):
                found.setdefault(cell.case_id, set()).add(sex)
    return {case: next(iter(words)) for case, words in found.items() if len(words) == 1}


def _is_sex(column: str) -> bool:
    return column.lower() in _COLUMNS or column.lower().rpartition(".")[2] in _COLUMNS


def sex_cautions(audited: Audited) -> Iterator[str]:
    """A sentence on the patients whose sex genes contradict their sex.

    A gene that is absent proves little: tumours lose the Y chromosome and silence XIST. So a woman
    must express the Y chromosome as men do, and no XIST, and a man the reverse.
    """
    sexes = np.array([audited.sexes.get(case, "") for case in audited.cases])
    women, men = sexes == FEMALE, sexes == MALE
    if min(women.sum(), men.sum()) < _FEWEST:
        return
    has_xist, xist_tells = _expressed(audited.sex_genes, _XIST, women, men)
    has_y, y_tells = _expressed(audited.sex_genes, _OF_Y, men, women)
    if not (xist_tells or y_tells):
        return
    odd = (women & has_y & ~has_xist) | (men & has_xist & ~has_y)
    if not odd.any():
        return
    rows = np.flatnonzero(odd)
    named = [f"{audited.cases[row]} ({sexes[row]})" for row in rows[:_SHOWN]]
    more = f", and {len(rows) - _SHOWN} more" if len(rows) > _SHOWN else ""
    read = ", ".join(gene for gene in SEX_GENES if gene in audited.sex_genes)
    yield (
        f"sex genes ({read}) contradict the clinical table for {len(rows)} of "
        f"{int(women.sum() + men.sum())} patients: {', '.join(named)}{more}. Their samples, or "
        "rows of the table, may be swapped: check them, or leave these patients out"
    )


def _expressed(
    values: Mapping[str, np.ndarray], genes: Mapping[str, str], here: np.ndarray, there: np.ndarray
) -> tuple[np.ndarray, bool]:
    """Who expresses genes of one sex, (n,) bool, and whether they tell the sexes apart.

    The cut lies midway between the medians of those who should, ``here``, and the others.
    """
    found = [logarithms(values[gene].astype(np.float64)) for gene in genes if gene in values]
    nobody = np.zeros(len(here), bool)
    if not found:
        return nobody, False
    scale = [np.nanstd(gene) or 1.0 for gene in found]
    level = np.mean([gene / by for gene, by in zip(found, scale, strict=True)], axis=0)
    cut = (np.nanmedian(level[here]) + np.nanmedian(level[there])) / 2
    expressed = level > cut
    told = min(expressed[here].mean(), (~expressed[there]).mean())
    return (expressed, True) if told >= _TOLD else (nobody, False)
