"""Inversion: exact where the denoiser is known in closed form, and back again through the sampler."""

import math
from types import SimpleNamespace

import pytest
import torch

from unclip.unclip_core.diffusion.denoiser import Prediction
from unclip.unclip_core.diffusion.inversion import ErrorAware, clean_error, invert, psnr, start_noise_share
from unclip.unclip_core.diffusion.noise import NoiseSource
from unclip.unclip_core.diffusion.samplers import SAMPLERS, ddim
from unclip.unclip_core.diffusion.schedules import alpha_bar, cosine_betas, make_steps

TABLE = alpha_bar(cosine_betas())


def gaussian(variance):
    """The best denoiser of data N(0, variance): E[x0 | x_t] in closed form."""

    def denoise(x, t):
        ab = TABLE[t].reshape(-1, *([1] * (x.ndim - 1)))
        return Prediction(ab.sqrt() * variance / (ab * variance + 1 - ab) * x)

    return denoise


def data(variance=1.0):
    return variance**0.5 * torch.randn(2, 3, 4, 4, generator=torch.Generator().manual_seed(0), dtype=torch.float64)


def back(denoiser, x, steps):
    return ddim(denoiser, x, steps, NoiseSource([0, 1]))


def returned(variance, steps):
    """What comes back of x0 = 1: D of the state before the end, x0 + (x0 - D(x0)) / sqrt(ab), with D(x) = k x."""
    ab = float(steps.alpha_bar[-2])
    k = math.sqrt(ab) * variance / (ab * variance + 1 - ab)
    return k * (1 + (1 - k) / math.sqrt(ab))


@pytest.mark.parametrize("spacing", ["trailing", "karlo"])
@pytest.mark.parametrize("count", [1, 2, 7, 50])
@pytest.mark.parametrize("variance", [1.0, 0.8])
def test_every_step_but_the_clean_one_is_inverted_exactly(count, spacing, variance):
    steps, denoiser = make_steps(count, TABLE, spacing), gaussian(variance)
    x0 = data(variance)
    x = invert(denoiser, x0, steps, iterations=25)
    torch.testing.assert_close(back(denoiser, x, steps), returned(variance, steps) * x0, rtol=0, atol=1e-5)


def test_one_iteration_is_exact_for_unit_variance_to_which_the_slope_is_fitted():
    steps = make_steps(5, TABLE, "trailing")
    torch.testing.assert_close(back(gaussian(1.0), invert(gaussian(1.0), data(), steps, iterations=1), steps), data())


@pytest.mark.parametrize("variance", [0.05, 0.3, 3.0])
def test_more_steps_come_nearer_to_the_probability_flow(variance):
    """The ODE's own end for N(0, v): x0 scaled as the standard deviation is, sqrt((ab v + 1 - ab) / v)."""
    x0, errors = data(variance), []
    for count in (10, 50, 250):
        steps = make_steps(count, TABLE, "trailing")
        ab = float(steps.alpha_bar[0])
        exact = x0 * math.sqrt((ab * variance + 1 - ab) / variance)
        errors.append(float((invert(gaussian(variance), x0, steps, iterations=4) - exact).abs().mean()))
    assert errors[0] > 2 * errors[1] > 4 * errors[2]
    assert errors[2] < 0.02


def test_more_iterations_come_nearer_to_the_image():
    steps, denoiser, x0 = make_steps(10, TABLE, "trailing"), gaussian(0.3), data(0.3)
    end = returned(0.3, steps) * x0
    errors = [
        float((back(denoiser, invert(denoiser, x0, steps, iterations=n), steps) - end).abs().max())
        for n in (1, 2, 4, 8)
    ]
    assert errors == sorted(errors, reverse=True) and errors[-1] < errors[0] / 10


# ---- a net that errs ----


def blind(x, t):
    return Prediction(torch.zeros_like(x))


def far_off(x, t):
    """A net that predicts x0, and always the same one: no noise and no image changes its mind."""
    return Prediction(torch.full_like(x, 0.25))


def test_a_guess_and_its_error_are_weighed_as_bayes_does():
    """Data N(c, error^2): with c as the guess, this is the best denoiser, in closed form."""
    error, x, t = torch.tensor([0.3, 0.05], dtype=torch.float64), data(), torch.tensor([700, 3])
    ab = TABLE[t].reshape(-1, 1, 1, 1)
    known = error.reshape(-1, 1, 1, 1) ** 2 * ab
    expected = 0.25 + known / (known + 1 - ab) * (x / ab.sqrt() - 0.25)
    torch.testing.assert_close(ErrorAware(far_off, TABLE, error)(x, t).x0, expected)


def test_without_an_error_the_guess_stays_as_it_is_to_the_bit():
    x, t, denoiser = data().float(), torch.tensor([999, 0]), gaussian(0.5)
    aware = ErrorAware(denoiser, TABLE, torch.zeros(1))
    assert torch.equal(aware(x, t).x0, denoiser(x, t).x0.float())


def test_the_error_is_that_of_a_sample_without_noise():
    x0 = data()
    torch.testing.assert_close(clean_error(far_off, x0), (x0 - 0.25).square().mean((1, 2, 3)).sqrt())
    assert float(clean_error(gaussian(1.0), x0).max()) < 1e-4  # the linear one is right where there is no noise


def test_inverting_a_linear_denoiser_stays_exact_when_its_error_is_asked_for():
    steps, x0 = make_steps(7, TABLE, "trailing"), data()
    aware = ErrorAware(gaussian(1.0), TABLE, clean_error(gaussian(1.0), x0))
    torch.testing.assert_close(back(aware, invert(aware, x0, steps), steps), x0, rtol=0, atol=1e-6)


def test_what_a_net_never_says_comes_back_the_better_the_more_steps_there_are():
    x0, found = data(0.01), {}
    for count in (5, 20, 100, 1000):
        steps, aware = make_steps(count, TABLE, "trailing"), ErrorAware(far_off, TABLE, clean_error(far_off, x0))
        x = invert(aware, x0, steps)
        found[count] = float((back(aware, x, steps) - x0).square().mean().sqrt())
    assert found[5] > 1.2 * found[20] > 4 * found[100] and found[1000] < 0.01 * found[5]
    assert 0.7 < float(x.square().mean().sqrt()) < 1.3  # what is missed has the size of noise where there is only noise


@pytest.mark.parametrize("eta", [0.0, 0.2, 0.7, 1.0])
def test_the_own_share_is_what_ddim_leaves_of_its_start(eta):
    """Of a denoiser that sees nothing, the state before the end is noise alone: what the start put there is counted."""
    steps, states = make_steps(12, TABLE, "trailing"), []
    silent = SimpleNamespace(normal=lambda shape, *_: torch.zeros(2, *shape, dtype=torch.float64))
    start = math.sqrt(1 - float(steps.alpha_bar[0])) * data()
    ddim(blind, start, steps, silent, eta=eta, on_step=lambda info: states.append(info.x))
    kept = states[-2].square().mean() / (1 - float(steps.alpha_bar[-2])) / data().square().mean()
    assert start_noise_share("ddim", steps, eta) == pytest.approx(float(kept))


def test_the_own_share_of_other_samplers_is_all_or_nothing():
    steps = make_steps(12, TABLE, "trailing")
    found = {name: start_noise_share(name, steps, 0.5) for name in SAMPLERS if name != "ddim"}
    assert found == {"ddpm": 0.0, "dpmpp_2m": 1.0, "dpmpp_sde": 0.0, "deis": 1.0}
    with pytest.raises(ValueError, match="unknown sampler"):
        start_noise_share("odd", steps, 0.5)


def test_a_sample_does_not_depend_on_its_batch_and_every_call_is_reported():
    steps, infos = make_steps(3, TABLE, "trailing"), []
    together = invert(gaussian(0.5), data(), steps, iterations=2, on_step=infos.append)
    assert torch.equal(together[1:], invert(gaussian(0.5), data()[1:], steps, iterations=2))
    assert [info.index for info in infos] == list(range(5)) and {info.total for info in infos} == {5}
    assert [info.t for info in infos] == [332, 666, 666, 999, 999]


def test_what_cannot_be_inverted_is_refused():
    steps = make_steps(3, TABLE, "trailing")
    with pytest.raises(ValueError, match="at least 1 iteration"):
        invert(gaussian(1.0), data(), steps, iterations=0)
    with pytest.raises(ValueError, match="NaN"):
        invert(gaussian(1.0), data() * math.nan, steps)


def test_psnr_is_that_of_a_known_error():
    a = torch.zeros(2, 4, 4, 3)
    b = a.clone()
    b[1] += 0.1
    assert psnr(a, b).tolist() == [math.inf, pytest.approx(20.0, abs=1e-4)]
    with pytest.raises(ValueError, match="compared"):
        psnr(a, b[:1])
