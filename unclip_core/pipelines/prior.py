"""From a text to the image embeddings that it may have."""

from collections.abc import Sequence
from functools import partial

import torch
from torch import Tensor

from ..clip.open_clip_adapter import TextCondition
from ..diffusion.guidance import Guided
from ..diffusion.noise import Noise
from ..diffusion.samplers import OnStep, sample
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
    embeds = draw_candidates(
        prior,
        text,
        steps=steps,
        guidance_scale=guidance_scale,
        seeds=seeds,
        sampler=sampler,
        eta=eta,
        candidates=candidates,
        on_step=on_step,
        noise=noise,
        guidance_interval=guidance_interval,
    )
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
    device, model_dtype = placed(prior.net)
    read = prior.net.prefix(**text_arguments(text))
    null = None if guidance_scale == 1 else prior.net.prefix(**null_arguments(text))
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
