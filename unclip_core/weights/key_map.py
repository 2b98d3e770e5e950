"""Where the tensors of our nets stand in checkpoints of other layouts."""

from collections.abc import Callable

from torch import Tensor


class CheckpointKey:
    """Where one tensor of a net stands in a source: its key there, and which part of that it is.

    Args:
        key: the source's key.
        part, parts: the source holds `parts` projections of equal size, interleaved by heads (of each head first the
            rows of part 0, then those of part 1 …), or `stacked` one after the other; this is number `part`.
        squeeze: a 1-wide convolution stands for a linear layer, so that the source's shape ends in one more 1.
        transpose: the source holds the matrix the other way round.
    """

    def __init__(
        self,
        key: str,
        *,
        part: int = 0,
        parts: int = 1,
        head_dim: int = 0,
        stacked: bool = False,
        squeeze: bool = False,
        transpose: bool = False,
    ) -> None:
        self.key, self.part, self.parts, self.head_dim = key, part, parts, head_dim
        self.stacked, self.squeeze, self.transpose = stacked, squeeze, transpose

    def source_shape(self, shape: tuple[int, ...]) -> tuple[int, ...]:
        """The shape that the source's tensor must have, for one of ours of `shape`."""
        shape = shape[::-1] if self.transpose else shape
        return (shape[0] * self.parts, *shape[1:], *([1] if self.squeeze else [])) if shape else shape

    def take(self, tensor: Tensor) -> Tensor:
        """Our tensor out of the source's."""
        if self.squeeze:
            tensor = tensor.squeeze(-1)
        if self.transpose:
            tensor = tensor.mT
        if self.parts == 1:
            return tensor
        if self.stacked:
            return tensor.chunk(self.parts)[self.part]
        return tensor.unflatten(0, (-1, self.parts, self.head_dim))[:, self.part].flatten(0, 1)


KeyMap = Callable[[str], CheckpointKey]
"""Locates a key of one of our nets in a checkpoint."""
