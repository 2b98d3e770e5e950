"""Run large batches in chunks, and smaller chunks where memory runs out."""

import logging
import math
from collections.abc import Callable

import torch
from torch import Tensor

from .memory import free_cache, intermediate_device, is_out_of_memory
from .progress_bar import Progress, ToImages, progress

log = logging.getLogger("unclip")

Run = Callable[[slice, Progress], Tensor]


def run_in_chunks(
    run: Run, count: int, at_once: int, steps: int, title: str, to_images: ToImages | None = None
) -> Tensor:
    """Call `run(rows, bar)` for chunks of `at_once` of `count` samples; halve the chunks on out-of-memory errors.

    Each sample has its own seed: the chunks do not change the results.

    Args:
        run: returns the results `[n, …]` of its `rows`, and counts `steps` steps on the `bar`,
            which is the core's `on_step` as well.
        count: samples in all, 1 or more.
        at_once: samples in a chunk at first.
        steps: of one chunk, for the progress bar.
        title: of the progress bar.
        to_images: makes the images to preview, see `progress`.

    Returns:
        The results of all samples `[count, …]`, on the intermediate device.
    """
    size = min(count, at_once)
    while True:
        result = _one_attempt(run, count, size, steps, title, to_images)
        if result is not None:
            return result
        free_cache()
        size = math.ceil(size / 2)
        log.warning("%s: out of memory, trying again with %d at a time.", title, size)


def _one_attempt(run: Run, count: int, size: int, steps: int, title: str, to_images: ToImages | None) -> Tensor | None:
    starts = range(0, count, size)
    try:
        with progress(steps * len(starts), title, to_images) as bar:
            batches = [run(slice(start, min(start + size, count)), bar) for start in starts]
            return torch.cat([batch.to(intermediate_device()) for batch in batches])
    except Exception as error:
        if size == 1 or not is_out_of_memory(error):
            raise
    return None
