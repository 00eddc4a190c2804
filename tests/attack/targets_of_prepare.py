"""What `prepare` reads, as targets: features, expression, labels, splits, lists of genes."""

from __future__ import annotations

from collections.abc import Iterator

from attack.corpus import SLIDES
from attack.target import FAST, Target


def prepare(
    *extra: str, slides: str = "features/clam", rna: str = "rna/xena.tsv"
) -> tuple[str, ...]:
    argv = ("prepare", "--slides", f"{{in}}/{slides}")
    argv += ("--rna", f"{{in}}/{rna}") if rna else ("--allow-missing-modality",)
    labels = (
        ()
        if {"--labels", "--no-labels", "--cases"} & {*extra}
        else ("--labels", "{in}/tables/labels.csv")
    )
    return (*argv, *labels, "--out", "{out}/cohort", *extra)


def features() -> Iterator[Target]:
    kinds = {
        "clam": "h5", "trident": "h5", "stamp": "h5", "pt": "pt", "pt-facts": "pt",
        "pt-old": "pt", "zarr": "zarr", "zarr-zip": "zip", "zarr-shards": "zarr",
    }  # fmt: skip
    for name, kind in kinds.items():
        files = (f"features/{name}/{SLIDES[0]}*",)
        if kind == "zarr":
            files = (f"features/{name}/{SLIDES[0]}.zarr/**/*",)
        weight = 2.0 if kind in ("h5", "pt") else 1.5
        argv = prepare("--pack", "fp32", slides=f"features/{name}", rna="")
        yield Target(f"prepare/features-{name}", argv, files, kind, weight=weight)
    check = (*prepare(slides="features/trident", rna=""), "--order", "hilbert")
    yield Target(
        "prepare/features-in-hilbert-order", check, (f"features/trident/{SLIDES[0]}*",), "h5"
    )
    check = (*prepare(slides="features/pt-facts"), "--check", "--report", "{out}/report.json")
    yield Target("prepare/features-checked", check, (f"features/pt-facts/{SLIDES[0]}*",), "pt")


def expression() -> Iterator[Target]:
    kinds = {
        "xena.tsv": "tsv", "xena.tsv.gz": "gz", "samples.csv": "csv", "mcat.csv": "csv",
        "data_mrna_seq_v2_rsem.txt": "tsv", "samples.parquet": "parquet", "cells.h5ad": "h5",
    }  # fmt: skip
    for name, kind in kinds.items():
        argv = (*prepare(rna=f"rna/{name}"), "--check")
        yield Target(f"prepare/rna-{name}", argv, (f"rna/{name}",), kind, weight=1.5)
    for folder in ("star", "fpkm"):
        argv = (*prepare(rna=f"rna/{folder}"), "--check")
        yield Target(f"prepare/rna-{folder}", argv, (f"rna/{folder}/u0/*",), "tsv", weight=1.5)
        sheet = (f"rna/{folder}/gdc_sample_sheet.tsv",)
        yield Target(f"prepare/sheet-{folder}", argv, sheet, "tsv")
    argv = prepare("--no-labels")
    yield Target("prepare/rna-without-labels", argv, ("rna/xena.tsv",), "tsv")


def tables() -> Iterator[Target]:
    def table(
        name: str, *extra: str, kind: str = "csv", rna: str = "rna/samples.csv", write: bool = False
    ) -> Target:
        file = f"tables/{name}"
        argv = prepare(*(word.replace("FILE", f"{{in}}/{file}") for word in extra), rna=rna)
        return Target(f"prepare/{name}", argv if write else (*argv, "--check"), (file,), kind)

    yield table("labels.csv", "--labels", "FILE", write=True)
    yield table("cases.csv", "--cases", "FILE")
    stamp = ("--label-column", "isMSIH")
    yield table("clini.csv", "--labels", "FILE", "--slide-table", "{in}/tables/slides.csv", *stamp)
    yield table("slides.csv", "--labels", "{in}/tables/clini.csv", "--slide-table", "FILE", *stamp)
    for name in ("split.csv", "clam.csv", "mcat.csv", "transmil.csv"):
        yield table(name, "--splits", "FILE", write=True)
    yield table("stamp/splits.json", "--splits", "FILE", kind="json")
    yield table("genes.txt", "--genes", "FILE", kind="lines")
    yield table("genes.csv", "--genes", "FILE", rna="rna/star")
    yield table("sets.gmt", "--gene-sets", "FILE", kind="tsv", write=True)
    yield table("sets.csv", "--gene-sets", "FILE")
    ids = (
        "predict",
        "--run",
        "{in}/export",
        "--data",
        "{in}/packed",
        "--out",
        "{out}/p.csv",
        *FAST,
    )
    yield Target(
        "predict/ids", (*ids, "--cases", "{in}/tables/ids.txt"), ("tables/ids.txt",), "lines"
    )
