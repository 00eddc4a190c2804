"""Whether a file of an earlier run is what this run would write: by the settings in effect."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import asdict
from pathlib import Path

from gimp_fast.errors import FaultError
from gimp_fast.wsi.feature_file import PatchEncoder, settings_of
from gimp_fast.wsi.options import ExtractOptions
from gimp_fast.wsi.readers import open_wsi
from gimp_fast.wsi.resolution import Override, is_of_slide, level0_mpp


def settings_for(options: ExtractOptions, encoder: PatchEncoder | None) -> dict[str, object]:
    """What all files of a run have in common, and another run may have otherwise.

    The resolution of level 0 is not among it: files record their own.
    """
    settings: dict[str, object] = {
        "patch_size": options.grid.patch_size,
        "coords": "given" if options.coords else "tissue",
    }
    if not options.coords:
        settings |= {"grid": asdict(options.grid), "tissue": asdict(options.tissue)}
    if encoder is not None:
        settings |= {"encoder": encoder.name, "precision": encoder.precision}
    return settings


def check_settings(
    target: Path, settings: Mapping[str, object], slide: Path, override: Override | None
) -> None:
    """FaultError unless a finished file has these settings, and the slide's resolution.

    Args:
        target: the finished file.
        settings: of this run.
        slide: the slide, which is opened only if its own record matters.
        override: the resolution that the user gives for the slide.
    """
    expected = (
        "the settings of this run; --overwrite replaces the file, another --out keeps both, and "
        "--slides can name only the slides to make with these settings"
    )
    record = settings_of(target)
    if record is None:
        raise FaultError.of("other-settings", target, "a file from another program", expected)
    made_with, before, source = record
    old, new = dict(_flat(made_with)), dict(_flat(settings))
    differences = [
        f"{key} {old.get(key)} (now {new.get(key)})"
        for key in sorted({*old, *new})
        if old.get(key) != new.get(key)
    ]
    if override is None or (is_of_slide(source) and not override.always):
        now = before  # nobody says otherwise
    else:
        now = override.mpp if override.always else _mpp_of(slide, override)
    if not math.isclose(before, now, rel_tol=1e-6):
        differences.append(f"{before:g} µm per pixel of level 0 from {source} (now {now:g})")
    if differences:
        raise FaultError.of("other-settings", target, "; ".join(differences), expected)


def _mpp_of(slide: Path, override: Override) -> float:
    """Micrometres per pixel of level 0: what the slide records, or else what the user gives."""
    with open_wsi(slide) as opened:
        return level0_mpp(opened.facts, override)[0]


def _flat(settings: Mapping[str, object], prefix: str = "") -> Iterator[tuple[str, object]]:
    """Names of settings, with those of groups as ``group.name``."""
    for name, value in settings.items():
        if isinstance(value, Mapping):
            yield from _flat(value, f"{prefix}{name}.")
        else:
            yield f"{prefix}{name}", value
