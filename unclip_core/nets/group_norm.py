"""Group normalisation with what follows it: scale, shift and SiLU, in one pass on a GPU where that can be had."""

import logging

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .memory_formats import Triton, triton_serves

log = logging.getLogger("unclip")
DTYPES = (torch.float32, torch.float16, torch.bfloat16)


def norm_silu(norm: nn.Module, x: Tensor, scale_shift: Tensor | None = None) -> Tensor:
    """SiLU of the normalised features, scaled and shifted.

    Args:
        norm: nn.GroupNorm, or any other layer, nn.Identity say.
        x: `[B, C, H, W]`; stays as it is.
        scale_shift: `[B, 2 C]`, the scale first: what is normalised is multiplied by 1 + scale, and the shift added.

    Returns:
        `[B, C, H, W]`.
    """
    if isinstance(norm, nn.GroupNorm) and (made := fused(norm, x, scale_shift)) is not None:
        return made
    anew = torch.is_grad_enabled()  # else work in place: allocating costs as much as the operation itself
    h = norm(x)
    if scale_shift is not None:
        scale, shift = scale_shift[:, :, None, None].chunk(2, dim=1)
        h = torch.addcmul(shift, h, 1 + scale)
    return F.silu(h, inplace=not anew and h is not x)


def fused(norm: nn.GroupNorm, x: Tensor, scale_shift: Tensor | None = None, silu: bool = True) -> Tensor | None:
    """The same by kernels that are parallel over pixels, or None where these do not serve.

    torch's own takes one block of threads a group, so that a batch of two leaves most of a large GPU idle: a third of a
    picture's time (Karlo, fp16, on an H200); and it turns features that are channels last to plain ones.
    """
    if not fits(norm, x):
        return None
    try:
        if torch.is_grad_enabled():
            from .triton_group_norm_gradients import GroupNormSilu

            return GroupNormSilu.apply(x, norm.weight, norm.bias, scale_shift, norm, silu)
        from .triton_group_norm import normalised

        out = torch.empty_like(x)
        normalised(norm, x, scale_shift, silu, out)
    except torch.cuda.OutOfMemoryError:  # of torch from 2.5 on torch.OutOfMemoryError besides
        raise
    except Exception as error:  # whatever triton and the compiler behind it raise
        Triton.failed = True
        log.warning("triton cannot compile here: norms take torch's way, which is slower. It said: %s", error)
        return None
    return out


def fits(norm: nn.GroupNorm, x: Tensor) -> bool:
    """Whether the kernels can normalise x `[B, C, H, W]`: on a GPU, channels last.

    A norm with hooks (those of `tiling`) has to be called itself.
    """
    if x.device.type != "cuda" or not triton_serves():
        return False
    if norm.weight is None or norm._forward_hooks or norm._forward_pre_hooks:
        return False
    return x.dtype in DTYPES and x.numel() > 0 and x.is_contiguous(memory_format=torch.channels_last)
