"""Extraction on a cluster: a slide is a task, and each worker loads the encoder once."""

from __future__ import annotations

import functools
import threading
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path

from gimp_fast.errors import Fault
from gimp_fast.files.locks import claim_in_turn
from gimp_fast.tasks.cluster import ClusterEngine
from gimp_fast.tasks.engine import LostTaskError, as_completed
from gimp_fast.tasks.shared_files import with_absolute_paths
from gimp_fast.wsi.encoder import Encoder, load_encoder
from gimp_fast.wsi.extraction import Outcome, extract
from gimp_fast.wsi.options import EncoderOptions, ExtractOptions
from gimp_fast.wsi.slide_files import slide_id_of

_loading = threading.Lock()


def extract_on_cluster(
    engine: ClusterEngine,
    slides: Sequence[Path],
    options: ExtractOptions,
    encoder: EncoderOptions | None,
) -> Iterator[Outcome]:
    """Write the file of every slide, as :func:`gimp_fast.wsi.extract` does.

    Yields the outcome of each slide, in the order in which they end. Without an encoder, writes
    coordinates alone.

    Raises:
        GimpError: no slide can succeed: the disk is full, the encoder cannot be loaded, or a GPU is
            too small.
        StoppedError: the scheduler is gone.
    """
    options, encoder = with_absolute_paths(options), with_absolute_paths(encoder)
    futures = {
        engine.submit(extract_slide, path.absolute(), options, encoder): path for path in slides
    }
    for future in as_completed(futures):
        path = futures[future]
        try:
            yield replace(future.result(), path=path)
        except LostTaskError as lost:
            fault = Fault("worker-died", str(path), str(lost), "a worker that finishes it")
            yield Outcome(path, faults=(fault,))


def extract_slide(path: Path, options: ExtractOptions, encoder: EncoderOptions | None) -> Outcome:
    """The outcome of one slide, in a worker."""
    network = None
    if encoder is not None:
        with _loading:
            network = _encoder(encoder, options.grid.patch_size, _state(encoder.weights))
    # A worker that nobody hears of any more may still be at work on the slide.
    with claim_in_turn(options.out, f".{slide_id_of(path)}.lock"):
        return next(extract([path], options, network))


@functools.lru_cache(maxsize=1)
def _encoder(options: EncoderOptions, patch_size: int, state: tuple[int, ...]) -> Encoder:
    return load_encoder(options, patch_size)


def _state(weights: Path | None) -> tuple[int, ...]:
    """Size and time of the file of weights, which may be another for the next command."""
    if weights is None or not weights.exists():
        return ()
    stat = weights.stat()
    return stat.st_size, stat.st_mtime_ns
