"""Claims a run folder for a configuration, or refuses to."""

from __future__ import annotations

import hashlib
import json
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml

from gimp_fast.errors import GimpError
from gimp_fast.files.yaml_file import read_yaml_mapping
from gimp_fast.plugins import load_plugins
from gimp_fast.runs import layout
from gimp_fast.runs.environment import environment
from gimp_fast.runs.folder import RunFolder
from gimp_fast.training.config import TrainConfig, merge, validate_config
from gimp_fast.training.distributed import ALONE, Ranks
from gimp_fast.training.same_result import WITHOUT_EFFECT, differences, flat_settings
from gimp_fast.validation import shown


def saved_config(run: Path) -> TrainConfig:
    """The configuration of the run in a folder; GimpError if there is none or it is damaged."""
    file = Path(run) / layout.CONFIG
    return validate_config(read_yaml_mapping(file), str(file))


def resumed_config(run: Path, asked: Mapping[str, Any]) -> tuple[TrainConfig, list[str]]:
    """The configuration that a run resumes with, and lines about what was asked otherwise.

    It is the saved one. Only settings that no result depends on are taken from what was asked.

    Args:
        run: folder of a run that has its configuration.
        asked: sections and fields, as :func:`gimp_fast.training.config.asked_values` returns them.

    Raises:
        GimpError: the saved configuration is damaged, or what was asked is not valid.
    """
    saved = saved_config(run)
    values = saved.model_dump(mode="json")
    if asked.get("method", saved.method) != saved.method:
        # Settings of the other method, whose fields and modalities are its own.
        del values["model"], values["modalities"]
    merge(values, asked)
    wanted = validate_config(values, f"{run}: asked for")
    free = {name: getattr(wanted, name) for name in WITHOUT_EFFECT if name in asked}
    named = flat_settings(dict(asked))
    other = {key: both for key, both in differences(saved, wanted).items() if key in named}
    if not other:
        return saved.model_copy(update=free), []
    width = max(map(len, other))
    return saved.model_copy(update=free), [
        f"{run}: resumes with its saved configuration. Asked otherwise, and NOT used:",
        *(f"  {key:<{width}}  {_pair(*both)}" for key, both in other.items()),
        "To train with other settings, choose another --out.",
    ]


def _pair(saved: object, asked: object) -> str:
    return f"saved {shown(saved)}, asked {shown(asked)}"


def check_folder(folder: RunFolder, config: TrainConfig, *, resume: bool) -> None:
    """Refuse a folder that cannot take a run of `config`; writes nothing.

    Raises:
        GimpError: it holds a run and `resume` is off, or a run of another configuration.
    """
    if not folder.config_file.exists():
        return
    if not resume:
        raise GimpError(f"{folder.path}: holds a run already; choose another --out, or --resume it")
    found = differences(saved_config(folder.path), config)
    if found:
        lines = "".join(f"\n  {key}: {_pair(*both)}" for key, both in found.items())
        raise GimpError(
            f"{folder.config_file}: the run to resume has another configuration; choose another "
            f"folder for this one:{lines}"
        )


def claim_folder(
    folder: RunFolder, config: TrainConfig, *, resume: bool, ranks: Ranks = ALONE
) -> None:
    """Write the configuration and the environment of a new run; errors as :func:`check_folder`."""
    check_folder(folder, config, resume=resume)
    folder.begin_wandb(config.model_dump(mode="json"))
    if folder.config_file.exists():
        return
    text = yaml.safe_dump(config.model_dump(mode="json"), sort_keys=False, allow_unicode=True)
    facts = environment() | {
        "config_sha256": config_hash(config),
        "command": sys.argv,
        "plugins": load_plugins(),
        "ranks": ranks.size,
    }
    folder.write_environment(facts)
    folder.write_config(text)


def config_hash(config: TrainConfig) -> str:
    """SHA-256 of the resolved configuration without the path of its cohort."""
    values = config.model_dump(mode="json", exclude={"data"})
    return hashlib.sha256(json.dumps(values, sort_keys=True).encode("utf-8")).hexdigest()
