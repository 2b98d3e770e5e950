"""The losses of diffusion, per sample and in float32, whatever the net predicts; and CLIP's contrast."""

import math
from functools import lru_cache
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from ..diffusion.denoiser import per_sample
from ..diffusion.spec import DiffusionSpec

PIXEL = 1 / 255
"""Half the width of one of 256 levels in -1..1."""


def target_of(prediction: str, x0: Tensor, noise: Tensor, alpha_bar: Tensor) -> Tensor:
    """What a net of that prediction should say: x0, the noise, or v (Salimans & Ho 2022, appendix D)."""
    if prediction == "sample":
        return x0
    if prediction == "epsilon":
        return noise
    ab = per_sample(alpha_bar, x0)
    return ab.sqrt() * noise - (1 - ab).sqrt() * x0


def min_snr_weight(prediction: str, alpha_bar: Tensor, gamma: float) -> Tensor:
    """Weight `[B]` of the squared error of that prediction so that x0's is min(SNR, gamma) (Hang et al. 2023, eq. 6).

    An error of x0 is one of the noise times 1 / SNR, and one of v times 1 / (SNR + 1).
    """
    snr = alpha_bar / (1 - alpha_bar).clamp(min=1e-20)
    bounded = snr.clamp(max=gamma)
    if prediction == "sample":
        return bounded
    # min(SNR, gamma) / SNR, also where SNR is 0.
    relative = torch.where(snr > gamma, gamma / snr.clamp(min=gamma), torch.ones_like(snr))
    return relative if prediction == "epsilon" else relative * snr / (snr + 1)


def diffusion_loss(raw: Tensor, x0: Tensor, batch: dict[str, Tensor], spec: DiffusionSpec) -> dict[str, Tensor]:
    """The weighted squared error of a raw output, and where the variance is learned its bound too.

    Args:
        raw: `[B, C, …]`, or `[B, 2C, …]` with a variance; one that sampling replaces by a fixed one is not trained.
        x0: `[B, C, …]`.
        batch: "noise" like x0; "alpha_bar", "weight" and with a learned variance "times", each `[B]`.
        spec: the process.
    """
    learned = spec.variance == "learned_range"
    mean, fraction = raw.float(), None
    if learned or spec.spare_variance:
        mean, fraction = mean.chunk(2, dim=1)
    target = target_of(spec.prediction, x0, batch["noise"], batch["alpha_bar"])
    squared = (mean - target).square().flatten(1).mean(dim=1)
    loss = (batch["weight"] * squared).mean()
    values = {"loss": loss, "mse": squared.detach().mean()}
    if learned and fraction is not None:
        # The mean learns from the simple loss alone (Nichol & Dhariwal 2021, section 3.1, eq. 16 and below).
        bound = variance_bound(mean.detach(), fraction, x0, batch, spec).mean() * (spec.train_steps / 1000)
        values |= {"loss": loss + bound, "bound": bound.detach()}
    return values


def variance_bound(mean: Tensor, fraction: Tensor, x0: Tensor, batch: dict[str, Tensor], spec: DiffusionSpec) -> Tensor:
    """The variational bound's term of each sample's time, bits a value `[B]` (Nichol & Dhariwal 2021, eq. 4-7, 15).

    Args:
        mean: the net's prediction `[B, C, …]`.
        fraction: its variance, -1..1 from the posterior's to the forward process's, in the logarithm.
        x0: `[B, C, …]`.
        batch: "times", "alpha_bar" `[B]` and "noise", like x0.
        spec: the process.
    """
    terms = _posterior_terms(spec).to(x0.device)[:, batch["times"]]
    log_beta, log_posterior, error_scale = (per_sample(term, x0) for term in terms)
    log_ratio = (fraction.float() + 1) / 2 * (log_beta - log_posterior)
    log_var = log_posterior + log_ratio
    error = error_scale * (mean - target_of(spec.prediction, x0, batch["noise"], batch["alpha_bar"])).float()
    divergence = 0.5 * (log_ratio + torch.expm1(-log_ratio) + error.square() * (-log_var).exp())
    first = per_sample(batch["times"], x0) == 0
    bits = torch.where(first, _likelihood(error, log_var, x0), divergence) / math.log(2)
    return bits.flatten(1).mean(dim=1)


@lru_cache(maxsize=4)
def _posterior_terms(spec: DiffusionSpec) -> Tensor:
    """Per training step: log beta, log of the posterior's variance, change of the posterior's mean with the prediction.

    Their differences of nearly equal numbers are taken in float64, here and on the CPU: there are devices without it.

    Returns:
        `[3, T]` float32.
    """
    ab = spec.table
    before = torch.cat([torch.ones_like(ab[:1]), ab[:-1]])
    beta = 1 - ab / before
    posterior = (1 - before) / (1 - ab) * beta
    posterior[0] = posterior[1]  # the last step's has no width; the next one's stands in (as in the paper's code)
    x0_scale = {"sample": torch.ones_like(ab), "epsilon": -((1 - ab) / ab).sqrt(), "v_prediction": -(1 - ab).sqrt()}
    error_scale = before.sqrt() * beta / (1 - ab) * x0_scale[spec.prediction]
    return torch.stack([beta.log(), posterior.log(), error_scale]).float()


def _likelihood(error: Tensor, log_var: Tensor, x0: Tensor) -> Tensor:
    """Minus the log-probability of x0's one of 256 levels under the normal around the predicted one (Ho, eq. 13)."""
    width = (0.5 * log_var).exp()
    above = torch.where(x0 > 1 - PIXEL, 1.0, torch.special.ndtr((PIXEL - error) / width))
    below = torch.where(x0 < -1 + PIXEL, 0.0, torch.special.ndtr((-PIXEL - error) / width))
    return -(above - below).clamp(min=1e-12).log()


def contrast(images: Tensor, texts: Tensor, scale: Tensor, negatives: Tensor | None = None) -> dict[str, Tensor]:
    """InfoNCE both ways (Radford et al. 2021, figure 3) of this process's pairs `[b, D]` among all processes' ones.

    The mean of all processes' losses is the loss of the whole batch, and its gradients are exact: gathering passes
    them back.

    Args:
        images: image embeddings, of any length.
        texts: text embeddings.
        scale: the logarithm of what multiplies cosines; "clipped to prevent scaling the logits by more than 100".
        negatives: embeddings `[m, D]` of further texts, none of them right, among which each image is told its own.
    """
    with torch.autocast(images.device.type, enabled=False):  # else the products are rounded to 8 bits
        return _contrast(images, texts, scale, texts[:0] if negatives is None else negatives)


def _contrast(images: Tensor, texts: Tensor, scale: Tensor, wrong: Tensor) -> dict[str, Tensor]:
    images, texts, wrong = (F.normalize(x.float(), dim=-1) for x in (images, texts, wrong))
    every_image, every_text, every_wrong = _gathered(images, texts, wrong)
    factor = scale.float().exp().clamp(max=100)
    first = _rank() * len(images)
    right = torch.arange(first, first + len(images), device=images.device)
    of_images = factor * images @ torch.cat([every_text, every_wrong]).T
    of_texts = factor * texts @ every_image.T
    loss = 0.5 * (F.cross_entropy(of_images, right) + F.cross_entropy(of_texts, right))
    return {"loss": loss, "accuracy": (of_images.argmax(dim=1) == right).float().mean()}


def _rank() -> int:
    return torch.distributed.get_rank() if torch.distributed.is_initialized() else 0


def _gathered(*tensors: Tensor) -> tuple[Tensor, ...]:
    if not torch.distributed.is_initialized() or torch.distributed.get_world_size() == 1:
        return tensors
    return tuple(_Gather.apply(tensor.contiguous()) for tensor in tensors)


class _Gather(torch.autograd.Function):
    """Rows of all processes, in the order of their numbers; each process's loss gives gradients to all rows."""

    @staticmethod
    def forward(context: Any, own: Tensor) -> Tensor:
        parts = [torch.empty_like(own) for _ in range(torch.distributed.get_world_size())]
        torch.distributed.all_gather(parts, own)
        context.rows = len(own)
        return torch.cat(parts)

    @staticmethod
    def backward(context: Any, gradient: Tensor) -> Tensor:
        total = gradient.contiguous().clone()
        torch.distributed.all_reduce(total)
        first = _rank() * context.rows
        return total[first : first + context.rows]
