"""Plans of an epoch, and that reading processes, ranks and restarts change nothing."""

from __future__ import annotations

import os
import signal
import time
from functools import partial

import numpy as np
import pytest
import torch

from gimp_fast.errors import Fault, FaultError, GimpError
from gimp_fast.models.inputs import map_tensors
from gimp_fast.training.loader import BatchLoader, StepPlan, num_batches, plan_epoch
from gimp_fast.training.sampling import PatientReader, WindowBatch, read_patients, read_windows
from gimp_fast.training.scaling import GeneScaler

CASES = [f"case-{n}" for n in range(17)]


@pytest.mark.parametrize(("patients", "size"), [(1, 8), (8, 8), (9, 8), (17, 8), (5, 1)])
def test_an_epoch_covers_everybody_once_in_even_batches(patients, size):
    plans = plan_epoch(CASES[:patients], size, [0])
    assert sorted(case for plan in plans for case in plan.case_ids) == sorted(CASES[:patients])
    assert [plan.step for plan in plans] == list(range(num_batches(patients, size)))
    sizes = [len(plan.case_ids) for plan in plans]
    assert max(sizes) <= size
    assert max(sizes) - min(sizes) <= 1


def test_order_depends_on_seed_and_epoch():
    first = plan_epoch(CASES, 4, [0, 1])
    assert first == plan_epoch(CASES, 4, [0, 1])
    assert first != plan_epoch(CASES, 4, [0, 2]) != plan_epoch(CASES, 4, [1, 2])
    still = plan_epoch(CASES, 4, [0], shuffle=False)
    assert [case for plan in still for case in plan.case_ids] == CASES


@pytest.mark.parametrize("world_size", [2, 3])
def test_ranks_share_the_batches_of_one_process(world_size):
    whole = plan_epoch(CASES, 6, [3])
    parts = [plan_epoch(CASES, 6, [3], rank=r, world_size=world_size) for r in range(world_size)]
    for plan, *shares in zip(whole, *parts, strict=True):
        assert plan.case_ids == tuple(case for share in shares for case in share.case_ids)
        drawn = [rng.random() for share in shares for rng in share.rngs()]
        assert drawn == [rng.random() for rng in plan.rngs()]


def test_a_rank_without_patients_is_refused():
    with pytest.raises(ValueError, match="4 ranks"):
        plan_epoch(CASES[:3], 3, [0], world_size=4)


def test_an_epoch_taken_up_in_the_middle_goes_on_the_same():
    assert plan_epoch(CASES, 4, [5], first_step=2) == plan_epoch(CASES, 4, [5])[2:]


def test_patients_of_a_step_draw_differently():
    draws = [rng.random() for plan in plan_epoch(CASES, 4, [0]) for rng in plan.rngs()]
    assert len(set(draws)) == len(CASES)


@pytest.fixture
def reader(cohort):
    scaler = GeneScaler.fit(cohort.expression(cohort.split("split_0")["train"]))
    return PatientReader(cohort, "both", scaler, cache_gb=0.0)


def same(a, b) -> bool:
    if type(a) is not type(b) or a.case_ids != b.case_ids:
        return False
    pairs = list(zip(tensors_of(a), tensors_of(b), strict=True))
    return len(pairs) >= 5 and all(torch.equal(x, y) for x, y in pairs)


def tensors_of(batch) -> list[torch.Tensor]:
    found = []
    map_tensors(batch, lambda tensor: found.append(tensor) or tensor)
    return found


@pytest.mark.parametrize("workers", [1, 2])
@pytest.mark.parametrize("kind", ["windows", "patients"])
def test_reading_processes_give_the_same_batches(reader, cohort, workers, kind):
    windows = partial(read_windows, reader, 20, 0.5)
    fetch = windows if kind == "windows" else partial(read_patients, reader, 0.5)
    here, there = BatchLoader(fetch), BatchLoader(fetch, workers)
    for epoch in range(2):
        plans = plan_epoch(cohort.case_ids[:12], 4, [0, epoch])
        pairs = zip(here(plans), there(plans), strict=True)
        assert [same(a, b) for a, b in pairs] == [True] * 3


def test_a_fault_arrives_from_another_process_as_it_was(cohort):
    loader = BatchLoader(FaultyFetch(), workers=1)
    with pytest.raises(FaultError) as error:
        list(loader(plan_epoch(CASES, 6, [0])))
    assert [fault.kind for fault in error.value.faults] == ["checksum"]


class FaultyFetch:
    def __call__(self, plan: StepPlan) -> None:
        raise FaultError([Fault("checksum", "a file", "something", "another")])


class KillingFetch:
    def __call__(self, plan: StepPlan) -> None:
        time.sleep(0.2)
        os.kill(os.getpid(), signal.SIGKILL)


def test_a_killed_process_ends_in_an_error_that_says_so():
    loader = BatchLoader(KillingFetch(), workers=1)
    with pytest.raises(GimpError, match="workers=0"):
        list(loader(plan_epoch(CASES, 6, [0])))


def test_a_process_is_sent_the_path_of_the_cohort_not_its_features(reader):
    import pickle

    cached = PatientReader(reader.cohort, "both", reader.scaler, cache_gb=1.0)
    for case in reader.cohort.case_ids:
        cached.patches(case)
    assert len(pickle.dumps(cached)) < 5000
    assert pickle.loads(pickle.dumps(cached)).cohort.fingerprint == reader.cohort.fingerprint


def test_patches_become_float32_where_they_are_used():
    half = torch.ones(2, 3, 4, dtype=torch.float16)
    labels = torch.zeros(2, dtype=torch.int64)
    batch = WindowBatch(("a", "b"), labels, None, labels > 0, half, half[..., 0] > 0)
    moved = batch.to(torch.device("cpu"))
    assert (moved.patches.dtype, batch.patches.dtype) == (torch.float32, torch.float16)


def test_scaler_leaves_values_alone_on_request():
    expression = np.array([[1, 5, 2], [3, 5, 9]], np.float32)
    scaler = GeneScaler.fit(expression, scaling="none")
    np.testing.assert_array_equal(scaler(expression), expression)


def test_the_most_variable_genes_keep_their_order():
    expression = np.array([[0, 1, 0, 5], [9, 1, 3, 5], [0, 1, 6, 5]], np.float32)
    scaler = GeneScaler.fit(expression, most_variable=2)
    assert scaler.columns.tolist() == [0, 2]
    np.testing.assert_allclose(scaler(expression).std(0), 1, rtol=1e-6)
    assert GeneScaler.fit(expression, most_variable=9).columns is None


def test_a_gene_that_was_not_measured_is_average():
    scaler = GeneScaler.fit(np.array([[1, 4], [3, 8]], np.float32))
    assert scaler(np.array([[np.nan, 8]], np.float32)).tolist() == [[0.0, 1.0]]


def test_a_gene_that_hardly_any_training_patient_expresses_is_cut_off():
    training = np.zeros((500, 2), np.float32)
    training[0, 0] = 0.05
    training[:, 1] = np.arange(500)
    scaler, plain = GeneScaler.fit(training, limit=10.0), GeneScaler.fit(training)
    elsewhere = np.array([[5.0, 250.0], [np.nan, -1e6]], np.float32)
    assert plain(elsewhere)[0, 0] > 2000
    assert scaler(elsewhere)[0, 0] == 10
    assert scaler(elsewhere)[0, 1] == plain(elsewhere)[0, 1]
    assert scaler(elsewhere)[1].tolist() == [0, -10]
    assert GeneScaler.fit(training, scaling="none", limit=10.0)(elsewhere)[1, 1] == -1e6
