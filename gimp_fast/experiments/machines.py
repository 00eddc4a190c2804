"""Where runs are trained: on this machine, or on a cluster."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch

from gimp_fast.errors import GimpError
from gimp_fast.tasks.cluster import ClusterEngine
from gimp_fast.tasks.engine import Engine
from gimp_fast.tasks.local import ThreadEngine
from gimp_fast.tasks.processes import available_cores


@dataclass(frozen=True)
class Machines:
    """Where runs are trained.

    Attributes:
        jobs: runs at a time on this machine.
        gpus: of this machine, that they share.
        scheduler: of a cluster that trains them instead; None for this machine.
    """

    jobs: int = 1
    gpus: int = 0
    scheduler: str | None = None

    @classmethod
    def asked(cls, jobs: int | None, scheduler: str | None, on_cpu: bool) -> Machines:
        """From the options of the command; GimpError for both."""
        if scheduler is None:
            gpus = 0 if on_cpu else torch.cuda.device_count()
            return cls(jobs or gpus or available_cores(), gpus)
        if jobs is not None:
            raise GimpError(
                "--jobs are runs of this machine: leave it out with --scheduler, whose workers say "
                "how many they run (dask worker --nthreads N, or --resources GPU=1)"
            )
        return cls(scheduler=scheduler)

    @property
    def threads(self) -> int | None:
        """CPU threads of a run: one if several share the cores; None for all cores."""
        return 1 if self.jobs > 1 or self.scheduler else None

    def engine(self, paths: Sequence[Path] = ()) -> Engine:
        """What runs the tasks; on a cluster, all workers must see the paths."""
        if self.scheduler is None:
            return ThreadEngine(self.jobs)
        return ClusterEngine(self.scheduler, paths)

    def __str__(self) -> str:
        if self.scheduler is not None:
            return "on the cluster"
        return f"{self.jobs} at a time" if self.jobs > 1 else "one after the other"
