"""Run large batches in chunks; where memory runs out without other models beside, then in smaller chunks."""

import logging
import math
from collections.abc import Callable, Sequence
from typing import TypeVar

import torch
from torch import Tensor

from .memory import free_cache, intermediate_device, is_out_of_memory, others_loaded, unload_others
from .progress_bar import Progress, ToImages, progress

log = logging.getLogger("unclip")

Run = Callable[[slice, Progress], Tensor]
T = TypeVar("T")


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

    def attempt(chunks: Sequence[slice]) -> Tensor:
        with progress(steps * len(chunks), title, to_images) as bar:
            batches = [run(rows, bar) for rows in chunks]
            return torch.cat([batch.to(intermediate_device()) for batch in batches])

    return halving(attempt, count, at_once, title)


def halving(attempt: Callable[[Sequence[slice]], T], count: int, at_once: int, title: str) -> T:
    """Call `attempt(chunks)`, and again with chunks of half the size as long as memory runs out in it.

    Where ComfyUI has other models on the device, it unloads them first, and the same chunks are tried once more.

    Args:
        attempt: works through all of `count` samples, chunk by chunk.
        count: samples in all, 1 or more.
        at_once: samples in a chunk at first.
        title: of the work, for the log.

    Returns:
        What the attempt returned that had memory enough.
    """
    size, alone = min(count, at_once), False
    while True:
        try:
            return attempt([slice(start, min(start + size, count)) for start in range(0, count, size)])
        except Exception as error:
            if not is_out_of_memory(error):
                raise
            alone = alone or not others_loaded()
            if size == 1 and alone:
                raise
        free_cache()  # behind the handler: until it ends the error holds what the attempt had made
        if alone:
            size = math.ceil(size / 2)
            log.warning("%s: out of memory, trying again with %d at a time.", title, size)
        else:
            unload_others()
            alone = True  # tried once, whatever was unloaded
            log.warning("%s: out of memory, trying again without the other models that were loaded.", title)
