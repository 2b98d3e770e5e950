"""Batches that go together: as many of each, or one for all."""

from torch import Tensor

from .inputs import InputError


def common_count(**sizes: int) -> int:
    """The number of samples of batches of these sizes, of which each is 1 or that number.

    Raises:
        InputError: they do not fit; the message names the sizes.
    """
    count = max(sizes.values())
    if any(size not in (1, count) for size in sizes.values()):
        said = ", ".join(f"{size} of '{name}'" for name, size in sizes.items())
        raise InputError(f"The batches do not fit one another: {said}. Give one for all, or as many of each.")
    return count


def spread(batch: Tensor, count: int) -> Tensor:
    """A batch of 1 repeated `count` times; one of `count` as it is."""
    return batch.expand(count, *batch.shape[1:])
