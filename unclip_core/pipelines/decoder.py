"""From an image embedding to a small image."""

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from ..clip.adapter import TextCondition
from ..diffusion.denoiser import Denoiser
from ..diffusion.guidance import Guided
from ..diffusion.inversion import ErrorAware, start_noise_share
from ..diffusion.loop import OnStep
from ..diffusion.noise import Noise, NoiseSource
from ..diffusion.samplers import sample
from ..diffusion.schedules import Steps
from ..models import Decoder
from ..nets.batch_chunks import chunked
from ..nets.conditioning import Condition
from ..nets.inference_gradients import to_normal_tensors
from ..nets.layers import TimeTable
from ..nets.step_graphs import stepped
from .arguments import WHOLE_RUN, Interval, check_count, check_finite, check_width, placed, text_arguments, text_rows
from .canvas import Canvas, cropped, no_beside, spread
from .images import to_images


@torch.no_grad()
def sample_decoder(
    decoder: Decoder,
    image_embeds: Tensor,
    *,
    seeds: Sequence[int],
    text: TextCondition | None = None,
    steps: int | None = None,
    guidance_scale: float | None = None,
    sampler: str | None = None,
    eta: float = 0.0,
    on_step: OnStep | None = None,
    noise: Noise | None = None,
    start: Tensor | None = None,
    start_error: Tensor | None = None,
    adapt: Callable[[Denoiser], Denoiser] | None = None,
    guidance_interval: Interval = WHOLE_RUN,
    canvas: Canvas | None = None,
    negative_embeds: Tensor | None = None,
) -> Tensor:
    """Draw an image `[B, S, S, 3]` in 0..1 for each image embedding `[B, D]`, or of the canvas's size.

    Args:
        text: what the images should show, one row or one an image; None for none (the empty prompt, where the
            net cannot do without).
        seeds: one an image.
        steps: 1..train_steps; None takes the model's own, as for `guidance_scale` and `sampler`.
        guidance_scale: 1 is none.
        sampler: a name in `SAMPLERS`.
        eta: noise of `ddim`, 0..1.
        on_step: called after each step; the samples are latents of the decoder's codec, `[B, C, s, s]`.
        noise: drawn from in place of the seeds, to repeat what another program drew.
        start: the noise that the images are made from, `[B or 1, C, s, s]`, as `editing.invert_decoder` finds it;
            None draws it. What else a sampler draws stays the same.
        start_error: `[B or 1]`, how far the net errs about the images of `start`, as `editing.invert_decoder` finds
            it too; as far as a sampler keeps that noise, what the net misses then comes out of it. None is 0.
        adapt: makes of the decoder's denoiser the one that is sampled with; None takes it as it is.
        guidance_interval: as of `sample_prior`.
        canvas: size, pictures to start from, a hint; None draws the decoder's own size from noise.
        negative_embeds: `[B or 1, D]`, what guidance leads away from; None for that of "no image".

    Raises:
        ValueError: a number is out of range, counts, widths or sizes differ, something given holds NaN, or the family
            needs a text and there is none.
    """
    check_width(image_embeds, embed_width(decoder))
    check_count("seeds", len(seeds), len(image_embeds), "image embeddings")
    chosen = decoder.settings.over(steps, guidance_scale, sampler)
    canvas = canvas or Canvas()
    size = canvas.height_and_width(decoder)
    shape = decoder.latent_shape_of(*size)
    plan = canvas.plan(decoder.diffusion.steps(chosen.steps, chosen.sampler))
    beside = canvas.beside(decoder, len(image_embeds))
    denoiser = decoder_denoiser(
        decoder, image_embeds, text, chosen.guidance_scale, guidance_interval, plan, beside, negative_embeds
    )
    if start_error is not None:
        check_finite(start_error, "errors of the start")
        error = start_error.to(placed(decoder.net)[0]) * start_noise_share(chosen.sampler, plan, eta) ** 0.5
        denoiser = ErrorAware(denoiser, decoder.diffusion.table, error)
    noise = noise or NoiseSource(seeds, "decoder")
    drawn = _given(start, noise.normal(shape, device=placed(decoder.net)[0]))
    latents = sample(
        chosen.sampler,
        denoiser if adapt is None else adapt(denoiser),
        canvas.start(decoder, drawn, plan),
        plan,
        noise,
        eta=eta,
        on_step=on_step,
    )
    return to_images(cropped(decoder.codec.decode(latents), size))


@torch.no_grad()
def decoder_denoiser(
    decoder: Decoder,
    image_embeds: Tensor,
    text: TextCondition | None,
    guidance_scale: float,
    guidance_interval: Interval = WHOLE_RUN,
    plan: Steps | None = None,
    beside: Tensor | None = None,
    negative_embeds: Tensor | None = None,
) -> Denoiser:
    """The decoder as a denoiser of latents `[B, C, h, w]` of images that show `B` embeddings; as `sample_decoder`.

    Args:
        plan: the steps that it will be asked for, if these are known: their times are then embedded here and now.
        beside: `[B, C', h, w]`, what the net sees beside the latents, see `Decoder.reads_beside`.
        negative_embeds: as of `sample_decoder`.

    Raises:
        ValueError: the embeddings are of another width or hold NaN, or counts differ.
    """
    no_beside(decoder, beside)
    for name, rows in (("image embeddings", image_embeds), ("negative embeddings", negative_embeds)):
        if rows is not None:
            check_width(rows, embed_width(decoder), name)
            check_finite(rows, name)
    device, model_dtype = placed(decoder.net)
    if text is None and decoder.net.needs_text and decoder.blank_text is not None:
        text = decoder.blank_text()
    condition = decoder.net.condition(image_embeds.to(device), **text_rows(text, len(image_embeds), device))
    extra = {} if beside is None else {"beside": beside}
    null = None
    if guidance_scale != 1:
        blank = _negative(decoder, text, negative_embeds, len(image_embeds))
        null = to_normal_tensors(decoder.net.prepare(blank) | extra)
    times = None if plan is None else TimeTable(decoder.net.unet.time_embed, plan.timesteps)
    net = chunked(stepped(decoder.net, decoder.net, times), decoder.net.params.unet)
    model = Guided(
        net,
        to_normal_tensors(decoder.net.prepare(condition) | extra),
        null,
        guidance_scale,
        guidance_interval,
        train_steps=decoder.diffusion.train_steps,
    )
    return decoder.diffusion.denoiser(model, model_dtype)


def embed_width(decoder: Decoder) -> int:
    """Width `D` of the image embeddings that a decoder reads."""
    return decoder.net.params.conditioner.embed_dim


def _negative(decoder: Decoder, text: TextCondition | None, embeds: Tensor | None, count: int) -> Condition:
    """The condition that guidance leads away from: of these embeddings, or of "no image"; of 1 row or of `count`."""
    device, _ = placed(decoder.net)
    texts = _null_of(decoder, text, device)
    if embeds is None:
        return decoder.net.null_condition(1, **texts)
    embeds = spread(embeds.to(device), count, "negative embeddings")
    return decoder.net.condition(embeds, **{name: spread(value, count, "texts") for name, value in texts.items()})


def _null_of(decoder: Decoder, text: TextCondition | None, device: torch.device) -> dict[str, Tensor]:
    if not decoder.net.needs_text or text is None or text.null is None:
        return {}
    return text_arguments(text.null.to(device))


def _given(start: Tensor | None, drawn: Tensor) -> Tensor:
    """The start that was given, spread to the batch, or else the one drawn."""
    if start is None:
        return drawn
    if start.shape[1:] != drawn.shape[1:] or len(start) not in (1, len(drawn)):
        raise ValueError(
            f"Noise of shape {list(start.shape)} cannot start images of {list(drawn.shape)}: give one "
            "for all, or one each, of the decoder's size."
        )
    check_finite(start, "noises to start from")
    return start.to(drawn).expand_as(drawn)
