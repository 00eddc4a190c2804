"""Steps whose batches have the same shapes, recorded once as a CUDA graph and replayed.

A graph starts all kernels of a forward and a backward pass at once, where a processor would take
longer to start them one by one than a fast GPU to compute them.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields, is_dataclass
from typing import Any

import torch
from torch import Tensor, nn

from gimp_fast.models.inputs import map_tensors
from gimp_fast.training.stage import Stage

# Steps that run as usual before one of their shapes is recorded: libraries prepare themselves.
WARM_UP = 3
# A graph keeps the memory of its step, so only a few are recorded: whole batches, and the last one
# of an epoch, which may be smaller.
MOST = 2
# Kinds of steps to count, at most; a cohort of many short slides has a new one at each step.
KINDS = 1000

Compute = Callable[[Any, Any], dict[str, Tensor]]


class CudaRecorder:
    """Records with torch's CUDA graphs."""

    def __init__(self) -> None:
        self._side = torch.cuda.Stream()

    def warm_up(self, function: Callable[[], dict[str, Tensor]]) -> dict[str, Tensor]:
        """Run on another stream, as recording does."""
        self._side.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(self._side):
            result = function()
        torch.cuda.current_stream().wait_stream(self._side)
        return result

    def record(
        self, function: Callable[[], dict[str, Tensor]]
    ) -> tuple[dict[str, Tensor], Callable[[], None]]:
        """Tensors for the results, and what fills them and the gradients; nothing is computed."""
        graph = torch.cuda.CUDAGraph()
        # Threads that prepare the next batches go on meanwhile.
        with torch.cuda.graph(graph, capture_error_mode="thread_local"):
            result = function()
        return result, graph.replay


@dataclass(frozen=True)
class _Recorded:
    batch: Any
    results: dict[str, Tensor]
    gradients: list[Tensor | None]
    replay: Callable[[], None]


class RecordedSteps:
    """Calls a function of (batch, share) that leaves gradients, by graphs where it can.

    The results and gradients are those of the function, bit for bit, and dropout draws the same
    random numbers. They lie in the same memory at every replay.

    Args:
        compute: computes scalars without gradients of their own, and ``.grad`` of the parameters
            from None. It must not wait for the GPU, nor read anything from the CPU but what
            :func:`facts` sees.
        parameters: whose gradients it leaves.
        recorder: a :class:`CudaRecorder`.
    """

    def __init__(self, compute: Compute, parameters: Sequence[nn.Parameter], recorder: Any):
        self._compute, self._parameters, self._recorder = compute, parameters, recorder
        self._seen: Counter[tuple[Any, ...]] = Counter()
        self._recorded: dict[tuple[Any, ...], _Recorded] = {}

    def __call__(self, batch: Any, share: Any) -> dict[str, Tensor]:
        kind = (facts(batch), share.total)
        recorded = self._recorded.get(kind)
        if recorded is not None:
            for static, given in zip(tensors_of(recorded.batch), tensors_of(batch), strict=True):
                static.copy_(given, non_blocking=True)
            return self._replay(recorded)
        if len(self._seen) == KINDS:
            self._seen.clear()
        self._seen[kind] += 1
        if self._seen[kind] <= WARM_UP or len(self._recorded) == MOST:
            return self._recorder.warm_up(lambda: self._compute(batch, share))
        static = map_tensors(batch, Tensor.clone)
        for parameter in self._parameters:  # gradients are made in the graph's own memory
            parameter.grad = None
        results, replay = self._recorder.record(lambda: self._compute(static, share))
        gradients = [p.grad for p in self._parameters]
        self._recorded[kind] = _Recorded(static, results, gradients, replay)
        return self._replay(self._recorded[kind])

    def _replay(self, recorded: _Recorded) -> dict[str, Tensor]:
        for parameter, gradient in zip(self._parameters, recorded.gradients, strict=True):
            parameter.grad = gradient
        recorded.replay()
        return recorded.results


def recorded_steps(
    stage: Stage, compute: Compute, log: Callable[[str], None]
) -> RecordedSteps | None:
    """The steps of a stage by CUDA graphs, if its settings want them and they are possible."""
    if not getattr(stage.settings, "cuda_graphs", False):
        return None
    reason = why_not_recorded(stage)
    if reason is not None:
        log(f"{stage.name}: cuda_graphs has no effect, because {reason}")
        return None
    return RecordedSteps(compute, stage.parameters(), CudaRecorder())


def why_not_recorded(stage: Stage) -> str | None:
    """Why steps of a stage cannot be replayed as CUDA graphs; None if they can."""
    context = stage.context
    if not stage.recordable:
        return "its batches have many shapes, or its steps wait for the GPU"
    if context.device.type != "cuda":
        return f"the run is on {context.device.type}"
    if context.ranks.size > 1:
        return "processes exchange gradients in the backward pass"
    if context.config.compile:
        return "compile=true launches kernels in its own way"
    if context.config.pretrain.balance:
        return "pretrain.balance=true takes gradients within the step"
    if getattr(context.config.model, "checkpoint_layers", False):
        return "model.checkpoint_layers=true sets random numbers back"
    return None


def facts(batch: Any) -> tuple[Any, ...]:
    """What a step's kernels may depend on, besides the values of tensors: shapes, plain values."""
    found: list[Any] = []
    for field in fields(batch):
        part = getattr(batch, field.name)
        if isinstance(part, Tensor):
            found.append((part.shape, part.dtype))
        elif is_dataclass(part):
            found.append(facts(part))
        elif field.name != "case_ids":  # names do not enter the computation
            found.append(part)
    return tuple(found)


def tensors_of(batch: Any) -> list[Tensor]:
    """All tensors of a batch, at any depth, in the order of their fields."""
    found: list[Tensor] = []
    map_tensors(batch, lambda tensor: found.append(tensor) or tensor)
    return found
