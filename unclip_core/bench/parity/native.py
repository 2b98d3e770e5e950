"""The second reference: kakaobrain's sampling rules, written independently with float64 schedules, over any networks.

Read off their published code: respaced betas, timesteps summed up in floating point, x0 clipped at 10 in the prior,
conditional rows first, no noise at t = 0, the last super-resolution step by its own net.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

Net = Callable[[Tensor, Tensor], Tensor]


def visited(count: int, total: int = 1000) -> list[int]:
    """Return the timesteps of `count` steps, ascending; a single step is the last one (their code would take 0)."""
    if count == 1:
        return [total - 1]
    stride, place, found = (total - 1) / (count - 1), 0.0, []
    for _ in range(count):
        found.append(round(place))
        place += stride
    return found


def _alphas(total: int = 1000) -> np.ndarray:
    """Cumulative products of the cosine schedule with betas of at most 0.999."""

    def bar(u: float) -> float:
        return np.cos((u + 0.008) / 1.008 * np.pi / 2) ** 2

    betas = [min(1 - bar((i + 1) / total) / bar(i / total), 0.999) for i in range(total)]
    return np.cumprod(1.0 - np.array(betas, dtype=np.float64))


@dataclass(frozen=True)
class Kind:
    """What a net predicts: x0 or epsilon, with or without its variance, and where x0 is clipped."""

    predicts_x0: bool
    learns_sigma: bool
    clip: float


PRIOR, DECODER, SUPER_RES = Kind(True, False, 10.0), Kind(False, True, 1.0), Kind(False, False, 1.0)


def ancestral(
    net: Callable[[Tensor, Tensor, bool], Tensor], kind: Kind, count: int, x: Tensor, draws: Iterator[Tensor]
) -> Tensor:
    """Sample from `x` `[B, …]`; `net` gets x, t `[B]` and whether it is the last step, `draws` gives the noise."""
    times = visited(count)
    bars = _alphas()[times]
    before = np.append(1.0, bars[:-1])
    betas = 1 - bars / before
    variance = betas * (1 - before) / (1 - bars)
    for k in reversed(range(count)):
        raw = net(x, torch.full((len(x),), times[k]), k == 0)
        mean, sigma = raw.chunk(2, dim=1) if kind.learns_sigma else (raw, None)
        x0 = mean if kind.predicts_x0 else np.sqrt(1 / bars[k]) * x - np.sqrt(1 / bars[k] - 1) * mean
        x0 = x0.clamp(-kind.clip, kind.clip)
        centre = betas[k] * np.sqrt(before[k]) / (1 - bars[k]) * x0
        centre = centre + (1 - before[k]) * np.sqrt(1 - betas[k]) / (1 - bars[k]) * x
        if k == 0:
            return centre
        low, high = np.log(variance[k]), np.log(betas[k])
        share = 0.0 if sigma is None else (sigma + 1) / 2
        log_variance = torch.as_tensor(share * high + (1 - share) * low, dtype=torch.float32)
        x = centre + torch.exp(0.5 * log_variance) * next(draws)
    raise ValueError("at least one step is needed")


def guided(net: Callable[..., Tensor], scale: float, channels: int | None = None) -> Net:
    """Guide with the conditional rows first; channels beyond `channels` (the variance) are the conditional half's."""

    def model(x: Tensor, t: Tensor) -> Tensor:
        given, blank = net(torch.cat([x, x]), torch.cat([t, t])).chunk(2)
        rest = given[:, channels:] if channels else given[:, :0]
        given, blank = (given[:, :channels], blank[:, :channels]) if channels else (given, blank)
        return torch.cat([blank + scale * (given - blank), rest], dim=1)

    return model


def enlarged(small: Tensor, side: int) -> Tensor:
    """Images [B, 3, h, w] in -1..1 at `side` px, as torchvision resizes them (bicubic, antialiased)."""
    return F.interpolate(small.clamp(-1, 1), (side, side), mode="bicubic", align_corners=False, antialias=True)
