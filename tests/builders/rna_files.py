"""Expression files in the layouts of GDC and of plain tables."""

from __future__ import annotations

import gzip
import warnings
from collections.abc import Sequence
from pathlib import Path

import pandas as pd

SHEET = "File ID\tFile Name\tData Type\tCase ID\tSample ID\tSample Type"
STAR_HEADER = (
    "gene_id\tgene_name\tgene_type\tunstranded\tstranded_first\tstranded_second"
    "\ttpm_unstranded\tfpkm_unstranded\tfpkm_uq_unstranded"
)


def write_text(file: Path, text: str) -> Path:
    """Write text, compressed if the name ends in ``.gz``."""
    file.parent.mkdir(parents=True, exist_ok=True)
    data = text.encode()
    file.write_bytes(gzip.compress(data, mtime=0) if file.suffix == ".gz" else data)
    return file


def table(corner: str, rows, columns, values, delimiter: str = ",") -> str:
    """Text of a table with a name for each row and column."""
    lines = [delimiter.join([corner, *columns])]
    for name, cells in zip(rows, values, strict=True):
        lines.append(delimiter.join([name, *(f"{cell:g}" for cell in cells)]))
    return "\n".join(lines) + "\n"


def star(genes: Sequence[str], fpkm: Sequence[float]) -> str:
    """Text of a STAR file: TPM is twice the FPKM, FPKM-UQ three times, counts are 7."""
    lines = ["# gene-model: GENCODE v36", STAR_HEADER, "N_unmapped\t\t\t9\t9\t9\t\t\t"]
    for gene, value in zip(genes, fpkm, strict=True):
        cells = (float(value) * 2, float(value), float(value) * 3)
        values = "\t".join(map(str, cells))
        lines.append(f"{gene}\tNAME\tprotein_coding\t7\t3\t4\t{values}")
    return "\n".join(lines) + "\n"


def gdc_folder(
    folder: Path, genes: Sequence[str], samples: dict[str, list[float]], end: str = ".tsv"
) -> Path:
    """One STAR file per sample id, in uuid folders, with a sheet that also lists a slide image."""
    rows = [SHEET, "u\tslide.svs\tSlide Image\tTCGA-00-0001\tTCGA-00-0001-01Z\tPrimary Tumor"]
    for number, (sample, fpkm) in enumerate(samples.items()):
        name = f"f{number}.rna_seq.augmented_star_gene_counts{end}"
        write_text(folder / f"u{number}" / name, star(genes, fpkm))
        rows.append(f"u{number}\t{name}\tGene Expression\t{sample[:12]}\t{sample}\tPrimary Tumor")
    write_text(folder / "gdc_sample_sheet.tsv", "\n".join(rows) + "\n")
    return folder


def write_h5ad(
    file: Path, x, obs_names: Sequence[str], var_names: Sequence[str], **options
) -> Path:
    """An AnnData file; ``options`` are columns ``obs`` and ``var``, ``layers``, ``compression``."""
    import anndata

    compression = options.pop("compression", None)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        # anndata 0.12 cannot write the strings of pandas 3
        with pd.option_context("future.infer_string", False):
            obs = pd.DataFrame(options.pop("obs", None) or {}, list(obs_names))
            var = pd.DataFrame(options.pop("var", None) or {}, list(var_names))
            anndata.AnnData(x, obs, var, **options).write_h5ad(file, compression=compression)
    return file
