"""What is attacked: a file that a command reads, the command, and what must not change.

In the words of a command, ``{in}`` is the folder of inputs and ``{out}`` that of results.
"""

from __future__ import annotations

from collections.abc import Iterator

from attack.corpus import CASES, SETTINGS, SLIDE_WORDS, SLIDES
from attack.target import FAST, Target
from attack.targets_of_prepare import expression, features, prepare, tables


def targets() -> list[Target]:
    return [
        *features(), *expression(), *tables(), *_cohorts(), *_runs(), *_heatmaps(), *_slides(),
        *_configs(),
    ]  # fmt: skip


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
