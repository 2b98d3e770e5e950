"""Large batches in turns, smaller ones where memory runs out."""

import logging
import math
from collections.abc import Callable

import torch
from torch import Tensor

from .memory import free_cache, intermediate_device, is_out_of_memory
from .progress_bar import OnStep, progress

log = logging.getLogger("unclip")

Run = Callable[[slice, OnStep], Tensor]


def in_turns(run: Run, count: int, at_once: int, steps: int, title: str) -> Tensor:
    """`run(rows, on_step)` over `count` samples, `at_once` of them at a time, fewer where memory runs out.

    `run` returns the results `[n, …]` of its `rows` and calls `on_step` `steps` times. The results, on the
    intermediate device, are joined to `[count, …]`. Each sample has its own seed: turns do not change them.
    """
    size = min(count, at_once)
    while True:
        result = _one_attempt(run, count, size, steps, title)
        if result is not None:
            return result
        free_cache()
        size = math.ceil(size / 2)
        log.warning("%s: out of memory, trying again with %d at a time.", title, size)


def _one_attempt(run: Run, count: int, size: int, steps: int, title: str) -> Tensor | None:
    starts = range(0, count, size)
    try:
        with progress(steps * len(starts), title) as bar:
            turns = [run(slice(start, min(start + size, count)), bar) for start in starts]
            return torch.cat([turn.to(intermediate_device()) for turn in turns])
    except Exception as error:
        if size == 1 or not is_out_of_memory(error):
            raise
    return None
