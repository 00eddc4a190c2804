"""Builds the network and the gene scaling that a checkpoint holds, or says what does not fit."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from pydantic import BaseModel
from torch import Tensor

from gimp_fast.errors import GimpError
from gimp_fast.models import PatientModel, available, build, expected_model, model_class
from gimp_fast.runs.checkpoint import under_prefix
from gimp_fast.training.covariate_scaling import CovariateScaler
from gimp_fast.training.harmonising import GeneHarmonise
from gimp_fast.training.scaling import PREFIX, GeneScaler
from gimp_fast.training.slide_scaling import PREFIX as SLIDE_PREFIX
from gimp_fast.training.slide_scaling import SlideScaler
from gimp_fast.training.task import target_of_facts

_LARGEST_SETTING = 10_000  # below it, the weights decide whether a setting fits


def built_model(
    facts: dict[str, Any], tensors: dict[str, Tensor], backend: str, source: Path
) -> PatientModel:
    """The model in evaluation mode; GimpError if this version cannot build it."""
    method, classes = facts["method"], facts["cohort"]["classes"]
    if method not in available():
        raise GimpError(
            f"{source}: found a model of the method '{method}'; expected {expected_model(method)}"
        )
    try:
        config = model_class(method).config_class.model_validate(facts["model"])
        target = target_of_facts(facts.get("target"))
        expected = len(classes) if target.kind == "class" else target.num_outputs
        if config.num_outputs != expected:
            names = f" ({', '.join(classes)})" if classes else ""
            raise ValueError(f"{config.num_outputs} outputs; expected {expected}{names}")
        if classes and target.kind != "class":
            raise ValueError(f"a target of the kind '{target.kind}' with classes{names}")
        weights = under_prefix("model", tensors)
        _check_sizes(config, weights, len(facts["cohort"]["gene_ids"]))
        model = build(method, config, backend=backend)
        model.target = target
        model.load_state_dict(weights)
    except (ValueError, TypeError, KeyError, RuntimeError, ArithmeticError) as error:
        raise GimpError(
            f"{source}: found a model of '{method}' that this version of gimp_fast cannot build: "
            f"{' '.join(str(error).split())[:500]}"
        ) from error
    return model.eval().requires_grad_(False)


def _check_sizes(config: BaseModel, weights: dict[str, Tensor], genes: int) -> None:
    """RuntimeError for a setting that would build a model far larger than its weights."""
    widest = max((max(tensor.shape, default=1) for tensor in weights.values()), default=1)
    for key, value in config:
        most = max(_LARGEST_SETTING, genes if key == "num_genes" else widest)
        if isinstance(value, int) and value > most:
            found = str(value)[:20]
            raise RuntimeError(f"size mismatch: {key} is {found}, and no weight is so wide")


def fitted_scaler(
    tensors: dict[str, Tensor], genes: int, harmonise: GeneHarmonise, source: Path
) -> GeneScaler:
    """The gene scaling; GimpError unless there are a mean and a deviation for each gene.

    A checkpoint of an earlier version has no limit.
    """
    mean, std, limit = (tensors.get(f"{PREFIX}{name}") for name in ("mean", "std", "limit"))
    of_genes = _are_numbers(mean, (genes,)) and _are_numbers(std, (genes,))
    positive = of_genes and bool((std > 0).all())
    if not positive or not (limit is None or (_are_numbers(limit, ()) and float(limit) > 0)):
        raise GimpError(
            f"{source}: found a checkpoint of another version of gimp_fast, or a damaged one: "
            f"expected scaler.mean and scaler.std of {genes} genes"
        )
    quantiles = None
    if harmonise == "quantile":
        quantiles = tensors.get(f"{PREFIX}quantiles")
        if not _are_numbers(quantiles, (genes,)) or bool((quantiles.diff() < 0).any()):
            raise GimpError(
                f"{source}: found a damaged checkpoint; expected scaler.quantiles of {genes} "
                "genes, ascending"
            )
        quantiles = quantiles.float().numpy()
    mean, std = (tensor.float().numpy() for tensor in (mean, std))
    limit = None if limit is None else float(limit)
    return GeneScaler(mean, std, limit=limit, harmonise=harmonise, quantiles=quantiles)


def fitted_slide_scaler(
    tensors: dict[str, Tensor], channels: int, source: Path
) -> SlideScaler | None:
    """The scaling of patches, if the model has one; GimpError if it does not fit."""
    mean, matrix = (tensors.get(f"{SLIDE_PREFIX}{name}") for name in ("mean", "matrix"))
    if mean is None and matrix is None:
        return None
    if not (_are_numbers(mean, (channels,)) and _are_numbers(matrix, (channels, channels))):
        raise GimpError(
            f"{source}: found a damaged checkpoint; expected slide_scaler.mean and "
            f"slide_scaler.matrix of {channels} channels"
        )
    return SlideScaler(mean.float(), matrix.float())


def fitted_covariates(
    facts: dict[str, Any], tensors: dict[str, Tensor], source: Path
) -> CovariateScaler | None:
    """The scaling of covariates, if the model reads any; GimpError if it does not fit."""
    if not facts.get("covariates"):
        return None
    try:
        found = CovariateScaler.of_checkpoint(facts["covariates"], tensors)
        if found.width != facts["model"].get("num_covariates", 0):
            raise ValueError(f"{found.width} columns")
    except (KeyError, TypeError, ValueError) as error:
        raise GimpError(f"{source}: found damaged facts of covariates ({error})") from error
    return found


def _are_numbers(tensor: Tensor | None, shape: tuple[int, ...]) -> bool:
    """Whether it is a tensor of finite fractions of this shape."""
    if tensor is None or tensor.shape != shape or not tensor.is_floating_point():
        return False
    return bool(tensor.isfinite().all())
