"""A device that knows no float64, as Apple's and Intel's: its tensors lie on the CPU and say that they do not.

Arithmetic between it and the CPU fails as on a real device, and so does whatever would make a float64 there: a cast, a
new tensor, a sum with `dtype=`, a promotion.
"""

import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_flatten, tree_map

NAME = "meta"  # the one name, beside the CPU's, under which every build of torch takes gradients
DEVICE = torch.device(NAME)
WIDE = {torch.float64, torch.complex128}
MOVES = {torch.ops.aten._to_copy.default, torch.ops.aten.copy_.default, torch.ops.aten.set_.source_Tensor}


class NoFloat64(TypeError):
    """What a real device says to a float64."""


class DeviceTensor(torch.Tensor):
    """A tensor on the device; `held` is what it stands for."""

    @staticmethod
    def __new__(cls, held):
        return torch.Tensor._make_wrapper_subclass(
            cls, held.shape, strides=held.stride(), storage_offset=held.storage_offset(), dtype=held.dtype,
            device=DEVICE, requires_grad=False,
        )  # fmt: skip

    def __init__(self, held):
        self.held = held

    def tolist(self):
        return self.cpu().tolist()  # torch has none for a subclass

    def __repr__(self):
        return f"DeviceTensor({self.held})"

    @classmethod
    def __torch_dispatch__(cls, call, types, args=(), kwargs=None):
        return on_device(call, args, kwargs or {})


class WithoutFloat64(TorchDispatchMode):
    """Makes the device exist while the context lasts; counts the operations that ran on it."""

    def __init__(self):
        super().__init__()
        self.operations = 0

    def __torch_dispatch__(self, call, types, args=(), kwargs=None):
        kwargs = kwargs or {}
        if not involves_device(args, kwargs):
            return call(*args, **kwargs)
        self.operations += 1
        return on_device(call, args, kwargs)


def involves_device(args, kwargs):
    leaves = tree_flatten((args, kwargs))[0]
    named = any(leaf.type == NAME for leaf in leaves if isinstance(leaf, torch.device))
    return named or any(isinstance(leaf, DeviceTensor) for leaf in leaves)


def on_device(call, args, kwargs):
    """Run an operation with the held tensors, and put what comes out on the device that it belongs to."""
    if call in MOVES or "device" in kwargs:
        target = kwargs.get("device") or next(
            leaf.device for leaf in tree_flatten((args, kwargs))[0] if isinstance(leaf, torch.Tensor)
        )
    else:
        target = DEVICE
        refuse_mixture(call, args, kwargs)
    to_device = torch.device(target).type == NAME
    if call is torch.ops.aten._to_copy.default and kwargs.get("dtype") in WIDE and isinstance(args[0], DeviceTensor):
        raise NoFloat64(f"{call} would make a {kwargs['dtype']} of shape {tuple(args[0].shape)} before it is moved")
    inner = {**kwargs, "device": torch.device("cpu")} if "device" in kwargs and kwargs["device"] is not None else kwargs
    made = call(*tree_map(unwrapped, args), **tree_map(unwrapped, inner))
    return tree_map(lambda value: placed(call, value, args, to_device), made)


def refuse_mixture(call, args, kwargs):
    if "index" in str(call):
        return  # indices may lie on the CPU
    for leaf in tree_flatten((args, kwargs))[0]:
        if isinstance(leaf, torch.Tensor) and not isinstance(leaf, DeviceTensor) and leaf.ndim:
            raise RuntimeError(f"{call}: a CPU tensor of shape {tuple(leaf.shape)} beside tensors of {DEVICE}")


def unwrapped(value):
    return value.held if isinstance(value, DeviceTensor) else value


def placed(call, value, args, to_device):
    if not isinstance(value, torch.Tensor) or not to_device:
        return value
    for leaf in tree_flatten(args)[0]:
        if isinstance(leaf, DeviceTensor) and leaf.held is value:
            return leaf  # an operation in place
    if value.dtype in WIDE:
        raise NoFloat64(f"{call} would make a {value.dtype} of shape {tuple(value.shape)} on {DEVICE}")
    return DeviceTensor(value)
