"""What else a decoder can do: find the noise of an image, fill in part of one, follow CLIP's gradient."""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from ..clip.adapter import TextCondition
from ..diffusion.denoiser import Denoiser
from ..diffusion.inpaint_mask import MaskedImage
from ..diffusion.inpainting import repaint
from ..diffusion.inversion import ErrorAware, Inverted, clean_error, invert
from ..diffusion.loop import OnStep
from ..diffusion.noise import NoiseSource
from ..diffusion.spec import DiffusionSpec
from ..diffusion.windows import Windowed
from ..models import PIXELS, Clip, Decoder, ImageCodec
from ..nets.inference_gradients import enable_gradients, to_normal_tensors
from . import check_count, check_images, decoder_denoiser, sample_decoder, to_images
from .arguments import check_width
from .clip_ascent import Ascent, ascend
from .clip_guidance import ClipGuided, clip_logits
from .decoder import embed_width
from .masked import inpaint_masked
from .settings import INVERSION_STEPS

__all__ = [
    "fit_image",
    "guided_decoder",
    "in_own_size",
    "inpaint_decoder",
    "invert_decoder",
    "optimise_images",
    "resize_mask",
]
__all__ += ["resize_image"]

OVERLAP = 2
"""Windows on a canvas overlap by one part in this many."""


@torch.no_grad()
def invert_decoder(
    decoder: Decoder,
    images: Tensor,
    image_embeds: Tensor,
    *,
    text: TextCondition | None = None,
    steps: int = INVERSION_STEPS,
    guidance_scale: float = 1.0,
    iterations: int = 1,
    on_step: OnStep | None = None,
) -> Inverted:
    """The noise `[B, C, s, s]` from which the decoder draws images `[B, S, S, 3]` under their embeddings `[B, D]`.

    Given to `sample_decoder` as `start`, with its error as `start_error`, `sampler` ddim, the same steps, guidance and
    text, it draws them again.

    Raises:
        ValueError: a number is out of range, counts differ, or the images are not of the decoder's size.
    """
    check_images(images)
    check_width(image_embeds, embed_width(decoder))
    check_count("images", len(images), len(image_embeds), "image embeddings")
    side, cell = decoder.image_size, decoder.codec.factor * decoder.net.unet.stride
    fits = all(length % cell == 0 for length in images.shape[1:3])
    if images.shape[1:3] != (side, side) and not (decoder.any_size and fits):
        raise ValueError(
            f"The decoder draws {f'multiples of {cell}' if decoder.any_size else f'{side} × {side}'} pixels, the image "
            f"has {images.shape[2]} × {images.shape[1]}: resize it first."
        )
    denoiser = decoder_denoiser(decoder, image_embeds, text, guidance_scale)
    x0 = decoder.codec.encode(images.movedim(-1, 1).to(_device(decoder), torch.float32) * 2 - 1)
    plan, error = decoder.diffusion.steps(steps), clean_error(denoiser, x0)
    aware = ErrorAware(denoiser, decoder.diffusion.table, error)
    return Inverted(invert(aware, x0, plan, iterations=iterations, on_step=on_step), error)


@torch.no_grad()
def inpaint_decoder(
    decoder: Decoder,
    images: Tensor,
    mask: Tensor,
    image_embeds: Tensor,
    *,
    seeds: Sequence[int],
    text: TextCondition | None = None,
    steps: int | None = None,
    guidance_scale: float | None = None,
    resamples: int = 1,
    negative_embeds: Tensor | None = None,
    on_step: OnStep | None = None,
) -> Tensor:
    """Draw the part of images `[B, H, W, 3]` that `mask` says, under their embeddings, and keep the rest to the bit.

    Images may be larger than the decoder's square: it then draws in overlapping windows, unless it draws any size. A
    decoder that was trained for inpainting does it in its own way (`inpaint_masked`), each step once.

    Args:
        mask: `[B or 1, H, W]` in 0..1: 0 keeps, 1 draws, between them both are blended.
        seeds: one an image.
        steps: 2..train_steps; None takes the model's own, as for `guidance_scale`.
        resamples: how often each step is made (`repaint`); more fits what is drawn better to what is known.
        on_step: called after each of the `(steps - 1) * resamples + 1` steps.

    Raises:
        ValueError: a number is out of range, counts or sizes differ, or an image is smaller than the decoder's.
    """
    if decoder.reads_beside == "masked":
        return inpaint_masked(
            decoder,
            images,
            mask,
            image_embeds,
            seeds=seeds,
            text=text,
            steps=steps,
            guidance_scale=guidance_scale,
            negative_embeds=negative_embeds,
            on_step=on_step,
        )
    check_images(images)
    check_width(image_embeds, embed_width(decoder))
    check_count("images", len(images), len(image_embeds), "image embeddings")
    check_count("seeds", len(seeds), len(image_embeds), "image embeddings")
    height, width = images.shape[1:3]
    known = MaskedImage(images, mask, torch.Size((len(images), 3, height, width)))
    chosen, codec = decoder.settings.over(steps, guidance_scale), decoder.codec
    plan, noise = decoder.diffusion.steps(chosen.steps), NoiseSource(seeds, "decoder")
    cell = codec.factor * (decoder.net.unet.stride if decoder.any_size else 1)
    padded = known.padded(torch.Size((len(images), 3, *_multiples(height, width, cell))))
    start = noise.normal(
        (codec.channels, padded.shape[-2] // codec.factor, padded.shape[-1] // codec.factor), device=_device(decoder)
    )
    side = decoder.latent_shape[-1]
    denoiser = decoder_denoiser(decoder, image_embeds, text, chosen.guidance_scale, negative_embeds=negative_embeds)
    if not decoder.any_size:
        denoiser = Windowed(denoiser, side, max(1, side // OVERLAP))
    encode = None if codec is PIXELS else codec.encode
    knowing, start = padded.start_from(denoiser, start, float(plan.alpha_bar[0]), encode, codec.factor)
    drawn = codec.decode(repaint(knowing, start, plan, noise, resamples=resamples, on_step=on_step))
    return known.restore_kept(to_images(drawn[..., :height, :width]))


def guided_decoder(
    decoder: Decoder, clip: Clip, wanted: Tensor, strength: float, image_embeds: Tensor, **settings: Any
) -> Tensor:
    """`sample_decoder`, guided toward texts by CLIP's gradient too.

    Args:
        wanted: CLIP's text embeddings, `[B or 1, D]`.
        strength: of the gradient; 1 is Bayes' rule, more is stricter.
        settings: `sample_decoder`'s other arguments.

    Raises:
        ValueError: as `sample_decoder`, and for texts that are not as many as the embeddings.
    """
    check_width(wanted, clip.adapter.embed_dim, "texts to guide toward")
    if len(wanted) not in (1, len(image_embeds)):
        raise ValueError(f"{len(wanted)} texts to guide toward do not go with {len(image_embeds)} image embeddings.")
    with enable_gradients(decoder.module, clip.module):
        logits = clip_logits(clip, to_normal_tensors(wanted))
        diffusion: DiffusionSpec = decoder.diffusion

        def adapt(denoiser: Denoiser) -> Denoiser:
            return ClipGuided(
                denoiser, lambda x0: logits(decoder.codec.decode(x0)), strength, diffusion.table, diffusion.x0_clip
            )

        start = to_normal_tensors(settings.pop("start", None))
        return sample_decoder(decoder, image_embeds, adapt=adapt, start=start, **settings)


def optimise_images(
    clip: Clip,
    wanted: Tensor,
    ascent: Ascent,
    *,
    seeds: Sequence[int],
    images: Tensor | None = None,
    size: tuple[int, int] = (64, 64),
    codec: ImageCodec = PIXELS,
    on_step: OnStep | None = None,
) -> Tensor:
    """Images `[B, H, W, 3]` in 0..1 that CLIP finds like their texts, by gradient ascent over pixels or latents.

    Args:
        wanted: CLIP's text embeddings, `[B, D]`.
        seeds: one an image.
        images: where to begin, `[B, H, W, 3]` in 0..1; None begins with noise of `size` (height, width).
        codec: whose latents are changed, drawn as its codebook has them (VQGAN+CLIP); pixels by default.
        on_step: called after each step, with the images in -1..1 that it began with.

    Raises:
        ValueError: counts differ, or the tensor is not a batch of RGB images.
    """
    check_width(wanted, clip.adapter.embed_dim, "texts")
    check_count("seeds", len(seeds), len(wanted), "texts")
    if images is not None:
        check_images(images)
        check_count("images", len(images), len(wanted), "texts")
        size = tuple(images.shape[1:3])
    with enable_gradients(clip.module, *([] if codec.module is None else [codec.module])):
        device = next(clip.module.parameters()).device
        start = None if images is None else to_normal_tensors(images).movedim(-1, 1).to(device)
        found = ascend(
            clip,
            to_normal_tensors(wanted).to(device),
            start,
            size,
            ascent,
            NoiseSource(seeds, "optimise"),
            codec=codec,
            on_step=on_step,
        )
        return found.movedim(1, -1).contiguous()


def in_own_size(drawn: Tensor, images: Tensor, mask: Tensor) -> Tensor:
    """Drawn images `[B, h, w, 3]` at the size of the images `[B or 1, H, W, 3]` that they were drawn in.

    Where the mask `[B or 1, H, W]` is 0 these are kept, to the bit. What has their size comes back as it is.
    """
    if drawn.shape[1:3] == images.shape[1:3]:
        return drawn
    height, width = images.shape[1:3]
    large = resize_image(drawn, (height, width))
    return MaskedImage(images, mask, torch.Size((len(drawn), 3, height, width))).restore_kept(large)


def fit_image(images: Tensor, mask: Tensor | None, side: int) -> tuple[Tensor, Tensor | None]:
    """Images `[B, H, W, 3]` and mask `[N, H', W']`, resized so that the shorter edge has `side` px.

    What has that size stays as it is, to the bit. The mask takes the images' new size; of what a pixel covers, any
    part to be drawn makes it one to be drawn.
    """
    height, width = images.shape[1:3]
    short = min(height, width)
    size = (max(side, round(height * side / short)), max(side, round(width * side / short)))
    images = resize_image(images, size)
    if mask is not None and tuple(mask.shape[1:]) != size:
        mask = resize_mask(mask, size)
    return images, mask


def resize_image(images: Tensor, size: tuple[int, int]) -> Tensor:
    """Images `[B, H, W, 3]` in 0..1 at another size (height, width); those that have it come back as they are."""
    if tuple(images.shape[1:3]) == size:
        return images
    resized = F.interpolate(images.movedim(-1, 1), size, mode="bicubic", align_corners=False, antialias=True)
    return resized.clamp(0, 1).movedim(1, -1)


def resize_mask(mask: Tensor, size: tuple[int, int]) -> Tensor:
    """A mask `[N, H, W]` at another size; a pixel is drawn as far as any of the pixels that it covers was to be."""
    return F.adaptive_max_pool2d(mask[:, None], size)[:, 0]


def _multiples(height: int, width: int, factor: int) -> tuple[int, int]:
    """Both, rounded up to multiples of the factor."""
    return -(-height // factor) * factor, -(-width // factor) * factor


def _device(decoder: Decoder) -> torch.device:
    return next(decoder.net.parameters()).device
