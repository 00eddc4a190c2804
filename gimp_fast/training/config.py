"""The validated configuration of a training run, presets, and ``key=value`` overrides."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from importlib import resources
from pathlib import Path
from typing import Annotated, Any, Literal, Protocol

from pydantic import (
    Field,
    SerializeAsAny,
    ValidationInfo,
    field_validator,
    model_serializer,
    model_validator,
)

from gimp_fast.errors import Fault, GimpError, one_of
from gimp_fast.files.yaml_file import MOST_LEVELS, parse_yaml, read_yaml_mapping
from gimp_fast.models import (
    GiMPSettings,
    Modalities,
    ModelSettings,
    PatientModel,
    available,
    expected_model,
    model_class,
)
from gimp_fast.targets.survival import SurvivalSettings
from gimp_fast.training.harmonising import GeneHarmonise
from gimp_fast.training.scaling import GeneScaling
from gimp_fast.training.stage_settings import FinetuneSettings, GenesSettings, PretrainSettings
from gimp_fast.training.target_weights import weighted_name
from gimp_fast.validation import UNKNOWN, FieldsError, Settings, shown


class HasGeneSets(Protocol):
    """A cohort."""

    gene_sets: Mapping[str, tuple[int, ...]]


class TrainConfig(Settings):
    """A run of genes → pretrain → finetune → evaluate.

    Attributes:
        method: the model, a name of :func:`gimp_fast.models.available`. A comparator runs the
            stages that its paper has; models of slides or RNA alone are only fine-tuned.
        target: what is predicted: a target of the cohort, or the cohort's labels, learnt by a name
            of :func:`gimp_fast.targets.available`. A list of several is learnt by one model; each
            counts as much as its weight says, as in ``[os, burden:0.5]``, by default 1.
        data: cohort folder; null uses the embedded synthetic cohort.
        modalities: ``"both"``, ``"slide"`` (no RNA) or ``"rna"`` (no slides); by default what the
            method reads.
        split: name of the cohort's split; null uses its only one.
        seed: of weights, order, windows, masks, dropout and bootstrap.
        device: ``"auto"`` is a GPU if there is one.
        precision: autocast type of the forward pass; weights stay fp32. With fp16 the loss is
            scaled, and steps whose gradients overflow are left out while the scale adapts.
        on_nonfinite: if a loss or gradient is not finite, ``"stop"`` ends the run and ``"skip"``
            leaves the step out and logs its patients.
        save_minutes: time between checkpoints within an epoch; every epoch ends with one, too.
        keep_checkpoints: number of recent states to keep, in case the newest is damaged.
        compile: compile each stage's step with ``torch.compile``.
        profile: record this many steps of each stage for TensorBoard's profiler and Chrome's
            tracing page; 0 records none.
        wandb: project of Weights & Biases to log to, which must be installed; null logs to none.
        rank_timeout_minutes: how long a rank waits for a silent one.
        threads: CPU threads of torch; null leaves its default. Results repeat for the same number.
        backend: of the operators, see ``gimp-fast doctor``.
        cache_gb: features stay in memory if those of the cohort take less, as float32.
        workers: processes that read batches ahead; 0 for none. ``"auto"`` uses none if the features
            fit in memory (``cache_gb``), else up to 4, and leaves one core for training. Results do
            not depend on it.
        covariates: clinical ones of the cohort that the model reads, by name; none by default.
        gene_scaling: of each gene, fitted on the training patients: ``"z-score"`` or ``"none"``.
        gene_harmonise: puts each patient's genes on one scale by their order, before the scaling:
            ``"rank"`` on that of a standard normal, ``"quantile"`` on the mean quantiles of the
            training patients. New patients may then have another unit, see
            :mod:`gimp_fast.training.harmonising`. ``"none"`` leaves the values as they are.
        gene_limit: largest |z-score| that a model is shown; null for none. A gene that hardly any
            training patient expresses would have values in the thousands.
        site_shrinkage: how much directions shrink in which the patch embeddings of hospitals differ
            within a class, fitted on the training patients; null leaves embeddings as they are.
            See :class:`gimp_fast.training.slide_scaling.SlideScaler`.
        gene_groups: ``"sets"`` are the gene sets of the cohort, if it has some; with
            ``"consecutive"``, a model that reads genes in groups forms them of consecutive genes,
            and so reads those of no set too.
        most_variable_genes: keep this many genes, those that vary most among training patients.
        bootstrap: resamples of the confidence intervals.
        model: architecture: the settings class of the method.
    """

    method: str = "gimp"
    target: str | tuple[str, ...] = "classification"
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
    covariates: tuple[str, ...] = ()
    gene_scaling: GeneScaling = "z-score"
    gene_harmonise: GeneHarmonise = "none"
    gene_limit: float | None = Field(10.0, gt=0)
    site_shrinkage: float | None = Field(None, ge=0)
    gene_groups: Literal["sets", "consecutive"] = "sets"
    most_variable_genes: int | None = Field(None, ge=1)
    bootstrap: int = Field(1000, ge=1)
    model: SerializeAsAny[ModelSettings] = GiMPSettings()
    genes: GenesSettings = GenesSettings()
    pretrain: PretrainSettings = PretrainSettings()
    finetune: FinetuneSettings = FinetuneSettings()
    survival: SurvivalSettings = SurvivalSettings()

    @model_validator(mode="before")
    @classmethod
    def _fill_in_from_method(cls, values: Any) -> Any:
        """Fill in the modalities of the method, and validate the model by its settings class."""
        if not isinstance(values, dict) or values.get("method", "gimp") not in available():
            return values
        kind = model_class(values.get("method", "gimp"))
        values = {"modalities": kind.reads[0], "model": {}} | values
        if isinstance(values["model"], dict):
            values["model"] = kind.settings_class.model_validate(values["model"])
        return values

    @field_validator("method")
    @classmethod
    def _check_method(cls, method: str) -> str:
        if method not in available():
            raise ValueError(expected_model(method))
        return method

    @field_validator("target")
    @classmethod
    def _check_target(cls, target: str | tuple[str, ...]) -> str | tuple[str, ...]:
        """A list of one is that one, so that both have the same configuration."""
        if isinstance(target, str):
            return target
        names = [weighted_name(text)[0] for text in target]
        if not names or len(set(names)) < len(names):
            raise ValueError("one name or more, each of them once")
        return names[0] if len(names) == 1 else target

    @field_validator("modalities")
    @classmethod
    def _check_modalities(cls, modalities: str, info: ValidationInfo) -> str:
        method = info.data.get("method")
        if method is not None and modalities not in (reads := model_class(method).reads):
            raise ValueError(f"{' or '.join(reads)}, which is what {method} reads")
        return modalities

    @model_validator(mode="after")
    def _check_fusion(self) -> TrainConfig:
        for name, used in (("fusion", "validated"), ("missing", "heads")):
            uses = getattr(self.model, name, None) == used and self.model_class.supervised_genes
            if uses and not self.finetune.freeze_genes:
                raise ValueError(
                    f"finetune.freeze_genes=true with model.{name}={used}, which uses the "
                    "classifier of the genes stage"
                )
        return self

    @model_validator(mode="after")
    def _check_linear(self) -> TrainConfig:
        if self.survival.linear and getattr(self.model, "missing", "token") == "heads":
            raise ValueError(
                "model.missing=token with survival.linear=true: the linear part of each modality "
                "answers patients who lack the other"
            )
        return self

    @model_validator(mode="after")
    def _check_genes(self) -> TrainConfig:
        trains = self.model_class.supervised_genes and self.modalities != "slide"
        if trains and not self.genes.epochs and self.finetune.freeze_genes:
            raise ValueError(
                "genes.epochs=1 or more, or finetune.freeze_genes=false: a gene encoder that no "
                "stage has trained would be frozen as it was drawn"
            )
        return self

    @model_validator(mode="after")
    def _check_covariates(self) -> TrainConfig:
        if self.model.covariate_hidden and not self.covariates:
            raise ValueError(
                "covariates, one name or more, with model.covariate_hidden, which is their layer"
            )
        return self

    @model_validator(mode="after")
    def _check_balance(self) -> TrainConfig:
        if self.pretrain.balance and self.compile:
            raise ValueError(
                "compile=false with pretrain.balance=true, which takes gradients within the step"
            )
        if self.pretrain.balance and not self.pretrain.reconstruction_weight:
            raise ValueError("pretrain.reconstruction_weight above 0 with pretrain.balance=true")
        return self

    @model_serializer(mode="wrap")
    def _as_before(self, serialize: Callable[[TrainConfig], dict[str, Any]]) -> dict[str, Any]:
        """Without the choices that came later where they are the default, as before them."""
        values = serialize(self)
        for name, default in (("gene_groups", "sets"), ("gene_harmonise", "none")):
            if getattr(self, name) == default:
                values.pop(name, None)
        return values

    def sets_of(self, cohort: HasGeneSets) -> Mapping[str, tuple[int, ...]]:
        """Signature -> columns of its genes, of a cohort; empty where groups are others."""
        return cohort.gene_sets if self.gene_groups == "sets" else {}

    @property
    def target_weights(self) -> dict[str, float]:
        """What is predicted, one name or several -> how much each counts in the loss."""
        if isinstance(self.target, str):
            return {self.target: 1.0}
        return dict(map(weighted_name, self.target))

    @property
    def target_names(self) -> tuple[str, ...]:
        return tuple(self.target_weights)

    def is_valid_with(self, section: str, **settings: Any) -> bool:
        """Whether these settings of a section go with all others."""
        values = self.model_dump()
        values[section] |= settings
        try:
            TrainConfig.model_validate(values)
        except FieldsError:
            return False
        return True

    @property
    def model_class(self) -> type[PatientModel]:
        return model_class(self.method)


def presets() -> tuple[str, ...]:
    """Names of the presets in the package."""
    folder = resources.files("gimp_fast.training") / "presets"
    return tuple(sorted(p.name[:-5] for p in folder.iterdir() if p.name.endswith(".yaml")))


def load_config(
    preset: str | None = None,
    path: Path | None = None,
    overrides: Sequence[str] = (),
    fields: Mapping[str, Any] | None = None,
) -> TrainConfig:
    """A configuration: a preset, overridden by a YAML file, by ``key=value`` texts and by fields.

    The architecture in a preset is for GiMP and the methods that share it; other methods have the
    architecture of their papers unless it is changed.

    Args:
        preset: a name from :func:`presets`.
        path: YAML file with fields of :class:`TrainConfig`.
        overrides: e.g. ``"finetune.lr=3e-4"``; values are YAML.
        fields: of :class:`TrainConfig`; a mapping overrides some fields of a section.

    Raises:
        GimpError: unknown preset, unreadable YAML, or invalid fields, all reported together.
    """
    origin = "configuration" if path is None else str(path)
    return validate_config(asked_values(preset, path, overrides, fields), origin)


def asked_values(
    preset: str | None = None,
    path: Path | None = None,
    overrides: Sequence[str] = (),
    fields: Mapping[str, Any] | None = None,
) -> dict[str, Any]:
    """What :func:`load_config` is asked for, by section and field, without any default."""
    values: dict[str, Any] = {}
    architecture: Any = {}
    if preset is not None:
        if preset not in presets():
            raise GimpError(f"--preset: found '{preset}'; expected {one_of(preset, presets())}")
        resource = resources.files("gimp_fast.training") / "presets" / f"{preset}.yaml"
        values = parse_yaml(resource.read_bytes(), str(resource)) or {}
        architecture = values.pop("model", {})
    if path is not None:
        merge(values, read_yaml_mapping(path))
    for override in overrides:
        merge(values, _parse_override(override))
    merge(values, dict(fields or {}))
    if architecture and _has_settings_of_gimp(values.get("method", "gimp")):
        asked = values.get("model", {})
        values["model"] = architecture
        merge(values, {"model": asked})
    return values


def _has_settings_of_gimp(method: Any) -> bool:
    """True if a preset's architecture, which is GiMP's, applies to this method."""
    return method in available() and issubclass(model_class(method).settings_class, GiMPSettings)


def validate_config(values: dict[str, Any], origin: str) -> TrainConfig:
    """A valid :class:`TrainConfig`; FieldsError lists everything that is wrong with the values."""
    values, faults = dict(values), []
    method, architecture = values.get("method", "gimp"), values.get("model")
    if method in available() and isinstance(architecture, dict):
        # Validated here and not in TrainConfig, which would stop at its first fault.
        try:
            values["model"] = model_class(method).settings_class.model_validate(architecture)
        except FieldsError as error:
            del values["model"]
            faults += [_from(origin, fault, "model.") for fault in error.faults]
    elif isinstance(method, str) and method not in available():
        values.pop("model", None)  # its fields are known to nobody
    try:
        config = TrainConfig.model_validate(values)
    except FieldsError as error:
        faults += [_from(origin, fault) for fault in error.faults]
    if faults:
        raise FieldsError(faults, origin)
    return config


def _from(origin: str, fault: Fault, section: str = "") -> Fault:
    """A fault of a configuration, named after where its values come from."""
    place, expected = section + fault.where.partition(": ")[2], fault.expected
    if fault.found == UNKNOWN:  # the field to write instead is of the section too
        expected = expected.replace("did you mean '", f"did you mean '{section}")
    return Fault(fault.kind, f"{origin}: {place}".rstrip(": ."), fault.found, expected)


def merge(into: dict[str, Any], values: Mapping[str, Any]) -> None:
    """Set values; those of a section one by one."""
    for key, value in values.items():
        if isinstance(value, dict) and isinstance(into.get(key), dict):
            merge(into[key], value)
        else:
            into[key] = value


def _parse_override(text: str) -> dict[str, Any]:
    key, separator, value = text.partition("=")
    key = key.strip()
    if not separator or not key:
        raise GimpError(f"--set: found {shown(text)}; expected key=value, e.g. finetune.lr=3e-4")
    parts = key.split(".")
    if len(parts) > MOST_LEVELS:
        raise GimpError(f"--set {key[:40]}…: found {len(parts)} names; expected section.field")
    parsed = parse_yaml(value, f"--set {key[:80]}")
    for part in reversed(parts):
        parsed = {part: parsed}
    return parsed
