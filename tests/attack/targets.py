"""What is attacked: a file that a command reads, the command, and what must not change.

In the words of a command, ``{in}`` is the folder of inputs and ``{out}`` that of results.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from attack.corpus import CASES, SETTINGS, SLIDE_WORDS, SLIDES

FAST = ("--bootstrap", "20", "--device", "cpu")


@dataclass(frozen=True)
class Target:
    """A file under attack.

    Attributes:
        name: ``command/what``.
        argv: the command and its options.
        files: patterns below the folder of inputs; a mutation takes one of the files.
        kind: format of the file, which chooses the mutations.
        same: results that may not differ from those of the undisturbed command if it succeeds,
            because a checksum protects the file.
        weight: share of the mutations.
        code: exit code of the undisturbed command.
        writes: folders of the inputs that the command may write.
    """

    name: str
    argv: tuple[str, ...]
    files: tuple[str, ...]
    kind: str
    same: tuple[str, ...] = ()
    weight: float = 1.0
    writes: tuple[str, ...] = ()
    code: int = 0

    @property
    def command(self) -> str:
        return self.argv[0]


def targets() -> list[Target]:
    return [
        *_features(), *_expression(), *_tables(), *_cohorts(), *_runs(), *_heatmaps(), *_slides(),
        *_configs(),
    ]  # fmt: skip


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


def _features() -> Iterator[Target]:
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


def _expression() -> Iterator[Target]:
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


def _tables() -> Iterator[Target]:
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


def _cohorts() -> Iterator[Target]:
    """Folders that `prepare` wrote: stored files, and those that stay where they are."""

    def predict(data: str) -> tuple[str, ...]:
        return (
            "predict",
            "--run",
            "{in}/export",
            "--data",
            f"{{in}}/{data}",
            "--out",
            "{out}/p.csv",
            *FAST,
        )

    kinds = {
        "cohort.json": "json", "patients.csv": "csv", "slides.csv": "csv", "genes.csv": "csv",
        "expression.npy": "npy", "splits/split.csv": "csv", "store.safetensors": "safetensors",
        "dropped.csv": "csv",
    }  # fmt: skip
    for name, kind in kinds.items():
        argv, same = predict("packed"), ("{out}/p.csv",)
        if name == "splits/split.csv":
            argv = (*argv, "--part", "test")
        weight = 3.0 if kind == "safetensors" else 1.0
        yield Target(f"predict/cohort-{name}", argv, (f"packed/{name}",), kind, same, weight)
        verify = ("prepare", "--verify", "{in}/packed")
        yield Target(f"prepare/verify-{name}", verify, (f"packed/{name}",), kind, weight=0.5)
    files = (f"mixed/{SLIDES[0]}*", f"mixed/{SLIDES[2]}*", f"mixed/{SLIDES[10]}*")
    yield Target("predict/unpacked-features", predict("cohort"), files, "h5", ("{out}/p.csv",), 2.0)
    verify = ("prepare", "--verify", "{in}/cohort")
    yield Target("prepare/verify-features", verify, files, "h5")
    yield Target(
        "predict/patch-order",
        predict("cohort"),
        ("cohort/patch_order.npy",),
        "npy",
        ("{out}/p.csv",),
    )
    train = ("train", "--data", "{in}/packed", "--out", "{out}/run", *SETTINGS)
    short = (*train, "--stages", "genes")
    yield Target(
        "train/store",
        train,
        ("packed/store.safetensors",),
        "safetensors",
        ("{out}/run/predictions.csv",),
        0.2,
    )
    yield Target("train/cohort", (*train, "--dry-run"), ("packed/cohort.json",), "json", weight=0.3)
    yield Target("train/expression", short, ("packed/expression.npy",), "npy", weight=0.3)
    unpacked = ("train", "--data", "{in}/cohort", "--out", "{out}/run", *SETTINGS)
    yield Target("train/features", unpacked, files, "h5", ("{out}/run/predictions.csv",), 0.2)
    plan = ("experiments", "table1", "--data", "{in}/packed", "--out", "{out}", "--dry-run")
    yield Target(
        "experiments/cohort",
        plan,
        ("packed/cohort.json", "packed/splits/split.csv"),
        "text",
        weight=0.5,
    )


def _runs() -> Iterator[Target]:
    predict = ("predict", "--data", "{in}/packed", "--out", "{out}/p.csv", *FAST, "--run")
    kinds = {
        "config.yaml": ("yaml", ()), "checkpoints/finetune.safetensors": ("safetensors",
        ("{out}/p.csv",)),
        "environment.json": ("json", ()), "metrics.json": ("json", ("{out}/p.csv",)),
        "metrics.jsonl": ("json", ("{out}/p.csv",)), "predictions.csv": ("csv", ("{out}/p.csv",)),
        "embeddings.npz": ("npz", ("{out}/p.csv",)),
    }  # fmt: skip
    for name, (kind, same) in kinds.items():
        weight = 3.0 if kind == "safetensors" else 1.0
        yield Target(
            f"predict/run-{name}", (*predict, "{in}/run"), (f"run/{name}",), kind, same, weight
        )
    kinds = {
        "model.safetensors": ("safetensors", 3.0), "config.json": ("json", 2.0),
        "genes.csv": ("csv", 1.0),
        "README.md": ("lines", 0.5), "checksums.txt": ("lines", 1.0),
    }  # fmt: skip
    for name, (kind, weight) in kinds.items():
        yield Target(
            f"predict/export-{name}",
            (*predict, "{in}/export"),
            (f"export/{name}",),
            kind,
            ("{out}/p.csv",),
            weight,
        )
    export = ("predict", "--run", "{in}/run", "--export", "{out}/model")
    files = ("run/config.yaml", "run/metrics.json", "run/environment.json", "run/predictions.csv")
    yield Target("predict/exported-run", export, files, "text")
    for source, file in (
        ("packed", "cohort.json"), ("packed", "genes.csv"), ("run",
        "checkpoints/finetune.safetensors"),
        ("export", "config.json"), ("export", "genes.csv"),
    ):  # fmt: skip
        kind = {"json": "json", "csv": "csv"}.get(file.rpartition(".")[2], "safetensors")
        argv = (
            *prepare("--no-labels", rna="rna/star"),
            "--genes-of",
            f"{{in}}/{source}",
            "--check",
        )
        yield Target(
            f"prepare/genes-of-{source}-{file}", argv, (f"{source}/{file}",), kind, weight=0.5
        )
    resume = ("train", "--data", "{in}/packed", "--out", "{in}/stopped", *SETTINGS, "--resume")
    yield Target(
        "train/checkpoint",
        resume,
        ("stopped/checkpoints/*.safetensors",),
        "safetensors",
        ("{in}/stopped/predictions.csv",),
        0.5,
        ("stopped",),
    )
    yield Target(
        "train/saved-config", (*resume, "--dry-run"), ("stopped/config.yaml",), "yaml", weight=0.3
    )


def _heatmaps() -> Iterator[Target]:
    heatmap = (
        "heatmap",
        "--run",
        "{in}/run",
        "--data",
        "{in}/packed",
        "--cases",
        CASES[9],
        "--device",
        "cpu",
    )
    drawn = (*heatmap, "--out", "{out}/maps", "--slide-images", "{in}/pictures")
    yield Target("heatmap/picture", drawn, (f"pictures/{SLIDES[9]}.jpg",), "picture", weight=0.5)
    yield Target(
        "heatmap/store",
        (*heatmap, "--out", "{out}/maps"),
        ("packed/store.safetensors",),
        "safetensors",
        weight=0.3,
    )
    yield Target(
        "heatmap/checkpoint",
        (*heatmap, "--out", "{out}/maps"),
        ("run/checkpoints/finetune.safetensors",),
        "safetensors",
        weight=0.3,
    )
    again = (*heatmap, "--out", "{in}/run/heatmaps")
    files = (
        "run/heatmaps/heatmaps.json",
        "run/heatmaps/*/slide.json",
        "run/heatmaps/genes/*/genes.json",
        "run/heatmaps/genes/*.json",
    )
    yield Target("heatmap/made-maps", again, files, "json", weight=1.5, writes=("run",))
    files = (
        "run/metrics.json",
        "run/metrics.jsonl",
        "run/environment.json",
        "run/config.yaml",
        "run/predictions.csv",
    )
    yield Target("heatmap/reported-run", again, files, "text", weight=1.5, writes=("run",))
    yield Target("heatmap/reported-arrays", again, ("run/embeddings.npz",), "npz", writes=("run",))


def _slides() -> Iterator[Target]:
    extract = ("extract", *SLIDE_WORDS, "--out", "{out}/features")
    patches = (*extract, "--patches-only")
    for name in ("plain.tif", "striped.tif", "aperio.svs"):
        yield Target(f"extract/{name}", patches, (f"images/{name}",), "tiff", weight=2.0)
    override = (*patches, "--mpp-override", "{in}/images/mpp.csv")
    yield Target("extract/mpp", override, ("images/mpp.csv",), "csv")
    coords = (*extract, "--coords", "{in}/patches", "--random-weights")
    yield Target("extract/coords", coords, ("patches/aperio.h5",), "h5", weight=0.3)
    made = ("extract", *SLIDE_WORDS, "--out", "{in}/extracted", "--patches-only")
    yield Target(
        "extract/made-patches",
        made,
        ("extracted/patches/aperio.h5",),
        "h5",
        weight=0.7,
        writes=("extracted",),
    )
    yield Target(
        "extract/made-table",
        made,
        ("extracted/slides.csv",),
        "csv",
        weight=0.7,
        writes=("extracted",),
    )
    weights = (*extract, "--weights", "{in}/weights/resnet50-00000000.pth")
    yield Target(
        "extract/weights", weights, ("weights/resnet50-00000000.pth",), "pt", weight=0.5, code=2
    )


def _configs() -> Iterator[Target]:
    dry = ("train", "--data", "{in}/packed", "--out", "{out}/run", *SETTINGS)
    argv = (*dry, "--stages", "genes", "--config", "{in}/tables/config.yaml")
    yield Target("train/config", argv, ("tables/config.yaml",), "yaml", weight=0.5)
    plan = ("experiments", "table1", "--data", "{in}/packed", "--out", "{out}", "--dry-run")
    argv = (*plan, "--config", "{in}/tables/config.yaml")
    yield Target("experiments/config", argv, ("tables/config.yaml",), "yaml")
