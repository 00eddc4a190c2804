"""Claims a run folder for a configuration, or refuses to."""

from __future__ import annotations

import hashlib
import json
import sys
from pathlib import Path

import yaml

from gimp_fast.errors import GimpError
from gimp_fast.runs import layout
from gimp_fast.runs.environment import environment
from gimp_fast.runs.folder import RunFolder
from gimp_fast.training.config import TrainConfig, first_difference, read_yaml, validate_config
from gimp_fast.training.distributed import ALONE, Ranks


def saved_config(run: Path) -> TrainConfig:
    """The configuration of the run in a folder; GimpError if there is none or it is damaged."""
    file = Path(run) / layout.CONFIG
    return validate_config(read_yaml(file), str(file))


def check_folder(folder: RunFolder, config: TrainConfig, *, resume: bool) -> None:
    """Refuse a folder that cannot take a run of `config`; writes nothing.

    Raises:
        GimpError: it holds a run and `resume` is off, or a run of another configuration.
    """
    if not folder.config_file.exists():
        return
    if not resume:
        raise GimpError(f"{folder.path}: holds a run already; choose another --out, or --resume it")
    difference = first_difference(saved_config(folder.path), config)
    if difference:
        raise GimpError(
            f"{folder.config_file}: the run to resume has another configuration: "
            f"{difference} (saved, asked for)"
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
        "ranks": ranks.size,
    }
    folder.write_environment(facts)
    folder.write_config(text)


def config_hash(config: TrainConfig) -> str:
    """SHA-256 of the resolved configuration without the path of its cohort."""
    values = config.model_dump(mode="json", exclude={"data"})
    return hashlib.sha256(json.dumps(values, sort_keys=True).encode("utf-8")).hexdigest()
