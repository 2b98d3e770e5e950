"""Samplers against closed forms in float64: data whose exact denoiser is known (a Gaussian, a mixture of two).

Order tests run on plans that are uniform in log-SNR, so that rounding to integer timesteps does not spoil them.
"""

import math

import pytest
import torch

from unclip.unclip_core.diffusion.denoiser import ModelDenoiser, Prediction
from unclip.unclip_core.diffusion.noise import FixedNoise, NoiseSource
from unclip.unclip_core.diffusion.samplers import SAMPLERS, ddim, ddpm, dpmpp_2m, dpmpp_sde, sample
from unclip.unclip_core.diffusion.schedules import SPACINGS, Steps, alpha_bar, cosine_betas, make_steps

F64 = torch.float64
ODE_SAMPLERS = sorted(name for name, spec in SAMPLERS.items() if not spec.stochastic)
TABLE = alpha_bar(cosine_betas())
MEAN, WIDTH = 0.7, 0.4
WEIGHTS, MEANS, WIDTHS = (torch.tensor(v, dtype=F64) for v in ([0.3, 0.7], [-1.0, 0.6], [0.15, 0.3]))


def gaussian_x0(x, ab):
    """E[x0 | x] where x0 ~ N(MEAN, WIDTH^2)."""
    return MEAN + ab.sqrt() * WIDTH**2 / (ab * WIDTH**2 + 1 - ab) * (x - ab.sqrt() * MEAN)


def mixture_x0(x, ab):
    """E[x0 | x] where x0 is drawn from the mixture: each part's Gaussian answer, by its responsibility."""
    x, ab = x[..., None], ab[..., None]
    var = ab * WIDTHS**2 + 1 - ab
    residual = x - ab.sqrt() * MEANS
    share = torch.softmax(WEIGHTS.log() - 0.5 * var.log() - 0.5 * residual**2 / var, dim=-1)
    return (share * (MEANS + ab.sqrt() * WIDTHS**2 / var * residual)).sum(-1)


def mixture_cdf(x, ab):
    z = (x[..., None] - ab.sqrt() * MEANS) / (ab * WIDTHS**2 + 1 - ab).sqrt()
    return (WEIGHTS * torch.special.ndtr(z)).sum(-1)


def mixture_quantile(p, ab):
    low, high = torch.full_like(p, -9.0), torch.full_like(p, 9.0)
    for _ in range(60):
        middle = (low + high) / 2
        above = mixture_cdf(middle, ab) > p
        low, high = torch.where(above, low, middle), torch.where(above, middle, high)
    return (low + high) / 2


def exact_denoiser(plan, x0_of, fraction=0.0):
    """The denoiser of known data, for states at the plan's noise levels."""
    levels = torch.zeros(int(plan.timesteps[0]) + 1, dtype=F64)
    levels[plan.timesteps] = plan.alpha_bar[:-1]
    return lambda x, t: Prediction(x0_of(x, levels[t][:, None]), fraction)


def fine_plan(steps, low=-3.0, high=3.0):
    """A plan with equal steps of lambda = log(alpha / sigma), ending before it is clean."""
    levels = torch.sigmoid(2 * torch.linspace(low, high, steps + 1, dtype=F64))
    return Steps(torch.arange(steps - 1, -1, -1), levels)


def gaussian_end(x, plan):
    """Where the probability-flow ODE takes x for Gaussian data: the distance from the mean scales with the width."""
    start, end = plan.alpha_bar[0], plan.alpha_bar[-1]
    scale = ((end * WIDTH**2 + 1 - end) / (start * WIDTH**2 + 1 - start)).sqrt()
    return end.sqrt() * MEAN + scale * (x - start.sqrt() * MEAN)


def ratios(errors):
    return [a / b for a, b in zip(errors, errors[1:], strict=False)]


# --- order of convergence ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ODE_SAMPLERS)
def test_ode_error_on_a_gaussian_falls_with_the_claimed_order(name):
    errors = []
    for steps in (80, 160, 320):
        plan, x = fine_plan(steps), torch.tensor([[1.5], [-0.8]], dtype=F64)
        result = sample(name, exact_denoiser(plan, gaussian_x0), x, plan, FixedNoise([]))
        errors.append((result - gaussian_end(x, plan)).norm().item())
    assert ratios(errors) == pytest.approx([2 ** SAMPLERS[name].order] * 2, rel=0.06)
    assert errors[-1] < 5e-3 / 40 ** (SAMPLERS[name].order - 1)


@pytest.mark.parametrize("name", ODE_SAMPLERS)
def test_ode_error_on_a_mixture_falls_with_the_claimed_order(name):
    """In one dimension the probability-flow ODE keeps every point at its quantile."""
    errors, p = [], torch.linspace(0.02, 0.98, 33, dtype=F64)
    for steps in (100, 200, 400):
        plan = fine_plan(steps)
        x, end = (mixture_quantile(p, plan.alpha_bar[i])[:, None] for i in (0, -1))
        result = sample(name, exact_denoiser(plan, mixture_x0), x, plan, FixedNoise([]))
        errors.append((result - end).norm().item())
    assert ratios(errors) == pytest.approx([2 ** SAMPLERS[name].order] * 2, rel=0.12)


def gaussian_moments(name, plan, eta=0.0, fraction=0.0):
    """The exact mean and variance of a sampler's result on Gaussian data.

    The result is linear in the start and every draw; one row of a batch for each of them tells its factor.
    """
    steps, start = len(plan), plan.alpha_bar[0]
    x = (start.sqrt() * MEAN).expand(steps + 2, 1).clone()
    x[1] += (start * WIDTH**2 + 1 - start).sqrt()
    draws = torch.eye(steps + 2, dtype=F64)[2:, :, None]
    result = sample(name, exact_denoiser(plan, gaussian_x0, fraction), x, plan, FixedNoise(draws), eta=eta)
    return result[0].item(), (result[1:] - result[0]).square().sum().item()


@pytest.mark.parametrize(
    ("name", "eta", "fraction"),
    [
        ("ddpm", 0.0, 0.0),
        ("ddpm", 0.0, 1.0),
        ("ddpm", 0.0, 0.5),
        ("ddim", 1.0, 0.0),
        ("ddim", 0.5, 0.0),
        ("ddim", 0.0, 0.0),
        ("dpmpp_2m", 0.0, 0.0),
        ("dpmpp_sde", 0.0, 0.0),
        ("deis", 0.0, 0.0),
    ],
)
def test_gaussian_moments_converge_with_the_claimed_order(name, eta, fraction):
    errors = []
    for steps in (80, 160, 320):
        plan = fine_plan(steps)
        end = plan.alpha_bar[-1]
        mean, variance = gaussian_moments(name, plan, eta, fraction)
        assert mean == pytest.approx(end.sqrt().item() * MEAN, abs=1e-12)
        errors.append(abs(variance - (end * WIDTH**2 + 1 - end).item()))
    assert ratios(errors) == pytest.approx([2 ** SAMPLERS[name].order] * 2, rel=0.08)


@pytest.mark.parametrize("name", sorted(SAMPLERS))
@pytest.mark.parametrize("spacing", sorted(SPACINGS))
def test_gaussian_moments_on_a_tables_integer_steps(name, spacing):
    mean, variance = gaussian_moments(name, make_steps(200, TABLE, spacing))
    assert mean == pytest.approx(MEAN, abs=1e-12)
    assert math.sqrt(variance) == pytest.approx(WIDTH, rel=0.03 if SAMPLERS[name].order == 1 else 0.01)


@pytest.mark.parametrize(("name", "spacing"), [("deis", "karlo"), ("deis", "trailing"), ("dpmpp_2m", "trailing")])
def test_order_two_beats_ddim_in_few_steps_on_the_plans_recommended(name, spacing):
    for steps in (8, 10, 16, 25):
        plan = make_steps(steps, TABLE, spacing)
        widths = [gaussian_moments(sampler, plan)[1] ** 0.5 for sampler in (name, "ddim")]
        assert abs(widths[0] - WIDTH) < 0.8 * abs(widths[1] - WIDTH), steps


# --- samples of a mixture ---------------------------------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.parametrize(("name", "eta"), [("ddpm", 0.0), ("ddim", 1.0), ("ddim", 0.5), ("dpmpp_sde", 0.0)])
def test_stochastic_samples_are_distributed_as_the_mixture(name, eta):
    count, plan, noise = 20000, make_steps(400, TABLE, "karlo"), NoiseSource([11])
    x = noise.normal((count,), dtype=F64)
    result = sample(name, exact_denoiser(plan, mixture_x0), x, plan, noise, eta=eta)[0]
    left = result < -0.4
    assert left.double().mean().item() == pytest.approx(0.3, abs=4 * math.sqrt(0.3 * 0.7 / count))
    for part, mean, width in ((result[left], -1.0, 0.15), (result[~left], 0.6, 0.3)):
        assert part.mean().item() == pytest.approx(mean, abs=4 * width / math.sqrt(len(part)) + 0.005)
        assert part.std().item() == pytest.approx(width, rel=4 / math.sqrt(2 * len(part)) + 0.03)
    expected = mixture_cdf(result.sort().values, torch.ones((), dtype=F64))
    ranks = (torch.arange(count, dtype=F64) + 0.5) / count
    assert (expected - ranks).abs().max().item() < 1.95 / math.sqrt(count)  # Kolmogorov-Smirnov, p = 0.001


@pytest.mark.parametrize(("name", "tolerance"), [("ddim", 0.008), ("dpmpp_2m", 0.004), ("deis", 0.001)])
def test_deterministic_samples_keep_their_quantiles(name, tolerance):
    p, plan = (torch.arange(200, dtype=F64) + 0.5) / 200, make_steps(100, TABLE, "karlo")
    x = mixture_quantile(p, plan.alpha_bar[0])[:, None]
    result = sample(name, exact_denoiser(plan, mixture_x0), x, plan, FixedNoise([]))
    expected = mixture_quantile(p, plan.alpha_bar[-1])[:, None]
    assert (result - expected).abs().mean().item() < tolerance


# --- few steps, and both ends of the noise --------------------------------------------------------------------


@pytest.mark.parametrize("name", sorted(SAMPLERS))
@pytest.mark.parametrize("spacing", sorted(SPACINGS))
@pytest.mark.parametrize("steps", [1, 2, 3])
def test_a_certain_denoiser_is_believed_exactly(name, spacing, steps):
    target = torch.tensor([[0.3, -0.9], [0.0, 1.0]], dtype=F64)
    plan, noise = make_steps(steps, TABLE, spacing), NoiseSource([0, 1])
    x = noise.normal((2,), dtype=F64)
    for eta in (0.0, 0.5, 1.0):
        result = sample(name, lambda x, t: Prediction(target), x, plan, noise, eta=eta)
        torch.testing.assert_close(result, target, rtol=0, atol=1e-15)


@pytest.mark.parametrize("name", sorted(SAMPLERS))
def test_one_step_is_the_prediction_and_needs_no_noise(name):
    plan, x = make_steps(1, TABLE), torch.tensor([[0.3], [-2.0]], dtype=F64)
    result = sample(name, exact_denoiser(plan, mixture_x0), x, plan, FixedNoise([]), eta=1.0)
    torch.testing.assert_close(result, mixture_x0(x, TABLE[999].reshape(1, 1)), rtol=0, atol=1e-15)


def test_two_steps_by_hand():
    """From alpha-bar 0.2 over 0.5 to clean; the noisy rules in the papers' own symbols."""
    plan = Steps(torch.tensor([1, 0]), torch.tensor([0.2, 0.5, 1.0], dtype=F64))
    x, z = torch.tensor([[1.3]], dtype=F64), torch.tensor([[0.7]], dtype=F64)
    denoiser = exact_denoiser(plan, gaussian_x0, 0.25)
    x0 = gaussian_x0(x, torch.tensor([[0.2]], dtype=F64))
    eps = (x - math.sqrt(0.2) * x0) / math.sqrt(0.8)
    lam = [0.5 * math.log(ab / (1 - ab)) for ab in (0.2, 0.5)]
    h, beta = lam[1] - lam[0], 1 - 0.2 / 0.5
    small = 0.5 / 0.8 * beta
    posterior_std = math.exp(0.5 * (0.25 * math.log(beta) + 0.75 * math.log(small)))
    middles = {
        ("ddpm", 0.0): math.sqrt(0.5) * beta / 0.8 * x0 + math.sqrt(1 - beta) * 0.5 / 0.8 * x + posterior_std * z,
        ("ddim", 0.0): math.sqrt(0.5) * x0 + math.sqrt(0.5) * eps,
        ("ddim", 0.6): math.sqrt(0.5) * x0 + math.sqrt(0.5 - 0.36 * small) * eps + 0.6 * math.sqrt(small) * z,
        ("dpmpp_2m", 0.0): math.sqrt(0.5 / 0.8) * x - math.sqrt(0.5) * math.expm1(-h) * x0,
        ("deis", 0.0): math.sqrt(0.5) * (x / math.sqrt(0.2) + (1 - 2) * eps),  # rho falls from 2 to 1
        ("dpmpp_sde", 0.0): math.sqrt(0.5 / 0.8) * math.exp(-h) * x
        - math.sqrt(0.5) * math.expm1(-2 * h) * x0
        + math.sqrt(0.5 * -math.expm1(-2 * h)) * z,
    }
    for (name, eta), middle in middles.items():
        infos = []
        result = sample(name, denoiser, x, plan, FixedNoise([z]), eta=eta, on_step=infos.append)
        torch.testing.assert_close(infos[0].x, middle, rtol=0, atol=1e-14)
        torch.testing.assert_close(result, gaussian_x0(middle, torch.tensor([[0.5]], dtype=F64)), rtol=0, atol=1e-14)


@pytest.mark.parametrize("name", sorted(SAMPLERS))
def test_a_plan_may_start_at_pure_noise(name):
    """Zero terminal SNR: alpha-bar 0 first, where log-SNR is minus infinity."""
    inner = torch.sigmoid(2 * torch.linspace(-4, 4, 199, dtype=F64))
    plan = Steps(torch.arange(199, -1, -1), torch.cat([torch.zeros(1, dtype=F64), inner, torch.ones(1, dtype=F64)]))
    mean, variance = gaussian_moments(name, plan)
    assert mean == pytest.approx(MEAN, abs=1e-12)
    assert math.sqrt(variance) == pytest.approx(WIDTH, rel=0.03)


# --- the signature all samplers share ---------------------------------------------------------------------------


@pytest.mark.parametrize("name", sorted(SAMPLERS))
def test_callbacks_see_every_step(name):
    plan, noise, infos = make_steps(4, TABLE, "trailing"), NoiseSource([5]), []
    denoiser = exact_denoiser(plan, gaussian_x0)
    result = sample(name, denoiser, noise.normal((3,), dtype=F64), plan, noise, on_step=infos.append)
    assert [(i.index, i.total, i.t) for i in infos] == [(0, 4, 999), (1, 4, 749), (2, 4, 499), (3, 4, 249)]
    assert torch.equal(infos[-1].x, result)
    for before, after in zip(infos, infos[1:], strict=False):
        expected = denoiser(before.x, torch.tensor([after.t])).x0
        assert torch.equal(after.x0, expected)


@pytest.mark.parametrize("name", sorted(SAMPLERS))
def test_what_a_callback_raises_ends_the_sampling(name):
    class Interrupted(Exception):
        pass

    def stop(info):
        if info.index == 1:
            raise Interrupted

    calls, plan, noise = [], make_steps(9, TABLE), NoiseSource([5])
    with pytest.raises(Interrupted):
        sample(name, lambda x, t: calls.append(t) or Prediction(x), noise.normal((3,)), plan, noise, on_step=stop)
    assert len(calls) == 2


@pytest.mark.parametrize("name", sorted(SAMPLERS))
def test_a_sample_is_the_same_in_any_batch(name):
    plan = make_steps(6, TABLE)
    net = ModelDenoiser(lambda x, t: torch.tanh(x) + t.reshape(-1, 1) / 1000, TABLE)

    def draw(seeds):
        noise = NoiseSource(seeds, "decoder")
        return sample(name, net, noise.normal((5,)), plan, noise, eta=0.5)

    assert torch.equal(draw([3, 2**64 - 1, 8])[1], draw([-1])[0])


@pytest.mark.parametrize("name", sorted(SAMPLERS))
def test_float32_follows_float64(name):
    plan, noise = make_steps(25, TABLE, "karlo"), {d: NoiseSource([1, 2]) for d in (torch.float32, F64)}
    results = {}
    for dtype, source in noise.items():
        net = ModelDenoiser(lambda x, t: 0.5 * torch.sin(2 * x), TABLE, "sample")
        results[dtype] = sample(name, net, source.normal((3, 4, 4), dtype=dtype), plan, source, eta=0.5)
        assert results[dtype].dtype == dtype
    torch.testing.assert_close(results[torch.float32].double(), results[F64], rtol=0, atol=2e-6)


@pytest.mark.parametrize("name", sorted(SAMPLERS))
def test_the_loop_never_waits_for_the_device(name):
    """On the meta device, reading any value back raises."""
    noise, x = NoiseSource([1, 2]), torch.empty(2, 3, 4, 4, device="meta")
    net = ModelDenoiser(lambda x, t: torch.cat([x, x], dim=1), TABLE, "epsilon", "learned_range")
    result = sample(name, net, x, make_steps(5, TABLE), noise, eta=0.5, on_step=lambda info: None)
    assert result.shape == x.shape and result.device.type == "meta"


def test_the_state_given_is_not_written_to():
    for name in SAMPLERS:
        x = torch.ones(1, 3)
        sample(name, lambda x, t: Prediction(0.5 * x), x, make_steps(3, TABLE), NoiseSource([1]), eta=1.0)
        assert torch.equal(x, torch.ones(1, 3))


def test_deterministic_samplers_draw_no_noise():
    for name, spec in SAMPLERS.items():
        if not spec.stochastic:
            sample(name, lambda x, t: Prediction(x), torch.ones(1, 3), make_steps(5, TABLE), FixedNoise([]))


def test_ddim_is_ddpm_where_eta_is_one():
    """Song et al. 2021, section 4.1: for one eta, DDIM is the ancestral sampler with the small variance."""
    plan, x = make_steps(20, TABLE), torch.tensor([[0.4], [-1.0]], dtype=F64)
    denoiser = exact_denoiser(plan, mixture_x0)
    ancestral = ddpm(denoiser, x, plan, NoiseSource([1, 2]))
    torch.testing.assert_close(ddim(denoiser, x, plan, NoiseSource([1, 2]), eta=1.0), ancestral, rtol=0, atol=1e-9)


def test_the_first_order_rules_agree():
    """Without a step before, DPM-Solver++ is DDIM, and its SDE is DDIM with eta 1 (Lu et al. 2022, section 6)."""
    plan = Steps(torch.tensor([0]), torch.tensor([0.1, 0.6], dtype=F64))
    x, z = torch.tensor([[0.4]], dtype=F64), torch.tensor([[0.9]], dtype=F64)
    denoiser = exact_denoiser(plan, mixture_x0)
    ode = dpmpp_2m(denoiser, x, plan, FixedNoise([]))
    torch.testing.assert_close(ode, ddim(denoiser, x, plan, FixedNoise([])), rtol=0, atol=1e-14)
    sde = dpmpp_sde(denoiser, x, plan, FixedNoise([z]))
    torch.testing.assert_close(sde, ddim(denoiser, x, plan, FixedNoise([z]), eta=1.0), rtol=0, atol=1e-14)


def test_unknown_samplers_are_refused_with_the_known_ones():
    with pytest.raises(ValueError, match="'euler_z'.*ddpm, ddim, dpmpp_2m, dpmpp_sde, deis"):
        sample("euler_z", lambda x, t: Prediction(x), torch.ones(1, 1), make_steps(1, TABLE), FixedNoise([]))


@pytest.mark.parametrize("eta", [-0.1, 1.5, math.nan, math.inf])
@pytest.mark.parametrize("name", sorted(SAMPLERS))
def test_eta_outside_its_range_is_refused(name, eta):
    with pytest.raises(ValueError, match="eta must be within 0..1"):
        sample(name, lambda x, t: Prediction(x), torch.ones(1, 1), make_steps(1, TABLE), FixedNoise([]), eta=eta)


def test_states_and_predictions_that_do_not_fit_are_refused():
    plan = make_steps(2, TABLE)
    with pytest.raises(ValueError, match="float32 or float64, not torch.float16"):
        ddim(lambda x, t: Prediction(x), torch.ones(1, 1).half(), plan, FixedNoise([]))
    with pytest.raises(ValueError, match=r"\(1, 1\) for \(2, 3\)"):
        ddim(lambda x, t: Prediction(torch.ones(1, 1)), torch.ones(2, 3), plan, FixedNoise([]))
