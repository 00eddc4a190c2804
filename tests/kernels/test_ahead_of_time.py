"""Every kernel and configuration compiles for GPUs that are not here, and spills no register."""

from __future__ import annotations

import json
import os
import re
from pathlib import Path

import pytest
from builders.once import make_once, session_folder
from packaging.version import Version

triton = pytest.importorskip("triton")

from builders.compiled_kernels import (  # noqa: E402 - they need it
    CASES,
    RECORD,
    compiled,
    name_of,
    recorded,
    sources,
)

HERE = Path(__file__).resolve().parent
ROOT = HERE.parents[1]
AGAIN = (120, "float16")  # the case that takes the least time
KERNELS = {
    name
    for path in (ROOT / "kernels").glob("*.py")
    for name in re.findall(r"^def (_\w+_kernel)\(", path.read_text(encoding="utf-8"), re.M)
}
# Bytes of shared memory that one block may have.
SHARED = {
    80: 163 * 1024, 86: 99 * 1024, 89: 99 * 1024, 90: 227 * 1024, 100: 227 * 1024,
    103: 48 * 1024, 120: 99 * 1024,
}  # fmt: skip
# The configurations were chosen with triton 3.7. Older ones need more registers: a few kernels of
# fp32 or of odd head dims spill 8 to 160 bytes a thread.
STACK = 0 if Version(triton.__version__) >= Version("3.7") else 160
# The pseudo-inverse calls its products, and keeps addresses on the stack meanwhile. They are read
# between two products, in microseconds each, not in their loops.
CALLS = 8
# Kernels that hold all landmarks of a head, and where there is room for them.
HOLDING = {name for name in KERNELS if "_all_" in name}
HELD = {
    (90, "bfloat16", 64): HOLDING,
    (100, "bfloat16", 64): {"_queries_to_landmarks_all_fwd_kernel"},
}


@pytest.fixture(scope="session")
def results(tmp_path_factory) -> Path:
    """A folder for what compiling found out; it is used until a source or a version changes."""
    folder = ROOT / "build" if os.access(ROOT, os.W_OK) else session_folder(tmp_path_factory)
    return folder / "ahead-of-time" / "-".join(sources().values())


@pytest.fixture(scope="session")
def environment(tmp_path_factory) -> dict[str, str]:
    """One that does not interpret kernels; what several cases share is compiled once."""
    cache = session_folder(tmp_path_factory) / "triton-cache"
    kept = {k: v for k, v in os.environ.items() if k != "TRITON_INTERPRET"}
    return kept | {"TRITON_CACHE_DIR": str(cache)}


def test_the_kernels_are_found():
    assert {"_landmarks_fwd_kernel", "_pinv_fwd_kernel"} <= KERNELS


@pytest.mark.parametrize(
    ("block", "warps"),
    [((86, 4, 32, 0), 48), ((86, 4, 64, 0), 32), ((80, 8, 255, 0), 8), ((90, 4, 128, 65536), 12)],
    ids=["warps", "registers", "registers-of-large-blocks", "shared-memory"],
)
def test_resident_warps_are_those_of_the_scarcest_resource(block, warps, monkeypatch):
    monkeypatch.syspath_prepend(HERE)
    from ahead_of_time import resident_warps

    assert resident_warps(*block) == warps


def test_the_record_is_of_these_kernels():
    first = json.loads(RECORD.read_text(encoding="utf-8").partition("\n")[0])
    if any(first[name] != sources()[name] for name in ("triton", "torch")):
        pytest.skip("the record is of other versions: every kernel is compiled")
    assert recorded(), "a kernel has changed: run python tests/kernels/record_compiled.py"


@pytest.mark.slow
def test_compiling_again_finds_what_the_record_says(environment):
    if not recorded():
        pytest.skip("every kernel is compiled anyway")
    found = [json.loads(line) for line in compiled(AGAIN, environment).splitlines()]
    assert found == recorded()[name_of(AGAIN)]


@pytest.mark.slow
@pytest.mark.parametrize(("case", "head_dims"), CASES.items(), ids=map(name_of, CASES))
def test_every_launch_compiles_fits_and_spills_nothing(case, head_dims, results, environment):
    capability, _ = case
    rows = recorded().get(name_of(case))
    if rows is None:
        file = make_once(
            results / f"{name_of(case)}.jsonl",
            lambda path: path.write_text(compiled(case, environment), encoding="utf-8"),
        )
        rows = [json.loads(line) for line in file.read_text(encoding="utf-8").splitlines()]
    for head_dim in head_dims:
        expected = (KERNELS - HOLDING) | HELD.get((*case, head_dim), set())
        assert {row["kernel"] for row in rows if row["head_dim"] == head_dim} == expected
    assert [row for row in rows if row["shared"] > SHARED[capability]] == []
    assert [row for row in rows if row["stack"] > STACK + CALLS * ("_pinv_" in row["kernel"])] == []
    # Operands of the pseudo-inverse arrive 16 bytes at a time, whichever way a product reads them.
    assert [
        row for row in rows if "_pinv_" in row["kernel"] and row["copies"] not in ([16], [])
    ] == []
