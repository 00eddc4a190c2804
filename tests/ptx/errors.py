"""What is wrong with a program, or not modelled."""

from __future__ import annotations


class PtxError(Exception):
    """A kernel did something that a GPU does not define, or that the emulator does not model."""
