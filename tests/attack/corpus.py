"""One small file of every kind that a command reads, and cohorts and runs made of them."""

from __future__ import annotations

import csv
import io
import json
import shutil
from collections.abc import Callable
from pathlib import Path

import h5py
import numpy as np
import torch
from builders.rna_files import gdc_folder, table, write_h5ad, write_text
from builders.runs import QUICK, SMALL
from builders.synthetic_slide import write_synthetic_slide

SITES = ("AA", "BB", "CC")
CASES = tuple(f"TCGA-{SITES[n % 3]}-{n:04d}" for n in range(12))
SLIDES = tuple(f"{case}-01Z-00-DX1" for case in CASES)
SAMPLES = tuple(f"{case}-01A" for case in CASES)
LABELS = tuple("XY"[n % 2] for n in range(12))
PARTS = ("train",) * 6 + ("val",) * 3 + ("test",) * 3
GENES = tuple(f"ENSG{n:011d}.{n % 7}" for n in range(20))
SYMBOLS = tuple(f"GENE{n}" for n in range(20))
PATCHES, CHANNELS = 20, 16
SIZES = {"dim": 8, "num_landmarks": 4, "gene_fragments": 4, "gene_groups": 2}
TRAINING = [
    *QUICK, *(f"model.{name}={value}" for name, value in (SMALL | SIZES).items() if name in (
        "dim", "heads", "num_landmarks", "gene_fragments", "gene_groups", "head_hidden")),
    "genes.batch_size=4", "pretrain.batch_size=4", "finetune.batch_size=4", "device=cpu",
]  # fmt: skip
SLIDE_WORDS = ("--slides", "{in}/images", "--workers", "1", "--min-part", "0.01")
SETTINGS = tuple(word for setting in TRAINING for word in ("--set", setting))


def features(slide: int) -> np.ndarray:
    """(N, C) float32 of a slide."""
    return np.random.default_rng(slide).standard_normal((PATCHES, CHANNELS)).astype(np.float32)


def coords(slide: int) -> np.ndarray:
    """(N, 2) int64: a grid of five columns."""
    place = np.arange(PATCHES)
    return np.stack([place % 5, place // 5], 1) * 256


def expression() -> np.ndarray:
    """(patients, genes), zero or more, of three decimals."""
    return np.random.default_rng(99).gamma(1.0, 2.0, (len(CASES), len(GENES))).round(3)


def write_inputs(folder: Path) -> None:
    """Everything that `prepare` and `extract` read, below ``folder``."""
    _write_features(folder)
    _write_rna(folder / "rna")
    _write_tables(folder / "tables")
    _write_images(folder / "images")
    _write_weights(folder / "weights")


def _write_features(folder: Path) -> None:
    for kind, write in WRITERS.items():
        (folder / "features" / kind).mkdir(parents=True)
        for number, slide in enumerate(SLIDES):
            write(folder / "features" / kind / slide, number)
    (folder / "mixed").mkdir()
    for number, slide in enumerate(SLIDES):  # one folder as a user may have it, for the cohorts
        list(WRITERS.values())[number % 3](folder / "mixed" / slide, number)


def _clam(file: Path, number: int) -> None:
    with h5py.File(f"{file}.h5", "w") as h5:
        h5.create_dataset("features", data=features(number), chunks=(8, CHANNELS))
        h5.create_dataset("coords", data=coords(number).astype(np.int32), chunks=(8, 2))


def _trident(file: Path, number: int) -> None:
    sides = {"patch_size": 256, "patch_size_level0": 256, "overlap": 0}
    with h5py.File(f"{file}.h5", "w") as h5:
        array = h5.create_dataset(
            "features", data=features(number), chunks=(1, CHANNELS), compression="gzip"
        )
        array.attrs.update(name=file.name, savetodir="None", encoder="uni_v1")
        h5["coords"] = coords(number)
        h5["coords"].attrs.update(level0_magnification=20, target_magnification=20, **sides)


def _stamp(file: Path, number: int) -> None:
    with h5py.File(f"{file}.h5", "w") as h5:
        h5["feats"] = features(number).astype(np.float16)
        h5["coords"] = coords(number) * 0.5
        h5.attrs.update(extractor="ctranspath", unit="um", tile_size_um=128.0, tile_size_px=256)


def _zarr_folder(file: Path, number: int) -> None:
    import zarr

    _fill(zarr.open_group(f"{file}.zarr", mode="w"), number)


def _zarr_zip(file: Path, number: int) -> None:
    import zarr

    with zarr.storage.ZipStore(f"{file}.zarr.zip", mode="w") as store:
        _fill(zarr.open_group(store, mode="w"), number)


def _zarr_shards(file: Path, number: int) -> None:
    import zarr

    group = zarr.open_group(f"{file}.zarr", mode="w")
    group.create_array(
        "features", data=features(number), chunks=(4, CHANNELS), shards=(8, CHANNELS)
    )
    group.create_array("coords", data=coords(number), chunks=(8, 2))


def _fill(group, number: int) -> None:
    group.create_array("features", data=features(number), chunks=(8, CHANNELS))
    array = group.create_array("coords", data=coords(number), chunks=(8, 2))
    array.attrs.update(patch_size=256, target_magnification=20, patch_size_level0=256)


def _pt(file: Path, number: int) -> None:
    torch.save(torch.from_numpy(features(number)), f"{file}.pt")


def _pt_facts(file: Path, number: int) -> None:
    content = {
        "features": torch.from_numpy(features(number)),
        "coords": torch.from_numpy(coords(number)),
    }
    torch.save(content, f"{file}.pt")


def _pt_old(file: Path, number: int) -> None:
    tensor = torch.from_numpy(features(number))
    torch.save(tensor, f"{file}.pt", _use_new_zipfile_serialization=False)


WRITERS: dict[str, Callable[[Path, int], None]] = {
    "clam": _clam, "trident": _trident, "stamp": _stamp, "pt": _pt, "pt-facts": _pt_facts,
    "pt-old": _pt_old, "zarr": _zarr_folder, "zarr-zip": _zarr_zip, "zarr-shards": _zarr_shards,
}  # fmt: skip


def _write_rna(folder: Path) -> None:
    values = expression()
    gdc_folder(folder / "star", GENES, dict(zip(SAMPLES, values.tolist(), strict=True)))
    _write_two_column(folder / "fpkm", values)
    write_text(folder / "xena.tsv", table("Ensembl_ID", GENES, SAMPLES, values.T, "\t"))
    write_text(folder / "xena.tsv.gz", table("Ensembl_ID", GENES, SAMPLES, values.T, "\t"))
    write_text(folder / "samples.csv", table("sample", SAMPLES, SYMBOLS, values))
    head = "\t".join(["Hugo_Symbol", "Entrez_Gene_Id", *SAMPLES])
    rows = zip(SYMBOLS, values.T, strict=True)
    lines = ["\t".join([gene, str(n + 1), *map(str, row)]) for n, (gene, row) in enumerate(rows)]
    write_text(folder / "data_mrna_seq_v2_rsem.txt", "\n".join([head, *lines]) + "\n")
    head = ",".join(["", "case_id", "slide_id", "site", *(f"{gene}_rnaseq" for gene in SYMBOLS)])
    lines = [
        ",".join([str(n), case, f"{slide}.svs", case[5:7], *map(str, row)])
        for n, (case, slide, row) in enumerate(zip(CASES, SLIDES, values, strict=True))
    ]
    write_text(folder / "mcat.csv", "\n".join([head, *lines]) + "\n")
    _write_parquet(folder / "samples.parquet", values)
    write_h5ad(folder / "cells.h5ad", values.astype(np.float32), SAMPLES, SYMBOLS)


def _write_two_column(folder: Path, values: np.ndarray) -> None:
    rows = ["File ID\tFile Name\tData Type\tCase ID\tSample ID\tSample Type"]
    for number, (case, sample) in enumerate(zip(CASES, SAMPLES, strict=True)):
        name = f"f{number}.FPKM.txt"
        text = "".join(
            f"{gene}\t{value}\n" for gene, value in zip(GENES, values[number], strict=True)
        )
        write_text(folder / f"u{number}" / name, text)
        rows.append(f"u{number}\t{name}\tGene Expression\t{case}\t{sample}\tPrimary Tumor")
    write_text(folder / "gdc_sample_sheet.tsv", "\n".join(rows) + "\n")


def _write_parquet(file: Path, values: np.ndarray) -> None:
    import pyarrow
    from pyarrow import parquet

    columns = {gene: values[:, n] for n, gene in enumerate(SYMBOLS)}
    parquet.write_table(pyarrow.table({"sample": list(SAMPLES), **columns}), file)


def _write_tables(folder: Path) -> None:
    def write(name: str, *columns: tuple[str, ...]) -> None:
        text = io.StringIO()
        csv.writer(text, lineterminator="\n").writerows(zip(*columns, strict=True))
        write_text(folder / name, text.getvalue())

    def named(name: str, values) -> tuple[str, ...]:
        return (name, *values)

    cases, slides, labels = (
        named("case_id", CASES),
        named("slide_id", SLIDES),
        named("label", LABELS),
    )
    write("labels.csv", cases, slides, labels, named("hospital", [case[5:7] for case in CASES]))
    write("cases.csv", cases, slides)
    write("clini.csv", named("PATIENT", CASES), named("isMSIH", LABELS))
    write("slides.csv", named("PATIENT", CASES), named("FILENAME", SLIDES))
    write("split.csv", cases, named("split", PARTS))
    parts = {part: [c for c, p in zip(CASES, PARTS, strict=True) if p == part] for part in PARTS}
    rest = {part: [*parts[part], *[""] * 6][:6] for part in parts}
    index = named("", map(str, range(6)))
    write("clam.csv", index, *(named(part, rest[part]) for part in rest))
    write("mcat.csv", index, named("train", rest["train"]), named("val", rest["test"]))
    label = dict(zip(CASES, LABELS, strict=True))
    with_labels = [
        named(name, values)
        for part in rest
        for name, values in (
            (part, rest[part]), (f"{part}_label", ["XY".find(label.get(c,
            "?")) if c else "" for c in rest[part]]),
        )
    ]  # fmt: skip
    write("transmil.csv", index, *(tuple(map(str, column)) for column in with_labels))
    trained = [*parts["train"], *parts["val"]]
    splits = {"splits": [{"train_patients": trained, "test_patients": parts["test"]}]}
    write_text(folder / "stamp" / "splits.json", json.dumps(splits))
    write_text(folder / "genes.txt", "# kept genes\n" + "\n".join(SYMBOLS[:12]) + "\n")
    write("genes.csv", named("gene_id", GENES[:12]))
    sets = {"SET_A": SYMBOLS[:5], "SET_B": SYMBOLS[4:12]}
    lines = ["\t".join([name, "http://example.org", *genes]) for name, genes in sets.items()]
    write_text(folder / "sets.gmt", "\n".join(lines) + "\n")
    write("sets.csv", named("A", SYMBOLS[:5]), named("B", SYMBOLS[5:10]))
    write_text(folder / "ids.txt", "\n".join(CASES[:3]) + "\n")
    text = "finetune:\n  epochs: 1\n  lr: 0.001\nthreads: 1\nbootstrap: 20\n"
    write_text(folder / "config.yaml", text)


def _write_images(folder: Path) -> None:
    from PIL import Image

    folder.mkdir()
    for name, settings in {"plain": {"mpp": 0.5}, "striped": {"mpp": 0.5, "tile": None}}.items():
        write_synthetic_slide(
            folder / f"{name}.tif", (1024, 1024), [(256, 256, 768, 768)], downsamples=(1, 4),
            **{"tile": 256} | settings,
        )  # fmt: skip
    _write_svs(folder / "aperio.svs")
    write_text(folder / "mpp.csv", "slide_id,mpp\naperio,0.5\n")
    pictures = folder.parent / "pictures"
    pictures.mkdir()
    pixels = np.random.default_rng(0).integers(0, 255, (320, 320, 3), np.uint8)
    for number, slide in enumerate(SLIDES[-3:]):
        Image.fromarray(pixels).resize((1280, 1280)).save(
            pictures / f"{slide}.{'png' if number else 'jpg'}"
        )


def _write_svs(file: Path) -> None:
    """A slide as of Aperio's scanner: its description names magnification and resolution."""
    import tifffile

    rng = np.random.default_rng(1)
    pixels = np.full((1024, 1024, 3), 243, np.uint8)
    noise = rng.integers(-12, 12, (512, 512, 3))
    pixels[256:768, 256:768] = np.array((190, 105, 160)) + noise
    description = (
        "Aperio Image Library v12.0.15 \n1024x1024 [0,0 1024x1024] (256x256)|AppMag = 20|MPP = 0.5"
    )
    with tifffile.TiffWriter(file) as out:
        for level in (pixels, pixels[::4, ::4]):
            out.write(
                np.ascontiguousarray(level), photometric="rgb", tile=(256, 256),
                compression="deflate", description=description, metadata=None,
            )  # fmt: skip


def _write_weights(folder: Path) -> None:
    folder.mkdir()
    state = {"conv1.weight": torch.zeros(64, 3, 7, 7), "bn1.weight": torch.ones(64)}
    torch.save(state, folder / "resnet50-00000000.pth")


def copy_with_facts(source: Path, target: Path) -> None:
    """Copy a file or folder with its times."""
    if source.is_dir():
        shutil.copytree(source, target, symlinks=True)
    else:
        shutil.copy2(source, target)
