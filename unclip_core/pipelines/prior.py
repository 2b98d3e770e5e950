"""From a text to the image embeddings that it may have."""

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from ..clip.adapter import TextCondition
from ..diffusion.forward import add_noise
from ..diffusion.guidance import Guided
from ..diffusion.loop import OnStep
from ..diffusion.noise import Noise, NoiseSource
from ..diffusion.samplers import sample
from ..diffusion.schedules import Steps
from ..embedding.arithmetic import normalize
from ..embedding.ranking import check_keep, rank
from ..models import Prior
from ..nets.layers import TimeTable
from ..nets.step_graphs import stepped
from .arguments import (
    WHOLE_RUN,
    Interval,
    candidates_noise,
    check_count,
    check_finite,
    null_arguments,
    placed,
    text_arguments,
)


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
    negative: TextCondition | None = None,
    start: Tensor | None = None,
    strength: float = 1.0,
    one_pass_noise: bool = True,
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
        negative: what to lead away from in place of the empty prompt, one text or one each. Without guidance, and in a
            prior of one pass, it has no effect.
        start: image embeddings `[1 or B, D]` to start from in place of noise, changed by `strength`.
        strength: above 0 to 1, the share of the steps that are taken from `start`: 1 keeps next to nothing of it.
        one_pass_noise: whether a prior of one pass is given noise, as in its training, or zeros (Patel et al. 2023 hold
            that noise only hurts); a prior by diffusion does not read it.

    Returns:
        `[B * candidates, D]` or `[B * keep, D]`, float32: all of the first text, then all of the second, and so on.

    Raises:
        ValueError: a number is out of range, the seeds are not one a text, the counts or widths of `negative` or
            `start` do not fit, or a prior of one pass is given a `start`.
    """
    check_count("seeds", len(seeds), len(text.embeds), "prompts")
    if candidates < 1:
        raise ValueError(f"Cannot draw {candidates} candidates: at least 1 is needed.")
    if keep is not None:
        check_keep(keep, candidates)
    device, model_dtype = placed(prior.net)
    text = text.to(device)
    noise = noise or candidates_noise(seeds, candidates, "prior")
    diffusion = prior.diffusion
    if diffusion is None:
        if start is not None:
            raise ValueError("This prior maps a text in one pass: it cannot start from an image embedding.")
        embeds = _map_in_one_pass(prior, text, candidates, noise if one_pass_noise else None)
    else:
        chosen = prior.settings.over(steps, guidance_scale, sampler)
        null = None if chosen.guidance_scale == 1 else prior.net.prefix(**_away_from(text, negative))
        every = _repeated(prior.net.prefix(**text_arguments(text)), candidates)
        if null is not None and negative is not None and len(negative.embeds) > 1:
            null = _repeated(null, candidates)
        plan = diffusion.steps(chosen.steps, chosen.sampler)
        state = noise.normal((text.embeds.shape[1],), device=device)
        if start is not None:
            plan = part_of(plan, strength, truncated=diffusion.compatible)
            state = _noised(prior, _rows(start.to(device), len(text.embeds), candidates), state, plan)
        step = stepped(prior.net, prior.net.step, TimeTable(prior.net.time_embed, plan.timesteps))
        model = Guided(step, every, null, chosen.guidance_scale, guidance_interval, train_steps=diffusion.train_steps)
        denoiser = diffusion.denoiser(model, model_dtype)
        embeds = prior_embeds(prior, sample(chosen.sampler, denoiser, state, plan, noise, eta=eta, on_step=on_step))
    return embeds if keep is None else embeds[rank(embeds, text.embeds, keep).rows]


@torch.no_grad()
def prior_embeds(prior: Prior, drawn: Tensor) -> Tensor:
    """CLIP image embeddings `[B, D]` float32 of what the prior's sampler has, `[B, D]` in its normalised space.

    At the end of a run these are its result; of an `on_step`'s x0 they are what the prior expects so far.
    """
    return _in_norm(prior, prior.net.denormalize_embeds(drawn))


def sample_prior_pair(
    prior: Prior, text: TextCondition, negative: TextCondition, *, seeds: Sequence[int], **settings: Any
) -> tuple[Tensor, Tensor]:
    """Draw an image embedding for each of `B` texts, and one for what its image should not show.

    Both are led away from the negative text, as Kandinsky 2.2 does it: the first half goes to the decoder, the second
    to its guidance.

    Args:
        text: `B` texts.
        negative: one text, or one each.
        seeds: one a text; the negative half draws other noise from the same seeds.
        settings: as of `sample_prior`, but for candidates and keep; a `noise` has rows for both halves.

    Returns:
        `[B, D]` and `[B, D]`, float32.

    Raises:
        ValueError: as of `sample_prior`.
    """
    count = len(text.embeds)
    unwanted = _texts(negative, count)
    both, away = joined_texts(text, unwanted), joined_texts(unwanted, unwanted)
    if settings.get("start") is not None:
        settings["start"] = _rows(settings["start"], count, 1).repeat(2, 1)
    noise = settings.pop("noise", None) or NoiseSource([*seeds, *seeds], ["prior"] * count + ["prior/negative"] * count)
    embeds = sample_prior(prior, both, seeds=[*seeds, *seeds], negative=away, noise=noise, **settings)
    return embeds[:count], embeds[count:]


def joined_texts(first: TextCondition, second: TextCondition) -> TextCondition:
    """The texts of both, in order; of the empty prompt the first's word."""
    embeds, states, mask = (
        torch.cat([a, b.to(a.device)])
        for a, b in ((first.embeds, second.embeds), (first.states, second.states), (first.mask, second.mask))
    )
    return TextCondition(embeds, states, mask, first.null)


def part_of(plan: Steps, strength: float, truncated: bool = False) -> Steps:
    """The last steps of a plan, as many as `strength` is of it, at least one.

    Args:
        plan: of `N` steps.
        strength: above 0, to 1.
        truncated: count N · strength down to a whole number, in floating point, as diffusers does.

    Raises:
        ValueError: the strength is out of range, or truncated leaves no step.
    """
    return plan.last(count_of(len(plan), strength, truncated))


def count_of(steps: int, strength: float, truncated: bool = False) -> int:
    """How many of the steps `part_of` leaves; arguments and errors as there."""
    if not 0 < strength <= 1:
        raise ValueError(f"strength must be above 0 and at most 1, got {strength}")
    count = int(steps * strength) if truncated else max(1, round(steps * strength))
    if count == 0:
        raise ValueError(f"strength {strength} leaves none of {steps} steps: take more of either")
    return count


def _noised(prior: Prior, start: Tensor, noise: Tensor, plan: Steps) -> Tensor:
    """The state that a run over `plan` starts from, given CLIP image embeddings `[B, D]`.

    diffusers' pipeline adds the noise to embeddings that are not normalised, which the net has never seen: done so in
    its compatible mode only.
    """
    assert prior.diffusion is not None  # the caller's case
    if start.shape != noise.shape:
        raise ValueError(f"The start has embeddings of {start.shape[1]} numbers, this prior makes {noise.shape[1]}.")
    clean = start.float() if prior.diffusion.compatible else prior.net.normalize_embeds(start)
    return add_noise(clean, noise, float(plan.alpha_bar[0]))


def _away_from(text: TextCondition, negative: TextCondition | None) -> dict[str, Tensor]:
    """What guidance leads away from, under the net's names: one row, or one a text."""
    if negative is None:
        return null_arguments(text)
    if len(negative.embeds) not in (1, len(text.embeds)):
        raise ValueError(
            f"{len(negative.embeds)} negative texts do not go with {len(text.embeds)} texts: give one, or one each."
        )
    return text_arguments(negative.to(text.embeds.device))


def _texts(text: TextCondition, count: int) -> TextCondition:
    """One row each of `count`: those given, or the one for all."""
    return text.select([0] * count) if len(text.embeds) == 1 else text


def _rows(start: Tensor, count: int, candidates: int) -> Tensor:
    """Embeddings to start from `[1 or count, D]`, one for each candidate of each text: `[count * candidates, D]`."""
    if start.ndim != 2 or len(start) not in (1, count):
        raise ValueError(f"A start of shape {list(start.shape)} does not go with {count} texts: give one, or one each.")
    check_finite(start, "embeddings to start from")
    return start.expand(count, -1).repeat_interleave(candidates, 0)


def _map_in_one_pass(prior: Prior, text: TextCondition, candidates: int, noise: Noise | None) -> Tensor:
    device, model_dtype = placed(prior.net)
    read = _repeated(text_arguments(text), candidates)
    states = {key: value.to(model_dtype) if value.is_floating_point() else value for key, value in read.items()}
    width = text.embeds.shape[1]
    given = torch.zeros_like(states["text_embeds"]) if noise is None else noise.normal((width,), device=device)
    return _in_norm(prior, prior.net(given.to(model_dtype), **states))


def _in_norm(prior: Prior, embeds: Tensor) -> Tensor:
    return (normalize(embeds) if prior.unit_norm else embeds).float()


def _repeated(rows: Mapping[str, Tensor], count: int) -> dict[str, Tensor]:
    return {key: value.repeat_interleave(count, 0) for key, value in rows.items()}
