"""Networks of the named encoders, from timm's parts; without weights."""

from __future__ import annotations

import itertools

import torch
from torch import Tensor, nn

from gimp_fast.errors import DAMAGE_ERRORS, GimpError, did_you_mean, one_line
from gimp_fast.wsi.encoders.conch import AttentionalPooler, BiasFreePooler, ConchTower
from gimp_fast.wsi.encoders.presets import Preset
from gimp_fast.wsi.encoders.recipe import Recipe
from gimp_fast.wsi.encoders.timm_import import import_timm

_POOLERS = {"conch": AttentionalPooler, "conch-v1.5": BiasFreePooler}


class ClassAndMean(nn.Module):
    """A ViT's class token and the mean of its patch tokens: (B, 3, P, P) -> (B, 2 D)."""

    def __init__(self, trunk: nn.Module):
        super().__init__()
        self.trunk = trunk

    def forward(self, pixels: Tensor) -> Tensor:
        tokens = self.trunk.forward_features(pixels)  # (B, class, registers and patches, D)
        patches = tokens[:, self.trunk.num_prefix_tokens :]
        return torch.cat([tokens[:, 0], patches.mean(1)], dim=-1)


class ConvStem(nn.Module):
    """CTransPath's patch embedding: three convolutions in the place of one, (B, P/4, P/4, 96)."""

    def __init__(self, width: int):
        super().__init__()
        layers: list[nn.Module] = []
        channels = (3, width // 8, width // 4)
        for before, after in itertools.pairwise(channels):
            layers += [
                nn.Conv2d(before, after, 3, stride=2, padding=1, bias=False),
                nn.BatchNorm2d(after),
                nn.ReLU(),
            ]
        self.proj = nn.Sequential(*layers, nn.Conv2d(channels[-1], width, 1))
        self.norm = nn.LayerNorm(width)

    def forward(self, pixels: Tensor) -> Tensor:
        return self.norm(self.proj(pixels).permute(0, 2, 3, 1))


def build(preset: Preset, wanted_by: str) -> nn.Module:
    """The network of a preset: (B, 3, P, P) -> (B, width). Its weights are arbitrary.

    Raises:
        GimpError: timm is not installed.
    """
    timm = import_timm(wanted_by)
    arguments = dict(preset.arguments)
    if preset.swiglu:
        arguments |= {"mlp_layer": timm.layers.SwiGLUPacked, "act_layer": nn.SiLU}
    trunk = timm.create_model(preset.network, num_classes=0, **arguments)
    if preset.names in _POOLERS:
        return ConchTower(trunk, _POOLERS[preset.names], preset.width)
    if preset.names == "swin":
        trunk.patch_embed = ConvStem(trunk.patch_embed.proj.out_channels)
    if preset.width == 2 * trunk.num_features:
        return ClassAndMean(trunk)
    return trunk


def build_timm(model: str, wanted_by: str, download: bool) -> tuple[nn.Module, Recipe, str]:
    """Any model of timm without its classifier, its recipe, and the licence of its weights.

    Patches are resized to the size that it was trained with; nothing is cut off.

    Args:
        model: timm's name, as ``vit_small_patch16_224.augreg_in21k``.
        wanted_by: the option, for messages.
        download: take timm's weights, from the hub or its cache.

    Raises:
        GimpError: timm has no such model, or its weights cannot be had.
    """
    timm = import_timm(wanted_by)
    if not timm.is_model(model):
        known = timm.list_models() + timm.list_pretrained()
        raise GimpError(
            f"{wanted_by}: found no model '{model}' in timm {timm.__version__}"
            f"{did_you_mean(model, known)}; timm.list_models('vit*') in Python lists them"
        )
    try:
        network = timm.create_model(model, pretrained=download, num_classes=0)
    except DAMAGE_ERRORS as error:
        raise GimpError(
            f"{wanted_by}: its weights cannot be had ({one_line(error)}); get the file of them "
            f"where there is a network, and pass it with --weights FILE"
        ) from error
    data = timm.data.resolve_model_data_config(network)
    smoothing = data["interpolation"] if data["interpolation"] == "bilinear" else "bicubic"
    recipe = Recipe(data["mean"], data["std"], data["input_size"][-1], smoothing=smoothing)
    return network, recipe, network.pretrained_cfg.get("license") or "not recorded"
