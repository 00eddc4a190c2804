"""What a prediction rests on: weights of one patient's patches, gene fragments and genes."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from gimp_fast.errors import GimpError
from gimp_fast.heatmaps.one_target import question
from gimp_fast.heatmaps.options import GRADIENT, ROLLOUT
from gimp_fast.heatmaps.protocols import ExplainedModel
from gimp_fast.models import PatientInputs, PatientModel
from gimp_fast.nn import (
    GeneAttention,
    GeneAttentionProbe,
    GroupMSA,
    NystromAttention,
    PatchAggregator,
    layer_inputs,
)
from gimp_fast.targets import Target


@dataclass(frozen=True)
class Attribution:
    """The prediction of one patient and the weights of what was read for it.

    Attributes:
        predictions: (columns,) of the model's ``columns``.
        patches: (T,) float32 weight of each patch in the order of the bag; None without a slide.
        genes: attention within the gene encoder; None where there is no GroupMSA or no RNA.
        gene_gradients: (G,) gradient × input of the scaled expression; None without RNA.
    """

    predictions: np.ndarray
    patches: np.ndarray | None
    genes: GeneAttention | None
    gene_gradients: np.ndarray | None


def describe(trained: ExplainedModel, how: str) -> str:
    """One of ``ATTRIBUTIONS`` in words; GimpError if the model does not have it."""
    if how == GRADIENT:
        return "gradient × input of the predicted class against the others"
    alone = ", without the linear part" if has_linear_part(trained) else ""
    if nystrom_layers(trained.model):
        if how == ROLLOUT:
            return f"attention of CLS rolled out through the Nyström layers{alone}"
        return f"attention of CLS in the last Nyström layer, mean of its heads{alone}"
    if hasattr(trained.model, "attention"):
        return f"attention pooling{alone}"
    raise GimpError(
        f"--attribution {how}: the method '{trained.method}' has no attention over patches; "
        f"expected a model that has, or --attribution {GRADIENT}"
    )


def has_linear_part(trained: ExplainedModel) -> bool:
    """Whether risks are added to the network's, which its attention does not show."""
    return getattr(trained.model, "linear_part", None) is not None


def attribute(
    trained: ExplainedModel,
    inputs: PatientInputs,
    how: str = ROLLOUT,
    *,
    give_up_patches: bool = False,
) -> Attribution:
    """Weights of everything that one patient's prediction read, in one pass of the model, in fp32.

    Args:
        trained: the model.
        inputs: one patient, on its device.
        how: one of ``ATTRIBUTIONS``. ``"rollout"`` and ``"attention-of-last-layer"`` are the
            pooling's attention for a model that pools.
        give_up_patches: free the memory of the patches as soon as a model of Nyström layers has
            embedded them; ``inputs`` then holds none. On a long slide they are a third of the peak.

    Raises:
        GimpError: the model has no such attribution.
    """
    model, patches = trained.model, inputs.patches
    target, place = question(trained)
    length = 0 if patches is None else len(patches)
    has_genes = inputs.present_genes is not None
    by_attention = length > 0 and how != GRADIENT
    if length:
        describe(trained, how)  # for its error
    sources: dict[str, Tensor] = {}
    if has_genes:
        sources["genes"] = inputs.genes.detach().requires_grad_()
    if length and how == GRADIENT:
        sources["patches"] = patches.detach().requires_grad_()
    inputs = replace(inputs, **sources)
    layers = nystrom_layers(model) if by_attention else []
    with ExitStack() as stack:
        tokens = stack.enter_context(layer_inputs(layers))
        if give_up_patches and layers:
            stack.enter_context(_freed(patches, layers[0]))
        encoder = only_module(model, GroupMSA) if has_genes else None
        probe = stack.enter_context(GeneAttentionProbe(encoder)) if encoder else None
        stack.enter_context(torch.set_grad_enabled(bool(sources)))
        logits = model(inputs)[0].float()
        saliency = _gradient_times_input(target, logits[place], sources)
    weights = saliency.get("patches")
    if layers:
        weights = tokens.rollout() if how == ROLLOUT else tokens.cls_attention().mean(0)
        # TransMIL repeats the first patches of a bag at its end.
        weights, repeated = weights[:length].clone(), weights[length:]
        weights[: len(repeated)] += repeated
    elif by_attention:
        with torch.no_grad():
            pooling = model.attention(inputs)  # (T, 1), or a column for each class
        highest = int(logits[place].argmax()) + (place.start or 0)
        weights = pooling[:, highest if pooling.shape[1] > 1 else 0]
    return Attribution(
        predictions=target.reported(_numpy(target.predictions(logits[None, place])))[0],
        patches=None if weights is None else _numpy(weights),
        genes=probe and probe.attention(),
        gene_gradients=_numpy(saliency["genes"][0]) if has_genes else None,
    )


@contextmanager
def _freed(patches: Tensor, first: nn.Module) -> Iterator[None]:
    """Free the tensor's memory when the layer begins, whoever else refers to the tensor."""

    def free(*_: Any) -> None:
        patches.data = patches.new_empty(0, *patches.shape[1:])

    hook = first.register_forward_pre_hook(free)
    try:
        yield
    finally:
        hook.remove()


def nystrom_layers(model: PatientModel) -> list[NystromAttention]:
    """The stack whose CLS token stands for the slide; empty for a model without one."""
    aggregator = only_module(model, PatchAggregator)
    if aggregator is not None:
        return list(aggregator.layers)
    return [module for module in model.modules() if isinstance(module, NystromAttention)]


def only_module(model: nn.Module, kind: type) -> Any:
    """The one module of a kind; None if there is none, or more than one to choose from."""
    found = [module for module in model.modules() if isinstance(module, kind)]
    return found[0] if len(found) == 1 else None


def _gradient_times_input(
    target: Target, outputs: Tensor, sources: dict[str, Tensor]
) -> dict[str, Tensor]:
    """x · ∂y / ∂x, summed over the channels of a patch, y what the target explains.

    Of classes it is the contrast of the predicted one with the others, which ignores what moves all
    logits alike, on which no probability depends.
    """
    if not sources:
        return {}
    gradients = torch.autograd.grad(
        target.explained(outputs), list(sources.values()), materialize_grads=True
    )
    products = {
        name: gradient.mul_(x.detach())
        for (name, x), gradient in zip(sources.items(), gradients, strict=True)
    }
    if "patches" in products:
        products["patches"] = products["patches"].sum(-1)
    return products


def _numpy(tensor: Tensor) -> np.ndarray:
    return tensor.detach().float().cpu().numpy()
