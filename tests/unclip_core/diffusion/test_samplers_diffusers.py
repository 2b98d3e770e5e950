"""Samplers against diffusers' schedulers, step for step, and against improved diffusion's float64 formulas.

Both sides start from one state, ask one smooth stand-in for a net and get the same noise; every state is compared.
"""

import numpy as np
import pytest
import torch
from diffusers import (
    DDIMScheduler,
    DDPMScheduler,
    DPMSolverMultistepScheduler,
    LMSDiscreteScheduler,
    UnCLIPScheduler,
)

from unclip.unclip_core.diffusion.denoiser import ModelDenoiser, Prediction, clamp_x0, dynamic_threshold
from unclip.unclip_core.diffusion.noise import FixedNoise
from unclip.unclip_core.diffusion.samplers import sample
from unclip.unclip_core.diffusion.schedules import (
    alpha_bar,
    cosine_betas,
    diffusers_steps,
    linear_betas,
    make_steps,
    plan_steps,
    scaled_linear_betas,
)

SHAPE = (2, 3, 6, 6)
COSINE = alpha_bar(cosine_betas(), torch.float32)


def net(x, t, learned=False):
    """A smooth stand-in for a net: of order 1, dependent on state, place and time."""
    time = t.to(x.dtype).reshape(-1, *([1] * (x.ndim - 1))) / 1000
    place = torch.linspace(-1, 1, x.shape[-1], dtype=x.dtype)
    mean = 0.9 * torch.sin(1.3 * x + place) + 0.2 * torch.cos(5 * time)
    return torch.cat([mean, torch.tanh(x - place)], dim=1) if learned else mean


def draws(count, seed=0, dtype=torch.float32):
    """A start and ``count`` draws of noise, as one generator gives them in order."""
    generator = torch.Generator().manual_seed(seed)
    return [torch.randn(SHAPE, generator=generator).to(dtype) for _ in range(count + 1)]


def continued(seed=0):
    """The generator behind ``draws``, after the start was drawn."""
    generator = torch.Generator().manual_seed(seed)
    torch.randn(SHAPE, generator=generator)
    return generator


def reference_states(scheduler, x, learned=False, **options):
    """Every state of a diffusers scheduler that was given its timesteps."""
    states, times = [], scheduler.timesteps.tolist()
    for i, t in enumerate(times):
        raw = net(scheduler.scale_model_input(x, t), torch.full((len(x),), t), learned)
        extra = {name: value(i, times) if callable(value) else value for name, value in options.items()}
        x = scheduler.step(raw, t, x, **extra).prev_sample
        states.append(x)
    return states


def our_states(name, plan, table, x, noise, eta=0.0, learned=False, **denoiser):
    states = []
    wrapped = ModelDenoiser(lambda x, t: net(x, t, learned), table, **denoiser)
    sample(name, wrapped, x, plan, FixedNoise(noise), eta=eta, on_step=lambda info: states.append(info.x))
    return states


def assert_same(ours, reference, tolerance=1e-5):
    """Compare every state, in parts of max(1, the reference's largest element)."""
    assert len(ours) == len(reference)
    for i, (a, b) in enumerate(zip(ours, reference, strict=True)):
        error = ((a - b).abs().max() / max(1.0, b.abs().max().item())).item()
        assert error < tolerance, f"step {i}: {error:.2e}"


UNCLIP_CASES = [  # Karlo's prior, decoder and super-resolution
    ("fixed_small_log", "sample", 5.0),
    ("learned_range", "epsilon", 1.0),
    ("fixed_small_log", "epsilon", 1.0),
]


@pytest.mark.parametrize(
    ("variance", "prediction", "limit", "steps"),
    [(*case, steps) for case in UNCLIP_CASES for steps in (2, 7, 25)] + [(*UNCLIP_CASES[1], 600)],
)
def test_ddpm_is_the_unclip_scheduler(variance, prediction, limit, steps):
    scheduler = UnCLIPScheduler(variance_type=variance, prediction_type=prediction, clip_sample_range=limit)
    scheduler.set_timesteps(steps)
    learned, (x, *noise) = variance == "learned_range", draws(steps - 1)
    reference = reference_states(
        scheduler,
        x,
        learned,
        generator=continued(),
        prev_timestep=lambda i, times: times[i + 1] if i + 1 < len(times) else -1,
    )
    ours = our_states(
        "ddpm",
        diffusers_steps(steps, cosine_betas()),
        COSINE,
        x,
        noise,
        learned=learned,
        prediction=prediction,
        variance=variance,
        clip=clamp_x0(limit),
    )
    assert_same(ours, reference)


@pytest.mark.parametrize(
    ("variance", "prediction", "spacing"),
    [
        ("fixed_small", "epsilon", "leading"),
        ("fixed_small", "v_prediction", "trailing"),
        ("fixed_large", "sample", "linspace"),
        ("learned_range", "epsilon", "leading"),
        ("fixed_small_log", "v_prediction", "linspace"),
    ],
)
def test_ddpm_is_the_ddpm_scheduler(variance, prediction, spacing):
    """Kandinsky's decoder uses this scheduler, with a linear schedule."""
    scheduler = DDPMScheduler(
        beta_start=0.00085,
        beta_end=0.012,
        variance_type=variance,
        prediction_type=prediction,
        timestep_spacing=spacing,
        clip_sample=True,
        clip_sample_range=1.5,
    )
    scheduler.set_timesteps(20)
    table = alpha_bar(linear_betas(1000, 0.00085, 0.012), torch.float32)
    learned, (x, *noise) = variance == "learned_range", draws(19)
    ours = our_states(
        "ddpm",
        make_steps(20, table, spacing),
        table,
        x,
        noise,
        learned=learned,
        prediction=prediction,
        variance=variance,
        clip=clamp_x0(1.5),
    )
    assert_same(ours, reference_states(scheduler, x, learned, generator=continued()))


@pytest.mark.parametrize("eta", [0.0, 0.5, 1.0])
@pytest.mark.parametrize("prediction", ["epsilon", "sample", "v_prediction"])
@pytest.mark.parametrize("spacing", ["leading", "trailing"])
def test_ddim_is_the_ddim_scheduler(eta, prediction, spacing):
    scheduler = DDIMScheduler(
        beta_schedule="scaled_linear",
        beta_start=0.00085,
        beta_end=0.012,
        prediction_type=prediction,
        timestep_spacing=spacing,
        clip_sample=True,
        clip_sample_range=1.2,
    )
    scheduler.set_timesteps(20)
    table = alpha_bar(scaled_linear_betas(), torch.float32)
    x, *noise = draws(20)
    reference = reference_states(
        scheduler,
        x,
        eta=eta,
        use_clipped_model_output=True,
        variance_noise=(lambda i, times: noise[i]) if eta else None,
    )
    plan = make_steps(20, table, spacing)
    assert_same(our_states("ddim", plan, table, x, noise, eta, prediction=prediction, clip=clamp_x0(1.2)), reference)


def test_ddim_with_dynamic_thresholding():
    scheduler = DDIMScheduler(
        beta_schedule="squaredcos_cap_v2",
        timestep_spacing="trailing",
        clip_sample=False,
        thresholding=True,
        dynamic_thresholding_ratio=0.9,
        sample_max_value=3.0,
    )
    scheduler.set_timesteps(10)
    x = draws(0)[0]
    ours = our_states("ddim", make_steps(10, COSINE, "trailing"), COSINE, x, [], clip=dynamic_threshold(0.9, 3.0))
    assert_same(ours, reference_states(scheduler, x, use_clipped_model_output=True))


@pytest.mark.parametrize(("algorithm", "name"), [("dpmsolver++", "dpmpp_2m"), ("sde-dpmsolver++", "dpmpp_sde")])
@pytest.mark.parametrize(
    ("schedule", "prediction"),
    [
        ("linear", "epsilon"),
        ("linear", "v_prediction"),
        ("squaredcos_cap_v2", "sample"),
    ],
)
@pytest.mark.parametrize("spacing", ["linspace", "leading", "trailing"])
@pytest.mark.parametrize("steps", [2, 10, 25])
def test_dpmpp_is_the_dpm_solver_scheduler(algorithm, name, schedule, prediction, spacing, steps):
    """On diffusers' own plan: that scheduler's linspace and leading skip t = 0."""
    scheduler = DPMSolverMultistepScheduler(
        beta_schedule=schedule,
        prediction_type=prediction,
        algorithm_type=algorithm,
        timestep_spacing=spacing,
    )
    scheduler.set_timesteps(steps)
    table = alpha_bar({"linear": linear_betas, "squaredcos_cap_v2": cosine_betas}[schedule](), torch.float32)
    x, *noise = draws(steps)
    reference = reference_states(
        scheduler, x, variance_noise=(lambda i, times: noise[i]) if name == "dpmpp_sde" else None
    )
    ours = our_states(name, plan_steps(scheduler.timesteps, table), table, x, noise, prediction=prediction)
    assert_same(ours, reference, 2e-5)  # diffusers takes differences of float32 logarithms


def test_deis_is_the_linear_multistep_scheduler():
    """The two-step Adams-Bashforth rule in sigma / alpha; at the last step ours takes the one-step rule."""
    scheduler = LMSDiscreteScheduler(beta_start=0.00085, beta_end=0.012, beta_schedule="scaled_linear")
    scheduler.set_timesteps(12)
    plan = make_steps(12, alpha_bar(scaled_linear_betas(), torch.float32))
    times = plan.timesteps
    assert torch.equal(times, scheduler.timesteps.round().long())
    table = torch.zeros(1000, dtype=torch.float64) + 0.5
    table[times] = 1 / (1 + scheduler.sigmas[:-1].double() ** 2)
    plan, start = plan_steps(times, table), draws(0)[0]
    ours = our_states("deis", plan, table, start, [])
    y, states = start / plan.alpha_bar[0].sqrt().float(), []
    for i, t in enumerate(scheduler.timesteps):
        raw = net(scheduler.scale_model_input(y, t), times[i].expand(2))
        y = scheduler.step(raw, t, y, order=2).prev_sample
        states.append(y * plan.alpha_bar[i + 1].sqrt().float())
    assert_same(ours[:-1], states[:-1])


@pytest.mark.parametrize("learned", [False, True])
def test_float64_ddpm_is_improved_diffusion_respaced(learned):
    """Karlo's own code: betas of the visited steps alone, float64 throughout (Nichol & Dhariwal 2021)."""
    plan_table = alpha_bar(cosine_betas())
    plan = make_steps(25, plan_table, "karlo")
    x, *noise = draws(24, dtype=torch.float64)
    ours = our_states(
        "ddpm",
        plan,
        plan_table,
        x,
        noise,
        learned=learned,
        variance="learned_range" if learned else "fixed_small_log",
        clip=clamp_x0(1.0),
    )
    assert ours[0].dtype == torch.float64
    visited = plan.timesteps.numpy()[::-1]
    ab = plan_table.numpy()[visited]
    betas = 1 - ab / np.append(1.0, ab[:-1])
    products = np.cumprod(1 - betas)
    previous = np.append(1.0, products[:-1])
    small = betas * (1 - previous) / (1 - products)
    log_small = np.log(np.append(small[1], small[1:]))
    state = x
    for i, k in enumerate(range(24, -1, -1)):
        raw = net(state, torch.full((2,), int(visited[k])), learned)
        eps = raw[:, :3]
        x0 = (state / np.sqrt(products[k]) - eps * np.sqrt(1 / products[k] - 1)).clamp(-1, 1)
        mean = betas[k] * np.sqrt(previous[k]) / (1 - products[k]) * x0
        mean = mean + (1 - previous[k]) * np.sqrt(1 - betas[k]) / (1 - products[k]) * state
        share = (raw[:, 3:] + 1) / 2 if learned else torch.zeros_like(x)
        log_variance = share * np.log(betas[k]) + (1 - share) * log_small[k]
        state = mean + (torch.exp(0.5 * log_variance) * noise[i] if k else 0)
        torch.testing.assert_close(ours[i], state, rtol=0, atol=1e-10, msg=lambda m, i=i: f"step {i}: {m}")


def test_diffusers_steps_carry_the_last_betas_mismatch():
    """What a certain net says comes out 5e-4 too small in diffusers, and so in its compatible mode."""
    scheduler = UnCLIPScheduler(prediction_type="sample")
    scheduler.set_timesteps(7)
    reference = scheduler.step(torch.ones(1, 1), 0, torch.ones(1, 1), prev_timestep=-1).prev_sample.item()
    betas, certain = cosine_betas(), lambda x, t: Prediction(torch.ones_like(x))
    compatible, exact = (
        sample("ddpm", certain, torch.ones(1, 1), plan, FixedNoise([torch.zeros(1, 1)] * 6)).item()
        for plan in (diffusers_steps(7, betas), make_steps(7, alpha_bar(betas), "karlo"))
    )
    assert reference == pytest.approx(1 - 5e-4, abs=1e-4)
    assert compatible == pytest.approx(reference, abs=1e-7) and exact == 1.0


def test_float64_and_float32_tables_differ_by_what_karlo_md_says():
    """The two modes are different enough to need both: about 1e-3 over a whole run of the decoder's settings."""
    x, *noise = draws(24)
    ends = []
    for dtype in (torch.float32, torch.float64):
        table = alpha_bar(cosine_betas(), dtype)
        settings = {"learned": True, "variance": "learned_range", "clip": clamp_x0(1.0)}
        plan = make_steps(25, table, "karlo") if dtype == torch.float64 else diffusers_steps(25, cosine_betas())
        ends.append(our_states("ddpm", plan, table, x, noise, **settings)[-1])
    assert 1e-6 < (ends[0] - ends[1]).abs().mean().item() < 1e-2
