"""Renames the tensors of a published file to those of its network here.

Files differ in the names: timm's; transformers' (ViTModel, Dinov2Model and its kin with registers);
CONCH's, which also hold its text model; and those of the older timm that CTransPath was trained
with. What a file holds beside the image encoder is left out by name. Anything else that is missing
or left over is a fault: another network would give other features without a word.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from gimp_fast.errors import FaultError, counted
from gimp_fast.wsi.encoders.networks import ClassAndMean

State = Mapping[str, Tensor]
_SHOWN = 3
# Wrappers that training scripts leave: {"model": state}, and a prefix of all names.
_WRAPPERS = ("model", "state_dict")
_PREFIXES = ("module.", "vit.", "dinov2.")
# What files hold beside the encoder: heads, other towers, tokens of training, fixed tables.
_NOT_NEEDED = re.compile(
    r"(head\.|pooler\.|mask_token$|embeddings\.mask_token$|logit_scale$|text\.|text_decoder\.|"
    r"visual\.(proj_contrast|attn_pool_caption\.|ln_caption\.|head\.)|"
    r"(.*\.)?(attn_mask|relative_position_index|num_batches_tracked)$)"
)
_TRANSFORMERS = (
    (r"embeddings\.patch_embeddings\.projection\.", "patch_embed.proj."),
    (r"encoder\.layer\.(\d+)\.", r"blocks.\1."),
    (r"\.attention\.output\.dense\.", ".attn.proj."),
    (r"\.layernorm_before\.", ".norm1."),
    (r"\.layernorm_after\.", ".norm2."),
    (r"\.(intermediate\.dense|mlp\.weights_in)\.", ".mlp.fc1."),
    (r"\.(output\.dense|mlp\.weights_out)\.", ".mlp.fc2."),
    (r"\.layer_scale(\d)\.lambda1$", r".ls\1.gamma"),
    (r"^layernorm\.", "norm."),
)
_QUERY = re.compile(r"(.*)\.attention\.attention\.query\.(weight|bias)$")


def load_state(network: nn.Module, state: State, names: str, where: object) -> None:
    """Fill a network from the tensors of a file.

    Args:
        network: with the parameters of timm, CONCH or CTransPath.
        state: name -> tensor, as the file has it.
        names: whose names these are, as in :class:`~gimp_fast.wsi.encoders.presets.Preset`.
        where: the file, for messages.

    Raises:
        FaultError: tensors are missing, left over or of another shape.
    """
    trunk = network.trunk if isinstance(network, ClassAndMean) else network
    state = _unwrapped(state, where)
    try:
        state = _RENAME[names](state, trunk)
    except KeyError as error:
        missing = f"'{error.args[0]}' is missing among {counted(len(state), 'tensor')}"
        raise FaultError.of("weights", where, missing, f"a file of {names}'s names") from error
    needed = trunk.state_dict()
    state = {key: value for key, value in state.items() if not _NOT_NEEDED.match(key)}
    missing = [key for key in needed if key not in state and not _NOT_NEEDED.match(key)]
    found = [f"{counted(len(missing), 'tensor')} missing ({_some(missing)})"] if missing else []
    if left := [key for key in state if key not in needed]:
        found.append(
            f"{counted(len(left), 'tensor')} that the network does not have ({_some(left)})"
        )
    found += [
        f"'{key}' of shape {tuple(value.shape)} (expected {tuple(needed[key].shape)})"
        for key, value in state.items()
        if key in needed and value.shape != needed[key].shape
    ][:_SHOWN]
    if found:
        expected = f"the tensors of this encoder and no others, with the names of {names}"
        raise FaultError.of("weights", where, "; ".join(found), expected)
    trunk.load_state_dict(state, strict=False)  # without tables that the network makes itself


def _some(names: list[str]) -> str:
    return ", ".join(names[:_SHOWN]) + (", …" if len(names) > _SHOWN else "")


def _unwrapped(state: State, where: object) -> State:
    for wrapper in _WRAPPERS:
        if isinstance(state.get(wrapper), Mapping):
            state = state[wrapper]
    wrong = [key for key, value in state.items() if not isinstance(value, Tensor)]
    if wrong or not state:
        found = f"no tensor under '{wrong[0]}'" if wrong else "nothing"
        raise FaultError.of("weights", where, found, "a state dict: names with tensors")
    for prefix in _PREFIXES:
        if all(key.startswith(prefix) for key in state):
            state = {key.removeprefix(prefix): value for key, value in state.items()}
    return state


def _timm(state: State, trunk: nn.Module) -> dict[str, Tensor]:
    return dict(state)


def _transformers(state: State, trunk: nn.Module) -> dict[str, Tensor]:
    """From ViTModel or Dinov2Model; files with timm's names pass as they are."""
    if "cls_token" in state:
        return dict(state)
    state = dict(state)
    place = state.pop("embeddings.position_embeddings")  # (1, 1 + N, D), the class token first
    token = state.pop("embeddings.cls_token")
    if trunk.no_embed_class:  # what is added to the class token is a part of it
        token, place = token + place[:, :1], place[:, 1:]
    renamed = {"cls_token": token, "pos_embed": place}
    if "embeddings.register_tokens" in state:
        renamed["reg_token"] = state.pop("embeddings.register_tokens")
    for key in [key for key in state if _QUERY.match(key)]:
        parts = [state.pop(key.replace(".query.", f".{p}.")) for p in ("query", "key", "value")]
        block, kind = _QUERY.match(key).groups()
        renamed[_by_rules(f"{block}.attn.qkv.{kind}")] = torch.cat(parts)
    return renamed | {_by_rules(key): value for key, value in state.items()}


def _by_rules(key: str) -> str:
    for pattern, name in _TRANSFORMERS:
        key = re.sub(pattern, name, key)
    return key


def _conch(state: State, tower: nn.Module) -> dict[str, Tensor]:
    """The image tower of the whole model."""
    kept = {key: value for key, value in state.items() if not _NOT_NEEDED.match(key)}
    renamed = {key.removeprefix("visual."): value for key, value in kept.items()}
    return renamed | _places_of_conch(renamed["trunk.pos_embed"], tower.trunk)


def _places_of_conch(place: Tensor, trunk: nn.Module) -> dict[str, Tensor]:
    """Position embedding of the network's grid, by the rule of CONCH's own code."""
    from timm.layers import resample_abs_pos_embed

    grid = trunk.patch_embed.grid_size
    return {
        "trunk.pos_embed": resample_abs_pos_embed(
            place, list(grid), num_prefix_tokens=1, interpolation="bilinear", antialias=False
        )
    }


def _conch_15(state: State, tower: nn.Module) -> dict[str, Tensor]:
    """Its trunk is of 224 pixels; its code enlarges the position embedding for larger inputs."""
    renamed = dict(state)
    place = renamed["trunk.pos_embed"]  # (1, 1 + 14², D)
    side, wanted = round((place.shape[1] - 1) ** 0.5), tower.trunk.patch_embed.grid_size[0]
    if side != wanted:
        token, grid = place[:, :1], place[:, 1:].unflatten(1, (side, side)).permute(0, 3, 1, 2)
        # DINO's rule: a tenth of a patch more, against rounding.
        scale = (wanted + 0.1) / side
        grid = F.interpolate(grid, scale_factor=(scale, scale), mode="bicubic")
        place = torch.cat([token, grid.permute(0, 2, 3, 1).flatten(1, 2)], dim=1)
    return renamed | {"trunk.pos_embed": place}


def _swin(state: State, trunk: nn.Module) -> dict[str, Tensor]:
    """From timm before 0.9, where a stage ends with what now begins the next one."""

    def later(match: re.Match) -> str:
        return f"layers.{int(match[1]) + 1}.downsample."

    older = "layers.0.downsample.norm.weight" in state
    rename = (lambda key: re.sub(r"^layers\.(\d+)\.downsample\.", later, key)) if older else str
    return {rename(key): value for key, value in state.items()}


_RENAME: dict[str, Callable[[State, nn.Module], dict[str, Tensor]]] = {
    "timm": _timm,
    "transformers": _transformers,
    "conch": _conch,
    "conch-v1.5": _conch_15,
    "swin": _swin,
}
