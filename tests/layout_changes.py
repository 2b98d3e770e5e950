"""Counts the convolutions whose input does not lie channels last: on a GPU each would turn it round."""

import torch
from torch.utils._python_dispatch import TorchDispatchMode

CONVOLUTIONS = {torch.ops.aten.convolution.default}


class LayoutChanges(TorchDispatchMode):
    """While it lasts: `count` of convolutions with such an input, or such a kernel, and how many there were in `of`."""

    def __init__(self):
        super().__init__()
        self.count = self.of = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        if func in CONVOLUTIONS:
            self.of += 1
            self.count += not all(part.is_contiguous(memory_format=torch.channels_last) for part in args[:2])
        return func(*args, **(kwargs or {}))
