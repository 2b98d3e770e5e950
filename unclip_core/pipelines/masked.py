"""Inpainting with a net that was trained for it: it sees the image around the hole, and the hole, in every step."""

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn import functional as F

from ..clip.adapter import TextCondition
from ..diffusion.denoiser import Denoiser, Prediction, host_timestep
from ..diffusion.forward import add_noise
from ..diffusion.inpaint_mask import MaskedImage
from ..diffusion.inpainting import blend_by_mask
from ..diffusion.loop import OnStep
from ..diffusion.noise import Noise, NoiseSource
from ..diffusion.samplers import sample
from ..models import Decoder
from .arguments import WHOLE_RUN, Interval, check_count, check_width, placed
from .canvas import cropped, encoded, spread
from .decoder import decoder_denoiser, embed_width
from .images import check_images, to_images


@torch.no_grad()
def inpaint_masked(
    decoder: Decoder,
    images: Tensor,
    mask: Tensor,
    image_embeds: Tensor,
    *,
    seeds: Sequence[int],
    text: TextCondition | None = None,
    steps: int | None = None,
    guidance_scale: float | None = None,
    sampler: str | None = None,
    negative_embeds: Tensor | None = None,
    on_step: OnStep | None = None,
    noise: Noise | None = None,
    guidance_interval: Interval = WHOLE_RUN,
    compatible: bool = False,
) -> Tensor:
    """Draw the part of images `[B, H, W, 3]` that `mask` says, and keep the rest to the bit.

    Args:
        decoder: one that reads "masked" images beside its latents.
        mask: `[B or 1, H, W]` in 0..1: 0 keeps, 1 draws, between them both are blended.
        seeds: one an image.
        compatible: reduce the mask to the latents' grid as diffusers does, which may keep latents with a part of the
            hole in them, and do not put the kept pixels back.

    Raises:
        ValueError: a number is out of range, or counts or sizes differ.
    """
    check_images(images)
    check_width(image_embeds, embed_width(decoder))
    check_count("images", len(images), len(image_embeds), "image embeddings")
    check_count("seeds", len(seeds), len(image_embeds), "image embeddings")
    count, height, width, _ = images.shape
    known = MaskedImage(images, mask, torch.Size((count, 3, height, width)))
    device, _ = placed(decoder.net)
    clean = encoded(decoder, images)
    keep = 1 - spread(latent_hole(mask.to(device), decoder, compatible), count, "masks")
    chosen = decoder.settings.over(steps, guidance_scale, sampler)
    plan = decoder.diffusion.steps(chosen.steps, chosen.sampler)
    beside = torch.cat([clean * keep, keep], dim=1)
    denoiser = decoder_denoiser(
        decoder, image_embeds, text, chosen.guidance_scale, guidance_interval, plan, beside, negative_embeds
    )
    noise = noise or NoiseSource(seeds, "decoder")
    start = noise.normal(clean.shape[1:], device=device)
    keeping = KeepsLatents(denoiser, clean, keep, start, decoder.diffusion.table, int(plan.timesteps[0]))
    drawn = sample(chosen.sampler, keeping, start, plan, noise, on_step=on_step)
    made = to_images(cropped(decoder.codec.decode(drawn), (height, width)))
    return made if compatible else known.restore_kept(made)


def latent_hole(mask: Tensor, decoder: Decoder, compatible: bool = False) -> Tensor:
    """The hole on the latents' grid, `[N, 1, h, w]` of 0 and 1, one cell larger, as the net was trained with.

    Args:
        mask: `[N, H, W]` in 0..1, 1 is to be drawn.
        decoder: whose latents.
        compatible: look at the top left pixel of each latent, and call it a hole from 0.5 on, as diffusers does; else
            each latent that covers a part of the hole is one.
    """
    factor = decoder.codec.factor
    height, width = mask.shape[1:]
    _, h, w = decoder.latent_shape_of(height, width)
    whole = F.pad(mask[:, None].float(), (0, w * factor - width, 0, h * factor - height), value=1.0)
    hole = whole[..., ::factor, ::factor] >= 0.5 if compatible else F.max_pool2d(whole, factor) > 0
    return grown(hole.float())


def grown(hole: Tensor) -> Tensor:
    """The hole `[N, 1, h, w]` and its neighbours but those up to the right and down to the left: diffusers' way."""
    h, w = hole.shape[-2:]
    around = F.pad(hole, (1, 1, 1, 1))
    moves = ((0, 0), (0, 1), (1, 0), (0, -1), (-1, 0), (1, 1), (-1, -1))
    moved = [around[..., 1 + down : 1 + down + h, 1 + right : 1 + right + w] for down, right in moves]
    return torch.stack(moved).amax(dim=0)


class KeepsLatents:
    """A denoiser that sees the known latents, noised to the timestep, outside of the hole, and predicts them there.

    Args:
        denoiser: of the net.
        clean: the known latents `[B, C, h, w]`.
        keep: `[B, 1, h, w]`, 1 where they are known and 0 in the hole.
        noise: the noise of the known latents, the same in every step.
        table: alpha-bar by timestep.
        first: the timestep of the first step, which sees pure noise everywhere.
    """

    def __init__(
        self, denoiser: Denoiser, clean: Tensor, keep: Tensor, noise: Tensor, table: Tensor, first: int
    ) -> None:
        """Keep the parts."""
        self._denoiser, self._clean, self._hole = denoiser, clean, 1 - keep
        self._noise, self._table, self._first = noise, table, first

    def __call__(self, x: Tensor, t: Tensor) -> Prediction:
        """Return the prediction with the known part put in."""
        number = host_timestep(t)
        number = int(t[0]) if number is None else number
        if number != self._first:
            x = blend_by_mask(x, add_noise(self._clean, self._noise, float(self._table[number])).to(x), self._hole)
        seen = self._denoiser(x, t)
        return Prediction(blend_by_mask(seen.x0, self._clean.to(x), self._hole), seen.variance_fraction)
