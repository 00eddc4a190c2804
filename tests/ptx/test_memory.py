"""Memory and control flow of the emulator: what it computes, and what it reports."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from ptx.errors import PtxError
from ptx.snippets import compute, run

ADDRESS = "mov.b32 %r4, smem;\nmad.lo.s32 %r5, %r90, 4, %r4;\n"
STORE = ADDRESS + "st.shared.b32 [%r5], %r90;\n"
# Each thread reads what the thread 32 places further, modulo 64, has written.
ACROSS = "xor.b32 %r6, %r90, 32;\nmad.lo.s32 %r7, %r6, 4, %r4;\nld.shared.b32 %r10, [%r7];\n"
COPY = ADDRESS + "cp.async.ca.shared.global [%r5], [%rd90], 4;\n"
NUMBERS = np.arange(64, dtype=np.uint32)[:, None]


def test_warps_exchange_values_over_a_barrier():
    found = compute(STORE + "bar.sync 0;\n" + ACROSS, np.tile(NUMBERS, (3, 1)), threads=64)[:, 0]
    assert found.tolist() == np.tile(NUMBERS[:, 0] ^ 32, 3).tolist()


def test_a_missing_barrier_is_reported():
    with pytest.raises(PtxError, match=r"ld\.shared.*race: a warp reads what another wrote"):
        compute(STORE + ACROSS, NUMBERS, threads=64)


def test_overwriting_what_another_warp_read_is_reported():
    with pytest.raises(PtxError, match="race: a warp overwrites what another read"):
        compute(STORE + "bar.sync 0;\n" + ACROSS + STORE, NUMBERS, threads=64)


def test_overwriting_what_another_warp_wrote_is_reported():
    with pytest.raises(PtxError, match="race: a warp overwrites what another wrote"):
        compute(STORE + "xor.b32 %r6, %r90, 32;\nmad.lo.s32 %r7, %r6, 4, %r4;\n"
                "st.shared.b32 [%r7], %r90;", NUMBERS, threads=64)  # fmt: skip


def test_two_warps_writing_different_values_at_once_is_reported():
    body = "mov.b32 %r4, smem;\nst.shared.b32 [%r4], {value};\n"
    compute(body.format(value="7"), NUMBERS, threads=64)
    with pytest.raises(PtxError, match="race: two warps write different values"):
        compute(body.format(value="%r90"), NUMBERS, threads=64)


def test_races_are_found_between_any_two_of_sixteen_warps():
    body = ADDRESS + "setp.ge.u32 %p1, %r90, 480;\n@%p1 st.shared.b32 [%r4], 1;\n{barrier}"
    body += "ld.shared.b32 %r10, [%r4];"
    inputs = np.zeros((512, 1), np.uint32)
    assert (compute(body.format(barrier="bar.sync 0;\n"), inputs, threads=512)[:, 0] == 1).all()
    with pytest.raises(PtxError, match="race: a warp reads"):
        compute(body.format(barrier=""), inputs, threads=512)


def test_copies_arrive_at_the_wait():
    wait = "cp.async.commit_group;\ncp.async.wait_group 0;\nbar.sync 0;\n"
    found = compute(COPY + wait + ACROSS, NUMBERS + 5, threads=64)[:, 0]
    assert found.tolist() == ((NUMBERS[:, 0] ^ 32) + 5).tolist()


def test_a_copy_of_no_bytes_reads_nothing_and_gives_zeros():
    copy = ADDRESS + "mov.b64 %rd5, 0;\ncp.async.ca.shared.global [%r5], [%rd5], 4, 0;\n"
    wait = "cp.async.wait_all;\nbar.sync 0;\n"
    assert (compute(copy + wait + ACROSS, NUMBERS, threads=64)[:, 0] == 0).all()


@pytest.mark.parametrize(
    "wait",
    ["", "cp.async.commit_group;\nbar.sync 0;\n", "cp.async.wait_group 0;\nbar.sync 0;\n",
     "cp.async.commit_group;\ncp.async.wait_group 1;\nbar.sync 0;\n"],
    ids=["none", "barrier-only", "not-committed", "one-group-may-be-late"],
)  # fmt: skip
def test_reading_before_the_copy_has_arrived_is_reported(wait):
    with pytest.raises(PtxError, match="read before the wait for the cp"):
        compute(COPY + wait + "ld.shared.b32 %r10, [%r5];", NUMBERS, threads=64)


def test_a_wait_without_a_barrier_is_not_enough_for_other_warps():
    wait = "cp.async.commit_group;\ncp.async.wait_group 0;\n"
    with pytest.raises(PtxError, match="race: a warp reads what another wrote"):
        compute(COPY + wait + ACROSS, NUMBERS, threads=64)


def test_copying_over_what_another_warp_may_still_read_is_reported():
    with pytest.raises(PtxError, match="race: a warp overwrites what another read"):
        compute(STORE + "bar.sync 0;\n" + ACROSS + COPY, NUMBERS, threads=64)


def test_only_elements_of_the_tensors_may_be_touched():
    whole = torch.zeros(32, 8, dtype=torch.int32)
    store = "st.global.v4.b32 [%rd{}], {{%r90, %r90, %r90, %r90}};"
    half = whole[:, :4]
    row = "mad.wide.u32 %rd1, %r91, 32, %rd80;\n"
    run(row + store.format(1), [half])
    assert half.tolist() == [[i] * 4 for i in range(32)]
    with pytest.raises(PtxError, match=r"line \d+: st.global.v4.b32 .* outside of every tensor"):
        run(store.format(90), [half])


def test_a_read_past_the_end_is_reported_with_its_line():
    with pytest.raises(PtxError, match=r"line \d+: ld.global.b32 .* outside of every tensor"):
        run("ld.global.b32 %r1, [%rd90+4];", [torch.zeros(125, dtype=torch.int32)])


def test_addresses_must_be_aligned():
    with pytest.raises(PtxError, match="not a multiple of it"):
        run("ld.global.v2.b32 {%r1, %r2}, [%rd90+4];", [torch.zeros(200, dtype=torch.int32)])


def test_shared_memory_has_an_end():
    with pytest.raises(PtxError, match="outside of 128 bytes"):
        run(STORE, threads=64, shared=128)


@pytest.mark.parametrize("blocks", [2, 200], ids=["together", "one-after-the-other"])
def test_two_blocks_must_not_write_the_same_bytes(blocks):
    x = torch.zeros(4, dtype=torch.int32)
    with pytest.raises(PtxError, match="two blocks of this launch write the same"):
        run("setp.eq.u32 %p1, %r90, 0;\n@%p1 st.global.b32 [%rd80], 1;", [x], blocks=blocks)


def test_threads_go_different_ways_and_meet_again():
    """A loop of as many turns as the thread's number, left early by odd threads of odd blocks."""
    body = """
mov.b32 %r10, 0;
mov.b32 %r11, 0;
and.b32 %r5, %r91, 33;
setp.eq.s32 %p2, %r5, 33;
setp.eq.s32 %p1, %r0, 0;
@%p1 bra $L_end;
$L_loop:
add.s32 %r10, %r10, 1;
setp.lt.s32 %p1, %r10, %r0;
@!%p2 bra $L_next;
bra.uni $L_end;
$L_next:
@%p1 bra $L_loop;
$L_end:
add.s32 %r11, %r10, 100;
"""
    numbers = np.arange(96, dtype=np.uint32)[:, None]
    found = compute(body, numbers)
    expected = np.where(numbers[:, 0] & 33 == 33, 1, numbers[:, 0])
    assert found[:, 0].tolist() == expected.tolist()
    assert found[:, 1].tolist() == (expected + 100).tolist()


def test_blocks_that_return_early_change_nothing_for_the_others():
    x = torch.zeros(5 * 32, 4, dtype=torch.int32)
    run("setp.ne.u32 %p1, %r92, 3;\n@%p1 ret;\nbar.sync 0;\n"
        "mov.u32 %r1, %ctaid.x;\nst.global.b32 [%rd90], %r1;", [x], blocks=5)  # fmt: skip
    assert x[:, 0].tolist() == [0] * 96 + [3] * 32 + [0] * 32


def test_a_barrier_that_some_threads_miss_is_reported():
    body = "setp.lt.u32 %p1, %r90, 32;\n@%p1 bra $L;\nbar.sync 0;\n$L:\nmov.b32 %r1, 0;"
    with pytest.raises(PtxError, match="only some threads of a block reach a barrier"):
        run(body, threads=64)


def test_a_shuffle_by_a_part_of_a_warp_is_reported():
    body = "setp.lt.u32 %p1, %r90, 7;\n@%p1 shfl.sync.bfly.b32 %r1, %r90, 1, 31, -1;"
    with pytest.raises(PtxError, match="only a part of a warp"):
        run(body)
