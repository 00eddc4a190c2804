"""What a training run is made of: validated configuration, presets, and ``key=value`` overrides."""

from __future__ import annotations

from collections.abc import Sequence
from importlib import resources
from pathlib import Path
from typing import Annotated, Any, Literal

import yaml
from pydantic import (
    Field,
    SerializeAsAny,
    ValidationError,
    ValidationInfo,
    field_validator,
    model_validator,
)

from gimp_fast.data import Cohort
from gimp_fast.errors import Fault, FaultError, GimpError
from gimp_fast.models import (
    GiMPSettings,
    Modalities,
    ModelSettings,
    PatientModel,
    Sizes,
    available,
    model_class,
)
from gimp_fast.training.scaling import GeneScaling
from gimp_fast.training.stage_settings import FinetuneStage, GenesStage, PretrainStage, Strict


class TrainConfig(Strict):
    """A run of genes → pretrain → finetune → evaluate.

    Attributes:
        method: the model, a name of :func:`gimp_fast.models.available`. Comparators have the stages
            that they know: those of slides or RNA alone, for one, are only fine-tuned.
        data: cohort folder; null is the embedded synthetic cohort.
        modalities: ``"both"``, ``"slide"`` (no RNA) or ``"rna"`` (no slides); not given, what the
            method reads.
        split: name of the cohort's split; null takes its only one.
        seed: of weights, order, windows, masks, dropout and bootstrap.
        device: ``"auto"`` is a GPU if there is one.
        precision: autocast type of the forward pass; weights stay fp32. With fp16 the loss is
            scaled, and steps whose gradients overflow are left out while the scale adapts.
        on_nonfinite: what a loss or gradient that is not finite does: ``"stop"`` ends the run,
            ``"skip"`` leaves the step out, and says whose patients it was.
        save_minutes: time between checkpoints inside an epoch; every epoch ends with one too.
        keep_checkpoints: how many of the last states are kept, for when the newest is damaged.
        compile: compile each stage's step with ``torch.compile``.
        profile: record this many steps of each stage for TensorBoard's profiler and Chrome's
            tracing page; 0 records none.
        wandb: project to log to with Weights & Biases, which must be installed; null does not.
        rank_timeout_minutes: how long a rank waits for another that says nothing.
        threads: CPU threads of torch; null leaves its default. Results repeat for one number.
        backend: of the operators, see ``gimp-fast doctor``.
        cache_gb: cohorts whose features take less are kept in memory as float32.
        workers: processes that read batches ahead; 0 for none; ``"auto"`` has none where the
            features fit in memory (``cache_gb``), else up to 4, one core being left for training.
            Results do not depend on it.
        gene_scaling: of each gene, fitted on the training patients: ``"z-score"`` or ``"none"``.
        most_variable_genes: keep as many genes, those that vary most among the training patients.
        bootstrap: resamples of the confidence intervals.
        model: architecture, in the settings of the method.
    """

    method: str = "gimp"
    data: str | None = None
    modalities: Modalities = "both"
    split: str | None = None
    seed: int = Field(0, ge=0)
    device: str = "auto"
    precision: Literal["fp32", "bf16", "fp16"] = "fp32"
    on_nonfinite: Literal["stop", "skip"] = "stop"
    save_minutes: float = Field(10.0, ge=0)
    keep_checkpoints: int = Field(2, ge=1)
    compile: bool = False
    profile: int = Field(0, ge=0)
    wandb: str | None = None
    rank_timeout_minutes: float = Field(10.0, gt=0)
    threads: int | None = Field(None, ge=1)
    backend: str = "auto"
    cache_gb: float = Field(4.0, ge=0)
    workers: Annotated[int, Field(ge=0)] | Literal["auto"] = "auto"
    gene_scaling: GeneScaling = "z-score"
    most_variable_genes: int | None = Field(None, ge=1)
    bootstrap: int = Field(1000, ge=1)
    model: SerializeAsAny[ModelSettings] = GiMPSettings()
    genes: GenesStage = GenesStage()
    pretrain: PretrainStage = PretrainStage()
    finetune: FinetuneStage = FinetuneStage()

    @model_validator(mode="before")
    @classmethod
    def _as_the_method_wants(cls, values: Any) -> Any:
        """The model's settings in the class of the method, and the modalities that it reads."""
        if not isinstance(values, dict) or values.get("method", "gimp") not in available():
            return values
        kind = model_class(values.get("method", "gimp"))
        values = {"modalities": kind.reads[0], "model": {}} | values
        if isinstance(values["model"], dict):
            values["model"] = kind.settings_class.model_validate(values["model"])
        return values

    @field_validator("method")
    @classmethod
    def _method_is_known(cls, method: str) -> str:
        if method not in available():
            raise ValueError(f"one of {', '.join(available())}")
        return method

    @field_validator("modalities")
    @classmethod
    def _method_reads(cls, modalities: str, info: ValidationInfo) -> str:
        method = info.data.get("method")
        if method is not None and modalities not in (reads := model_class(method).reads):
            raise ValueError(f"{' or '.join(reads)}, which is what {method} reads")
        return modalities

    @model_validator(mode="after")
    def _fusion_fits(self) -> TrainConfig:
        validated = getattr(self.model, "fusion", "head") == "validated"
        if validated and self.model_class.supervised_genes and not self.finetune.freeze_genes:
            raise ValueError(
                "finetune.freeze_genes=true with model.fusion=validated, which mixes in the "
                "classifier of the genes stage"
            )
        return self

    @property
    def model_class(self) -> type[PatientModel]:
        return model_class(self.method)


def presets() -> tuple[str, ...]:
    """Names of the configurations that come with the package."""
    folder = resources.files("gimp_fast.training") / "presets"
    return tuple(sorted(p.name[:-5] for p in folder.iterdir() if p.name.endswith(".yaml")))


def load_config(
    preset: str | None = None, path: Path | None = None, overrides: Sequence[str] = ()
) -> TrainConfig:
    """Preset, then a YAML file over it, then ``key=value`` over both.

    The architecture in a preset is that of GiMP, and of methods that share it; others have the
    architecture of their papers unless it is changed.

    Args:
        preset: a name from :func:`presets`.
        path: YAML file with any of the fields of :class:`TrainConfig`.
        overrides: e.g. ``"finetune.lr=3e-4"``; values are YAML.

    Raises:
        GimpError: unknown preset, unreadable YAML, or fields that do not validate; all at once.
    """
    values: dict[str, Any] = {}
    origin, architecture = "configuration", {}
    if preset is not None:
        if preset not in presets():
            raise GimpError(f"--preset: found '{preset}'; expected one of {', '.join(presets())}")
        resource = resources.files("gimp_fast.training") / "presets" / f"{preset}.yaml"
        values = yaml.safe_load(resource.read_text(encoding="utf-8")) or {}
        architecture = values.pop("model", {})
    if path is not None:
        _merge(values, read_yaml(path))
        origin = str(path)
    for override in overrides:
        _merge(values, _parse_override(override))
    if _has_settings_of_gimp(values.get("method", "gimp")):
        asked = values.get("model", {})
        values["model"] = architecture
        _merge(values, {"model": asked})
    return validate_config(values, origin)


def _has_settings_of_gimp(method: Any) -> bool:
    """Whether a preset's architecture, which is GiMP's, is one for this method."""
    return method in available() and issubclass(model_class(method).settings_class, GiMPSettings)


def read_yaml(path: Path) -> dict[str, Any]:
    """A YAML mapping; GimpError names the file where it is not one."""
    try:
        loaded = yaml.safe_load(Path(path).read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise GimpError(f"{path}: cannot be read as YAML: {error}") from error
    if loaded is None:
        return {}
    if not isinstance(loaded, dict):
        raise GimpError(f"{path}: found {type(loaded).__name__}; expected a mapping of fields")
    return loaded


def validate_config(values: dict[str, Any], origin: str) -> TrainConfig:
    """Check values against :class:`TrainConfig`; FaultError has all that is wrong with them."""
    values, errors = dict(values), []
    method, architecture = values.get("method", "gimp"), values.get("model")
    if method in available() and isinstance(architecture, dict):
        # Here and not in TrainConfig, which would stop at its first fault.
        try:
            values["model"] = model_class(method).settings_class.model_validate(architecture)
        except ValidationError as error:
            del values["model"]
            errors += [{**fault, "loc": ("model", *fault["loc"])} for fault in error.errors()]
    try:
        config = TrainConfig.model_validate(values)
    except ValidationError as error:
        errors += error.errors()
    if errors:
        raise FaultError([_config_fault(origin, error) for error in errors], origin)
    return config


def _config_fault(origin: str, error: Any) -> Fault:
    ours = error["type"] == "value_error"  # without pydantic's words before it
    expected = str(error["ctx"]["error"]) if ours else error["msg"]
    where = ".".join(map(str, error["loc"]))
    return Fault("config", f"{origin}: {where}", repr(error["input"]), expected)


# Settings that change how a run is carried out, but not its result: a run may resume with others.
WITHOUT_EFFECT = frozenset(
    {
        "data",  # checkpoints and tables have the cohort's fingerprint instead
        "workers",
        "save_minutes",
        "keep_checkpoints",
        "profile",
        "wandb",
        "rank_timeout_minutes",
    }
)
# Tables also accept a finished run whose threads differ (which changes results by rounding), whose
# features were read in another way, or whose own intervals have another number of resamples.
SAME_IN_TABLES = WITHOUT_EFFECT | {"threads", "cache_gb", "bootstrap"}


def first_difference(a: TrainConfig, b: TrainConfig) -> str | None:
    """Where two configurations differ first, as ``"key: x, y"``; None where nowhere.

    The place of the cohort does not count, as checkpoints hold its fingerprint, nor does what no
    result depends on.
    """
    flat_a, flat_b = (_flatten(x.model_dump(exclude=WITHOUT_EFFECT)) for x in (a, b))
    for key, value in flat_a.items():
        if flat_b.get(key) != value:
            return f"{key}: {value!r}, {flat_b.get(key)!r}"
    return None


def _flatten(values: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    flat = {}
    for key, value in values.items():
        if isinstance(value, dict):
            flat |= _flatten(value, f"{prefix}{key}.")
        else:
            flat[prefix + key] = value
    return flat


def _merge(into: dict[str, Any], values: dict[str, Any]) -> None:
    for key, value in values.items():
        if isinstance(value, dict) and isinstance(into.get(key), dict):
            _merge(into[key], value)
        else:
            into[key] = value


def _parse_override(text: str) -> dict[str, Any]:
    key, separator, value = text.partition("=")
    if not separator or not key.strip():
        raise GimpError(f"--set: found '{text}'; expected key=value, e.g. finetune.lr=3e-4")
    try:
        parsed = yaml.safe_load(value)
    except yaml.YAMLError as error:
        raise GimpError(f"--set {key}: the value {value!r} is not YAML: {error}") from error
    for part in reversed(key.strip().split(".")):
        parsed = {part: parsed}
    return parsed


def model_config_of(config: TrainConfig, cohort: Cohort) -> Sizes:
    """The model that a run on this cohort trains; GimpError for sizes that do not fit."""
    genes = 0
    if config.modalities != "slide":
        genes = len(cohort.gene_ids)
        if config.most_variable_genes and not cohort.gene_sets:
            genes = min(genes, config.most_variable_genes)
    values = config.model.model_dump() | {
        "num_classes": len(cohort.classes),
        "feature_dim": cohort.feature_dim or 1,
        "num_genes": genes,
        "gene_sets": tuple(cohort.gene_sets.values()) if genes and cohort.gene_sets else None,
    }
    if len(config.model_class.reads) > 1:
        values["modalities"] = config.modalities
    try:
        return config.model_class.config_class(**values)
    except ValueError as error:
        raise GimpError(f"model: {error}") from error
