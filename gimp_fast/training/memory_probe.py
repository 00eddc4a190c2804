"""Measures the memory of small steps of the real stages, and extrapolates to large ones."""

from __future__ import annotations

import weakref
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, nullcontext

import numpy as np
import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from gimp_fast.models import Sizes, build
from gimp_fast.training.config import TrainConfig
from gimp_fast.training.distributed import ALONE, Share
from gimp_fast.training.loader import StepPlan
from gimp_fast.training.sampling import PatientReader
from gimp_fast.training.scaling import GeneScaler
from gimp_fast.training.stage import StageContext
from gimp_fast.training.stages import stages_of

# Patches, and bags, of a step that is measured as it is; larger ones are extrapolated.
DIRECT = 8192
DIRECT_BAGS = 16
# Patches of a bag in the steps from which larger ones are extrapolated. Beyond it everything grows
# linearly with the patches: no chunk of an operator is longer.
LENGTH = 2048


class RandomPatients:
    """Stands in for a cohort: patients of random numbers, with bags of one length.

    Attributes:
        length: patches of each patient; to be set.
    """

    store = "random numbers"  # a reader keeps the bags of files, not those of a store
    case_ids: tuple[str, ...] = ()

    def __init__(self, sizes: Sizes):
        self.sizes, self.length = sizes, 0
        self.feature_dim = sizes.feature_dim

    @property
    def num_patches(self) -> int:
        return self.length

    def has_slides(self, case_id: str) -> bool:
        return True

    has_expression = has_slides

    def truth(self, case_ids: Iterable[str], target: object) -> np.ndarray:
        return np.array([int(case) % self.sizes.num_outputs for case in case_ids], np.int64)

    def expression(self, case_ids: Iterable[str]) -> np.ndarray:
        return np.stack([torch.randn(self.sizes.num_genes).numpy() for _ in case_ids])

    def bag(self, case_id: str) -> RandomPatients:
        return self

    def tensor(self, start: int = 0, stop: int | None = None) -> Tensor:
        return torch.randn(self.length, self.feature_dim)[start:stop]


class StepProbe:
    """Steps of a stage on random numbers, with random weights; nothing is trained.

    Args:
        config: of the run.
        sizes: of its model.
        stage: name of one of its stages.
        device: where they are measured.

    Raises:
        ValueError: no such stage, or sizes that do not fit each other.
    """

    def __init__(self, config: TrainConfig, sizes: Sizes, stage: str, device: str = "cpu"):
        kinds = {kind.name: kind for kind in stages_of(config)}
        if stage not in kinds:
            raise ValueError(f"stage {stage!r}: expected one of {', '.join(kinds)}")
        self.config, self.sizes, self.device = config, sizes, torch.device(device)
        self.patients = RandomPatients(sizes)
        zeros = np.zeros(sizes.num_genes, np.float32)
        reader = PatientReader(
            self.patients, config.modalities, GeneScaler(zeros, zeros + 1), cache_gb=0.0
        )
        with torch.random.fork_rng(devices=[]):
            self.model = build(config.method, sizes, backend=config.backend).to(self.device)
            nobody = {"train": [], "val": []}
            context = StageContext(config, self.model, reader, nobody, self.device)
            self.stage = kinds[stage](context)
        self.stage.train_mode()
        self.fetch = self.stage.fetcher()
        self.trained = list(self.stage.parameters())
        everything = dict.fromkeys([*self.model.parameters(), *self.trained])
        self.parameter_bytes = sum(p.nbytes for p in everything)
        self._measured: dict[tuple[int, int], tuple[int, int]] = {}

    @property
    def reads_slides(self) -> bool:
        return self.stage.name != "genes" and self.config.modalities != "rna"

    @property
    def views(self) -> int:
        """Windows of each patient in a step."""
        return getattr(self.model, "views", 1) if self.stage.name == "pretrain" else 1

    def held(self, batch: int, length: int) -> tuple[int, int]:
        """Bytes (kept between the passes, at the peak) for patients with bags of one length.

        Parameters, their gradients and the batch are not counted. Large steps are not run: their
        memory grows linearly with patches and bags, and is extrapolated.
        """
        direct = batch * length <= DIRECT and batch <= DIRECT_BAGS
        if not self.reads_slides or direct:
            return self._measure(batch, length)
        if length <= LENGTH:
            few = min(max(1, LENGTH // max(length, 1)), DIRECT_BAGS // 2)
            return self._line(
                self._measure(few, length), self._measure(2 * few, length), few, batch
            )
        # Several bags are concatenated after each layer, one bag is not: two represent many.
        bags = min(batch, 2)
        low, high = self._measure(bags, LENGTH), self._measure(bags, 2 * LENGTH)
        held = self._line(low, high, bags * LENGTH, batch * length)
        if batch == bags:
            return held
        more = self._measure(2 * bags, LENGTH)  # as many patches as in `high`, in more bags
        return tuple(
            a + (b - c) * (batch - bags) // bags for a, b, c in zip(held, more, high, strict=True)
        )

    @staticmethod
    def _line(low: tuple[int, int], high: tuple[int, int], unit: int, at: int) -> tuple[int, int]:
        """Extrapolated from what `unit` and twice as many give."""
        return tuple(a + (b - a) * (at - unit) // unit for a, b in zip(low, high, strict=True))

    def input_bytes(self, batch: int, length: int) -> int:
        """Of the batch: patches and genes as float32, mask, labels."""
        patches = genes = 0
        if self.reads_slides:
            patches = batch * self.views * length * (4 * self.sizes.feature_dim + 1)
        if self.config.modalities != "slide":
            genes = 4 * batch * self.sizes.num_genes
        return patches + genes + 8 * batch

    def _measure(self, batch: int, length: int) -> tuple[int, int]:
        key = (batch, length)
        if key not in self._measured:
            with torch.random.fork_rng(devices=[]), _one_thread(self.device), torch.enable_grad():
                self._measured[key] = self._measure_step(batch, length)
        return self._measured[key]

    def loss_of(self, batch: int, length: int) -> Callable[[], Tensor]:
        """A step on a batch that is made now: calling it runs the forward pass."""
        self.patients.length = length
        made = self.fetch(StepPlan(0, tuple(map(str, range(batch))), (0,), 0, batch))
        made = made.to(self.device)
        return lambda: self.stage.losses(made, Share(ALONE, batch))["loss"]

    def _measure_step(self, batch: int, length: int) -> tuple[int, int]:
        step = self.loss_of(batch, length)
        for p in self.trained:
            p.grad = torch.zeros_like(p)  # as after an earlier step: they are counted elsewhere
        with _GpuMemory() if self.device.type == "cuda" else _CpuMemory() as memory:
            loss = step()
            held = memory.now
            loss.backward()
            peak = memory.peak
        for p in self.trained:
            p.grad = None
        return held, peak


@contextmanager
def _one_thread(device: torch.device) -> Iterator[None]:
    """Use one thread, because allocations in other Python threads are not seen."""
    before = torch.get_num_threads()
    if device.type == "cpu":
        torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)


class _GpuMemory(nullcontext):
    """Bytes that torch's allocator has given out since this object was made."""

    def __init__(self) -> None:
        super().__init__(self)
        torch.cuda.synchronize()
        torch.cuda.reset_peak_memory_stats()
        self.before = torch.cuda.memory_allocated()

    @property
    def now(self) -> int:
        return torch.cuda.memory_allocated() - self.before

    @property
    def peak(self) -> int:
        return torch.cuda.max_memory_allocated() - self.before


class _CpuMemory(TorchDispatchMode):
    """Bytes of the storages that operators return, while they live."""

    def __init__(self) -> None:
        super().__init__()
        self.now = self.peak = 0
        self.alive: dict[int, int] = {}

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        kwargs = kwargs or {}
        results = function(*args, **kwargs)
        given = {_key(x) for x in tree_leaves((args, kwargs)) if isinstance(x, Tensor)}
        for x in tree_leaves(results):
            if isinstance(x, Tensor) and _key(x) not in given and _key(x) not in self.alive:
                self._add(x)
        return results

    def _add(self, x: Tensor) -> None:
        storage = x.untyped_storage()
        self.alive[storage._cdata] = storage.nbytes()
        self.now += storage.nbytes()
        self.peak = max(self.peak, self.now)
        weakref.finalize(storage, self._remove, storage._cdata)

    def _remove(self, key: int) -> None:
        self.now -= self.alive.pop(key)


def _key(x: Tensor) -> int:
    return x.untyped_storage()._cdata
