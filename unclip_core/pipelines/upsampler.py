"""From a picture to a larger one."""

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn import functional as F

from ..diffusion.denoiser import RawModel, number_of
from ..diffusion.inpaint_mask import KnownPicture
from ..diffusion.noise import Noise, NoiseSource
from ..diffusion.samplers import OnStep, sample
from ..models import Upsampler
from ..nets.layers import TimeTable
from ..nets.tiling import in_tiles_if_large
from .arguments import check_count, placed
from .images import check_images, enlarge, to_images


@torch.no_grad()
def upscale(
    upsampler: Upsampler,
    images: Tensor,
    *,
    steps: int,
    seeds: Sequence[int],
    sampler: str = "ddim",
    eta: float = 0.0,
    on_step: OnStep | None = None,
    noise: Noise | None = None,
    known: Tensor | None = None,
    mask: Tensor | None = None,
    tile: int | None = None,
) -> Tensor:
    """Pictures `[B, H, W, 3]` in 0..1 drawn `scale` times as large, `[B, scale * H, scale * W, 3]`.

    Args:
        known: the large pictures as far as they are known, `[B or 1, scale * H, scale * W, 3]` in 0..1.
        mask: `[B or 1, scale * H, scale * W]` in 0..1: 0 keeps `known` to the bit, 1 draws. Both or neither.
        tile: side of the tiles that large pictures are drawn in, px; None tiles where memory asks for it, 0 never.

    Raises:
        ValueError: a number is out of range, counts or sizes differ, or the tensor is not a batch of RGB pictures.
    """
    check_images(images)
    check_count("seeds", len(seeds), len(images), "pictures")
    device, model_dtype = placed(upsampler.net)
    low = enlarge(images.to(device).permute(0, 3, 1, 2).float() * 2 - 1, upsampler.scale, upsampler.clamp)
    padded, (height, width) = _padded(low, upsampler.net.unet.stride)
    noise = noise or NoiseSource(seeds, "upsampler")
    start = noise.normal(padded.shape[1:], device=device)
    plan = upsampler.diffusion.steps(steps)
    kept = None if known is None else KnownPicture(known, mask, low.shape)
    model = _upsampler_model(upsampler, padded, plan.timesteps, tile)
    denoiser = upsampler.diffusion.denoiser(model, model_dtype)
    if kept is not None:
        denoiser, start = kept.padded(padded.shape).enter(denoiser, start, float(plan.alpha_bar[0]))
    pictures = sample(sampler, denoiser, start, plan, noise, eta=eta, on_step=on_step)
    large = to_images(pictures[..., :height, :width])
    return large if kept is None else kept.into(large)


def _upsampler_model(upsampler: Upsampler, low: Tensor, steps: Tensor, tile: int | None) -> RawModel:
    """The net (x, t) -> raw output over the enlarged pictures `low`; the last of `steps` may have a net of its own."""
    nets = [net for net in (upsampler.net, upsampler.last) if net is not None]
    first, *rest = (
        in_tiles_if_large(net, *low.shape[-2:], tile, TimeTable(net.unet.time_embed, steps)) for net in nets
    )
    final = int(steps[-1])

    def model(x: Tensor, t: Tensor) -> Tensor:
        number = number_of(t)
        at_end = bool(rest) and (int(t[0]) if number is None else number) == final
        return (rest[0] if at_end else first)(x, t, low)

    return model


def _padded(pictures: Tensor, stride: int) -> tuple[Tensor, tuple[int, int]]:
    height, width = pictures.shape[-2:]
    extra = (-width % stride, -height % stride)
    # Edge pixels are repeated: a reflection needs more pixels than a 1 px wide picture has.
    return F.pad(pictures, (0, extra[0], 0, extra[1]), mode="replicate"), (height, width)
