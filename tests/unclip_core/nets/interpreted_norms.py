"""A program for `test_group_norm`: triton's kernels by triton's interpreter, on a CPU; prints what differs by how much.

The interpreter has to be chosen before triton is imported, so this is a process of its own.
"""

import json
import os

os.environ["TRITON_INTERPRET"] = "1"

import torch
import torch.nn.functional as F
from factories import channels_last, draw, error, full_unet_params, randomise, turned
from layout_changes import LayoutChanges

from unclip.unclip_core.nets import group_norm, memory_formats, triton_group_norm, unet
from unclip.unclip_core.nets.layers import AddedKVAttention, ResBlock
from unclip.unclip_core.nets.triton_group_norm import normalised
from unclip.unclip_core.nets.triton_group_norm_gradients import GroupNormSilu
from unclip.unclip_core.nets.unet import UNet

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


def exact(norm, x, shift, silu):
    """In float64, of what the kernels are given."""
    y = F.group_norm(x.double(), norm.num_groups, norm.weight.double(), norm.bias.double(), norm.eps)
    if shift is not None:
        scale, more = shift.double()[:, :, None, None].chunk(2, dim=1)
        y = y * (1 + scale) + more
    return F.silu(y) if silu else y


def set_sizes(case):
    """Small ones where many chunks are to be folded, else the kernels' own."""
    chunks, folded = (3, 128) if case == "many chunks" else (64, 4096)
    triton_group_norm.MAX_CHUNKS, triton_group_norm.FOLDED = chunks, folded
    triton_group_norm.PIXELS = 4 if case == "many chunks" else 32


def difference(case, dtype, shifted, silu):
    shape, groups, middle = CASES[case]
    norm = randomise(torch.nn.GroupNorm(groups, shape[1], 1e-5)).to(dtype)
    x = channels_last((draw(*shape) + middle).to(dtype))
    shift = draw(shape[0], 2 * shape[1], seed=2).to(dtype) if shifted else None
    out, kept = torch.full_like(x, torch.nan), x.clone()
    set_sizes(case)
    normalised(norm, x, shift, silu, out)
    assert torch.equal(x, kept) and out.is_contiguous(memory_format=torch.channels_last)
    return error(out.double(), exact(norm, x, shift, silu))


def gradients_of(run, given, seed):
    """Those of all that is given, of a sum of the result by random numbers."""
    with torch.enable_grad():
        leaves = [None if part is None else part.detach().requires_grad_() for part in given]
        result = run(*leaves)
        wanted = [leaf for leaf in leaves if leaf is not None]
        return torch.autograd.grad(result, wanted, draw(*result.shape, seed=seed).to(result.dtype))


def difference_of_gradients(case, dtype, shifted, silu):
    """Of x, weight, bias, and of scale and shift, each over its own size."""
    shape, groups, middle = CASES[case]
    norm = randomise(torch.nn.GroupNorm(groups, shape[1], 1e-5)).to(dtype)
    x = channels_last((draw(*shape) + middle).to(dtype))
    shift = draw(shape[0], 2 * shape[1], seed=2).to(dtype) if shifted else None
    set_sizes(case)

    def ours(x, weight, bias, shift):
        return GroupNormSilu.apply(x, weight, bias, shift, norm, silu)

    def plain(x, weight, bias, shift):
        y = F.group_norm(x, groups, weight, bias, norm.eps)
        if shift is not None:
            scale, more = shift[:, :, None, None].chunk(2, dim=1)
            y = y * (1 + scale) + more
        return F.silu(y) if silu else y

    given = (x, norm.weight, norm.bias, shift)
    made = gradients_of(ours, given, 5)
    assert made[0].is_contiguous(memory_format=torch.channels_last)
    assert all(mine.dtype == dtype for mine in made)
    # The incoming gradient is rounded to the norm's precision, as ours is.
    expected = gradients_of(lambda *of: plain(*of), [None if part is None else part.double() for part in given], 5)
    return max(error(mine.double(), whole) for mine, whole in zip(made, expected, strict=True))


def of_a_training_step():
    """How far a UNet's gradients by the kernels are from torch's, and which convolutions got features turned round."""
    net = turned(randomise(UNet(full_unet_params())))
    x, t, context = draw(2, 3, 8, 12), torch.tensor([3, 900]), draw(2, 5, 10, seed=3)

    def step(fits, mixed=False):
        group_norm.fits = fits
        net.zero_grad()
        with torch.enable_grad(), LayoutChanges() as seen:
            with torch.autocast("cpu", torch.bfloat16, enabled=mixed):
                out = net(x, t, context=context)
            (out * draw(*out.shape, seed=7)).sum().backward()
        return {name: p.grad.clone() for name, p in net.named_parameters()}, seen

    plain, _ = step(lambda norm, x: False)
    mixed = [step(lambda norm, x: False, mixed=True)[0]]
    memory_formats.following = unet.laid_out = lambda x, weight: channels_last(x)
    made, seen = step(lambda norm, x: True)
    assert all(p.grad.stride() == p.stride() for p in net.parameters())
    mixed.append(step(lambda norm, x: True, mixed=True)[0])
    learned = [name for name in plain if plain[name].abs().max() > 1e-9]
    return {
        "off": max(error(made[name], plain[name]) for name in learned),
        "off in mixed precision": [max(error(way[name], plain[name]) for name in learned) for way in mixed],
        "turned": seen.count,
        "of": seen.of,
        "turned back": seen.back,
    }


def of_blocks():
    """How far blocks by the kernels are from blocks without; all of them keep to channels last."""
    x, embed, found = channels_last(draw(2, 8, 4, 6)), draw(2, 6, seed=2), []
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
    asked = [
        (case, name, dtype, shifted, silu)
        for case in CASES
        for name, dtype in TYPES.items()
        for shifted, silu in (((True, True), (False, False)) if case == "odd" else ((True, True),))
        if case in ("one tile", "odd") or name == "float32"
    ]
    found = {"norms": difference, "gradients": difference_of_gradients}
    print(
        json.dumps(
            {
                kind: {f"{case}, {name}, {more}": call(case, dtype, *more) for case, name, dtype, *more in asked}
                for kind, call in found.items()
            }
            | {"blocks": of_blocks(), "step": of_a_training_step()}
        )
    )
