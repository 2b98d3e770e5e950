"""Classifier-free guidance: the formula, what runs when, and a closed form from end to end."""

import math

import pytest
import torch
from diffusers.guiders.guider_utils import rescale_noise_cfg

from unclip.unclip_core.diffusion.denoiser import ModelDenoiser, with_host_timestep
from unclip.unclip_core.diffusion.guidance import Guided
from unclip.unclip_core.diffusion.noise import FixedNoise
from unclip.unclip_core.diffusion.samplers import ddim
from unclip.unclip_core.diffusion.schedules import alpha_bar, cosine_betas, make_steps

X = torch.randn(2, 3, 4, 4, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
T = torch.tensor([300, 300])


def column(*values):
    return torch.tensor(values, dtype=torch.float64)[:, None]


COND = {"w": column(1.0, 2.0), "deep": {"b": column(0.5, 0.25)}}
UNCOND = {"w": column(-1.0), "deep": {"b": column(3.0, 3.0)}}


class Net:
    """A net that notes the batch of each call; twice the channels if ``learned``."""

    def __init__(self, learned=False):
        self.learned, self.batches = learned, []

    def __call__(self, x, t, cond):
        self.batches.append(len(x))
        w, b = (leaf.reshape(-1, 1, 1, 1) for leaf in (cond["w"], cond["deep"]["b"]))
        mean = w * x + b * torch.sin(x) + t.reshape(-1, 1, 1, 1) / 1000
        return torch.cat([mean, w + 0 * x], dim=1) if self.learned else mean


def halves(net):
    uncond = {"w": UNCOND["w"].expand(2, 1), "deep": UNCOND["deep"]}
    return net(X, T, COND), net(X, T, uncond)


@pytest.mark.parametrize("scale", [0.0, 0.5, 2.0, 8.0, -1.0])
def test_guided_mean_is_the_formula_in_one_batch(scale):
    cond, uncond = halves(Net())
    net = Net()
    guided = Guided(net, COND, UNCOND, scale)(X, T)
    torch.testing.assert_close(guided, uncond + scale * (cond - uncond), rtol=1e-12, atol=1e-12)
    assert net.batches == [4]


def test_the_variance_half_is_the_conditionals():
    cond, uncond = halves(Net(learned=True))
    guided = Guided(Net(learned=True), COND, UNCOND, 3.0)(X, T)
    expected = uncond + 3 * (cond - uncond)
    torch.testing.assert_close(guided[:, :3], expected[:, :3], rtol=1e-12, atol=1e-12)
    assert torch.equal(guided[:, 3:], cond[:, 3:])


def test_scale_one_runs_the_conditional_half_only():
    net = Net()
    assert torch.equal(Guided(net, COND, None, 1.0)(X, T), Net()(X, T, COND))
    assert net.batches == [2]


@pytest.mark.parametrize(("t", "batch"), [(199, 2), (200, 4), (500, 4), (501, 2), (0, 2), (999, 2)])
def test_guidance_acts_inside_its_interval_only(t, batch):
    net, times = Net(), torch.tensor([t, t])
    guided = Guided(net, COND, UNCOND, 4.0, interval=(0.2, 0.5))(X, times)
    expected = Guided(Net(), COND, UNCOND, 4.0 if batch == 4 else 1.0)(X, times)
    assert net.batches == [batch]
    torch.testing.assert_close(guided, expected, rtol=1e-12, atol=1e-12)


def test_a_batch_across_the_interval_is_guided_sample_by_sample():
    times = torch.tensor([100, 400])
    guided = Guided(Net(), COND, UNCOND, 4.0, interval=(0.2, 0.5))(X, times)
    inside, outside = Guided(Net(), COND, UNCOND, 4.0)(X, times), Net()(X, times, COND)
    torch.testing.assert_close(guided, torch.stack([outside[0], inside[1]]), rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("number", [150, 200, 350, 500, 501])
def test_a_number_beside_the_time_gives_what_the_time_gives(number):
    times = torch.tensor([number, number])
    asked = Guided(Net(), COND, UNCOND, 4.0, interval=(0.2, 0.5))(X, times)
    assert torch.equal(
        Guided(Net(), COND, UNCOND, 4.0, interval=(0.2, 0.5))(X, with_host_timestep(times, number)), asked
    )


def test_the_interval_counts_in_the_models_own_training_steps():
    net = Net()
    Guided(net, COND, UNCOND, 4.0, interval=(0.0, 0.5), train_steps=4000)(X, torch.tensor([1999, 1999]))
    assert net.batches == [4]


@pytest.mark.parametrize("rescale", [0.3, 0.7, 1.0])
def test_rescale_is_diffusers(rescale):
    cond, uncond = halves(Net())
    expected = rescale_noise_cfg(uncond + 6 * (cond - uncond), cond, guidance_rescale=rescale)
    guided = Guided(Net(), COND, UNCOND, 6.0, rescale=rescale)(X, T)
    torch.testing.assert_close(guided, expected, rtol=1e-12, atol=1e-12)


def test_full_rescale_restores_each_samples_contrast_and_spares_the_variance():
    net = Net(learned=True)
    cond = net(X, T, COND)
    guided = Guided(net, COND, UNCOND, 6.0, rescale=1.0)(X, T)
    torch.testing.assert_close(guided[:, :3].flatten(1).std(1), cond[:, :3].flatten(1).std(1))
    assert torch.equal(guided[:, 3:], cond[:, 3:])


def test_rescale_leaves_a_constant_finite():
    guided = Guided(lambda x, t, c: torch.zeros_like(x), None, None, 2.0, rescale=1.0)(X, T)
    assert torch.equal(guided, torch.zeros_like(X))


def test_half_precision_outputs_are_guided_in_float32():
    def net(x, t, cond):
        return (cond * torch.ones_like(x)).half()

    x, one = torch.zeros(1, 4), torch.ones(1, 1)
    guided = Guided(net, 1024 * one, 1023 * one, 7.3)(x, torch.tensor([5]))
    assert guided.dtype == torch.float32
    torch.testing.assert_close(guided, torch.full((1, 4), 1023 + 7.3))


def test_guided_gaussians_land_on_the_extrapolated_mean():
    """Two Gaussians of one width: the guided denoiser is that of a third, whose mean is extrapolated."""
    table, width = alpha_bar(cosine_betas()), 0.3

    def net(x, t, mean):  # the exact E[x0 | x] of N(mean, width^2)
        ab = table[t][:, None]
        return mean + ab.sqrt() * width**2 / (ab * width**2 + 1 - ab) * (x - ab.sqrt() * mean)

    means = column(0.4), column(-0.1)
    plan = make_steps(50, table)
    start = plan.alpha_bar[0].sqrt() * (-0.1 + 3 * 0.5) * torch.ones(1, 1, dtype=torch.float64)
    denoiser = ModelDenoiser(Guided(net, *means, 3.0), table, "sample")
    assert ddim(denoiser, start, plan, FixedNoise([])).item() == pytest.approx(-0.1 + 3 * 0.5, abs=1e-9)


@pytest.mark.parametrize("scale", [math.nan, math.inf, -math.inf])
def test_scales_that_are_no_numbers_are_refused(scale):
    with pytest.raises(ValueError, match="guidance scale must be a finite number"):
        Guided(Net(), COND, UNCOND, scale)


@pytest.mark.parametrize("interval", [(0.5, 0.2), (-0.1, 1.0), (0.0, 1.1), (math.nan, 1.0)])
def test_impossible_intervals_are_refused(interval):
    with pytest.raises(ValueError, match="interval"):
        Guided(Net(), COND, UNCOND, 2.0, interval=interval)


@pytest.mark.parametrize("rescale", [-0.1, 1.1, math.nan])
def test_impossible_rescales_are_refused(rescale):
    with pytest.raises(ValueError, match="rescale"):
        Guided(Net(), COND, UNCOND, 2.0, rescale=rescale)


@pytest.mark.parametrize(
    ("uncond", "message"),
    [
        ({"w": UNCOND["w"]}, "keys"),
        ({"w": UNCOND["w"], "deep": {"b": None}}, "condition.deep.b: .*Tensor and NoneType"),
        ({"w": UNCOND["w"], "deep": {"b": torch.zeros(3, 1)}}, r"condition.deep.b: shape \(2, 1\).*\(3, 1\)"),
        ({"w": torch.zeros(1, 2), "deep": UNCOND["deep"]}, "condition.w: shape"),
        (None, "one kind"),
    ],
)
def test_conditions_that_do_not_fit_are_refused_by_name(uncond, message):
    with pytest.raises(ValueError, match=message):
        Guided(Net(), COND, uncond, 2.0)


def test_a_condition_for_another_batch_is_refused():
    with pytest.raises(ValueError, match="condition.w: batch 2 does not fit the state's 1"):
        Guided(Net(), COND, UNCOND, 2.0)(X[:1], T[:1])


def test_a_net_with_odd_channels_is_refused():
    with pytest.raises(ValueError, match="3 channels.*got 4"):
        Guided(lambda x, t, c: torch.zeros(len(x), 4, 4, 4), COND, UNCOND, 2.0)(X, T)
