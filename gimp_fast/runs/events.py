"""TensorBoard events of a run, which a thread of TensorBoard writes."""

from __future__ import annotations

import secrets
import threading
from pathlib import Path

from gimp_fast.files.atomic import write_errors


class Events:
    """Writes events into a new file of a folder.

    Args:
        folder: made if needed.
        first_step: events of an interrupted run that come at or after this step are not shown.

    Raises:
        GimpError: they cannot be written; the methods raise it too, for what came before them.
    """

    def __init__(self, folder: Path, first_step: int):
        # Imported here: TensorBoard takes a second that no `--help` should wait for.
        from torch.utils.tensorboard import SummaryWriter

        self._folder = folder
        self._hook, threading.excepthook = threading.excepthook, self._hear
        try:
            with write_errors(folder):
                self._writer = SummaryWriter(
                    folder,
                    purge_step=first_step,
                    filename_suffix=f".{secrets.token_hex(8)}",  # a name that nobody can guess
                )
        except BaseException:
            threading.excepthook = self._hook
            raise

    def add(self, name: str, value: float, step: int) -> None:
        with write_errors(self._folder):
            self._writer.add_scalar(name, value, step)

    def close(self) -> None:
        try:
            with write_errors(self._folder):
                self._writer.close()
        finally:
            threading.excepthook = self._hook

    def _hear(self, failed: threading.ExceptHookArgs) -> None:
        """Print no traceback of the writing thread: the next call raises its error."""
        if not type(failed.thread).__module__.startswith("tensorboard"):
            self._hook(failed)
