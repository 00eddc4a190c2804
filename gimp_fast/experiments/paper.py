"""The rows of each table, the settings that make them, and the paper's own figures."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase

from gimp_fast.errors import GimpError

LOGISTIC_REGRESSION = "logistic_regression"
PAPER = "the paper's own TCGA lung cohort: 946 patients, 190 of them for testing"
DELTAS = (0.2, 0.35, 0.5, 0.65, 0.8)
NO_PRETRAINING = ("pretrain.epochs=0",)
SLIDES, RNA, BOTH = "slide", "rna", "both"


@dataclass(frozen=True)
class PaperFigure:
    """Accuracy as the paper prints it, and the counts that give it, if any do.

    The paper mixes denominators: some rows are shares of 189 patients (its validation set), others
    of 190 (its test set).
    """

    printed: str
    counts: str | None = None

    @property
    def value(self) -> float:
        return float(self.printed)

    def __str__(self) -> str:
        return f"{self.printed} ({self.counts})" if self.counts else self.printed


@dataclass(frozen=True)
class Row:
    """One row of a table, and how its models are trained.

    Attributes:
        key: short name, for folders and ``--only``.
        section: heading above it.
        title: name in the table.
        method: a name from :func:`gimp_fast.models.available`, or ``LOGISTIC_REGRESSION``.
        modalities: what it reads.
        overrides: settings on top of the configuration that all rows share.
        paper: the paper's figure.
        ours: whether it is GiMP, or a part of it.
        delta: the margin of the triplets, in the table that varies it.
    """

    key: str
    section: str
    title: str
    method: str
    modalities: str
    overrides: tuple[str, ...] = ()
    paper: PaperFigure | None = None
    ours: bool = False
    delta: float | None = None


@dataclass(frozen=True)
class Experiment:
    """A table or figure of the paper.

    Attributes:
        name: on the command line.
        title: heading.
        about: its question, in a paragraph for readers who do not have the paper at hand.
        rows: in order.
        reference: key of the row that the others are compared with.
    """

    name: str
    title: str
    about: str
    rows: tuple[Row, ...]
    reference: str = "gimp"

    @property
    def reference_row(self) -> Row:
        return next(row for row in self.rows if row.key == self.reference)


def _gimp(key: str, section: str, title: str, modalities: str = BOTH, *overrides: str, paper=None):
    return Row(key, section, title, "gimp", modalities, overrides, paper, ours=True)


def _table1() -> Experiment:
    slides, genes = "Slides, no pre-training", "RNA"
    both, pretrained = "Slides and RNA, no pre-training", "Slides and RNA, pre-trained"

    def row(key, section, title, modalities, *overrides, method=None, paper=None):
        return Row(key, section, title, method or key, modalities, overrides, paper)

    regression = {"method": LOGISTIC_REGRESSION}
    plain = {"method": "abmil"}
    rows = (
        row("mean_pool", slides, "Mean pooling", SLIDES),
        row("lr_slide", slides, "Logistic regression (mean of bag)", SLIDES, **regression),
        row(
            "abmil", slides, "ABMIL", SLIDES, "model.gated=false",
            paper=PaperFigure("0.7737", "147/190"), **plain,
        ),
        row("abmil_gated", slides, "ABMIL, gated", SLIDES, "model.gated=true", **plain),
        row("dsmil", slides, "DSMIL", SLIDES, paper=PaperFigure("0.7566", "143/189")),
        row("clam_sb", slides, "CLAM-SB", SLIDES, paper=PaperFigure("0.8519", "161/189")),
        row("clam_mb", slides, "CLAM-MB", SLIDES, paper=PaperFigure("0.8889", "168/189")),
        row("transmil", slides, "TransMIL", SLIDES, paper=PaperFigure("0.8836", "167/189")),
        _gimp(
            "gimp_slide_scratch", slides, "GiMP without GroupMSA", SLIDES, *NO_PRETRAINING,
            paper=PaperFigure("0.8995", "170/189"),
        ),
        row("lr_rna", genes, "Logistic regression (RNA)", RNA, **regression),
        row("snn", genes, "SNN", RNA),
        _gimp("gimp_rna", genes, "GiMP, RNA only (GroupMSA)", RNA),
        row("lr_both", both, "Logistic regression (concatenation)", BOTH, **regression),
        row("porpoise", both, "PORPOISE", BOTH, paper=PaperFigure("0.9524", "180/189")),
        row(
            "pathomic_fusion", both, "Pathomic Fusion", BOTH,
            paper=PaperFigure("0.9684", "184/190"),
        ),
        row("mcat", both, "MCAT", BOTH, paper=PaperFigure("0.9632", "183/190")),
        _gimp(
            "gimp_scratch", both, "GiMP, no pre-training", BOTH, *NO_PRETRAINING,
            paper=PaperFigure("0.9737", "185/190"),
        ),
        row("mgca", pretrained, "MGCA", BOTH, paper=PaperFigure("0.9105", "173/190")),
        row("biovil", pretrained, "BioViL", BOTH, paper=PaperFigure("0.9316", "177/190")),
        row("refers", pretrained, "REFERS", BOTH, paper=PaperFigure("0.9368", "178/190")),
        _gimp("gimp", pretrained, "GiMP", paper=PaperFigure("0.9947", "189/190")),
    )  # fmt: skip
    about = (
        "Which model tells the classes apart best: on slides alone, on RNA alone, and on both, "
        "trained from scratch or pre-trained first. Simple baselines that the paper does not have "
        "(mean pooling, logistic regression) show how much a deep model adds."
    )
    return Experiment("table1", "Table 1: GiMP and other methods", about, rows)


def _table2() -> Experiment:
    scratch, pretrained = "No pre-training", "Pre-trained, then fine-tuned on slides and RNA"
    rows = (
        _gimp(
            "gimp_snn_scratch", scratch, "Aggregator + SNN in place of GroupMSA", BOTH,
            "model.gene_encoder=snn", *NO_PRETRAINING, paper=PaperFigure("0.9684", "184/190"),
        ),
        _gimp(
            "gimp_scratch", scratch, "Aggregator + GroupMSA", BOTH, *NO_PRETRAINING,
            paper=PaperFigure("0.9737", "185/190"),
        ),
        _gimp(
            "gimp_mpm", pretrained, "Aggregator + MPM", BOTH, "pretrain.triplet_weight=0",
            paper=PaperFigure("0.9579", "182/190"),
        ),
        _gimp(
            "gimp_slide_triplet", pretrained, "Aggregator + Triplet", BOTH,
            "pretrain.triplets=slide", "pretrain.reconstruction_weight=0",
            paper=PaperFigure("0.9263", "176/190"),
        ),
        _gimp(
            "gimp_triplet", pretrained, "Aggregator + GroupMSA + Triplet", BOTH,
            "pretrain.reconstruction_weight=0", paper=PaperFigure("0.9526", "181/190"),
        ),
        _gimp(
            "gimp", pretrained, "Aggregator + GroupMSA + Triplet + MPM (GiMP)",
            paper=PaperFigure("0.9974"),
        ),
    )  # fmt: skip
    about = (
        "What each part of GiMP is worth. MPM is masked patch modelling: pre-training rebuilds "
        "hidden patches. Triplet pulls patients of one class together, seen through slides alone, "
        "or through slides and RNA (with GroupMSA). The paper prints 0.9974 for the last row, "
        "which no number of 189 or 190 patients gives; its Table 1 has 0.9947 (189/190)."
    )
    return Experiment("table2", "Table 2: ablation", about, rows)


def _fig2() -> Experiment:
    section = "Pre-trained on the training patients"
    rows = (
        _gimp("gimp", section, "(a) GiMP"),
        _gimp(
            "gimp_without_genes", section, "(b) GiMP without gene inducing", BOTH,
            "pretrain.triplets=slide",
        ),
        Row("biovil", section, "(c) BioViL", "biovil", BOTH),
        Row("mgca", section, "(d) MGCA", "mgca", BOTH),
    )  # fmt: skip
    about = (
        "What patients look like to the model right after pre-training, before it is fine-tuned. "
        "Each point is the vector of a patient (CLS_pat; in b that of the slide, CLS_img), placed "
        "in the plane by t-SNE. Classes that lie apart here are easy to tell apart afterwards. "
        "t-SNE shows neighbourhoods only, so the table measures the vectors themselves."
    )
    return Experiment("fig2", "Figure 2: patients after pre-training", about, rows)


def _delta(deltas: Sequence[float]) -> Experiment:
    rows = tuple(
        Row(
            f"gimp_delta_{delta:g}", "GiMP", f"δ = {delta:g}", "gimp", BOTH,
            (f"pretrain.margin={delta:g}",), ours=True, delta=delta,
        )
        for delta in deltas
    )  # fmt: skip
    about = (
        "Whether δ matters. It is the margin of the triplet loss: by how much patients of another "
        "class must be farther away than patients of the same class. The paper shows a curve "
        "without numbers and concludes that accuracy hardly depends on δ between 0.2 and 0.8."
    )
    reference = min(deltas, key=lambda delta: abs(delta - 0.8))  # the paper's choice
    title = "Supplement: the margin δ of the triplets"
    return Experiment("delta", title, about, rows, f"gimp_delta_{reference:g}")


def _fusion() -> Experiment:
    rows = (
        _gimp("gimp_slide", "GiMP", "Slides only", SLIDES),
        _gimp("gimp_rna", "GiMP", "RNA only", RNA),
        _gimp("gimp", "GiMP", "Slides and RNA"),
    )
    about = (
        "Whether slides and RNA together are better than the better of the two alone, in the same "
        "model with all the pre-training that the modality permits."
    )
    return Experiment("fusion", "Fusion: one modality and both", about, rows)


EXPERIMENTS = ("table1", "table2", "fig2", "delta", "fusion")


def experiment(name: str, deltas: Sequence[float] = DELTAS) -> Experiment:
    """The table of this name."""
    if name == "delta":
        return _delta(sorted(dict.fromkeys(deltas)))
    return {"table1": _table1, "table2": _table2, "fig2": _fig2, "fusion": _fusion}[name]()


def chosen_rows(experiments: Iterable[Experiment], only: Sequence[str]) -> frozenset[str]:
    """Keys of the rows that ``--only`` names; all rows if it names none.

    Raises:
        GimpError: these tables have no row of such a name.
    """
    keys = list(dict.fromkeys(row.key for table in experiments for row in table.rows))
    unknown = [name for name in only if name not in keys]
    if unknown:
        raise GimpError(f"--only: found {', '.join(unknown)}; the rows are {', '.join(keys)}")
    return frozenset(only or keys)


def chosen_splits(names: Sequence[str], patterns: Sequence[str]) -> list[str]:
    """Splits of a cohort that match a pattern, in the cohort's order; all if there is none.

    Raises:
        GimpError: a pattern matches no split.
    """
    for pattern in patterns:
        if not any(fnmatchcase(name, pattern) for name in names):
            raise GimpError(f"--splits: found '{pattern}'; the cohort has {', '.join(names)}")
    return [n for n in names if not patterns or any(fnmatchcase(n, p) for p in patterns)]


def split_groups(names: Iterable[str]) -> dict[str, list[str]]:
    """``random_0, random_1, site_0`` -> ``{"random": [...], "site": [...]}``."""
    groups: dict[str, list[str]] = {}
    for name in names:
        groups.setdefault(re.sub(r"[_\-.]?\d+$", "", name) or name, []).append(name)
    return groups
