"""Blocks and warps that exchange values through global memory, in the emulator."""

from __future__ import annotations

import pytest
import torch
from ptx.errors import PtxError
from ptx.snippets import run

BLOCKS, THREADS = 3, 64
TURNS = {"together": [range(3)], "rising": [[0], [1], [2]], "falling": [[2], [1], [0]]}
FIRST = "setp.eq.u32 %p1, %r90, 0;\n"
ARRIVE = "@%p1 atom.global.gpu.release.add.u32 %r50, [%rd80], 1;\n"
# As Triton writes a loop that waits: the first thread looks, and tells the others.
WAIT = """
$L_wait{n}:
bar.sync 0;
mov.u32 %r51, 0;
@%p1 ld.global.gpu.acquire.b32 %r51, [%rd80];
@%p1 st.shared.b32 [smem], %r51;
bar.sync 0;
ld.shared.b32 %r52, [smem];
setp.lt.s32 %p2, %r52, {count};
@%p2 bra $L_wait{n};
"""
MEET = "bar.sync 0;\n" + ARRIVE + WAIT + "bar.sync 0;\n"
WRITE = "add.s32 %r1, %r91, 100;\nst.global.b32 [%rd91], %r1;\n"
# What a thread of the other warp of the next block wrote.
READ = f"""
add.s32 %r2, %r92, 1;
rem.s32 %r2, %r2, {BLOCKS};
xor.b32 %r3, %r90, 32;
mad.lo.s32 %r4, %r2, {THREADS}, %r3;
mad.wide.s32 %rd1, %r4, 16, %rd81;
ld.global.b32 %r5, [%rd1];
st.global.b32 [%rd92], %r5;
"""


def meet(n=1):
    return MEET.format(n=n, count=BLOCKS * n)


def launch(body, turns=TURNS["together"]):
    """What each thread stored; the counter is the first tensor."""
    counter, values, found = (torch.zeros(BLOCKS * THREADS, 4, dtype=torch.int32) for _ in "123")
    run(FIRST + body, [counter, values, found], threads=THREADS, blocks=BLOCKS, turns=turns)
    return found[:, 0].view(BLOCKS, THREADS)


def expected(added=100):
    values = torch.arange(BLOCKS * THREADS).view(BLOCKS, 2, 32) + added
    return values.roll(-1, 0).flip(1).flatten(1)


@pytest.mark.parametrize("turns", TURNS.values(), ids=TURNS)
def test_blocks_that_meet_see_what_others_wrote(turns):
    again = WRITE.replace("100", "200")
    assert launch(WRITE + meet() + READ, turns).tolist() == expected().tolist()
    twice = WRITE + meet() + READ + meet(2) + again + meet(3) + READ
    assert launch(twice, turns).tolist() == expected(200).tolist()


@pytest.mark.parametrize("turns", TURNS.values(), ids=TURNS)
def test_a_missing_meeting_is_reported(turns):
    with pytest.raises(PtxError, match=r"race: a block (reads|overwrites) what another block"):
        launch(WRITE + READ, turns)


@pytest.mark.parametrize("turns", TURNS.values(), ids=TURNS)
def test_overwriting_what_a_block_may_still_read_is_reported(turns):
    with pytest.raises(PtxError, match=r"race: a block (reads|overwrites) what another block"):
        launch(WRITE + meet() + READ + WRITE, turns)


@pytest.mark.parametrize("turns", TURNS.values(), ids=TURNS)
def test_two_blocks_that_write_the_same_word_must_meet(turns):
    own = "setp.eq.u32 %p3, %r91, {};\n@%p3 st.global.b32 [%rd81], %r91;\n"
    launch(own.format(0) + meet() + own.format(64), turns)
    with pytest.raises(PtxError, match="race: two blocks of this launch write the same bytes"):
        launch(own.format(0) + own.format(64), turns)


@pytest.mark.parametrize(
    ("part", "instead"),
    [("bar.sync 0;\n@%p1 atom", "@%p1 atom"), (".release", ".relaxed"), (".acquire", "")],
    ids=["no-barrier-before", "no-release", "no-acquire"],
)
def test_an_incomplete_meeting_is_reported(part, instead):
    incomplete = meet().replace(part, instead)
    assert incomplete != meet()
    with pytest.raises(PtxError, match="race: a"):
        launch(WRITE + incomplete + READ)


def test_only_the_thread_that_looked_knows_before_the_next_barrier():
    alone = f"""bar.sync 0;
{ARRIVE}mov.u32 %r51, {BLOCKS};
$L_wait:
@%p1 ld.global.gpu.acquire.b32 %r51, [%rd80];
setp.lt.s32 %p2, %r51, {BLOCKS};
@%p2 bra $L_wait;
"""
    assert launch(WRITE + alone + "bar.sync 0;\n" + READ).tolist() == expected().tolist()
    with pytest.raises(PtxError, match="race: a block reads what another block"):
        launch(WRITE + alone + READ)


@pytest.mark.parametrize("turns", TURNS.values(), ids=TURNS)
def test_blocks_that_wait_for_ever_are_reported(turns):
    with pytest.raises(PtxError, match="blocks wait for each other, and none goes on"):
        launch(MEET.format(n=1, count=BLOCKS + 1), turns)


def test_blocks_of_an_ordinary_launch_cannot_meet():
    with pytest.raises(PtxError, match="race: a block reads what another block of this launch"):
        launch(WRITE + meet() + READ, turns=None)


def test_a_counter_is_read_by_atomics_only():
    with pytest.raises(PtxError, match="race: a plain access to what atomics change"):
        launch(meet() + "ld.global.b32 %r1, [%rd80];")


def test_a_sum_gives_each_thread_what_was_there_before():
    found = launch("atom.global.gpu.acq_rel.add.u32 %r1, [%rd80], 2;\nst.global.b32 [%rd92], %r1;")
    assert found.flatten().tolist() == list(range(0, 2 * BLOCKS * THREADS, 2))


ACROSS_WARPS = READ.replace("%r92, 1;", "%r92, 0;")


def test_warps_of_a_block_exchange_values_over_a_barrier():
    found = launch(WRITE + "bar.sync 0;\n" + ACROSS_WARPS, turns=None)
    assert found.tolist() == expected().roll(1, 0).tolist()
    with pytest.raises(PtxError, match="race: a warp reads what another of its block wrote"):
        launch(WRITE + ACROSS_WARPS, turns=None)


def test_overwriting_what_another_warp_of_the_block_read_is_reported():
    with pytest.raises(PtxError, match="race: a warp overwrites what another of its block read"):
        launch(WRITE + "bar.sync 0;\n" + ACROSS_WARPS + WRITE)


def test_two_warps_of_a_block_may_write_one_value_only():
    by_both = """
mad.wide.s32 %rd1, %r92, 16, %rd81;
setp.ge.u32 %p3, %r90, 32;
@!%p3 st.global.b32 [%rd1], {0};
{2}
@%p3 st.global.b32 [%rd1], {1};
"""
    launch(by_both.format("%r92", "%r92", ""), turns=None)
    launch(by_both.format("%r92", 7, "bar.sync 0;"), turns=None)
    with pytest.raises(PtxError, match="race: two warps of a block write the same bytes"):
        launch(by_both.format("%r92", 7, ""), turns=None)
