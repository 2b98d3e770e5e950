"""A program for `test_group_norm`: triton's kernels by triton's interpreter, on a CPU; prints what differs by how much.

The interpreter has to be chosen before triton is imported, so this is a process of its own.
"""

import json
import os

os.environ["TRITON_INTERPRET"] = "1"

import torch
import torch.nn.functional as F
from factories import draw, error, randomise

from unclip.unclip_core.nets import group_norm, triton_group_norm
from unclip.unclip_core.nets.layers import AddedKVAttention, ResBlock
from unclip.unclip_core.nets.triton_group_norm import normalised

CASES = {
    # name: (x's shape, groups, mean of x)
    "one tile": ((1, 8, 3, 4), 4, 0.0),
    "odd": ((3, 15, 7, 5), 3, 1.0),
    "a channel a group": ((2, 6, 4, 4), 6, 0.0),
    "all in one group": ((2, 70, 5, 5), 1, 0.0),
    "wide groups": ((1, 260, 2, 3), 2, 0.0),
    "one pixel": ((2, 8, 1, 1), 2, 0.0),
    "one channel": ((2, 1, 5, 3), 1, 0.0),
    "many chunks": ((1, 5, 7, 6), 1, 0.0),
    "far from zero": ((1, 16, 8, 20), 4, 300.0),
}
TYPES = {"float32": torch.float32, "float16": torch.float16, "bfloat16": torch.bfloat16}


def last(x):
    return x.contiguous(memory_format=torch.channels_last)


def exact(norm, x, shift, silu):
    """In float64, of what the kernels are given."""
    y = F.group_norm(x.double(), norm.num_groups, norm.weight.double(), norm.bias.double(), norm.eps)
    if shift is not None:
        scale, more = shift.double()[:, :, None, None].chunk(2, dim=1)
        y = y * (1 + scale) + more
    return F.silu(y) if silu else y


def difference(case, dtype, shifted, silu):
    shape, groups, middle = CASES[case]
    norm = randomise(torch.nn.GroupNorm(groups, shape[1], 1e-5)).to(dtype)
    x = last((draw(*shape) + middle).to(dtype))
    shift = draw(shape[0], 2 * shape[1], seed=2).to(dtype) if shifted else None
    out, kept = torch.full_like(x, torch.nan), x.clone()
    chunks, folded = (3, 128) if case == "many chunks" else (64, 4096)
    triton_group_norm.MAX_CHUNKS, triton_group_norm.FOLDED = chunks, folded
    triton_group_norm.PIXELS = 4 if case == "many chunks" else 32
    normalised(norm, x, shift, silu, out)
    assert torch.equal(x, kept) and out.is_contiguous(memory_format=torch.channels_last)
    return error(out.double(), exact(norm, x, shift, silu))


def of_blocks():
    """How far blocks by the kernels are from blocks without; all of them keep to channels last."""
    x, embed, found = last(draw(2, 8, 4, 6)), draw(2, 6, seed=2), []
    blocks = [
        (randomise(ResBlock(8, 16, 6, groups=2, eps=1e-5, time_shift=shift, resample=resample)), (embed,))
        for shift, resample in (("add", None), ("scale_shift", "up"), ("scale_shift", "down"))
    ]
    blocks.append((randomise(AddedKVAttention(8, 4, None, groups=2, eps=1e-5)), ()))
    for block, given in blocks:
        group_norm.fits = lambda norm, x: False
        plain = block(x, *given)
        group_norm.fits = lambda norm, x: True
        made = block(x, *given)
        assert made.is_contiguous(memory_format=torch.channels_last)
        found.append(error(made, plain))
    return found


if __name__ == "__main__":
    torch.set_grad_enabled(False)
    found = {
        f"{case}, {name}, {shifted}, {silu}": difference(case, dtype, shifted, silu)
        for case in CASES
        for name, dtype in TYPES.items()
        for shifted, silu in (((True, True), (False, False)) if case == "odd" else ((True, True),))
        if case in ("one tile", "odd") or name == "float32"
    }
    print(json.dumps({"norms": found, "blocks": of_blocks()}))
