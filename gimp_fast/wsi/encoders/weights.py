"""Files of weights: which one to take, and reading it without running code in it."""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

from gimp_fast.data.slides.pt import UNPICKLING_ERRORS, load_fault
from gimp_fast.errors import FaultError, GimpError, one_line
from gimp_fast.wsi.encoders.presets import Preset

_ENDINGS = (".safetensors", ".pth", ".bin", ".pt", ".torch")


def find_weights(name: str, preset: Preset, given: Path | None, offline: bool) -> tuple[Path, str]:
    """The file of a preset's weights, and where it comes from, in words.

    Args:
        name: of the preset.
        preset: its facts.
        given: a file; a folder with the published files, or with ``NAME.safetensors`` and the
            like, or with folders ``NAME``; None for the hub and its cache.
        offline: never ask the network.

    Raises:
        GimpError: there is no such file; the message says which to bring, and where to put it.
    """
    if given is None:
        return _from_hub(name, preset, offline)
    if not given.is_dir():
        if given.exists():
            return given, given.name
        raise FaultError.of("missing-file", given, "no such file", f"weights of {preset.title}")
    for folder in (given / name, given):
        for file in preset.files:
            if (folder / file).is_file():
                return folder / file, str((folder / file).relative_to(given))
    for ending in _ENDINGS:
        if (given / f"{name}{ending}").is_file():
            return given / f"{name}{ending}", f"{name}{ending}"
    raise GimpError(f"--weights {given}: found no weights of {name} in it; {_bring(name, preset)}")


def _bring(name: str, preset: Preset) -> str:
    files, ending = " or ".join(preset.files), Path(preset.files[0]).suffix
    return (
        f"where there is a network, get {files} from {preset.card} (licence: {preset.licence}; log "
        f"in if the page asks for it), copy it to this machine as FOLDER/{name}/{preset.files[0]} "
        f"or FOLDER/{name}{ending}, and pass --weights FOLDER"
    )


def _from_hub(name: str, preset: Preset, offline: bool) -> tuple[Path, str]:
    """From the Hugging Face hub, or from its cache."""
    why = "--offline" if offline else ""
    if preset.repository:
        from huggingface_hub import errors, hf_hub_download

        for file in preset.files:
            try:
                path = hf_hub_download(preset.repository, file, local_files_only=offline)
            except errors.RemoteEntryNotFoundError as error:
                why = one_line(error)  # published under the next name, perhaps
            except errors.LocalEntryNotFoundError as error:
                why = why or one_line(error)
                if not offline:
                    break  # no network: it would be tried as long for the next name
            except (OSError, ValueError) as error:
                why = f"refused: {one_line(error)}"
                break
            else:
                return Path(path), f"{preset.card}, {file}"
    place = "on the hub or in its cache" if preset.repository else "without --weights"
    reason = f" ({why})" if why else ""
    raise GimpError(f"--encoder {name}: found no weights {place}{reason}; {_bring(name, preset)}")


def read_state(path: Path, expected: str = "weights of an encoder") -> Mapping[str, Tensor]:
    """The named tensors of a file, without running any code in it; FaultError if unreadable."""
    if not path.is_file():
        raise FaultError.of("missing-file", path, "no such file", expected)
    try:
        if path.suffix == ".safetensors":
            return load_file(path)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # about foreign pickles, which are refused anyway
            state = torch.load(path, map_location="cpu", weights_only=True)
    except (*UNPICKLING_ERRORS, SafetensorError) as error:
        raise load_fault(path, error, "a state dict, .safetensors or .pth") from error
    if not isinstance(state, Mapping):
        raise FaultError.of("weights", path, f"a {type(state).__name__}", "a state dict")
    return state
