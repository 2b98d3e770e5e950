"""The stages of unCLIP as functions over the parts: encode, prior, decode, upscale; the only no_grad.

Every stage takes one seed a sample, so that a sample is the same whatever the batch it is drawn in.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from .clip import TextCondition
from .denoiser import Denoiser, RawModel, number_of
from .embeddings import normalize
from .gradients import plain
from .guidance import Guided
from .known import KnownPicture
from .models import Clip, Decoder, Prior, UnclipModel, Upsampler
from .nets.layers import TimeTable
from .noise import Noise, NoiseSource
from .ranking import check_keep, check_shares, rank
from .samplers import OnStep, sample
from .schedules import Steps
from .settings import Settings
from .tiling import in_tiles_if_large
from .turns import in_turns

Interval = tuple[float, float]
WHOLE_RUN: Interval = (0.0, 1.0)


@torch.no_grad()
def encode_text(clip: Clip, prompts: Sequence[str]) -> TextCondition:
    """CLIP's word for `B` prompts: embeddings `[B, D]`, token states, mask, and the empty prompt's for guidance.

    Raises:
        ValueError: there is no prompt at all.
    """
    if not prompts:
        raise ValueError("There is no prompt to encode: give at least one (it may be empty text).")
    return clip.adapter.encode_text(prompts)


@torch.no_grad()
def encode_image(clip: Clip, images: Tensor) -> Tensor:
    """CLIP's image embeddings `[B, D]` of pictures `[B, H, W, 3]` in 0..1, of any size.

    Raises:
        ValueError: the tensor is not a batch of RGB pictures.
    """
    check_images(images)
    return clip.adapter.encode_image(images)


@torch.no_grad()
def sample_prior(
    prior: Prior,
    text: TextCondition,
    *,
    steps: int,
    guidance_scale: float,
    seeds: Sequence[int],
    sampler: str = "ddim",
    eta: float = 0.0,
    candidates: int = 1,
    keep: int = 1,
    on_step: OnStep | None = None,
    noise: Noise | None = None,
    guidance_interval: Interval = WHOLE_RUN,
) -> Tensor:
    """Draw image embeddings for `B` texts: `candidates` each, of which the best `keep` stay, `[B * keep, D]`.

    Best is by cosine with the text embedding, best first ("we generate two samples of z_i and select the one with
    a higher dot product with z_t", Ramesh et al. 2022, section 2.2).

    Args:
        candidates: as of `draw_candidates`, as is all that is not said here.
        keep: 1..candidates.

    Raises:
        ValueError: a number is out of range, or the seeds are not one a text.
    """
    check_keep(keep, candidates)
    embeds = draw_candidates(prior, text, steps=steps, guidance_scale=guidance_scale, seeds=seeds, sampler=sampler,
                             eta=eta, candidates=candidates, on_step=on_step, noise=noise,
                             guidance_interval=guidance_interval)
    return embeds[rank(embeds, text.embeds, keep).rows]


@torch.no_grad()
def draw_candidates(
    prior: Prior,
    text: TextCondition,
    *,
    steps: int,
    guidance_scale: float,
    seeds: Sequence[int],
    sampler: str = "ddim",
    eta: float = 0.0,
    candidates: int = 1,
    on_step: OnStep | None = None,
    noise: Noise | None = None,
    guidance_interval: Interval = WHOLE_RUN,
) -> Tensor:
    """Draw `candidates` image embeddings for each of `B` texts, `[B * candidates, D]`: all of the first, and so on.

    Args:
        steps: 1..train_steps.
        guidance_scale: 1 is none; the other half of guidance is the empty prompt.
        seeds: one a text.
        candidates: 1 or more; candidate `k` of a text depends on its seed and on `k` alone.
        on_step: called after each step; the samples are embeddings in the net's normalised space.
        noise: drawn from in place of the seeds, to repeat what another program drew.
        guidance_interval: (low, high), fractions of the process: guidance acts where t / train_steps lies within, 1 is
            pure noise. Elsewhere a step takes half the work.

    Raises:
        ValueError: a number is out of range, or the seeds are not one a text.
    """
    check_count("seeds", len(seeds), len(text.embeds), "prompts")
    if candidates < 1:
        raise ValueError(f"Cannot draw {candidates} candidates: at least 1 is needed.")
    noise = noise or candidates_noise(seeds, candidates, "prior")
    device, model_dtype = _placed(prior.net)
    read = prior.net.prefix(**_prior_condition(text))
    null = None if guidance_scale == 1 else prior.net.prefix(**_null_text(text))
    every = {key: value.repeat_interleave(candidates, 0) for key, value in read.items()}
    plan = prior.diffusion.steps(steps, sampler)
    step = partial(prior.net.step, times=TimeTable(prior.net.time_embed, plan.timesteps))
    model = Guided(step, every, null, guidance_scale, guidance_interval, train_steps=prior.diffusion.train_steps)
    start = noise.normal((prior.net.params.embed_dim,), device=device)
    denoiser = prior.diffusion.denoiser(model, model_dtype)
    return prior_embeds(prior, sample(sampler, denoiser, start, plan, noise, eta=eta, on_step=on_step))


@torch.no_grad()
def prior_embeds(prior: Prior, drawn: Tensor) -> Tensor:
    """CLIP image embeddings `[B, D]` float32 of what the prior's sampler has, `[B, D]` in its normalised space.

    At the end of a run these are its result; of an `on_step`'s x0 they are what the prior expects so far.
    """
    embeds = prior.net.denormalize_embeds(drawn)
    return (normalize(embeds) if prior.unit_norm else embeds).float()


@torch.no_grad()
def sample_decoder(
    decoder: Decoder,
    image_embeds: Tensor,
    *,
    text: TextCondition | None = None,
    steps: int,
    guidance_scale: float,
    seeds: Sequence[int],
    sampler: str = "dpmpp_2m",
    eta: float = 0.0,
    on_step: OnStep | None = None,
    noise: Noise | None = None,
    start: Tensor | None = None,
    adapt: Callable[[Denoiser], Denoiser] | None = None,
    guidance_interval: Interval = WHOLE_RUN,
) -> Tensor:
    """Draw a picture `[B, S, S, 3]` in 0..1 for each image embedding `[B, D]`.

    Args:
        text: what the pictures should show, one row or one a picture; None for none (the empty prompt, where the
            net cannot do without).
        steps: 1..train_steps.
        guidance_scale: 1 is none.
        seeds: one a picture.
        eta: noise of `ddim`, 0..1.
        on_step: called after each step; the samples are pictures `[B, 3, S, S]` in -1..1.
        noise: drawn from in place of the seeds, to repeat what another program drew.
        start: the noise that the pictures are made from, `[B or 1, 3, S, S]`, as `editing.invert_decoder` finds it;
            None draws it. What else a sampler draws stays the same.
        adapt: makes of the decoder's denoiser the one that is sampled with; None takes it as it is.
        guidance_interval: as of `draw_candidates`.

    Raises:
        ValueError: a number is out of range, counts or sizes differ, or the family needs a text and there is none.
    """
    check_count("seeds", len(seeds), len(image_embeds), "image embeddings")
    plan = decoder.diffusion.steps(steps, sampler)
    denoiser = decoder_denoiser(decoder, image_embeds, text, guidance_scale, guidance_interval, plan)
    noise = noise or NoiseSource(seeds, "decoder")
    drawn = noise.normal((3, decoder.image_size, decoder.image_size), device=_placed(decoder.net)[0])
    pictures = sample(sampler, denoiser if adapt is None else adapt(denoiser), _given(start, drawn),
                      plan, noise, eta=eta, on_step=on_step)
    return to_images(pictures)


@torch.no_grad()
def decoder_denoiser(
    decoder: Decoder, image_embeds: Tensor, text: TextCondition | None, guidance_scale: float,
    guidance_interval: Interval = WHOLE_RUN, plan: Steps | None = None,
) -> Denoiser:
    """The decoder as a denoiser of pictures `[B, 3, S, S]` in -1..1 that show `B` embeddings; as `sample_decoder`.

    plan: the steps that it will be asked for, if these are known: their times are then embedded here and now.
    """
    device, model_dtype = _placed(decoder.net)
    if text is None and decoder.net.needs_text and decoder.blank_text is not None:
        text = decoder.blank_text()
    condition = decoder.net.condition(image_embeds.to(device), **_text_arguments(text, len(image_embeds), device))
    null = None
    if guidance_scale != 1:
        blank = decoder.net.null_condition(1, **_null_arguments(decoder, text, device))
        null = plain(decoder.net.prepare(blank))
    times = None if plan is None else TimeTable(decoder.net.unet.time_embed, plan.timesteps)
    net = in_turns(partial(decoder.net, times=times), decoder.net.params.unet)
    model = Guided(net, plain(decoder.net.prepare(condition)), null, guidance_scale, guidance_interval,
                   train_steps=decoder.diffusion.train_steps)
    return decoder.diffusion.denoiser(model, model_dtype)


@torch.no_grad()
def rerank(clip: Clip, text: TextCondition, images: Tensor, keep: int) -> Tensor:
    """The `keep` pictures that CLIP finds nearest to their text, best first: `[B * keep, H, W, 3]`.

    CLIP ranks what a model draws ("we draw samples and rerank them with CLIP", as DALL·E did, Ramesh et al. 2021,
    section 2.6).

    Args:
        text: `B` texts.
        images: `[B * N, H, W, 3]` in 0..1: N candidates of the first text, then of the second, and so on.
        keep: 1..N.

    Raises:
        ValueError: the pictures are not as many for each text, or `keep` is out of range.
    """
    check_images(images)
    check_shares(len(images), len(text.embeds), keep)
    return images[rank(encode_image(clip, images), text.embeds, keep).rows.to(images.device)]


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
    device, model_dtype = _placed(upsampler.net)
    low = enlarge(images.to(device).permute(0, 3, 1, 2).float() * 2 - 1, upsampler.scale, upsampler.clamp)
    padded, (height, width) = _padded(low, upsampler.net.unet.stride)
    noise = noise or NoiseSource(seeds, "upsampler")
    start = noise.normal(padded.shape[1:], device=device)
    plan = upsampler.diffusion.steps(steps)
    kept = None if known is None else KnownPicture(known, mask, low.shape)
    model = _upsampler_model(upsampler, padded.to(model_dtype), plan.timesteps, tile)
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


@dataclass(frozen=True)
class Drawing:
    """What each stage made of `B` prompts.

    Attributes:
        small: the decoder's pictures `[B, S, S, 3]` in 0..1.
        large: the upsampler's pictures `[B, 4S, 4S, 3]` in 0..1.
    """

    small: Tensor
    large: Tensor


def text_to_image(model: UnclipModel, prompts: Sequence[str], seeds: Sequence[int], settings: Settings) -> Drawing:
    """Draw a picture for each prompt, through all four stages; one seed a prompt.

    Of each prompt's candidates the one that CLIP finds nearest to it goes to the upsampler.

    Raises:
        ValueError: a setting is out of range, or there is not one seed a prompt.
    """
    text = encode_text(model.clip, prompts)
    count = settings.candidates
    embeds = sample_prior(
        model.prior, text, steps=settings.prior_steps, guidance_scale=settings.prior_guidance, seeds=seeds,
        sampler=settings.prior_sampler, candidates=count, keep=count,
    )
    rows = torch.arange(len(prompts)).repeat_interleave(count)
    small = sample_decoder(
        model.decoder, embeds, text=text.select(rows), steps=settings.decoder_steps,
        guidance_scale=settings.decoder_guidance, seeds=[seeds[row] for row in rows], sampler=settings.decoder_sampler,
        noise=candidates_noise(seeds, count, "decoder"),
    )
    if count > 1:
        small = rerank(model.clip, text, small, keep=1)
    large = upscale(model.upsampler, small, steps=settings.upscaler_steps, seeds=seeds,
                    sampler=settings.upscaler_sampler)
    return Drawing(small, large)


def enlarge(pictures: Tensor, scale: int, clamp: bool = True) -> Tensor:
    """Bicubic enlargement of `[B, 3, H, W]`, float32, antialiased as Karlo's is, kept within -1..1 if `clamp`."""
    size = (pictures.shape[-2] * scale, pictures.shape[-1] * scale)
    large = F.interpolate(pictures, size, mode="bicubic", align_corners=False, antialias=True)
    return large.clamp(-1, 1) if clamp else large


def _prior_condition(text: TextCondition) -> dict[str, Tensor]:
    return {"text_embeds": text.embeds, "text_states": text.states, "text_mask": text.mask}


def _null_text(text: TextCondition) -> dict[str, Tensor]:
    if text.null is None:
        raise ValueError("Guidance needs CLIP's word for the empty prompt, and this text condition carries none: "
                         "use one made by encode_text, or set guidance_scale to 1.")
    return _prior_condition(text.null)


def _text_arguments(text: TextCondition | None, count: int, device: torch.device) -> dict[str, Tensor]:
    if text is None:
        return {}
    if len(text.embeds) not in (1, count):
        raise ValueError(f"{len(text.embeds)} texts do not go with {count} image embeddings: give one, or one each.")
    rows = text.select([0] * count) if len(text.embeds) == 1 else text
    return _prior_condition(rows.to(device))


def _null_arguments(decoder: Decoder, text: TextCondition | None, device: torch.device) -> dict[str, Tensor]:
    if not decoder.net.needs_text or text is None or text.null is None:
        return {}
    return _prior_condition(text.null.to(device))


def candidate_stream(stage: str, number: int) -> str:
    """The name of the stream of noise that a stage's candidate of that number draws from."""
    return stage if number == 0 else f"{stage}/{number}"


def candidates_noise(seeds: Sequence[int], candidates: int, stage: str) -> NoiseSource:
    """Noise of `candidates` samples a seed: candidate 0 has the stage's own stream, the others one each.

    So candidate `k` depends on its seed and on `k` alone, and seeds in a row share nothing.
    """
    streams = [candidate_stream(stage, k) for k in range(candidates)]
    return NoiseSource([seed for seed in seeds for _ in streams], streams * len(seeds))


def _placed(net: nn.Module) -> tuple[torch.device, torch.dtype]:
    parameter = next(net.parameters())
    return parameter.device, parameter.dtype


def _given(start: Tensor | None, drawn: Tensor) -> Tensor:
    """The start that was given, spread to the batch, or else the one drawn."""
    if start is None:
        return drawn
    if start.shape[1:] != drawn.shape[1:] or len(start) not in (1, len(drawn)):
        raise ValueError(f"Noise of shape {list(start.shape)} cannot start pictures of {list(drawn.shape)}: give one "
                         "for all, or one each, of the decoder's size.")
    return start.to(drawn).expand_as(drawn)


def _padded(pictures: Tensor, stride: int) -> tuple[Tensor, tuple[int, int]]:
    height, width = pictures.shape[-2:]
    extra = (-width % stride, -height % stride)
    # Edge pixels are repeated: a reflection needs more pixels than a 1 px wide picture has.
    return F.pad(pictures, (0, extra[0], 0, extra[1]), mode="replicate"), (height, width)


def to_images(pictures: Tensor) -> Tensor:
    """Pictures `[B, 3, H, W]` in -1..1 as `[B, H, W, 3]` in 0..1."""
    return (pictures.float() * 0.5 + 0.5).clamp(0, 1).permute(0, 2, 3, 1).contiguous()


def check_images(images: Tensor) -> None:
    """Raise ValueError unless `images` is `[B, H, W, 3]` with at least one pixel."""
    if images.ndim != 4 or images.shape[-1] != 3 or 0 in images.shape:
        raise ValueError(f"Expected pictures of shape [B, H, W, 3] with at least one pixel, got {list(images.shape)}.")


def check_count(what: str, count: int, wanted: int, of: str) -> None:
    """Raise ValueError unless there are as many as are wanted, and at least one."""
    if count != wanted or wanted == 0:
        raise ValueError(f"There are {count} {what} for {wanted} {of}: there must be one each, and at least one.")
