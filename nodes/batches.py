"""Broadcast batches: inputs of a node have as many samples each, or one for all."""

from torch import Tensor

from . import defaults
from .inputs import InputError


def common_count(**sizes: int) -> int:
    """Return the number of samples that batches of these sizes broadcast to.

    Raises:
        InputError: a size is neither 1 nor that number; the message names the sizes.
    """
    count = max(sizes.values())
    if any(size not in (1, count) for size in sizes.values()):
        said = ", ".join(f"{size} of '{name}'" for name, size in sizes.items())
        raise InputError(f"The batches do not fit one another: {said}. Give one for all, or as many of each.")
    return count


def check_count(count: int, what: str = "embeddings") -> None:
    """Refuse to make a batch of more than `EMBEDDINGS_MAX`: a chain of nodes would multiply it without end.

    Raises:
        InputError: `count` is greater.
    """
    if count > defaults.EMBEDDINGS_MAX:
        raise InputError(
            f"The result would hold {count:,} {what}; at most {defaults.EMBEDDINGS_MAX:,} are possible in one batch."
        )


def expand_batch(batch: Tensor, count: int) -> Tensor:
    """Expand a batch of 1 to `count` samples, without a copy; return one of `count` as it is."""
    return batch.expand(count, *batch.shape[1:])
