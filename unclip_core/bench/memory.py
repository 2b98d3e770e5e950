"""How much memory a measurement has taken."""

import resource
import sys
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from typing import Any


def peak_gib() -> float:
    """Return the most memory that this process has held in RAM so far, in GiB (its peak resident set size)."""
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak / (2**30 if sys.platform == "darwin" else 2**20)  # macOS counts bytes, Linux KiB


def apart(call: Callable[..., Any], *arguments: Any) -> Any:
    """Call in a process of its own: what it leaves behind would count to the peaks that are measured here later.

    It is freed, but the allocator may keep the pages: 2 GB of them after Kandinsky's random weights were written.
    """
    with ProcessPoolExecutor(1, get_context("spawn")) as pool:
        return pool.submit(call, *arguments).result()
