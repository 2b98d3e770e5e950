"""Noise schedules and timestep spacings: pure functions, float64.

The process is variance preserving: ``x_t = sqrt(ab_t) * x0 + sqrt(1 - ab_t) * eps`` with ``ab`` = alpha-bar,
the cumulative product of ``1 - beta`` (Ho et al. 2020, eq. 4). ``t`` runs from 0 (nearly clean) to T - 1
(nearly noise).
"""

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

__all__ = [
    "SCHEDULES",
    "SPACINGS",
    "Steps",
    "alpha_bar",
    "cosine_betas",
    "diffusers_steps",
    "linear_betas",
    "log_snr",
    "make_steps",
    "plan_steps",
    "scaled_linear_betas",
    "snr",
    "timesteps",
]


def linear_betas(steps: int = 1000, start: float = 1e-4, end: float = 0.02) -> Tensor:
    """Return betas rising linearly from ``start`` to ``end``, float64 `[steps]` (Ho et al. 2020, section 4).

    Raises:
        ValueError: unless ``steps`` >= 1 and 0 < start <= end < 1.
    """
    _check_betas(steps, start, end)
    return torch.linspace(start, end, steps, dtype=torch.float64)


def scaled_linear_betas(steps: int = 1000, start: float = 0.00085, end: float = 0.012) -> Tensor:
    """Return betas whose square root rises linearly, float64 `[steps]` (latent diffusion, Rombach et al. 2022).

    Raises:
        ValueError: unless ``steps`` >= 1 and 0 < start <= end < 1.
    """
    _check_betas(steps, start, end)
    return torch.linspace(math.sqrt(start), math.sqrt(end), steps, dtype=torch.float64).square()


def cosine_betas(steps: int = 1000, s: float = 0.008, max_beta: float = 0.999) -> Tensor:
    """Return the cosine schedule's betas, float64 `[steps]` (Nichol & Dhariwal 2021, eq. 17); Karlo's schedule.

    ``ab(u) = cos^2((u + s) / (1 + s) * pi / 2)`` for u in 0..1; ``beta = 1 - ab(next) / ab(this)``, at most
    ``max_beta``.

    Raises:
        ValueError: unless ``steps`` >= 1, s >= 0 and 0 < max_beta < 1.
    """
    _check_betas(steps, max_beta, max_beta)
    if not s >= 0:
        raise ValueError(f"cosine schedule: s must be 0 or more, got {s}")
    u = torch.arange(steps + 1, dtype=torch.float64) / steps
    ab = torch.cos((u + s) / (1 + s) * (math.pi / 2)).square()
    return (1 - ab[1:] / ab[:-1]).clamp(max=max_beta)


SCHEDULES: dict[str, Callable[..., Tensor]] = {
    "cosine": cosine_betas,
    "linear": linear_betas,
    "scaled_linear": scaled_linear_betas,
}
"""Schedules by name; each takes the number of training steps first and returns float64 betas."""


def alpha_bar(betas: Tensor, dtype: torch.dtype = torch.float64) -> Tensor:
    """Return alpha-bar `[T]`, the cumulative product of ``1 - betas``, always stored as float64.

    ``dtype`` is the precision of betas and product. float64 agrees with the published models' own code;
    float32 gives diffusers' tables (cosine: bit for bit; its ``1 - alpha_bar[0]`` is off by 5e-4).

    Raises:
        ValueError: unless ``betas`` is a vector of values in (0, 1].
    """
    if betas.ndim != 1 or len(betas) == 0 or not bool(((betas > 0) & (betas <= 1)).all()):
        raise ValueError(f"betas must be a vector of values in (0, 1], got shape {tuple(betas.shape)}")
    return torch.cumprod(1 - betas.to("cpu", dtype), dim=0).to(torch.float64)


def snr(ab: Tensor) -> Tensor:
    """Return the signal-to-noise ratio ``ab / (1 - ab)``, of ab's shape; inf where ab is 1."""
    return ab / (1 - ab)


def log_snr(ab: Tensor) -> Tensor:
    """Return the natural logarithm of the signal-to-noise ratio; +inf where ab is 1, -inf where it is 0.

    Twice the ``lambda`` of Lu et al. 2022 (lambda = log(alpha / sigma)).
    """
    return torch.log(ab) - torch.log1p(-ab)


def _linspace(steps: int, train_steps: int) -> Tensor:
    """Both ends included: 0 and T - 1 (Lin et al. 2023, table 2).

    Multiplied by the rounded quotient, as numpy.linspace and Karlo do: halves fall as theirs do.
    """
    ratio = (train_steps - 1) / (steps - 1)
    return (torch.arange(steps, dtype=torch.float64) * ratio).round().flip(0)


def _leading(steps: int, train_steps: int) -> Tensor:
    """Multiples of T // N from 0 up: never reaches T - 1 unless N = T (Lin et al. 2023, table 2)."""
    return (torch.arange(steps, dtype=torch.float64) * (train_steps // steps)).flip(0)


def _trailing(steps: int, train_steps: int) -> Tensor:
    """From T - 1 down in steps of T / N: never reaches 0 unless N = T (Lin et al. 2023, table 2).

    Divided last, so that halves are exact. diffusers accumulates T / N in floating point: it differs by 1
    somewhere for some N, and for a few (61, 103, 121 …) it adds a step at t = -1.
    """
    return (train_steps * torch.arange(steps, 0, -1, dtype=torch.float64) / steps).round() - 1


def _accumulated(steps: int, train_steps: int) -> Tensor:
    """Both ends included, the position summed up in floating point and rounded to even, as kakaobrain's code does.

    Differs from linspace by 1 somewhere for 278 of N = 2..1000 (first for 21, 23 and 31).
    """
    ratio, position, visited = (train_steps - 1) / (steps - 1), 0.0, []
    for _ in range(steps):
        visited.append(round(position))
        position += ratio
    return torch.tensor(visited, dtype=torch.float64).flip(0)


SPACINGS: dict[str, Callable[[int, int], Tensor]] = {
    "linspace": _linspace,
    "leading": _leading,
    "trailing": _trailing,
    "karlo": _linspace,  # round(arange(N) * (T - 1) / (N - 1)): Karlo's formula is linspace in closed form
    "karlo_native": _accumulated,
}
"""Timestep spacings by name: (steps, train_steps) -> float64 [steps], descending."""


def timesteps(steps: int, train_steps: int = 1000, spacing: str = "linspace", *, offset: int = 0) -> Tensor:
    """Return the timesteps to visit, int64 `[steps]`, strictly descending within 0..train_steps - 1.

    ``spacing`` is a key of SPACINGS. ``offset`` is added to each (Stable Diffusion's and Kandinsky's
    "steps_offset", 1 with "leading"). A single step is always T - 1: it starts from pure noise, and the net
    must be told so ("linspace" and "leading" would say 0, and Karlo's formula divides by 0 there).

    Raises:
        ValueError: an unknown spacing, or counts or offsets outside the training steps.
    """
    if spacing not in SPACINGS:
        raise ValueError(f"unknown timestep spacing {spacing!r}; known: {', '.join(sorted(SPACINGS))}")
    if not 1 <= steps <= train_steps:
        raise ValueError(f"steps must be between 1 and the {train_steps} training steps, got {steps}")
    if steps == 1:
        return torch.tensor([train_steps - 1])
    plan = SPACINGS[spacing](steps, train_steps).to(torch.int64) + offset
    if plan[0] >= train_steps or plan[-1] < 0:
        raise ValueError(
            f"offset {offset} moves the {spacing} timesteps to {int(plan[-1])}..{int(plan[0])}, "
            f"outside 0..{train_steps - 1}"
        )
    return plan


@dataclass(frozen=True)
class Steps:
    """A sampling plan: where to evaluate the net, and how noisy the state is there.

    Attributes:
        timesteps: int64 `[N]`, strictly descending; what the net is told.
        alpha_bar: float64 `[N + 1]`, strictly ascending within 0..1: alpha-bar at each timestep, then at the end, where
            1.0 is clean. Samplers read noise levels from here alone, so a plan need not come from a table.
        betas: float64 `[N]`, each step's beta, which ``ddpm`` reads; None where it is ``1 - ab / ab_next``, as it
            should be (``diffusers_steps`` tells of an exception).

    Raises:
        ValueError: lengths, order or range are wrong.
    """

    timesteps: Tensor
    alpha_bar: Tensor
    betas: Tensor | None = None

    def __post_init__(self) -> None:
        """Check lengths, order and range."""
        t, ab = self.timesteps, self.alpha_bar
        if t.ndim != 1 or ab.ndim != 1 or len(t) == 0 or len(ab) != len(t) + 1:
            raise ValueError(
                f"a plan needs N >= 1 timesteps and N + 1 alpha-bars, got shapes {tuple(t.shape)} and {tuple(ab.shape)}"
            )
        if t.dtype != torch.int64 or ab.dtype != torch.float64:
            raise ValueError(f"a plan needs int64 times and float64 alpha-bars, got {t.dtype} and {ab.dtype}")
        if not bool((t.diff() < 0).all()):
            raise ValueError("a plan's timesteps must be strictly descending")
        if not bool((ab.diff() > 0).all() and ab[0] >= 0 and ab[-1] <= 1):
            raise ValueError("a plan's alpha-bars must be strictly ascending within 0..1")
        betas = self.betas
        if betas is not None and not (betas.shape == t.shape and bool(((betas > 0) & (betas <= 1)).all())):
            raise ValueError(f"a plan needs one beta a step, each in (0, 1]; got shape {tuple(betas.shape)}")

    def __len__(self) -> int:
        """Return N, the number of steps."""
        return len(self.timesteps)

    def last(self, count: int) -> "Steps":
        """Return the plan of the last ``count`` steps, for a run that starts from a state that is not pure noise.

        Raises:
            ValueError: ``count`` is not within 1..N.
        """
        if not 1 <= count <= len(self):
            raise ValueError(f"a plan of {len(self)} steps has no last {count}")
        betas = None if self.betas is None else self.betas[-count:]
        return Steps(self.timesteps[-count:], self.alpha_bar[-count - 1 :], betas)


def plan_steps(times: Tensor, alpha_bar_table: Tensor, final: float = 1.0) -> Steps:
    """Return the plan that visits ``times`` (int64 `[N]`, descending) of a table (float64 `[T]`) and ends at ``final``.

    ``final`` is the alpha-bar of the result, 1 for a clean one.

    Raises:
        ValueError: a time lies outside the table.
    """
    if times.numel() and not (0 <= int(times.min()) and int(times.max()) < len(alpha_bar_table)):
        raise ValueError(f"timesteps {times.tolist()} lie outside the table's 0..{len(alpha_bar_table) - 1}")
    table = alpha_bar_table.to("cpu", torch.float64)
    return Steps(times.cpu(), torch.cat([table[times.cpu()], table.new_full((1,), final)]))


def make_steps(
    steps: int, alpha_bar_table: Tensor, spacing: str = "linspace", *, offset: int = 0, final: float = 1.0
) -> Steps:
    """Return the plan of ``steps`` steps over a table (float64 `[T]`).

    ``spacing`` and ``offset`` are as in ``timesteps``, which also says what is refused; ``final`` as in ``plan_steps``.
    """
    return plan_steps(timesteps(steps, len(alpha_bar_table), spacing, offset=offset), alpha_bar_table, final)


def diffusers_steps(steps: int, betas: Tensor, spacing: str = "karlo") -> Steps:
    """Return a plan with which ``ddpm`` repeats diffusers' UnCLIPScheduler; betas are the schedule's `[T]`.

    Its float32 leaves traces: a step's beta is rounded (to 6e-8, where Karlo's first step has 1 - beta of
    6e-7), and between neighbouring timesteps, so at the last one too, the schedule's own beta stands in for
    that of the float32 table (the result is 5e-4 too small).
    Give the denoiser ``alpha_bar(betas, torch.float32)``.

    Raises:
        ValueError: as ``timesteps``.
    """
    plan = make_steps(steps, alpha_bar(betas, torch.float32), spacing)
    ab = plan.alpha_bar.to(torch.float32)
    before = torch.cat([plan.timesteps[1:], torch.tensor([-1])])
    own = betas.to("cpu", torch.float32)[plan.timesteps]
    stepped = torch.where(before == plan.timesteps - 1, own, 1 - ab[:-1] / ab[1:])
    return Steps(plan.timesteps, plan.alpha_bar, stepped.to(torch.float64))


def _check_betas(steps: int, start: float, end: float) -> None:
    if steps < 1:
        raise ValueError(f"a schedule needs at least 1 training step, got {steps}")
    if not 0 < start <= end < 1:
        raise ValueError(f"betas must satisfy 0 < start <= end < 1, got {start} and {end}")
