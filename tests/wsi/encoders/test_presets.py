"""Every named encoder: its network has the published size and width, and its row is documented."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from gimp_fast.wsi.encoders.presets import PRESETS, Preset

PAGE = Path(__file__).resolve().parents[3] / "docs" / "encoders.md"
NAMES = list(PRESETS)


@pytest.mark.parametrize("name", NAMES)
def test_the_network_has_the_published_size_and_width(name):
    pytest.importorskip("timm")
    from gimp_fast.wsi.encoders.networks import build

    preset = PRESETS[name]
    with torch.device("meta"):
        network = build(preset, name).eval()
        features = network(torch.empty(2, 3, preset.recipe.size, preset.recipe.size))
    parameters = sum(parameter.numel() for parameter in network.parameters())
    assert parameters == preset.parameters
    assert parameters / 1e6 == pytest.approx(preset.published, rel=0.02)
    assert features.shape == (2, preset.width)


@pytest.mark.parametrize("name", NAMES)
def test_facts_are_complete(name):
    preset = PRESETS[name]
    assert preset.card.startswith("https://")
    assert preset.licence
    assert preset.files
    # Patches are never enlarged for the network: that would add nothing.
    assert preset.patch_size >= preset.recipe.size
    assert all(0 < value < 1 for value in preset.recipe.mean + preset.recipe.std)


def row_of(name: str, preset: Preset) -> str:
    size = f"{preset.patch_size} at {preset.mpp:g}"
    if preset.patch_size != preset.recipe.size:
        how = "middle" if preset.recipe.margin else "resized to"
        size += f", {how} {preset.recipe.size}"
    parameters = f"{preset.parameters / 1e6:,.1f}"
    page = preset.card.removeprefix("https://").removeprefix("huggingface.co/")
    bring = f"{' or '.join(f'`{file}`' for file in preset.files)} of [{page}]({preset.card})"
    return (
        f"| `{name}` | {preset.title} | {preset.width} | {parameters} | {size} | {preset.pooling} "
        f"| {preset.licence} | {bring} |"
    )


@pytest.mark.skipif(not PAGE.is_file(), reason="the tests lie without the documentation")
@pytest.mark.parametrize("name", NAMES)
def test_the_row_of_the_page_is_that_of_the_table(name):
    assert row_of(name, PRESETS[name]) in PAGE.read_text(encoding="utf-8").splitlines()
