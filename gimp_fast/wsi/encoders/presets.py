"""The table of named encoders: one row of facts for each, and where they come from.

The rows are from the model cards (``card``) and from the code that the authors publish beside
them. ``parameters`` is exact, of the network as it is used here; ``published`` is what the authors
state, or what follows from the size of their file. This module imports nothing heavy: ``--help``
and ``--patches-only`` read it without torch.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace

from gimp_fast.wsi.encoders.recipe import IMAGENET, Recipe

_OPENAI = ((0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711))
_BIOPTIMUS = ((0.707223, 0.578729, 0.703617), (0.211883, 0.230117, 0.177517))
_HISTAI = ((0.7068, 0.5755, 0.722), (0.195, 0.2316, 0.1816))
_LUNIT = ((0.70322989, 0.53606487, 0.66096631), (0.21716536, 0.26081574, 0.20723464))
_HALF = ((0.5, 0.5, 0.5), (0.5, 0.5, 0.5))
_NC_ND = "CC-BY-NC-ND-4.0"
_HUB = "https://huggingface.co/"


@dataclass(frozen=True)
class Preset:
    """Facts of one encoder."""

    title: str  # as its authors write it
    network: str  # timm's name of the architecture; `conch` and `ctranspath` change it
    width: int  # channels of the features
    parameters: int
    published: float  # millions, as stated; the test allows for its rounding
    licence: str  # of the weights
    repository: str  # on the Hugging Face hub; empty if the weights are elsewhere
    recipe: Recipe
    patch_size: int  # pixels of a patch, at `mpp`
    mpp: float = 0.5  # micrometres per pixel that the authors recommend
    arguments: Mapping[str, object] = field(default_factory=dict)  # of timm.create_model
    swiglu: bool = False  # gated layers, with SiLU
    pooling: str = "class token"
    # In the order in which they are looked for.
    files: tuple[str, ...] = ("model.safetensors", "pytorch_model.bin")
    names: str = "timm"  # of the tensors in the file: timm, transformers, conch, conch-v1.5, swin
    home: str = ""  # where the weights are, if not on the hub

    @property
    def card(self) -> str:
        """The page of the weights."""
        return self.home or _HUB + self.repository


def _recipe(colours: tuple, size: int = 224, smoothing: str = "bilinear", margin: int = 0):
    return Recipe(*colours, size=size, margin=margin, smoothing=smoothing)


_UNI = Preset(
    "UNI", "vit_large_patch16_224", 1024, 303_350_784, 303, _NC_ND, "MahmoodLab/UNI",
    _recipe(IMAGENET), 256, arguments={"img_size": 224, "init_values": 1e-5},
)  # fmt: skip
_UNI2 = Preset(
    "UNI2-h", "vit_giant_patch14_224", 1536, 681_394_176, 681, _NC_ND, "MahmoodLab/UNI2-h",
    _recipe(IMAGENET), 256, swiglu=True,
    arguments={
        "img_size": 224, "depth": 24, "num_heads": 24, "init_values": 1e-5, "embed_dim": 1536,
        "mlp_ratio": 2.66667 * 2, "no_embed_class": True, "reg_tokens": 8,
    },
)  # fmt: skip
_CONCH = Preset(
    "CONCH", "vit_base_patch16_224", 512, 87_567_104, 87.6, _NC_ND, "MahmoodLab/CONCH",
    _recipe(_OPENAI, 448, "bicubic"), 512, arguments={"img_size": 448},
    pooling="attention, without the projection", files=("pytorch_model.bin",), names="conch",
)  # fmt: skip
_CONCH_15 = Preset(
    "CONCHv1.5", "vit_large_patch16_224", 768, 306_711_296, 306, _NC_ND, "MahmoodLab/conchv1_5",
    _recipe(IMAGENET, 448), 512, arguments={"img_size": 448, "init_values": 1.0},
    pooling="attention", files=("pytorch_model_vision.bin",), names="conch-v1.5",
)  # fmt: skip
_VIRCHOW = Preset(
    "Virchow", "vit_huge_patch14_224", 2560, 631_229_184, 632, "Apache-2.0", "paige-ai/Virchow",
    _recipe(IMAGENET, smoothing="bicubic"), 224, swiglu=True,
    arguments={"img_size": 224, "init_values": 1e-5, "mlp_ratio": 5.3375, "global_pool": ""},
    pooling="class token and mean of the patch tokens",
)  # fmt: skip
_VIRCHOW2 = replace(
    _VIRCHOW, title="Virchow2", parameters=631_239_424, licence=_NC_ND,
    repository="paige-ai/Virchow2", arguments={**_VIRCHOW.arguments, "reg_tokens": 4},
)  # fmt: skip
_H_OPTIMUS = Preset(
    "H-optimus-0", "vit_giant_patch14_reg4_dinov2", 1536, 1_134_774_272, 1135, "Apache-2.0",
    "bioptimus/H-optimus-0", _recipe(_BIOPTIMUS, smoothing="bicubic"), 224,
    arguments={"img_size": 224, "init_values": 1e-5, "global_pool": "token"},
)  # fmt: skip
_H0_MINI = Preset(
    "H0-mini", "vit_base_patch14_reg4_dinov2", 1536, 85_739_520, 86, _NC_ND, "bioptimus/H0-mini",
    _recipe(_BIOPTIMUS, smoothing="bicubic"), 224, swiglu=True,
    arguments={"img_size": 224, "init_values": 1e-5, "mlp_ratio": 5.33334, "global_pool": ""},
    pooling="class token and mean of the patch tokens",
)  # fmt: skip
_GIGAPATH = Preset(
    "Prov-GigaPath", "vit_giant_patch14_dinov2", 1536, 1_134_953_984, 1135, "Apache-2.0",
    "prov-gigapath/prov-gigapath", _recipe(IMAGENET, smoothing="bicubic", margin=32), 256,
    arguments={
        "img_size": 224, "patch_size": 16, "embed_dim": 1536, "depth": 40, "num_heads": 24,
        "init_values": 1e-5, "mlp_ratio": 5.33334,
    },
)  # fmt: skip
_PHIKON = Preset(
    "Phikon", "vit_base_patch16_224", 768, 85_798_656, 85.8, "Owkin non-commercial",
    "owkin/phikon", _recipe(IMAGENET), 224, names="transformers",
)  # fmt: skip
_PHIKON_2 = Preset(
    "Phikon-v2", "vit_large_patch16_224", 1024, 303_350_784, 303, "Owkin non-commercial",
    "owkin/phikon-v2", _recipe(IMAGENET), 224, arguments={"init_values": 1.0},
    names="transformers",
)  # fmt: skip
_HIBOU_B = Preset(
    "Hibou-B", "vit_base_patch14_reg4_dinov2", 768, 85_739_520, 85.7, "Apache-2.0",
    "histai/hibou-b", _recipe(_HISTAI, smoothing="bicubic"), 224, swiglu=True,
    arguments={"img_size": 224, "mlp_ratio": 2 * 2048 / 768}, names="transformers",
)  # fmt: skip
_HIBOU_L = replace(
    _HIBOU_B, title="Hibou-L", network="vit_large_patch14_reg4_dinov2", width=1024,
    parameters=303_657_216, published=304, repository="histai/hibou-L",
    arguments={"img_size": 224, "mlp_ratio": 2 * 2736 / 1024},
)  # fmt: skip
_KAIKO = Preset(
    "Kaiko ViT-S/16", "vit_small_patch16_224", 384, 21_665_664, 21.7, "Kaiko non-commercial",
    "1aurent/vit_small_patch16_224.kaiko_ai_towards_large_pathology_fms", _recipe(_HALF), 256,
)  # fmt: skip


def _kaiko(size: str, network: str, width: int, parameters: int, published: float, page: str = ""):
    page = f"1aurent/{page or network}.kaiko_ai_towards_large_pathology_fms"
    return replace(
        _KAIKO, title=f"Kaiko {size}", network=network, width=width, parameters=parameters,
        published=published, repository=page,
    )  # fmt: skip


_KAIKO_L14 = replace(
    # Its position embedding is of 518 pixels, which timm shrinks to those of the input.
    _kaiko("ViT-L/14", "vit_large_patch14_reg4_dinov2", 1024, 304_370_688, 304.4,
           page="vit_large_patch14_reg4_224"),
    arguments={"img_size": 518, "dynamic_img_size": True},
)  # fmt: skip
_CTRANSPATH = Preset(
    "CTransPath", "swin_tiny_patch4_window7_224", 768, 27_520_038, 28, "GPL-3.0", "",
    _recipe(IMAGENET), 256, mpp=1.0, pooling="mean", files=("ctranspath.pth",), names="swin", home="https://github.com/Xiyue-Wang/TransPath",
)  # fmt: skip
_LUNIT_S16 = Preset(
    "Lunit DINO ViT-S/16", "vit_small_patch16_224", 384, 21_665_664, 21.7, "Lunit non-commercial",
    "1aurent/vit_small_patch16_224.lunit_dino", _recipe(_LUNIT), 224,
)  # fmt: skip

# Name on the command line -> facts. resnet50, the encoder of the paper, is not timm's and not here.
PRESETS: dict[str, Preset] = {
    "uni": _UNI,
    "uni2-h": _UNI2,
    "conch": _CONCH,
    "conch-v1.5": _CONCH_15,
    "virchow": _VIRCHOW,
    "virchow2": _VIRCHOW2,
    "h-optimus-0": _H_OPTIMUS,
    "h-optimus-1": replace(
        _H_OPTIMUS, title="H-optimus-1", licence=_NC_ND, repository="bioptimus/H-optimus-1"
    ),
    "h0-mini": _H0_MINI,
    "prov-gigapath": _GIGAPATH,
    "phikon": _PHIKON,
    "phikon-v2": _PHIKON_2,
    "hibou-b": _HIBOU_B,
    "hibou-l": _HIBOU_L,
    "kaiko-s16": _KAIKO,
    "kaiko-s8": _kaiko("ViT-S/8", "vit_small_patch8_224", 384, 21_670_272, 21.7),
    "kaiko-b16": _kaiko("ViT-B/16", "vit_base_patch16_224", 768, 85_798_656, 85.8),
    "kaiko-b8": _kaiko("ViT-B/8", "vit_base_patch8_224", 768, 85_807_872, 85.8),
    "kaiko-l14": _KAIKO_L14,
    "ctranspath": _CTRANSPATH,
    "lunit-s16": _LUNIT_S16,
    "lunit-s8": replace(
        _LUNIT_S16, title="Lunit DINO ViT-S/8", network="vit_small_patch8_224",
        parameters=21_670_272, repository="1aurent/vit_small_patch8_224.lunit_dino",
    ),
}  # fmt: skip
