"""What a GPU would do wrong is seen on the CPU: races, threads that do not meet, bad accesses."""

from __future__ import annotations

import re

import pytest
from builders.device_code import FALLING, ORDERS, RISING, DeviceProgram

pytestmark = pytest.mark.slow

THREADS = 96
SUM = THREADS * (THREADS - 1) // 2


def numbers(faults: DeviceProgram, kernel: str, order: int, blocks: int = 1) -> list[int]:
    done = faults.run(kernel, order, blocks)
    assert done.returncode == 0, done.stderr.decode()
    return list(map(int, done.stdout.split()))


def fault(faults: DeviceProgram, kernel: str, order: int = RISING, blocks: int = 1) -> str:
    done = faults.run(kernel, order, blocks)
    assert done.returncode != 0
    return done.stderr.decode()


@pytest.mark.parametrize("order", ORDERS)
def test_a_right_kernel_gives_the_right_result_in_every_order(faults, order):
    assert numbers(faults, "block_sum", order)[0] == SUM
    neighbours = [i + (i + 1) % THREADS for i in range(THREADS)]
    assert numbers(faults, "neighbours", order) == neighbours
    pairs = [i + (i % 2 == 0) for i in range(THREADS)]
    assert numbers(faults, "sum_of_pairs", order) == pairs


@pytest.mark.parametrize("kernel", ["neighbours", "block_sum"])
def test_a_missing_barrier_gives_another_result_in_another_order(faults, kernel):
    racy = f"{kernel}_without_barrier"
    assert numbers(faults, racy, RISING) != numbers(faults, racy, FALLING)
    right = numbers(faults, kernel, RISING)
    assert any(numbers(faults, racy, order) != right for order in ORDERS)


def test_a_block_that_reads_what_another_wrote_gives_another_result(faults):
    rising, falling = (numbers(faults, "block_after_block", x, 4)[0] for x in (RISING, FALLING))
    assert rising == 1 * 9 + 2 * 3 + 3
    assert falling == 3 * 27 + 2 * 9 + 1 * 3


def test_a_seed_repeats_its_order(faults):
    first, again, other = (numbers(faults, "block_after_block", x, 30) for x in (7, 7, 8))
    assert first == again != other


def test_shared_memory_starts_unset_in_every_block(faults):
    assert numbers(faults, "unset_shared_memory", RISING, 3) == [1] * THREADS


@pytest.mark.parametrize("order", ORDERS)
@pytest.mark.parametrize(
    ("kernel", "message"),
    [
        ("one_thread_leaves", "but thread 40 has ended"),
        ("one_lane_leaves", "thread 32 waits at"),
        ("two_barriers", "but thread 32 at"),
        ("part_of_a_warp", "a shuffle of a part of a warp"),
        ("failed_assertion", "thread 70: .*assertion 'threadIdx.x != 70' failed"),
    ],
)
def test_threads_that_do_not_meet_and_assertions_end_the_run(faults, kernel, message, order):
    assert re.search(message, fault(faults, kernel, order))


@pytest.mark.parametrize(
    ("kernel", "message"),
    [
        ("write_behind_the_end", "heap-buffer-overflow"),
        ("read_of_a_misaligned_vector", "misaligned address"),
    ],
)
def test_bad_accesses_end_the_run(faults, kernel, message):
    assert message in fault(faults, kernel)


def test_a_grid_without_blocks_is_refused(faults):
    assert "a grid of 0 blocks" in fault(faults, "block_sum", RISING, 0)
