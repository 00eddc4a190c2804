"""Inputs of `prepare` that a test may damage."""

from __future__ import annotations

from pathlib import Path

import h5py
import numpy as np

CASES = [f"TCGA-{site}-{n:04d}" for n, site in enumerate(["AA", "BB", "CC", "DD", "EE", "FF"] * 5)]
GENES = ("ENSG00000000001.5", "ENSG00000000002.1_PAR_Y", "ENSG00000000003.2", "ENSG00000000004.9")


class Inputs:
    """A small cohort with coordinates, in TCGA's names: five patients of each of six hospitals."""

    def __init__(self, folder: Path):
        self.folder, self.slides = folder, folder / "slides"
        self.rna, self.labels, self.out = folder / "rna.tsv", folder / "labels.csv", folder / "out"
        self.slides.mkdir(parents=True)
        rng, labels = np.random.default_rng(0), ["case_id,slide_id,label,hospital"]
        for n, case in enumerate(CASES):
            with h5py.File(self.slides / f"{case}-01Z.h5", "w") as h5:
                rows = 5 + n
                h5["features"] = rng.standard_normal((rows, 4)).astype(np.float32)
                h5["coords"] = rng.permutation(rows * 2).reshape(rows, 2) * 256
            labels.append(f"{case},{case}-01Z,{'XY'[n % 2]},{case[5:7]}")
        self.labels.write_text("\n".join(labels) + "\n", encoding="utf-8")
        self.matrix = rng.standard_normal((len(GENES), len(CASES))).round(3)
        self.write_rna(self.rna, CASES, GENES, self.matrix)

    @staticmethod
    def write_rna(file: Path, cases: list[str], genes: tuple[str, ...], values) -> None:
        lines = ["\t".join(["Ensembl_ID", *(f"{case}-01A" for case in cases)])]
        lines += ["\t".join([g, *map(str, row)]) for g, row in zip(genes, values, strict=True)]
        file.write_text("\n".join(lines) + "\n", encoding="utf-8")

    def argv(self, *extra: str | Path, out: Path | None = None) -> list[str]:
        argv = ["--slides", self.slides, "--rna", self.rna, "--labels", self.labels]
        return list(map(str, [*argv, "--out", out or self.out, *extra]))


class Raw:
    """A copy of the raw files that a test may damage."""

    def __init__(self, folder: Path):
        self.folder, self.out = folder, folder.parent / "cohort"
        self.labels, self.split = folder / "labels.csv", folder / "splits" / "split_0.csv"

    def argv(self, *extra: str) -> list[str]:
        slides = [str(folder) for folder in sorted((self.folder / "slides").iterdir())]
        paths = {"--rna": "rna", "--labels": "labels.csv", "--splits": "splits"}
        argv = ["--slides", *slides, "--out", str(self.out)]
        for name, path in paths.items():
            argv += [name, str(self.folder / path)]
        return [*argv, *extra]

    def slide(self, kind: str, index: int = 0) -> Path:
        return sorted((self.folder / "slides" / kind).iterdir())[index]

    def rna_of(self, case: str) -> Path:
        """The primary tumour's file."""
        sheet = (self.folder / "rna" / "gdc_sample_sheet.tsv").read_text(encoding="utf-8")
        row = next(line for line in sheet.splitlines() if f"{case}-01A" in line).split("\t")
        return self.folder / "rna" / row[0] / row[1]

    def edit(self, file: Path, old: str, new: str, count: int = -1) -> None:
        text = file.read_text(encoding="utf-8")
        assert old in text
        file.write_text(text.replace(old, new, count), encoding="utf-8")

    def forget_rna(self, case: str) -> None:
        sheet = self.folder / "rna" / "gdc_sample_sheet.tsv"
        lines = sheet.read_text(encoding="utf-8").splitlines(keepends=True)
        sheet.write_text("".join(line for line in lines if case not in line), encoding="utf-8")
