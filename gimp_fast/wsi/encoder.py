"""Loads the encoder that is asked for: the paper's, a named one, any of timm, or a user's own."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import torch
from torch import nn

from gimp_fast.errors import DAMAGE_ERRORS, GimpError, nearest, one_of
from gimp_fast.ops.backends import choose_device
from gimp_fast.plugins import Registry, function_at
from gimp_fast.wsi import resnet50
from gimp_fast.wsi.encoders.presets import PRESETS
from gimp_fast.wsi.encoders.recipe import IMAGENET, Channels, Recipe
from gimp_fast.wsi.encoders.running import Encoder, short, weights_digest_of
from gimp_fast.wsi.options import RESNET50, TIMM, EncoderOptions

Maker = Callable[[Path | None], nn.Module]  # from a file of weights, if there is one


@dataclass(frozen=True)
class _Kind:
    """How to make an encoder's network, and the pixels that it takes."""

    make: Maker
    recipe: Recipe = field(default_factory=Recipe)


_ENCODERS: Registry[_Kind] = Registry("encoder", {})


def register_encoder(
    name: str,
    make: Maker,
    *,
    mean: Channels = IMAGENET[0],
    std: Channels = IMAGENET[1],
    size: int | None = None,
) -> None:
    """Add an encoder under a name, for ``gimp-fast extract --encoder NAME``::

        def make(weights):  # a pathlib.Path, or None
            network = timm.create_model("vit_small_patch16_224", num_classes=0)
            network.load_state_dict(torch.load(weights, weights_only=True))
            return network

        wsi.register_encoder("vit_small", make, size=224)

    Args:
        name: recorded in the feature files, with a digest of the weights.
        make: a network from the file that ``--weights`` names, or from None without it. The network
            takes (B, 3, P, P) float32 and returns (B, C); any C, the same for every patch.
        mean, std: of red, green and blue in 0 … 1, by which pixels are normalised: ImageNet's.
        size: side P to which patches are resized; None for patches as they are cut.

    Raises:
        ValueError: the name is taken.
        TypeError: ``make`` cannot be called.
    """
    if name in (RESNET50, *PRESETS):
        raise ValueError(f"encoder '{name}' is taken; choose another name")
    if not callable(make):
        raise TypeError(f"encoder {name!r}: found {make!r}; expected a function of the weights")
    _ENCODERS.add(name, _Kind(make, Recipe(mean, std, size)))


def available_encoders() -> tuple[str, ...]:
    """Names of the encoders that :func:`load_encoder` can load; those of timm are not listed."""
    return (RESNET50, *_ENCODERS, *PRESETS)


def load_encoder(options: EncoderOptions, patch_size: int = 256) -> Encoder:
    """An encoder, by default that of the paper, on a device.

    Args:
        options: which encoder, its weights and its device.
        patch_size: pixels of a side of the patches, with which an encoder is tried if its output
            is not known beforehand.

    Raises:
        GimpError: there is no such encoder, there are no weights, they do not fit the network, or
            there is no such device.
    """
    device = _device_for(options)
    if options.encoder == RESNET50:
        return _load_paper_s(options, device)
    if options.encoder in PRESETS:
        return _load_preset(options, device)
    if options.encoder.startswith(TIMM):
        return _load_timm(options, device, patch_size)
    return _load_own(options, device, patch_size)


def _load_paper_s(options: EncoderOptions, device: str) -> Encoder:
    """The encoder of the paper, with a file of weights or torchvision's."""
    weights, source, licence = options.weights, resnet50.URL, resnet50.LICENCE
    if options.random_weights:
        network = resnet50.random_network(options.seed)
    else:
        state = resnet50.read_state(weights) if weights else resnet50.download(options.offline)
        network = resnet50.TruncatedResNet50()
        resnet50.load_into(network, state, weights or resnet50.URL)
    if weights:
        source, licence = weights.name, "not recorded"
    made = _Made(network, resnet50.NAME, source, Recipe(), licence, resnet50.FEATURE_DIM)
    return made.encoder(options, device)


def _load_preset(options: EncoderOptions, device: str) -> Encoder:
    """A named encoder with the weights that its authors publish."""
    from gimp_fast.wsi.encoders.keys import load_state
    from gimp_fast.wsi.encoders.networks import build
    from gimp_fast.wsi.encoders.timm_import import import_timm
    from gimp_fast.wsi.encoders.weights import find_weights, read_state

    name, preset, source = options.encoder, PRESETS[options.encoder], ""
    import_timm(f"--encoder {name}")  # before weights are downloaded in vain
    if not options.random_weights:
        path, source = find_weights(name, preset, options.weights, options.offline)
        state = read_state(path, f"weights of {preset.title}")
    with _seeded(options.seed):
        network = build(preset, f"--encoder {name}")
    if not options.random_weights:
        load_state(network, state, preset.names, path)
    made = _Made(network, name, source, preset.recipe, preset.licence, preset.width)
    return made.encoder(options, device)


def _load_timm(options: EncoderOptions, device: str, patch_size: int) -> Encoder:
    """Any model of timm, with a file of weights or those that timm knows."""
    from gimp_fast.wsi.encoders.keys import load_state
    from gimp_fast.wsi.encoders.networks import build_timm
    from gimp_fast.wsi.encoders.weights import read_state

    where, model = f"--encoder {options.encoder}", options.encoder.removeprefix(TIMM)
    download = not (options.weights or options.random_weights)
    if download and options.offline:
        raise GimpError(f"{where} --offline: expected --weights FILE, with timm's names of tensors")
    with _seeded(options.seed):
        network, recipe, licence = build_timm(model, where, download)
    source = f"timm, {model}"
    if options.weights:
        load_state(network, read_state(options.weights), "timm", options.weights)
        source = options.weights.name
    made = _Made(network, f"timm-{model}", source, recipe, licence)
    return _tried(made.encoder(options, device), patch_size, where)


@dataclass(frozen=True)
class _Made:
    """A network with its weights, and what is known of it."""

    network: nn.Module
    name: str  # without the digest
    source: str  # of the weights, in words
    recipe: Recipe
    licence: str = "not recorded"
    dim: int = 1

    def encoder(self, options: EncoderOptions, device: str) -> Encoder:
        """On the device, under its full name; a name of a resized input also tells the recipe."""
        digest, source = weights_digest_of(self.network), self.source
        resized = None if self.recipe.size is None else self.recipe
        name = f"{self.name}-{short(digest, resized)}"
        if options.random_weights:
            name = f"RANDOM-WEIGHTS-{self.name}-seed{options.seed}"
            source = f"random, seed {options.seed}: these features mean nothing"
        return Encoder(
            self.network, name, source, device, options.precision, self.dim, self.recipe,
            self.licence, digest,
        )  # fmt: skip


@contextlib.contextmanager
def _seeded(seed: int) -> Iterator[None]:
    """Random numbers from a seed; the global random state is not changed."""
    with torch.random.fork_rng(devices=()):
        torch.manual_seed(seed)
        yield


def _load_own(options: EncoderOptions, device: str, patch_size: int) -> Encoder:
    """An encoder that is registered, or that a function makes, after trying it on one patch."""
    asked, where = options.encoder, f"--encoder {options.encoder}"
    if ":" in asked:
        kind, name = _Kind(function_at(asked, "--encoder")), asked.rpartition(":")[2]
    elif asked in (names := available_encoders()):
        kind, name = _ENCODERS.get(asked), asked
    else:
        own = "; your own encoder needs --plugin, or is named as file.py:function"
        expected = one_of(asked, names) + ("" if nearest(asked, names) else own)
        raise GimpError(f"--encoder: found '{asked}'; expected {expected}")
    try:
        network = kind.make(options.weights)
        if not isinstance(network, nn.Module):
            raise TypeError(f"found a {type(network).__name__}; expected a torch.nn.Module")
        weights = options.weights.name if options.weights else "of its own code"
        made = _Made(network, name, weights, kind.recipe)
        return _tried(made.encoder(options, device), patch_size, where)
    except (*DAMAGE_ERRORS, NameError, ImportError) as error:
        raise GimpError(f"{where}: fails on patches of {patch_size} pixels: {error}") from error


def _tried(encoder: Encoder, patch_size: int, where: str) -> Encoder:
    """The encoder with the width that it gives; GimpError if it does not give one row a patch."""
    features = encoder(np.zeros((2, patch_size, patch_size, 3), np.uint8))
    if features.ndim != 2 or len(features) != 2 or not features.shape[1]:
        found = f"an output of shape {features.shape} for 2 patches"
        raise GimpError(f"{where}: found {found}; expected (2, channels)")
    encoder.dim = features.shape[1]
    return encoder


def _device_for(options: EncoderOptions) -> str:
    """The device; GimpError unless torch has it and computes in the precision on it."""
    device = choose_device(options.device)
    if device.type == "cpu" and options.precision == "fp16":
        raise GimpError("--precision fp16 needs a GPU; on a CPU use fp32 or bf16")
    return str(device)
