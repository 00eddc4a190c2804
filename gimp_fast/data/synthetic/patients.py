"""Synthetic patients in the file formats of real cohorts. They show that the tool works, nothing
about medicine, and are called synthetic wherever they appear.

Two subtypes differ in a lesion (a contiguous 5–15 % of a slide's patches, shifted along one of
two feature directions) and in 4 % of the genes. A quarter of the patients has a nearly
uninformative slide and another quarter nearly uninformative RNA, so either modality alone
stays near 0.87 accuracy and both together can reach 0.97 or more.
"""

from __future__ import annotations

import uuid
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from gimp_fast.data.prepare.assemble import PrepareOptions, prepare
from gimp_fast.data.prepare.cohort_writer import CohortContents, check_free, write_table
from gimp_fast.data.prepare.join_rna import RnaOptions
from gimp_fast.data.rna import STAR_SUFFIX
from gimp_fast.data.synthetic.slides import SLIDE_WRITERS
from gimp_fast.errors import GimpError

CLASSES = ("SYN-A", "SYN-B")
FORMATS = ("clam", "trident", "stamp", "pt")
_SHEET = ("File ID", "File Name", "Data Category", "Data Type", "Project ID", "Case ID")
_SHEET_COLUMNS = (*_SHEET, "Sample ID", "Sample Type")


@dataclass(frozen=True)
class SyntheticConfig:
    """Constants of the generator.

    Attributes:
        num_patients: patients, half of each class.
        feature_dim: channels C of a patch.
        num_genes: genes G.
        signal_genes: fraction of genes that differ between the classes.
        median_patches, patches_log_sd, min_patches, max_patches: log-normal slide sizes.
        multi_slide: fraction of patients with two or three slides.
        weak: fraction of patients with a weak slide, and of patients with weak RNA; disjoint.
        lesion_shift: how far lesion patches move, in units of feature noise: all of them along
            one common direction, and by class along another.
        slide_nuisance: SD over slides of a meaningless shift along the class direction, which
            hides the lesion from the mean over patches.
        gene_shift: log2 difference of a signal gene from the middle, before noise.
        seed: everything is a function of this configuration.
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
class SyntheticPaths:
    """Where the raw files are; the arguments of ``prepare``."""

    slides: tuple[Path, ...]
    rna: Path
    sample_sheet: Path
    labels: Path
    splits: Path


@dataclass(frozen=True)
class _Patient:
    case_id: str
    label: int
    slide_strength: float
    rna_strength: float
    part: str
    num_slides: int


@dataclass
class _Genome:
    """Fixed properties of the genes, shared by all patients."""

    ids: list[str]
    mean: np.ndarray  # (G,) log2
    loadings: np.ndarray  # (G, F) of correlated background
    direction: np.ndarray  # (G,) half the class difference
    prefixes: list[str] = field(init=False)

    def __post_init__(self) -> None:
        self.prefixes = [f"{gene}\tSYN{n}\tprotein_coding" for n, gene in enumerate(self.ids)]


def prepare_synthetic(
    out: Path, config: SyntheticConfig | None = None, name: str = "synthetic", progress=False
) -> CohortContents:
    """Write synthetic raw files to ``out/raw`` and their cohort to ``out/cohort``.

    Raises:
        GimpError: ``out`` is not empty or cannot be written.
    """
    out, config = Path(out), config or SyntheticConfig()
    check_free(out)
    try:
        paths = write_synthetic_cohort(out / "raw", config)
    except OSError as error:
        raise GimpError(f"{out}: cannot be written ({error})") from error
    return prepare(
        PrepareOptions(
            slides=paths.slides,
            rna=RnaOptions(paths=(paths.rna,)),
            labels=paths.labels,
            splits=(paths.splits,),
            out=out / "cohort",
            name=name,
            synthetic=True,
            seed=config.seed,
            progress=progress,
        )
    )


def write_synthetic_cohort(
    folder: str | Path, config: SyntheticConfig | None = None
) -> SyntheticPaths:
    """Write raw files as users have them: CLAM, TRIDENT, STAMP and ``.pt`` slides, GDC STAR files.

    Args:
        folder: made if needed.
        config: constants; the same configuration gives the same bytes.

    Returns:
        The paths to hand to ``prepare``.
    """
    folder, config = Path(folder), config or SyntheticConfig()
    folder.mkdir(parents=True, exist_ok=True)
    note = "These patients are SYNTHETIC: generated by gimp_fast, not measured.\n"
    (folder / "README.txt").write_text(note, encoding="utf-8")
    rng = np.random.default_rng([config.seed, 0])
    patients = _draw_patients(config, rng)
    tables = _write_slides(folder, patients, config, rng)
    sheet = _write_rna(folder / "rna", patients, config, rng)
    write_table(folder / "labels.csv", tables)
    (folder / "splits").mkdir(exist_ok=True)
    rows = [{"case_id": patient.case_id, "split": patient.part} for patient in patients]
    write_table(folder / "splits" / "split_0.csv", rows)
    used = FORMATS[: len({_format_of(n) for n in range(len(patients))})]
    return SyntheticPaths(
        slides=tuple(folder / "slides" / name for name in used),
        rna=folder / "rna",
        sample_sheet=sheet,
        labels=folder / "labels.csv",
        splits=folder / "splits" / "split_0.csv",
    )


def _draw_patients(config: SyntheticConfig, rng: np.random.Generator) -> list[_Patient]:
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
        # Dealing parts out along this order gives each part its share of weak slides and RNA.
        parts[cases] = [
            ("train", "val", "train", "test", "train")[i % 5] for i in range(len(cases))
        ]
    many = rng.random(n) < config.multi_slide
    slides = np.where(many, rng.integers(2, 4, n), 1)
    return [
        _Patient(
            f"SYNT-00-{i:04d}", int(labels[i]), *strengths[i].tolist(), parts[i], int(slides[i])
        )
        for i in rng.permutation(n)
    ]


def _format_of(index: int) -> int:
    return index % len(FORMATS)


def _write_slides(
    folder: Path, patients: list[_Patient], config: SyntheticConfig, rng: np.random.Generator
) -> list[dict[str, str]]:
    basis = np.linalg.qr(rng.standard_normal((config.feature_dim, config.feature_dim)))[0]
    for name in FORMATS:
        (folder / "slides" / name).mkdir(parents=True, exist_ok=True)
    rows = []
    for index, patient in enumerate(patients):
        kind = FORMATS[_format_of(index)]
        for number in range(1, patient.num_slides + 1):
            features, coords = _draw_slide(patient, config, basis, rng)
            # TRIDENT goes through a slide row by row, CLAM column by column
            order = np.lexsort(coords.T if kind == "trident" else coords.T[::-1])
            slide_id = f"{patient.case_id}-01Z-00-DX{number}"
            file = folder / "slides" / kind / f"{slide_id}{'.pt' if kind == 'pt' else '.h5'}"
            SLIDE_WRITERS[kind](file, features[order], coords[order])
            label = CLASSES[patient.label]
            rows.append({"case_id": patient.case_id, "slide_id": slide_id, "label": label})
    return sorted(rows, key=lambda row: row["slide_id"])


def _draw_slide(
    patient: _Patient, config: SyntheticConfig, basis: np.ndarray, rng: np.random.Generator
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

    # Basis vector 0 marks any lesion, 1 tells the class, and the fields fill the ones from 1 on.
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


def _smooth_fields(count: int, side: int, rng: np.random.Generator) -> np.ndarray:
    """Gaussian random fields (count, side, side), unit variance, correlated over ~3 patches."""
    frequency = np.fft.fftfreq(side)
    decay = np.exp(-2 * (np.pi * 2.0) ** 2 * (frequency[:, None] ** 2 + frequency**2))
    noise = np.fft.fft2(rng.standard_normal((count, side, side)))
    fields = np.fft.ifft2(noise * decay).real
    return fields / fields.std(axis=(1, 2), keepdims=True)


def _draw_genome(config: SyntheticConfig, rng: np.random.Generator) -> _Genome:
    genes = config.num_genes
    expressed = rng.random(genes) < 0.75
    mean = np.where(expressed, rng.normal(3.5, 1.8, genes), rng.normal(0.1, 0.1, genes))
    signal = rng.permutation(np.flatnonzero(mean > 2))[: max(2, round(config.signal_genes * genes))]
    direction = np.zeros(genes)
    direction[signal] = config.gene_shift * rng.choice([-1.0, 1.0], len(signal))
    loadings = 0.25 * rng.standard_normal((genes, 8)) * expressed[:, None]
    ids = [f"SYNG{number:011d}.1" for number in range(genes)]
    return _Genome(ids, np.maximum(mean, 0.02), loadings, direction)


def _write_rna(
    folder: Path, patients: list[_Patient], config: SyntheticConfig, rng: np.random.Generator
) -> Path:
    """One STAR file a sample; some patients also have normal tissue or a second aliquot."""
    genome = _draw_genome(config, rng)
    rows = []
    for index, patient in enumerate(patients):
        samples = [("01A", "Primary Tumor", 2 * patient.label - 1)]
        if index % 25 == 3:
            samples.append(("11A", "Solid Tissue Normal", 0))
        if index % 30 == 7:
            samples.append(("01B", "Primary Tumor", 2 * patient.label - 1))
        for code, kind, sign in samples:
            fpkm = _draw_expression(genome, sign * patient.rna_strength, rng)
            rows.append(_write_sample(folder, patient.case_id, code, kind, genome, fpkm, rng))
    for extra in range(3):
        # measured, but without slides
        fpkm = _draw_expression(genome, 0.0, rng)
        case = f"SYNT-99-{extra:04d}"
        rows.append(_write_sample(folder, case, "01A", "Primary Tumor", genome, fpkm, rng))
    sheet = folder / "gdc_sample_sheet.tsv"
    lines = ["\t".join(_SHEET_COLUMNS)] + ["\t".join(row) for row in rows]
    sheet.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return sheet


def _draw_expression(genome: _Genome, effect: float, rng: np.random.Generator) -> np.ndarray:
    """FPKM (G,): log-normal, with correlated background."""
    background = genome.loadings @ rng.standard_normal(genome.loadings.shape[1])
    noise = 0.6 * rng.standard_normal(len(genome.mean)) * np.minimum(genome.mean, 1.0)
    log2 = genome.mean + background + noise + effect * genome.direction
    return np.exp2(np.maximum(log2, 0.0)) - 1.0


def _write_sample(
    folder: Path,
    case: str,
    code: str,
    kind: str,
    genome: _Genome,
    fpkm: np.ndarray,
    rng: np.random.Generator,
) -> tuple[str, ...]:
    """Write one STAR file in its uuid folder; returns its row of the sample sheet."""
    file_id, name = (str(uuid.UUID(bytes=rng.bytes(16), version=4)) for _ in range(2))
    lines = [
        "# gene-model: SYNTHETIC",
        "gene_id\tgene_name\tgene_type\tunstranded\tstranded_first\tstranded_second"
        "\ttpm_unstranded\tfpkm_unstranded\tfpkm_uq_unstranded",
        *(
            f"{row}\t\t\t1000\t1000\t1000\t\t\t"
            for row in ("N_unmapped", "N_multimapping", "N_noFeature", "N_ambiguous")
        ),
    ]
    columns = ((fpkm * 30).round(), fpkm * 1e6 / fpkm.sum(), fpkm, fpkm * 1.1)
    counts, tpm, plain, upper = (column.tolist() for column in columns)
    lines += [
        f"{prefix}\t{c:.0f}\t{c / 2:.0f}\t{c / 2:.0f}\t{t:.4f}\t{f:.4f}\t{u:.4f}"
        for prefix, c, t, f, u in zip(genome.prefixes, counts, tpm, plain, upper, strict=True)
    ]
    target = folder / file_id / f"{name}{STAR_SUFFIX}"
    target.parent.mkdir(parents=True, exist_ok=True)
    target.write_text("\n".join(lines) + "\n", encoding="utf-8")
    data = ("Transcriptome Profiling", "Gene Expression Quantification", "SYNTHETIC")
    return (file_id, target.name, *data, case, f"{case}-{code}", kind)
