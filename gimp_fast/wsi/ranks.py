"""Which part of the work a process does that torchrun started: its slides, on its GPU."""

from __future__ import annotations

import os


def shard_of_rank() -> str | None:
    """``"i/n"`` of this process, as ``--shard`` has it; None if torchrun did not start several."""
    ranks = int(os.environ.get("WORLD_SIZE", "1"))
    return f"{int(os.environ['RANK']) + 1}/{ranks}" if ranks > 1 else None


def device_of_rank(asked: str) -> str:
    """The device that is asked for; for ``auto`` in one of several processes, a GPU of its own."""
    if asked != "auto" or shard_of_rank() is None:
        return asked
    import torch

    count = torch.cuda.device_count()
    return f"cuda:{int(os.environ['LOCAL_RANK']) % count}" if count else "cpu"
