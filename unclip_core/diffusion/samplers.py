"""Samplers: one signature, one loop, one registry.

All work in variance-preserving coordinates, ``x = alpha * x0 + sigma * eps`` with alpha = sqrt(alpha_bar) and
sigma = sqrt(1 - alpha_bar), and a step is a linear combination of the state, the predicted x0, what the step
before saw, and noise. The coefficients are Python floats from the plan's float64 values, so that nothing in
the loop waits for the device. "s" is where a step starts, "t" where it ends, as in Lu et al. 2022.

Which for few steps? Plans that visit t = 0 (linspace, leading, karlo) make a long jump in log-SNR to it, over
which the DPM-Solvers extrapolate too far: give these "trailing" plans. ddim and deis take either.

Which for nets in half precision? A net that predicts epsilon has its rounding multiplied by sigma / alpha on the way to
x0, some 20,000 times in the first step of a cosine schedule: where epsilon nearly is the state, the sign of a pixel's
clipped x0 is chance there. ddim, deis and dpmpp_2m, which add no noise, keep it to the end: a few pixels in a thousand
then differ from float32's by half their range, on average an image by no more than with the others. ddpm and dpmpp_sde
forget it. A net that predicts x0 or v does not have it. (Measured on small random nets, bfloat16.)
"""

import math
from dataclasses import dataclass
from typing import Protocol

from torch import Tensor

from .denoiser import Denoiser, Prediction
from .loop import OnStep, StepInfo, Update, run_steps
from .noise import Noise
from .schedules import Steps
from .step_rules import ddim_rule, dpmpp_rule, half_log_snr, posterior

__all__ = ["SAMPLERS", "OnStep", "Sampler", "SamplerSpec", "StepInfo", "sample", "spec_of"]
__all__ += ["ddim", "ddpm", "deis", "dpmpp_2m", "dpmpp_sde"]


class Sampler(Protocol):
    """The signature of all samplers; `sample` checks their arguments."""

    def __call__(
        self,
        denoiser: Denoiser,
        x: Tensor,
        steps: Steps,
        noise: Noise,
        *,
        eta: float = 0.0,
        on_step: OnStep | None = None,
    ) -> Tensor:
        """Return x0 from the state x (float32 or float64 `[B, …]`) at the plan's first noise level."""
        ...


def ddpm(
    denoiser: Denoiser,
    x: Tensor,
    steps: Steps,
    noise: Noise,
    *,
    eta: float = 0.0,
    on_step: OnStep | None = None,
) -> Tensor:
    """Ancestral sampling: each step draws from q(x_t | x_s, x0) (Ho et al. 2020, eq. 6 and 7).

    The variance is the prediction's: beta_tilde, beta, or between them (Nichol & Dhariwal 2021, eq. 15), with
    beta of the plan's own steps, as Karlo and improved diffusion respace them. The last step adds no noise.
    ``eta`` is not read.
    """
    pairs = _pairs(steps)
    betas = [1 - s / t for s, t in pairs] if steps.betas is None else steps.betas.tolist()
    rules = [posterior(s, t, beta) for (s, t), beta in zip(pairs, betas, strict=True)]
    last = len(rules) - 1

    def update(i: int, x: Tensor, prediction: Prediction) -> Tensor:
        rule = rules[i]
        mean = rule.c_x0 * prediction.x0 + rule.c_x * x
        if i == last:
            return mean
        return mean + rule.std(prediction.variance_fraction) * noise.normal(x.shape[1:], x.device, x.dtype)

    return _loop(denoiser, x, steps, update, on_step)


def ddim(
    denoiser: Denoiser,
    x: Tensor,
    steps: Steps,
    noise: Noise,
    *,
    eta: float = 0.0,
    on_step: OnStep | None = None,
) -> Tensor:
    """DDIM (Song et al. 2021, "Denoising diffusion implicit models", eq. 12 and 16).

    ``eta`` 0 follows the probability-flow ODE, 1 adds as much noise as ddpm with the small variance. Epsilon
    is derived from the clipped x0, so that state, x0 and epsilon always fit together.
    """
    rules = [ddim_rule(s, t, eta) for s, t in _pairs(steps)]

    def update(i: int, x: Tensor, prediction: Prediction) -> Tensor:
        c_x0, c_x, std = rules[i]
        return _add_noise(c_x0 * prediction.x0 + c_x * x, std, noise)

    return _loop(denoiser, x, steps, update, on_step)


def dpmpp_2m(
    denoiser: Denoiser,
    x: Tensor,
    steps: Steps,
    noise: Noise,
    *,
    eta: float = 0.0,
    on_step: OnStep | None = None,
) -> Tensor:
    """DPM-Solver++(2M) (Lu et al. 2022, arXiv 2211.01095, algorithm 2): the probability-flow ODE, order 2.

    The first step has no history and the last one ends at infinite log-SNR: both take the order-1 rule.
    ``eta`` is not read.
    """
    return _dpmpp(denoiser, x, steps, noise, stochastic=False, on_step=on_step)


def dpmpp_sde(
    denoiser: Denoiser,
    x: Tensor,
    steps: Steps,
    noise: Noise,
    *,
    eta: float = 0.0,
    on_step: OnStep | None = None,
) -> Tensor:
    """SDE-DPM-Solver++(2M) (Lu et al. 2022, arXiv 2211.01095, section 5): the diffusion SDE.

    Weak order 2, measured on Gaussian data (its moments converge so, single paths do not).
    First and last step take the order-1 rule, as in ``dpmpp_2m``; one that ends clean adds no noise.
    ``eta`` is not read.
    """
    return _dpmpp(denoiser, x, steps, noise, stochastic=True, on_step=on_step)


def deis(
    denoiser: Denoiser,
    x: Tensor,
    steps: Steps,
    noise: Noise,
    *,
    eta: float = 0.0,
    on_step: OnStep | None = None,
) -> Tensor:
    """DEIS, variant rho-AB of order 2 (Zhang & Chen 2022, arXiv 2204.13902): the probability-flow ODE.

    In ``y = x / alpha`` and ``rho = sigma / alpha`` the ODE is ``dy / drho = eps``; this is its two-step
    Adams-Bashforth rule, written as DDIM (the one-step rule) and a correction. First and last step are plain
    DDIM.
    ``eta`` is not read.
    """
    pairs = _pairs(steps)
    rules = [ddim_rule(s, t, 0.0) for s, t in pairs]
    rho = [math.sqrt((1 - ab) / ab) if ab > 0 else math.inf for ab in steps.alpha_bar.tolist()]
    history: list[Tensor] = []

    def update(i: int, x: Tensor, prediction: Prediction) -> Tensor:
        s, t = pairs[i]
        c_x0, c_x, _ = rules[i]
        eps = (x - math.sqrt(s) * prediction.x0) / math.sqrt(1 - s)
        result = c_x0 * prediction.x0 + c_x * x
        if 0 < i < len(rules) - 1:
            slope = (rho[i] - rho[i + 1]) ** 2 / (rho[i - 1] - rho[i])  # 0 after a start at infinity
            result = result - 0.5 * math.sqrt(t) * slope * (eps - history[-1])
        history[:] = [eps]
        return result

    return _loop(denoiser, x, steps, update, on_step)


@dataclass(frozen=True)
class SamplerSpec:
    """A registry entry.

    Attributes:
        uses_eta: whether the function reads eta.
        order: of convergence as steps of log-SNR shrink; of the moments ("weak order") where noise is added.
        stochastic: whether it draws noise whatever eta is.
    """

    function: Sampler
    uses_eta: bool
    order: int
    stochastic: bool


SAMPLERS: dict[str, SamplerSpec] = {
    "ddpm": SamplerSpec(ddpm, uses_eta=False, order=1, stochastic=True),
    "ddim": SamplerSpec(ddim, uses_eta=True, order=1, stochastic=False),
    "dpmpp_2m": SamplerSpec(dpmpp_2m, uses_eta=False, order=2, stochastic=False),
    "dpmpp_sde": SamplerSpec(dpmpp_sde, uses_eta=False, order=2, stochastic=True),
    "deis": SamplerSpec(deis, uses_eta=False, order=2, stochastic=False),
}
"""The samplers by name."""


def sample(
    name: str,
    denoiser: Denoiser,
    x: Tensor,
    steps: Steps,
    noise: Noise,
    *,
    eta: float = 0.0,
    on_step: OnStep | None = None,
) -> Tensor:
    """Return x0 by the sampler of that name, from the state x at the plan's first noise level.

    ``eta`` (0..1) has a meaning only where ``SAMPLERS[name].uses_eta``. ``on_step`` is called after each
    step; what it raises ends the sampling and passes on.

    Raises:
        ValueError: an unknown name, an eta outside 0..1, or a state other than float32 or float64.
    """
    function = spec_of(name).function
    if not 0 <= eta <= 1:
        raise ValueError(f"eta must be within 0..1, got {eta}")
    return function(denoiser, x, steps, noise, eta=eta, on_step=on_step)


def spec_of(name: str) -> SamplerSpec:
    """Return the registry's entry of that name.

    Raises:
        ValueError: there is none.
    """
    if name not in SAMPLERS:
        raise ValueError(f"unknown sampler {name!r}; known: {', '.join(SAMPLERS)}")
    return SAMPLERS[name]


def _loop(denoiser: Denoiser, x: Tensor, steps: Steps, update: Update, on_step: OnStep | None) -> Tensor:
    """One denoiser call and one update for each step of the plan."""
    return run_steps(denoiser, x, steps.timesteps.tolist(), update, on_step)


def _pairs(steps: Steps) -> list[tuple[float, float]]:
    """Return the alpha-bars (start, end) of each step."""
    levels = steps.alpha_bar.tolist()
    return list(zip(levels[:-1], levels[1:], strict=True))


def _add_noise(x: Tensor, std: float, noise: Noise) -> Tensor:
    """Return x with noise of that standard deviation; draws none where it is 0."""
    return x if std == 0 else x + std * noise.normal(x.shape[1:], x.device, x.dtype)


def _dpmpp(
    denoiser: Denoiser, x: Tensor, steps: Steps, noise: Noise, stochastic: bool, on_step: OnStep | None
) -> Tensor:
    """Run the multistep solver of order 2; ``stochastic`` picks the SDE."""
    pairs = _pairs(steps)
    h = [half_log_snr(t) - half_log_snr(s) for s, t in pairs]
    rules = [dpmpp_rule(s, t, stochastic) for s, t in pairs]
    history: list[Tensor] = []

    def update(i: int, x: Tensor, prediction: Prediction) -> Tensor:
        c_x0, c_x, std = rules[i]
        estimate = prediction.x0
        if 0 < i < len(rules) - 1:
            # D_i of algorithm 2: x0 extrapolated to the middle of the step; 1 / (2 r) = h_i / (2 h_{i-1})
            estimate = estimate + (0.5 * h[i] / h[i - 1]) * (estimate - history[-1])
        history[:] = [prediction.x0]
        return _add_noise(c_x0 * estimate + c_x * x, std, noise)

    return _loop(denoiser, x, steps, update, on_step)
