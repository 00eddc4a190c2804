"""How much memory a training step holds: measured on small steps, tensor by tensor."""

from __future__ import annotations

import weakref
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from gimp_fast.models import GeneClassifier, GiMP, GiMPConfig
from gimp_fast.models.outputs import autocast

# Patches, and bags, of a step that is measured as it is; larger ones are extended from smaller.
DIRECT = 8192
DIRECT_BAGS = 16
# Patches of a bag in the steps that are extended. Beyond it everything grows with the patches: no
# chunk of an operator is longer.
LENGTH = 2048


@dataclass(frozen=True)
class ProbeSetting:
    """A stage of training.

    Attributes:
        model: sizes of the model.
        stage: ``"genes"``, ``"pretrain"`` or ``"finetune"``.
        precision: as in the configuration.
        device: where the steps are measured.
        mask_ratio: of pre-training.
        freeze_genes: of fine-tuning.
        backend: of the operators.
    """

    model: GiMPConfig
    stage: str
    precision: str = "fp32"
    device: str = "cpu"
    mask_ratio: float = 0.5
    freeze_genes: bool = True
    backend: str = "auto"


class StepProbe:
    """Steps of a stage on random numbers, with random weights; nothing is trained."""

    def __init__(self, setting: ProbeSetting):
        self.setting = setting
        self.device = torch.device(setting.device)
        with torch.random.fork_rng(devices=[]):
            model = GiMP(setting.model, backend=setting.backend)
            genes = model.gene_encoder
            self.step: nn.Module = model
            trained: list[nn.Module | None] = []
            if setting.stage == "genes":
                sizes = (setting.model.dim, setting.model.num_classes)
                self.step = GeneClassifier(genes, *sizes)
                trained = [self.step]
            elif setting.stage == "pretrain":
                trained = [model.aggregator, model.decoder]
            elif setting.stage == "finetune":
                trained = [model.head, model.aggregator, None if setting.freeze_genes else genes]
            else:
                raise ValueError(f"stage {setting.stage!r}; expected genes, pretrain or finetune")
        self.model = model.to(self.device)
        self.step.to(self.device).eval().requires_grad_(False)
        self.model.eval().requires_grad_(False)
        for module in trained:
            if module is not None:
                module.train().requires_grad_(True)
        if setting.stage == "finetune":
            for name in ("absent_slide", "absent_genes"):
                token = getattr(model, name, None)
                if token is not None:
                    token.requires_grad_(True)
        modules = [model] if self.step is model else [model, self.step]
        everything = {p: None for module in modules for p in module.parameters()}
        self.parameter_bytes = sum(p.nbytes for p in everything)
        self.trained = [p for p in everything if p.requires_grad]
        self._measured: dict[tuple[int, int], tuple[int, int]] = {}

    def held(self, batch: int, length: int) -> tuple[int, int]:
        """Bytes (held between the passes, most at a time) of patients with bags of one length.

        Parameters, their gradients and the batch are not counted. Large steps are not made: what
        they hold grows with the patches and with the bags, in straight lines, which smaller steps
        give.
        """
        direct = batch * length <= DIRECT and batch <= DIRECT_BAGS
        if self.setting.stage == "genes" or direct:
            return self._measure(batch, length)
        if length <= LENGTH:
            few = min(max(1, LENGTH // max(length, 1)), DIRECT_BAGS // 2)
            return self._line(
                self._measure(few, length), self._measure(2 * few, length), few, batch
            )
        # Several bags are put together again after each layer, one is not: so two stand for many.
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
        """Extended from what `unit` and twice as many give."""
        return tuple(a + (b - a) * (at - unit) // unit for a, b in zip(low, high, strict=True))

    def input_bytes(self, batch: int, length: int) -> int:
        """Of the batch: patches and genes as float32, mask, labels."""
        config, patches = self.setting.model, 0
        if self.setting.stage != "genes" and config.modalities != "rna":
            patches = batch * length * (4 * config.feature_dim + 1)
        genes = 0 if config.modalities == "slide" else 4 * batch * config.num_genes
        return patches + genes + 8 * batch

    def _measure(self, batch: int, length: int) -> tuple[int, int]:
        key = (batch, length)
        if key not in self._measured:
            with torch.random.fork_rng(devices=[]), _one_thread(self.device), torch.enable_grad():
                self._measured[key] = self._measure_step(*self._inputs(batch, length))
        return self._measured[key]

    def _inputs(self, batch: int, length: int) -> tuple[dict[str, Tensor], Tensor]:
        config, device = self.setting.model, self.device
        labels = torch.arange(batch, device=device) % config.num_classes
        genes = torch.randn(batch, config.num_genes, device=device)
        if self.setting.stage == "genes":
            return {"genes": genes}, labels
        inputs = {} if config.modalities == "slide" else {"genes": genes}
        if config.modalities == "rna":
            return inputs, labels
        patches = torch.randn(batch, length, config.feature_dim, device=device)
        if self.setting.stage == "pretrain":
            count = round(self.setting.mask_ratio * length)
            masked = torch.rand(batch, length, device=device).argsort(1) < count
            return inputs | {"windows": patches, "masked": masked, "labels": labels}, labels
        bounds = torch.arange(batch + 1, dtype=torch.int32, device=device) * length
        return inputs | {"patches": patches.flatten(0, 1), "cu_seqlens": bounds}, labels

    def _loss(self, inputs: dict[str, Tensor], labels: Tensor) -> Tensor:
        with autocast(self.device, self.setting.precision):
            if self.setting.stage == "pretrain":
                losses = self.model.pretrain_losses(**inputs)
                return losses.reconstruction + losses.triplet
            return F.cross_entropy(self.step(**inputs).float(), labels)

    def _measure_step(self, inputs: dict[str, Tensor], labels: Tensor) -> tuple[int, int]:
        for p in self.trained:
            p.grad = torch.zeros_like(p)  # as after an earlier step: they are counted elsewhere
        watch = _watch_gpu if self.device.type == "cuda" else _watch_cpu
        with watch() as memory:
            loss = self._loss(inputs, labels)
            held = memory.now()
            loss.backward()
            peak = memory.peak()
        for p in self.trained:
            p.grad = None
        return held, peak


@contextmanager
def _one_thread(device: torch.device) -> Iterator[None]:
    """What other threads of Python allocate is not seen."""
    before = torch.get_num_threads()
    if device.type == "cpu":
        torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)


@dataclass(frozen=True)
class _Memory:
    now: Callable[[], int]
    peak: Callable[[], int]


@contextmanager
def _watch_gpu() -> Iterator[_Memory]:
    torch.cuda.synchronize()
    torch.cuda.reset_peak_memory_stats()
    before = torch.cuda.memory_allocated()
    yield _Memory(
        lambda: torch.cuda.memory_allocated() - before,
        lambda: torch.cuda.max_memory_allocated() - before,
    )


@contextmanager
def _watch_cpu() -> Iterator[_Memory]:
    with _Storages() as seen:
        yield _Memory(lambda: seen.bytes, lambda: seen.most)


@dataclass
class _Storages(TorchDispatchMode):
    """Bytes of the storages that operators return, while they live."""

    bytes: int = 0
    most: int = 0
    alive: dict[int, int] = field(default_factory=dict)

    def __post_init__(self) -> None:
        super().__init__()

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
        self.bytes += storage.nbytes()
        self.most = max(self.most, self.bytes)
        weakref.finalize(storage, self._remove, storage._cdata)

    def _remove(self, key: int) -> None:
        self.bytes -= self.alive.pop(key)


def _key(x: Tensor) -> int:
    return x.untyped_storage()._cdata
