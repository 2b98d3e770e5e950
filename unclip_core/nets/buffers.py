"""Memory that the layers of a net take turns in: what is freed goes back to the system, and is dear to take anew."""

import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from math import prod

import torch
from torch import Tensor


class ThreadBuffers(threading.local):
    """The buffers that a thread keeps, by name; None where it keeps none."""

    buffers: dict[tuple[str, torch.dtype], Tensor] | None = None


BUFFERS = ThreadBuffers()


@contextmanager
def shared_buffers() -> Iterator[None]:
    """Share buffers between all layers of a thread: allocating them anew costs as much as filling them, or more."""
    outer, BUFFERS.buffers = BUFFERS.buffers, {} if BUFFERS.buffers is None else BUFFERS.buffers
    try:
        yield
    finally:
        BUFFERS.buffers = outer


def shared(name: str, shape: Sequence[int], dtype: torch.dtype) -> Tensor:
    """An uninitialised tensor of that shape on the CPU, shared by name and dtype inside `shared_buffers`."""
    if BUFFERS.buffers is None:
        return torch.empty(tuple(shape), dtype=dtype)
    size = prod(shape)
    kept = BUFFERS.buffers.get((name, dtype))
    if kept is None or len(kept) < size:
        BUFFERS.buffers.pop((name, dtype), None)  # before the larger one is there
        del kept
        kept = BUFFERS.buffers[name, dtype] = torch.empty(size, dtype=dtype)
    return kept[:size].view(tuple(shape))
