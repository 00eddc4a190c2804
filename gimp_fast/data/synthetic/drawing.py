"""Draws synthetic patients: their slides, their genes and their expression, as arrays.

Two subtypes differ in a lesion (a contiguous 5–15 % of a slide's patches, shifted along one of two
feature directions) and in 4 % of the genes. A quarter of the patients have a nearly uninformative
slide and another quarter nearly uninformative RNA, so that each modality alone stays near 0.87
accuracy, and both together can reach 0.97 or more.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.random import Generator

from gimp_fast.errors import GimpError


@dataclass(frozen=True)
class SyntheticConfig:
    """Constants of the generator. The same configuration gives the same bytes.

    Attributes:
        num_patients: patients, half of each class.
        feature_dim: channels C of a patch.
        num_genes: genes G.
        signal_genes: fraction of genes that differ between the classes.
        median_patches, patches_log_sd, min_patches, max_patches: log-normal slide sizes.
        multi_slide: fraction of patients with two or three slides.
        weak: fraction of patients with a weak slide, and of patients with weak RNA; disjoint.
        lesion_shift: shift of lesion patches, in units of feature noise: along a common direction,
            and along another one whose sign is the class.
        slide_nuisance: SD over slides of a meaningless shift along the class direction, which
            hides the lesion in the mean over patches.
        gene_shift: log2 difference of a signal gene from the middle, before noise.
        seed: of all random numbers.
    """

    num_patients: int = 400
    feature_dim: int = 64
    num_genes: int = 1000
    signal_genes: float = 0.04
    median_patches: int = 150
    patches_log_sd: float = 0.6
    min_patches: int = 40
    max_patches: int = 600
    multi_slide: float = 0.12
    weak: float = 0.26
    lesion_shift: float = 3.0
    slide_nuisance: float = 0.5
    gene_shift: float = 1.5
    seed: int = 0

    def __post_init__(self) -> None:
        if self.num_patients < 20:
            raise GimpError(f"found {self.num_patients} synthetic patients; expected 20 or more")
        if self.feature_dim < 4 or self.num_genes < 20:
            raise GimpError("synthetic data needs 4 channels and 20 genes or more")
        if not 0 < self.min_patches <= self.max_patches or not 0 <= self.weak <= 0.5:
            raise GimpError("found an impossible synthetic configuration (patches or weak)")


@dataclass(frozen=True)
class Patient:
    """One patient; ``label`` is 0 or 1."""

    case_id: str
    label: int
    slide_strength: float
    rna_strength: float
    part: str
    num_slides: int


@dataclass(frozen=True)
class Genome:
    """Properties of the genes, the same for all patients."""

    ids: list[str]
    mean: np.ndarray  # (G,) log2
    loadings: np.ndarray  # (G, F) of correlated background
    direction: np.ndarray  # (G,) half the class difference


def draw_patients(config: SyntheticConfig, rng: Generator) -> list[Patient]:
    """Patients whose class, weak modality and part are balanced against each other."""
    n = config.num_patients
    labels = np.arange(n) % 2
    strengths = np.ones((n, 2))  # slide, RNA
    parts = np.empty(n, dtype=object)
    for label in (0, 1):
        cases = rng.permutation(np.flatnonzero(labels == label))
        weak = round(config.weak * len(cases))
        strengths[cases[:weak], 0] = rng.uniform(0, 0.05, weak)
        strengths[cases[weak : 2 * weak], 1] = rng.uniform(0, 0.05, weak)
        # In this order each part gets its share of weak slides and weak RNA.
        parts[cases] = np.resize(("train", "val", "train", "test", "train"), len(cases))
    many = rng.random(n) < config.multi_slide
    slides = np.where(many, rng.integers(2, 4, n), 1)
    patients = []
    for i in rng.permutation(n):
        slide, rna = strengths[i].tolist()
        case = f"SYNT-00-{i:04d}"
        patients.append(Patient(case, int(labels[i]), slide, rna, parts[i], int(slides[i])))
    return patients


def draw_slide(
    patient: Patient, config: SyntheticConfig, basis: np.ndarray, rng: Generator
) -> tuple[np.ndarray, np.ndarray]:
    """Features (N, C) float32 and grid positions (N, 2) of one slide."""
    size = config.median_patches * np.exp(config.patches_log_sd * rng.standard_normal())
    size = int(np.clip(size, config.min_patches, config.max_patches))
    side = int(np.ceil(1.5 * np.sqrt(size)))
    fields = _smooth_fields(min(9, config.feature_dim), side, rng)  # (fields, side, side)
    grid = np.stack(np.meshgrid(np.arange(side), np.arange(side)), -1)  # (side, side, 2) x, y
    distance = np.linalg.norm(grid - (side - 1) / 2, axis=-1) / side
    tissue = np.argsort((distance - 0.06 * fields[0]).ravel(), kind="stable")[:size]
    coords = grid.reshape(-1, 2)[tissue]
    smooth = fields.reshape(len(fields), -1)[1:, tissue].T  # (N, fields - 1)

    # Basis vector 0 marks any lesion, 1 the class; the smooth fields use the vectors from 1 on.
    latent = np.zeros((size, config.feature_dim))
    latent[:, 1 : 1 + smooth.shape[1]] = 0.8 * smooth
    latent[:, 2:] += 0.3 * rng.standard_normal(config.feature_dim - 2)  # stain of the slide
    latent[:, 1] += config.slide_nuisance * rng.standard_normal()
    centre = coords[rng.integers(size)]
    count = max(2, round(rng.uniform(0.05, 0.15) * size))
    lesion = np.argsort(np.linalg.norm(coords - centre, axis=1), kind="stable")[:count]
    sign = 2 * patient.label - 1
    latent[lesion, 0] += config.lesion_shift
    latent[lesion, 1] += sign * patient.slide_strength * config.lesion_shift
    latent += 0.35 * rng.standard_normal(latent.shape)
    return (latent @ basis.T).astype(np.float32), coords


def _smooth_fields(count: int, side: int, rng: Generator) -> np.ndarray:
    """Gaussian random fields (count, side, side), unit variance, correlated over ~3 patches."""
    frequency = np.fft.fftfreq(side)
    decay = np.exp(-2 * (np.pi * 2.0) ** 2 * (frequency[:, None] ** 2 + frequency**2))
    noise = np.fft.fft2(rng.standard_normal((count, side, side)))
    fields = np.fft.ifft2(noise * decay).real
    return fields / fields.std(axis=(1, 2), keepdims=True)


def draw_genome(config: SyntheticConfig, rng: Generator) -> Genome:
    """Genes with their mean, background and class difference."""
    genes = config.num_genes
    expressed = rng.random(genes) < 0.75
    mean = np.where(expressed, rng.normal(3.5, 1.8, genes), rng.normal(0.1, 0.1, genes))
    signal = rng.permutation(np.flatnonzero(mean > 2))[: max(2, round(config.signal_genes * genes))]
    direction = np.zeros(genes)
    direction[signal] = config.gene_shift * rng.choice([-1.0, 1.0], len(signal))
    loadings = 0.25 * rng.standard_normal((genes, 8)) * expressed[:, None]
    ids = [f"SYNG{number:011d}.1" for number in range(genes)]
    return Genome(ids, np.maximum(mean, 0.02), loadings, direction)


def draw_expression(genome: Genome, effect: float, rng: Generator) -> np.ndarray:
    """FPKM (G,): log-normal, with correlated background."""
    background = genome.loadings @ rng.standard_normal(genome.loadings.shape[1])
    noise = 0.6 * rng.standard_normal(len(genome.mean)) * np.minimum(genome.mean, 1.0)
    log2 = genome.mean + background + noise + effect * genome.direction
    return np.exp2(np.maximum(log2, 0.0)) - 1.0


def draw_outcome(patient: Patient, rng: Generator) -> dict[str, str]:
    """Survival in days, a number, and covariates of which a few are missing.

    Survival is shorter and the number larger in the second class, and survival is shorter in old
    patients. Two fifths are censored.
    """
    sign, age = 2 * patient.label - 1, rng.normal(65, 9)
    event = rng.exponential(900 * np.exp(-sign - 0.05 * (age - 65)))
    censored = rng.exponential(1400)
    stage = ("I", "II", "III")[rng.integers(3)]
    return {
        "os_days": f"{max(1.0, min(event, censored)):.0f}",
        "os_event": str(int(event <= censored)),
        "burden": f"{5 + 2 * sign + rng.standard_normal():.3f}",
        "age": f"{age:.0f}" if rng.random() > 0.1 else "",
        "stage": stage if rng.random() > 0.1 else "",
    }
