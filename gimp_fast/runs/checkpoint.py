"""Checkpoints: a safetensors file of tensors, with everything else as JSON in its header."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
import xxhash
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor, nn

from gimp_fast.errors import GimpError
from gimp_fast.files.atomic import atomic_file, link_over
from gimp_fast.files.json_file import need_object, parse_json
from gimp_fast.runs.layout import CHECKSUM_KEY, STATE_KEY, recent_file


def save_checkpoint(path: Path, tensors: dict[str, Tensor], state: dict[str, Any]) -> None:
    """Write tensors and JSON-able state; a reader sees either the old file or the new one."""
    tensors = {name: tensor.detach().contiguous().cpu() for name, tensor in tensors.items()}
    text = json.dumps(state)
    metadata = {STATE_KEY: text, CHECKSUM_KEY: _checksum(tensors, text)}
    content = _with_sorted_metadata(save(tensors, metadata), path)
    with atomic_file(path) as partial, partial.open("wb") as stream:
        for part in content:
            stream.write(part)


def _with_sorted_metadata(content: bytes, where: Path) -> tuple[bytes | memoryview, ...]:
    """Parts of a file that have the same bytes for the same content.

    The library writes the metadata in a random order.
    """
    end = 8 + int.from_bytes(content[:8], "little")
    header = parse_json(content[8:end], where)
    header["__metadata__"] = dict(sorted(header["__metadata__"].items()))
    text = json.dumps(header, ensure_ascii=False, separators=(",", ":")).encode().ljust(end - 8)
    if len(text) != end - 8:  # the library's JSON has no blanks either
        return (content,)
    return content[:8], text, memoryview(content)[end:]


def load_checkpoint(path: Path) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Tensors and state of a file that :func:`save_checkpoint` wrote.

    Raises:
        GimpError: the file is missing, damaged, or another kind of safetensors file.
    """
    try:
        with safe_open(path, framework="pt") as file:
            metadata = file.metadata() or {}
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    except (OSError, SafetensorError, ValueError, RuntimeError) as error:
        raise GimpError(f"{path}: not a readable checkpoint: {error}") from error
    if STATE_KEY not in metadata:
        raise GimpError(f"{path}: found a safetensors file; expected a gimp_fast checkpoint")
    if metadata.get(CHECKSUM_KEY) != _checksum(tensors, metadata[STATE_KEY]):
        raise GimpError(f"{path}: damaged: it does not match its checksum")
    return tensors, need_object(parse_json(metadata[STATE_KEY], path), path)


def _checksum(tensors: dict[str, Tensor], text: str) -> str:
    digest = xxhash.xxh3_64(text.encode("utf-8"))
    for name, tensor in sorted(tensors.items()):
        digest.update(name.encode("utf-8"))
        digest.update(tensor.contiguous().reshape(-1).view(torch.uint8).numpy())
    return digest.hexdigest()


def load_model(path: Path, model: nn.Module) -> dict[str, Any]:
    """The state of a checkpoint, after loading its weights into a model."""
    tensors, state = load_checkpoint(path)
    model.load_state_dict(under_prefix("model", tensors))
    return state


class RecentCheckpoints:
    """The last ``keep`` training states of a run: ``last``, then the older ``last-1`` …"""

    def __init__(self, folder: Path, keep: int):
        self._files = [recent_file(folder, age) for age in range(keep)]

    def save(self, tensors: dict[str, Tensor], state: dict[str, Any]) -> None:
        """Write the newest state; ``last`` exists at every moment, either the old or the new."""
        for newer, older in zip(self._files[-2::-1], self._files[:0:-1], strict=True):
            if newer.exists():
                link_over(newer, older)
        save_checkpoint(self._files[0], tensors, state)

    def load(self, log: Callable[[str], None]) -> tuple[dict[str, Tensor], dict[str, Any]] | None:
        """The newest undamaged state, after logging damaged ones; None if there is none yet.

        Raises:
            GimpError: all states are damaged.
        """
        errors = []
        for file in filter(Path.exists, self._files):
            try:
                found = load_checkpoint(file)
            except GimpError as error:
                errors.append(str(error))
                continue
            for error in errors:
                log(f"warning: {error}; continuing from {file.name} instead")
            return found
        if errors:
            raise GimpError(f"no checkpoint to continue from: {'; '.join(errors)}")
        return None


def with_prefix(prefix: str, tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    return {f"{prefix}.{name}": tensor for name, tensor in tensors.items()}


def under_prefix(prefix: str, tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    cut = len(prefix) + 1
    return {k[cut:]: v for k, v in tensors.items() if k.startswith(f"{prefix}.")}


def pack_optimizer(optimizer: torch.optim.Optimizer) -> tuple[dict[str, Tensor], list[dict]]:
    """Optimiser state as named tensors (``"<parameter>.<name>"``) and JSON-able groups."""
    packed = optimizer.state_dict()
    tensors = {
        f"{index}.{name}": torch.as_tensor(value)
        for index, values in packed["state"].items()
        for name, value in values.items()
    }
    return tensors, packed["param_groups"]


def unpack_optimizer(
    optimizer: torch.optim.Optimizer, tensors: dict[str, Tensor], groups: list[dict]
) -> None:
    """Load what :func:`pack_optimizer` returned into an optimiser."""
    state: dict[int, dict[str, Tensor]] = {}
    for key, tensor in tensors.items():
        index, name = key.split(".", 1)
        state.setdefault(int(index), {})[name] = tensor
    optimizer.load_state_dict({"state": state, "param_groups": groups})
