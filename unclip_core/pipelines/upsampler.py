"""From an image to a larger one."""

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn import functional as F

from ..diffusion.denoiser import Denoiser, RawModel, host_timestep
from ..diffusion.inpaint_mask import MaskedImage
from ..diffusion.loop import OnStep
from ..diffusion.noise import Noise, NoiseSource
from ..diffusion.samplers import sample
from ..models import Upsampler
from ..nets.layers import TimeTable
from ..nets.tiling import tiled_if_large
from .arguments import check_count, placed
from .images import check_images, enlarge, to_images


@torch.no_grad()
def upscale(
    upsampler: Upsampler,
    images: Tensor,
    *,
    seeds: Sequence[int],
    steps: int | None = None,
    sampler: str | None = None,
    eta: float = 0.0,
    on_step: OnStep | None = None,
    noise: Noise | None = None,
    known: Tensor | None = None,
    mask: Tensor | None = None,
    tile: int | None = None,
) -> Tensor:
    """Images `[B, H, W, 3]` in 0..1 drawn `scale` times as large, `[B, scale * H, scale * W, 3]`.

    Args:
        seeds: one an image.
        steps: 1..train_steps; None takes the model's own, as for `sampler`.
        sampler: a name in `SAMPLERS`.
        known: the large images as far as they are known, `[B or 1, scale * H, scale * W, 3]` in 0..1.
        mask: `[B or 1, scale * H, scale * W]` in 0..1: 0 keeps `known` to the bit, 1 draws. Both or neither.
        tile: side of the tiles that large images are drawn in, px; None tiles where memory asks for it, 0 never.

    Raises:
        ValueError: a number is out of range, counts or sizes differ, a tensor is not a batch of finite RGB images, or
            one of `known` and `mask` comes without the other.
    """
    check_images(images)
    check_count("seeds", len(seeds), len(images), "images")
    if mask is not None and known is None:
        raise ValueError("A mask needs the known pixels that it keeps: give 'known' too, or leave the mask out.")
    device, model_dtype = placed(upsampler.net)
    low = enlarge(images.to(device).permute(0, 3, 1, 2).float() * 2 - 1, upsampler.scale, upsampler.clamp)
    padded, (height, width) = _padded(low, upsampler.net.unet.stride)
    noise = noise or NoiseSource(seeds, "upsampler")
    start = noise.normal(padded.shape[1:], device=device)
    chosen = upsampler.settings.over(steps, sampler=sampler)
    # The sampler is not told to `steps`: `solver_spacing` has no say here. Its "trailing" plans do not reach t = 0,
    # the one timestep that Karlo's net for the last step was tuned for, whatever the sampler.
    plan = upsampler.diffusion.steps(chosen.steps)
    kept = None if known is None else MaskedImage(known, mask, low.shape)
    model = _upsampler_model(upsampler, padded, plan.timesteps, tile)
    denoiser: Denoiser = upsampler.diffusion.denoiser(model, model_dtype)
    if kept is not None:
        denoiser, start = kept.padded(padded.shape).start_from(denoiser, start, float(plan.alpha_bar[0]))
    samples = sample(chosen.sampler, denoiser, start, plan, noise, eta=eta, on_step=on_step)
    large = to_images(samples[..., :height, :width])
    return large if kept is None else kept.restore_kept(large)


def _upsampler_model(upsampler: Upsampler, low: Tensor, steps: Tensor, tile: int | None) -> RawModel:
    """The net (x, t) -> raw output over the enlarged images `low`; the last of `steps` may have a net of its own."""
    nets = [net for net in (upsampler.net, upsampler.last) if net is not None]
    height, width = low.shape[-2:]
    first, *rest = (tiled_if_large(net, height, width, tile, TimeTable(net.unet.time_embed, steps)) for net in nets)
    final = int(steps[-1])

    def model(x: Tensor, t: Tensor) -> Tensor:
        number = host_timestep(t)
        at_end = bool(rest) and (int(t[0]) if number is None else number) == final
        return (rest[0] if at_end else first)(x, t, low)

    return model


def _padded(images: Tensor, stride: int) -> tuple[Tensor, tuple[int, int]]:
    height, width = images.shape[-2:]
    extra = (-width % stride, -height % stride)
    # Edge pixels are repeated: a reflection needs more pixels than a 1 px wide image has.
    return F.pad(images, (0, extra[0], 0, extra[1]), mode="replicate"), (height, width)
