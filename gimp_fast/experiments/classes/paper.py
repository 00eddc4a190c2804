"""The rows of the paper's tables, and the paper's own figures."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial

from gimp_fast.experiments.rows import (
    BOTH,
    LOGISTIC_REGRESSION,
    NO_PRETRAINING,
    RNA,
    SLIDES,
    Experiment,
    make_row,
    with_fallback,
)

PAPER = "the paper's own TCGA lung cohort: 946 patients, 190 of them for testing"
DELTAS = (0.2, 0.35, 0.5, 0.65, 0.8)
FALLBACK = "gimp_rna"  # the row that every method of both modalities falls back on
WITH_FALLBACK = "Slides and RNA, with RNA alone as a fallback"
SLIDE_TRIPLETS = "pretrain.triplets=slide"


def _table1() -> Experiment:
    slides = partial(make_row, "Slides, no pre-training", SLIDES)
    genes = partial(make_row, "RNA", RNA)
    both = partial(make_row, "Slides and RNA, no pre-training", BOTH)
    pretrained = partial(make_row, "Slides and RNA, pre-trained", BOTH)
    rows = (
        slides("mean_pool", "{}"),
        slides("logistic_regression_slide", "{} (mean of bag)", method=LOGISTIC_REGRESSION),
        slides("abmil", "{}", "model.gated=false", paper="0.7737 147/190"),
        slides("abmil_gated", "{}, gated", "model.gated=true", method="abmil"),
        slides("dsmil", "{}", paper="0.7566 143/189"),
        slides("clam_sb", "{}", paper="0.8519 161/189"),
        slides("clam_mb", "{}", paper="0.8889 168/189"),
        slides("transmil", "{}", paper="0.8836 167/189"),
        slides("gimp_slide_scratch", "{} without GroupMSA", NO_PRETRAINING, paper="0.8995 170/189"),
        genes("logistic_regression_rna", "{} (RNA)", method=LOGISTIC_REGRESSION),
        genes("snn", "{}"),
        genes("gimp_rna", "{}, RNA only (GroupMSA)"),
        both("logistic_regression_both", "{} (concatenation)", method=LOGISTIC_REGRESSION),
        both("porpoise", "{}", paper="0.9524 180/189"),
        both("pathomic_fusion", "{}", paper="0.9684 184/190"),
        both("mcat", "{}", paper="0.9632 183/190"),
        both("gimp_scratch", "{}, no pre-training", NO_PRETRAINING, paper="0.9737 185/190"),
        pretrained("mgca", "{}", paper="0.9105 173/190"),
        pretrained("biovil", "{}", paper="0.9316 177/190"),
        pretrained("refers", "{}", paper="0.9368 178/190"),
        pretrained("gimp", "{}", paper="0.9947 189/190"),
    )
    about = (
        "Which model tells the classes apart best: on slides alone, on RNA alone, and on both, "
        "trained from scratch or pre-trained first. Simple baselines that the paper does not have "
        "(mean pooling, logistic regression) show how much a deep model adds. In the last section "
        "every method of both modalities may fall back on the same model of RNA alone, by a weight "
        "that the validation patients choose: what slides add on top of RNA."
    )
    rows += with_fallback(rows, FALLBACK, WITH_FALLBACK)
    return Experiment("table1", "Table 1: GiMP and other methods", about, rows)


def _table2() -> Experiment:
    scratch = partial(make_row, "No pre-training", BOTH)
    pretrained = partial(make_row, "Pre-trained, then fine-tuned on slides and RNA", BOTH)
    no_mpm = "pretrain.reconstruction_weight=0"
    rows = (
        scratch(
            "gimp_snn_scratch",
            "Aggregator + SNN in place of GroupMSA",
            "model.gene_encoder=snn",
            NO_PRETRAINING,
            paper="0.9684 184/190",
        ),
        scratch("gimp_scratch", "Aggregator + GroupMSA", NO_PRETRAINING, paper="0.9737 185/190"),
        pretrained(
            "gimp_mpm", "Aggregator + MPM", "pretrain.triplet_weight=0", paper="0.9579 182/190"
        ),
        pretrained(
            "gimp_slide_triplet",
            "Aggregator + Triplet",
            SLIDE_TRIPLETS,
            no_mpm,
            paper="0.9263 176/190",
        ),
        pretrained(
            "gimp_triplet", "Aggregator + GroupMSA + Triplet", no_mpm, paper="0.9526 181/190"
        ),
        pretrained("gimp", "Aggregator + GroupMSA + Triplet + MPM (GiMP)", paper="0.9974"),
    )
    about = (
        "What each part of GiMP is worth. MPM is masked patch modelling: pre-training rebuilds "
        "hidden patches. Triplet pulls patients of one class together, seen through slides alone, "
        "or through slides and RNA (with GroupMSA). The paper prints 0.9974 for the last row, "
        "which no number of 189 or 190 patients gives; its Table 1 has 0.9947 (189/190)."
    )
    return Experiment("table2", "Table 2: ablation", about, rows, probes=True)


def _fig2() -> Experiment:
    row = partial(make_row, "Pre-trained on the training patients", BOTH)
    rows = (
        row("gimp", "(a) {}"),
        row("gimp_without_genes", "(b) {} without gene inducing", SLIDE_TRIPLETS),
        row("biovil", "(c) {}"),
        row("mgca", "(d) {}"),
    )
    about = (
        "What patients look like to the model right after pre-training, before it is fine-tuned. "
        "Each point is the vector of a patient (CLS_pat; in b that of the slide, CLS_img), placed "
        "in the plane by t-SNE. Classes that lie apart here are easy to tell apart afterwards. "
        "t-SNE shows neighbourhoods only, so the table measures the vectors themselves."
    )
    title = "Figure 2: patients after pre-training"
    return Experiment("fig2", title, about, rows, probes=True)


def _delta(deltas: Sequence[float]) -> Experiment:
    row = partial(make_row, "GiMP", BOTH)
    rows = tuple(
        row(f"gimp_delta_{delta:g}", f"δ = {delta:g}", f"pretrain.margin={delta:g}", delta=delta)
        for delta in sorted(set(deltas))
    )
    about = (
        "Whether δ matters. It is the margin of the triplet loss: by how much patients of another "
        "class must be farther away than patients of the same class. The paper shows a curve "
        "without numbers and concludes that accuracy hardly depends on δ between 0.2 and 0.8."
    )
    reference = min(rows, key=lambda row: abs(row.delta - 0.8))  # the paper's choice
    title = "Supplement: the margin δ of the triplets"
    return Experiment("delta", title, about, rows, reference.key)


def _fusion() -> Experiment:
    rows = (
        make_row("GiMP", SLIDES, "gimp_slide", "Slides only"),
        make_row("GiMP", RNA, "gimp_rna", "RNA only"),
        make_row("GiMP", BOTH, "gimp", "Slides and RNA"),
    )
    rows += with_fallback(rows, FALLBACK, WITH_FALLBACK)
    about = (
        "Whether slides and RNA together are better than the better of the two alone, in the same "
        "model with all the pre-training that the modality permits; and whether they are so if "
        "they may fall back on RNA alone."
    )
    return Experiment("fusion", "Fusion: one modality and both", about, rows)


PAPER_TABLES = ("table1", "table2", "fig2", "delta", "fusion")


def paper_experiment(name: str, deltas: Sequence[float] = DELTAS) -> Experiment:
    """The table of this name; ``deltas`` are the margins of ``"delta"``."""
    if name == "delta":
        return _delta(deltas)
    return {"table1": _table1, "table2": _table2, "fig2": _fig2, "fusion": _fusion}[name]()
