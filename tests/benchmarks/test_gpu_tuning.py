"""The search for configurations: what it tries, and what it keeps of it."""

from __future__ import annotations

from dataclasses import astuple

import pytest


def timed(family: str, tokens: int, forward: float, backward: float) -> dict:
    row = {"family": family, "other": {"tokens": tokens}, "forward_table_ms": 2.0}
    return row | {
        "backward_table_ms": 3.0,
        "forward_other_ms": forward,
        "backward_other_ms": backward,
    }


def test_neighbours_differ_in_one_number_and_can_be_compiled():
    from _gpu_tuning import neighbours

    from gimp_fast.kernels.launch import Config

    config = Config(tokens=64, landmarks=16, num_warps=4, num_stages=1)
    others = list(neighbours(config))
    assert len(others) == len(set(others)) == 5
    for other in others:
        pairs = zip(astuple(config), astuple(other), strict=True)
        assert sum(a != b for a, b in pairs) == 1
        assert other.tokens >= 16
        assert other.landmarks >= 16
        assert 4 <= other.num_warps <= 16
        assert other.num_stages >= 1


@pytest.mark.parametrize("capability", [80, 86, 90, 120])
def test_one_family_of_the_table_changes(capability):
    from _gpu_tuning import changed, families, neighbours

    from gimp_fast.kernels.launch import ARCHITECTURES

    arch = ARCHITECTURES[capability]
    for family, config in families(arch).items():
        other = next(neighbours(config))
        expected = families(arch) | {family: other}
        assert families(changed(arch, family, other)) == expected


@pytest.mark.parametrize("capability", [80, 86, 90])
def test_products_are_launched_as_the_search_changes_them(capability):
    from _gpu_tuning import changed, families, make_calls

    from gimp_fast.kernels import launch

    arch = launch.ARCHITECTURES[capability]
    for config in (families(arch)["product"], launch.Config(64, 32, 4, 2)):
        with launch.recording() as launches:
            for call in make_calls("meta")(changed(arch, "product", config)):
                call()
        found = {made.config for made in launches if made.name.startswith("_pinv_")}
        assert found == {config}


def test_the_best_is_the_fastest_of_those_that_ran():
    from _gpu_tuning import best

    rows = [
        timed("rows", 32, 2.0, 4.0),
        timed("rows", 128, 2.0, 2.0),
        timed("rows", 16, 0.1, 0.1) | {"reason": "results differ by 1.0e+00"},
        {"family": "rows", "other": {"tokens": 256}, "reason": "out of resource: shared memory"},
        timed("product", 64, 3.0, 3.0),
    ]
    assert best(rows) == {
        "rows": {"other": {"tokens": 128}, "ratio": 0.8},
        "product": {"other": {"tokens": 64}, "ratio": 1.2},
    }


def test_a_configuration_that_does_not_run_is_kept_with_the_reason(monkeypatch):
    import _gpu_tuning
    from triton.runtime.errors import OutOfResources

    from gimp_fast.kernels import launch

    def compare(*arguments):
        raise OutOfResources(2**18, 2**17, "shared memory")

    reasons = []
    monkeypatch.setattr(_gpu_tuning, "compare", compare)
    arch = launch.ARCHITECTURES[90]
    with launch.recording():
        _gpu_tuning.search(arch, "cpu", 2, lambda rows: reasons.append(rows[-1]["reason"]))
    assert len(reasons) == 2 * len(_gpu_tuning.families(arch))
    assert all("shared memory" in reason for reason in reasons)


def test_results_that_differ_are_told():
    import torch
    from _gpu_tuning import difference

    a, b = torch.ones(4, 5), torch.zeros(3)
    assert difference((a, a), (a, a)) == 0
    assert difference((a, 1.5 * a), (a, a)) == pytest.approx(0.5)
    assert not difference((b,), (b,)) <= 1
