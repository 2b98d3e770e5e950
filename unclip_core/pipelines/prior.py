"""From a text to the image embeddings that it may have."""

from collections.abc import Mapping, Sequence
from functools import partial

import torch
from torch import Tensor

from ..clip.adapter import TextCondition
from ..diffusion.guidance import Guided
from ..diffusion.loop import OnStep
from ..diffusion.noise import Noise
from ..diffusion.samplers import sample
from ..embedding.arithmetic import normalize
from ..embedding.ranking import check_keep, rank
from ..models import Prior
from ..nets.layers import TimeTable
from .arguments import WHOLE_RUN, Interval, candidates_noise, check_count, null_arguments, placed, text_arguments


@torch.no_grad()
def sample_prior(
    prior: Prior,
    text: TextCondition,
    *,
    seeds: Sequence[int],
    steps: int | None = None,
    guidance_scale: float | None = None,
    sampler: str | None = None,
    eta: float = 0.0,
    candidates: int = 1,
    keep: int | None = None,
    on_step: OnStep | None = None,
    noise: Noise | None = None,
    guidance_interval: Interval = WHOLE_RUN,
) -> Tensor:
    """Draw `candidates` image embeddings for each of `B` texts, and keep all or the best of each.

    Best is by cosine with the text embedding, best first ("we generate two samples of z_i and select the one with
    a higher dot product with z_t", Ramesh et al. 2022, section 2.2).

    Args:
        seeds: one a text.
        steps: 1..train_steps; None takes the model's own, as for `guidance_scale` and `sampler`. A prior of one pass
            reads none of the three.
        guidance_scale: 1 is none; the other half of guidance is the empty prompt.
        sampler: a name in `SAMPLERS`.
        eta: noise of `ddim`, 0..1.
        candidates: 1 or more; candidate `k` of a text depends on its seed and on `k` alone.
        keep: 1..candidates; None keeps all, in the order in which they were drawn.
        on_step: called after each step; the samples are embeddings in the net's normalised space.
        noise: drawn from in place of the seeds, to repeat what another program drew.
        guidance_interval: (low, high), fractions of the process: guidance acts where t / train_steps lies within, 1 is
            pure noise. Elsewhere a step takes half the work.

    Returns:
        `[B * candidates, D]` or `[B * keep, D]`, float32: all of the first text, then all of the second, and so on.

    Raises:
        ValueError: a number is out of range, or the seeds are not one a text.
    """
    check_count("seeds", len(seeds), len(text.embeds), "prompts")
    if candidates < 1:
        raise ValueError(f"Cannot draw {candidates} candidates: at least 1 is needed.")
    if keep is not None:
        check_keep(keep, candidates)
    noise = noise or candidates_noise(seeds, candidates, "prior")
    diffusion = prior.diffusion
    if diffusion is None:
        embeds = _map_in_one_pass(prior, text, candidates, noise)
    else:
        chosen = prior.settings.over(steps, guidance_scale, sampler)
        null = None if chosen.guidance_scale == 1 else prior.net.prefix(**null_arguments(text))
        every = _repeated(prior.net.prefix(**text_arguments(text)), candidates)
        plan = diffusion.steps(chosen.steps, chosen.sampler)
        step = partial(prior.net.step, times=TimeTable(prior.net.time_embed, plan.timesteps))
        model = Guided(step, every, null, chosen.guidance_scale, guidance_interval, train_steps=diffusion.train_steps)
        device, model_dtype = placed(prior.net)
        start = noise.normal((text.embeds.shape[1],), device=device)
        denoiser = diffusion.denoiser(model, model_dtype)
        embeds = prior_embeds(prior, sample(chosen.sampler, denoiser, start, plan, noise, eta=eta, on_step=on_step))
    return embeds if keep is None else embeds[rank(embeds, text.embeds, keep).rows]


@torch.no_grad()
def prior_embeds(prior: Prior, drawn: Tensor) -> Tensor:
    """CLIP image embeddings `[B, D]` float32 of what the prior's sampler has, `[B, D]` in its normalised space.

    At the end of a run these are its result; of an `on_step`'s x0 they are what the prior expects so far.
    """
    return _in_norm(prior, prior.net.denormalize_embeds(drawn))


def _map_in_one_pass(prior: Prior, text: TextCondition, candidates: int, noise: Noise) -> Tensor:
    device, model_dtype = placed(prior.net)
    read = _repeated(text_arguments(text.to(device)), candidates)
    drawn = noise.normal((text.embeds.shape[1],), device=device).to(model_dtype)
    states = {key: value.to(model_dtype) if value.is_floating_point() else value for key, value in read.items()}
    return _in_norm(prior, prior.net(drawn, **states))


def _in_norm(prior: Prior, embeds: Tensor) -> Tensor:
    return (normalize(embeds) if prior.unit_norm else embeds).float()


def _repeated(rows: Mapping[str, Tensor], count: int) -> dict[str, Tensor]:
    return {key: value.repeat_interleave(count, 0) for key, value in rows.items()}
