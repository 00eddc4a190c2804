"""The model of time on a GPU: it follows the code, and its work is that of the algorithm."""

from __future__ import annotations

import json

import pytest

ROWS, HEADS, D, M = 2 * 1000, 8, 64, 256


@pytest.fixture
def records(capsys):
    """A function that gives the records which the command prints."""

    def run(*arguments: str) -> list[dict]:
        from gpu_model import main

        main([*arguments, "--json", "--no-host"])
        return [json.loads(line) for line in capsys.readouterr().out.splitlines()]

    return run


def test_every_recorded_kernel_has_a_formula_and_every_formula_a_kernel():
    from _gpu_devices import DEVICES
    from _gpu_kernels import FORMULAS, works
    from _gpu_work import Case

    cases = [
        Case(batch, 1000, packed, head_dim=head_dim, dtype=dtype)
        for batch, packed in ((2, False), (300, True))
        for head_dim, dtype in ((64, "bf16"), (128, "bf16"), (64, "fp32"))
    ]
    names = {
        work.name
        for case in cases
        for device in DEVICES.values()
        for found in works(case, device).values()
        for work in found
        if work.config is not None
    }
    assert names == set(FORMULAS)


def test_a_kernel_without_a_formula_is_named_with_the_table():
    from _gpu_kernels import formula

    with pytest.raises(SystemExit, match=r"_new_kernel has no formula: .*_gpu_kernels\.py"):
        formula("_new_kernel")


def test_the_flop_of_the_forward_pass_are_those_of_the_algorithm():
    from _gpu_devices import DEVICES
    from _gpu_kernels import works
    from _gpu_work import Case

    forward = works(Case(2, 1000), DEVICES["h200"])["forward"]
    # Scores and sums of values, of landmarks and keys and of queries and landmarks.
    rows = 8 * ROWS * HEADS * M * D
    # Scores of landmarks, twice: for the sums and for the matrix.
    scores = 2 * 2 * 2 * HEADS * M * M * D
    # Four steps Z ← ¼Z(13 − X(15 − X(7 − X))) with X = AZ; X = AZ again; S = X², S(7X − S).
    # Two steps and Z times W.
    inverse = 2 * HEADS * (2 * (4 * 4 + 1 + 2) * M**3 + 2 * (2 * 3 + 1) * M * M * D)
    assert sum(work.flop for work in forward) == rows + scores + inverse


def test_a_record_has_what_a_person_and_a_budget_need(records):
    from _gpu_peers import PEERS

    found = records("--gpu", "3090", "h200", "--shape", "2x1000", "300x1000-packed")
    assert [(record["gpu"], record["shape"]) for record in found] == [
        ("RTX 3090", "2x1000"),
        ("RTX 3090", "300x1000-packed"),
        ("H200 SXM", "2x1000"),
        ("H200 SXM", "300x1000-packed"),
    ]
    for record in found:
        assert record["launches"] <= record["device_operations"]
        assert record["syncs"] == 0
        assert record["host_ms"] is None
        assert record["predicted_ms"] == record["gpu_ms"] > record["floor_ms"] > 0
        assert len(record["kernels"]) == record["operations"] < record["device_operations"]
        assert set(record["peers"]) == set(PEERS)


@pytest.mark.parametrize(("host", "decides"), [(1000.0, "host_ms"), (0.001, "gpu_ms")])
def test_the_longer_of_host_and_gpu_decides(host, decides, monkeypatch, capsys):
    import gpu_model

    monkeypatch.setattr(gpu_model, "host_ms", lambda case: host)
    gpu_model.main(["--gpu", "h200", "--shape", "1x1000", "--no-peers", "--json"])
    record = json.loads(capsys.readouterr().out)
    assert record["host_ms"] == host
    assert record["predicted_ms"] == record[decides]
    assert record["share_of_floor"] == record["floor_ms"] / record["predicted_ms"]


@pytest.mark.parametrize("gpu", ["3090", "a100", "h100", "h200"])
def test_more_tokens_take_longer(records, gpu):
    shapes = [f"1x{n}" for n in (300, 1001, 6000, 15000, 148569)]
    found = records("--gpu", gpu, "--no-peers", "--shape", *shapes)
    for key in ("gflop", "memory_mb", "gpu_ms", "floor_ms"):
        values = [record[key] for record in found]
        assert values == sorted(set(values)), key


def test_the_work_of_peers_is_that_of_their_algorithms():
    from _gpu_peers import works_of_peer
    from _gpu_work import Case

    case = Case(2, 1000)
    exact, sdpa, plain = (
        works_of_peer(name, case)
        for name in ("exact SDPA", "two SDPA calls + pinv", "nystrom-attention")
    )
    # Two products forward; backward five, with the scores again.
    assert sum(work.flop for work in exact) == 2 * 7 * ROWS * HEADS * 1000 * D
    assert sum("flash_attention" in work.name for work in sdpa) == 4
    # It writes the scores of all tokens, padded to 1,024, and landmarks, and reads them again.
    scores = 2 * 2 * 1024 * HEADS * M
    assert sum(work.memory_bytes for work in plain) > 8 * scores


def test_a_question_to_the_gpu_is_counted():
    import torch
    from _gpu_work import Recorder

    with Recorder() as recorder:
        x = torch.ones(3, 4)
        x.mT.sum().item()
    names = [work.name for work in recorder.works]
    assert names == ["ones", "sum", "_local_scalar_dense"]


@pytest.mark.parametrize(
    ("changed", "limit"),
    [
        ({"flop": 10**13}, "products"),
        ({"memory_bytes": 10**10}, "memory"),
        ({"l2_bytes": 10**10}, "cache"),
        ({"steps": 1000}, "steps"),
        ({}, "start"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_a_kernel_takes_the_time_of_its_scarcest_resource(changed, limit):
    from _gpu_devices import DEVICES
    from _gpu_work import Work
    from gpu_model import parts

    given = {"flop": 0, "memory_bytes": 0, "l2_bytes": 0, "programs": 132} | changed
    limits = parts(Work("_a_kernel", unit="half", expected="attention", **given), DEVICES["h200"])
    assert max(limits, key=limits.get) == limit


def test_few_programs_leave_multiprocessors_idle():
    from _gpu_devices import DEVICES
    from _gpu_work import Work
    from gpu_model import time_us

    def time(programs: int) -> float:
        work = Work("_a_kernel", 10**12, "half", "attention", 0, 0, programs)
        return time_us(work, DEVICES["h200"])

    assert time(66) == pytest.approx(2 * time(132))
    assert time(133) == pytest.approx(2 * time(132) * 132 / 133)


def test_the_products_of_the_pseudo_inverse_add_up_to_its_work():
    """Four classic steps and two thin ones; backward the chain again, and what follows."""
    import _gpu_pinv as pinv

    assert pinv.count(pinv.FORWARD, "square") == 4 * 4 + 3
    assert pinv.count(pinv.FORWARD, "thin", "outer") == 2 * 3 + 1
    assert pinv.count(pinv.BACKWARD, "square") == 4 * 4 + 3 + 3 + 1 + 2 + 4 * 8
    assert pinv.count(pinv.BACKWARD, "thin", "outer") == 2 * 3 + 2 + 2 * 6


def test_a_product_reads_its_operands_once_for_each_tile():
    import _gpu_pinv as pinv

    product = [[pinv.square(1, pinv.BOTH)]]
    element = 256 * 256
    # Columns and rows of tiles, of operands in 2 bytes; values added, values and a copy written.
    half = pinv.Sizes(256, 64, 128, 64, item=2)
    assert pinv.cache_bytes(product, half) == element * (2 * (4 + 2) + 4 + 6)
    single = pinv.Sizes(256, 64, 64, 64, item=4)
    assert pinv.cache_bytes(product, single) == element * (4 * (4 + 4) + 4 + 4)


def test_rooms_that_do_not_fit_the_cache_are_read_from_memory():
    import _gpu_pinv as pinv

    sizes, room, megabyte = pinv.Sizes(256, 64, 64, 64, item=2), 9 * 2**20, 2**20
    teams_and_caches = [(4, 40), (20, 40), (20, 6)]
    found = [
        pinv.memory_bytes(pinv.BACKWARD, sizes, teams, room, cache * megabyte)
        for teams, cache in teams_and_caches
    ]
    assert found[:2] == [0, 2 * room]
    assert found[2] > 2 * room


def test_programs_without_a_tile_wait():
    """Of 16 programs 4 have a tile of a thin product; all have one of a square product."""
    import _gpu_pinv as pinv

    sizes = pinv.Sizes(256, 64, 64, 64, item=2)
    for product, idle in ((pinv.thin(0, pinv.COPY), 4), (pinv.square(0, pinv.COPY), 1)):
        rows, columns, terms = product.sizes(256, 64)
        flop = 2 * rows * columns * terms
        assert pinv.flop_of_rounds([[product]], sizes, 16) == idle * flop


def test_meetings_are_added_to_the_longest_of_the_others():
    from _gpu_devices import DEVICES, STEP_US
    from _gpu_work import Work
    from gpu_model import time_us

    with_steps, without = (
        time_us(Work("_a_kernel", 10**12, "half", "attention", 0, 0, 132, n), DEVICES["h200"])
        for n in (8, 0)
    )
    assert with_steps - without == pytest.approx(8 * STEP_US)


def test_occupancy_is_read_from_what_was_compiled(records, monkeypatch, tmp_path):
    import _gpu_occupancy

    rows = [
        {"kernel": "_landmarks_fwd_kernel", "config": config, "registers": 40, "shared": 1024}
        | {"warps": warps}
        for config in ("Config(tokens=32, landmarks=1, num_warps=4, num_stages=2)", "another")
        for warps in (48, 40)
    ]
    file = tmp_path / "compiled.jsonl"
    file.write_text("".join(json.dumps(row) + "\n" for row in rows))
    monkeypatch.setattr(_gpu_occupancy, "compiled", lambda *case: file)
    (record,) = records("--gpu", "3090", "--shape", "1x1000", "--no-peers", "--occupancy")
    first, *others = record["kernels"]
    assert (first["warps"], first["registers"]) == (40, 40)
    assert first["waves"] == pytest.approx(256 * 8 * 2 / (82 * 10))
    assert all("waves" not in row for row in others)


@pytest.mark.parametrize(
    ("shape", "why"),
    [("8x", "8x6000 or 300x1000-packed"), ("1x256", "256 tokens and 256 landmarks")],
)
def test_a_shape_that_the_model_is_not_of_is_refused(shape, why, capsys):
    from gpu_model import main

    with pytest.raises(SystemExit, match="2"):
        main(["--shape", shape])
    assert why in capsys.readouterr().err
