"""Which settings make two runs the same, and in which two configurations differ."""

from __future__ import annotations

from typing import Any

from gimp_fast.training.config import TrainConfig

# Settings that change how a run is carried out, but not its result: a run may resume with others.
WITHOUT_EFFECT = frozenset(
    {
        "data",  # checkpoints and tables have the cohort's fingerprint instead
        "workers",
        "save_minutes",
        "keep_checkpoints",
        "profile",
        "wandb",
        "rank_timeout_minutes",
    }
)
# Tables also accept a finished run whose threads differ (which changes results by rounding), whose
# features were read in another way, or whose own intervals have another number of resamples.
SAME_IN_TABLES = WITHOUT_EFFECT | {"threads", "cache_gb", "bootstrap"}


def differences(a: TrainConfig, b: TrainConfig) -> dict[str, tuple[Any, Any]]:
    """The settings in which two configurations differ: ``"finetune.lr"`` -> both values.

    The path of the cohort does not count, because checkpoints hold its fingerprint; nor do settings
    that no result depends on.
    """
    flat_a, flat_b = (flat_settings(x.model_dump(exclude=WITHOUT_EFFECT)) for x in (a, b))
    keys = dict.fromkeys([*flat_a, *flat_b])
    values = {key: (flat_a.get(key), flat_b.get(key)) for key in keys}
    return {key: both for key, both in values.items() if both[0] != both[1]}


def flat_settings(values: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    """``{"finetune": {"lr": 1}}`` as ``{"finetune.lr": 1}``."""
    flat = {}
    for key, value in values.items():
        if isinstance(value, dict):
            flat |= flat_settings(value, f"{prefix}{key}.")
        else:
            flat[prefix + key] = value
    return flat
