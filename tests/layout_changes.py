"""Counts the convolutions whose features do not lie channels last: on a GPU each would turn them round."""

import torch
from torch.utils._python_dispatch import TorchDispatchMode

FORWARD, BACKWARD = torch.ops.aten.convolution.default, torch.ops.aten.convolution_backward.default


class LayoutChanges(TorchDispatchMode):
    """While it lasts: `count` of convolutions with such an input, or such a kernel, and how many there were in `of`.

    In `back`: of those whose gradients were computed of such an input or kernel, or of a gradient whose channels do not
    lie beside each other. (Those of joined features are parts of wider ones; that is so in any layout.)
    """

    def __init__(self):
        super().__init__()
        self.count = self.of = self.back = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        if func is FORWARD:
            self.of += 1
            self.count += not _all_last(args[:2])
        if func is BACKWARD:
            self.back += not (_all_last(args[1:3]) and (args[0].stride(1) == 1 or args[0].shape[1] == 1))
        return func(*args, **(kwargs or {}))


def _all_last(tensors):
    return all(tensor.is_contiguous(memory_format=torch.channels_last) for tensor in tensors)
