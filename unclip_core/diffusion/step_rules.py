"""The coefficients of one step of a sampler, in closed form, between two alpha-bars s (its start) and t (its end)."""

import math
from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class Posterior:
    """q(x_t | x_s, x0) = N(c_x0 * x0 + c_x * x_s, var) with log var between log_small and log_large."""

    c_x0: float
    c_x: float
    log_small: float
    log_large: float

    def std(self, fraction: Tensor | float) -> Tensor | float:
        """Return the standard deviation at that fraction of the logarithmic range (0: small, 1: large)."""
        if isinstance(fraction, Tensor):
            return torch.exp(0.5 * (self.log_small + fraction * (self.log_large - self.log_small)))
        return math.exp(0.5 * (fraction * self.log_large + (1 - fraction) * self.log_small))


def posterior(s: float, t: float, beta: float) -> Posterior:
    """Return the posterior of a step between alpha-bars s < t: Ho et al. 2020, eq. 7, betas respaced."""
    small = (1 - t) / (1 - s) * beta
    return Posterior(
        c_x0=math.sqrt(t) * beta / (1 - s),
        c_x=math.sqrt(1 - beta) * (1 - t) / (1 - s),
        log_small=math.log(max(small, 1e-20)),
        log_large=math.log(beta),
    )


def ddim_rule(s: float, t: float, eta: float) -> tuple[float, float, float]:
    """Return the factors of x0 and the state, and the noise's standard deviation.

    In eq. 12 of DDIM (Song et al. 2021), ``eps = (x - sqrt(s) * x0) / sqrt(1 - s)`` is put in.
    """
    std = eta * math.sqrt((1 - t) / (1 - s) * (1 - s / t))
    c_x = math.sqrt(max(1 - t - std**2, 0.0) / (1 - s))
    return math.sqrt(t) - math.sqrt(s) * c_x, c_x, std


def dpmpp_rule(s: float, t: float, stochastic: bool) -> tuple[float, float, float]:
    """Return the factors of x0 and the state, and the noise's standard deviation; h is the step in lambda.

    ODE: ``sigma_t / sigma_s * x + alpha_t * (1 - e^-h) * x0``.
    SDE: ``sigma_t / sigma_s * e^-h * x + alpha_t * (1 - e^-2h) * x0 + sigma_t * sqrt(1 - e^-2h) * z``.
    ``e^-h = (sigma_t * alpha_s) / (alpha_t * sigma_s)``, "decay", holds where sigma_t or alpha_s is 0 too.
    """
    decay = math.sqrt((1 - t) * s / (t * (1 - s)))
    c_x = math.sqrt((1 - t) / (1 - s))
    if not stochastic:
        return math.sqrt(t) * (1 - decay), c_x, 0.0
    return math.sqrt(t) * (1 - decay**2), c_x * decay, math.sqrt((1 - t) * (1 - decay**2))


def half_log_snr(ab: float) -> float:
    """Return lambda = log(alpha / sigma), infinite at the ends."""
    if ab in (0.0, 1.0):
        return math.inf if ab == 1.0 else -math.inf
    return 0.5 * (math.log(ab) - math.log1p(-ab))
