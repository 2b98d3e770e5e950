"""The denoiser contract: every parameterisation gives back the x0 that it encodes."""

import math
from types import SimpleNamespace

import pytest
import torch
from diffusers import DDPMScheduler

from unclip.unclip_core.diffusion.denoiser import ModelDenoiser, clamp_x0, dynamic_threshold
from unclip.unclip_core.diffusion.schedules import alpha_bar, cosine_betas, linear_betas

TABLE = alpha_bar(linear_betas())
T = torch.tensor([0, 17, 500, 999])


@pytest.fixture
def case():
    """A noised batch in float64 with what made it: each sample at its own timestep."""
    generator = torch.Generator().manual_seed(0)
    x0, eps = (torch.randn(4, 3, 5, 5, generator=generator, dtype=torch.float64) for _ in range(2))
    alpha, sigma = (table[T].reshape(4, 1, 1, 1) for table in (TABLE.sqrt(), (1 - TABLE).sqrt()))
    return SimpleNamespace(x0=x0, eps=eps, x=alpha * x0 + sigma * eps, v=alpha * eps - sigma * x0)


@pytest.mark.parametrize("prediction", ["epsilon", "sample", "v_prediction"])
def test_exact_outputs_give_back_x0(case, prediction):
    raw = {"epsilon": case.eps, "sample": case.x0, "v_prediction": case.v}[prediction]
    result = ModelDenoiser(lambda x, t: raw, TABLE, prediction)(case.x, T)
    torch.testing.assert_close(result.x0, case.x0, rtol=0, atol=1e-12)
    assert result.variance_fraction == 0.0


def test_the_net_sees_state_and_timesteps_as_they_are(case):
    seen = []
    ModelDenoiser(lambda x, t: seen.append((x, t)) or x, TABLE)(case.x, T)
    assert torch.equal(seen[0][0], case.x) and torch.equal(seen[0][1], T)


@pytest.mark.parametrize(
    ("variance", "fraction"), [("fixed_small", 0.0), ("fixed_small_log", 0.0), ("fixed_large", 1.0)]
)
def test_fixed_variances_are_ends_of_the_range(case, variance, fraction):
    result = ModelDenoiser(lambda x, t: case.eps, TABLE, "epsilon", variance)(case.x, T)
    assert result.variance_fraction == fraction


def test_learned_range_is_the_second_half_mapped_to_a_fraction(case):
    v = torch.linspace(-1, 1, case.x.numel(), dtype=torch.float64).reshape(case.x.shape)
    net = ModelDenoiser(lambda x, t: torch.cat([case.eps, v], dim=1), TABLE, "epsilon", "learned_range")
    result = net(case.x, T)
    torch.testing.assert_close(result.x0, case.x0, rtol=0, atol=1e-12)
    torch.testing.assert_close(result.variance_fraction, (v + 1) / 2)


def test_embeddings_without_image_dimensions_work():
    x0 = torch.randn(4, 6, dtype=torch.float64)
    eps = torch.randn(4, 6, dtype=torch.float64)
    ab = TABLE[T][:, None]
    result = ModelDenoiser(lambda x, t: eps, TABLE)(ab.sqrt() * x0 + (1 - ab).sqrt() * eps, T)
    torch.testing.assert_close(result.x0, x0, rtol=0, atol=1e-11)


def test_x0_is_clipped_after_everything_else(case):
    result = ModelDenoiser(lambda x, t: case.eps, TABLE, clip=clamp_x0(0.5))(case.x, T)
    torch.testing.assert_close(result.x0, case.x0.clamp(-0.5, 0.5), rtol=0, atol=1e-12)


def test_state_stays_float32_around_a_half_precision_net():
    seen = []

    def net(x, t):
        seen.append(x.dtype)
        return torch.zeros_like(x)

    x = torch.full((1, 1), 1e-3 + 1e-6)
    table = alpha_bar(cosine_betas())
    result = ModelDenoiser(net, table, model_dtype=torch.float16)(x, torch.tensor([999]))
    assert seen == [torch.float16] and result.x0.dtype == torch.float32
    assert result.x0.item() == pytest.approx((1e-3 + 1e-6) / table[999].sqrt().item(), rel=1e-6)  # half: off by 1e-4


@pytest.mark.parametrize(("variance", "channels"), [("fixed_small", 6), ("learned_range", 3), ("learned_range", 12)])
def test_a_net_with_the_wrong_channels_is_refused(case, variance, channels):
    net = ModelDenoiser(lambda x, t: torch.zeros(4, channels, 5, 5), TABLE, "epsilon", variance)
    with pytest.raises(ValueError, match=rf"\(4, {channels}, 5, 5\).*channels"):
        net(case.x, T)


def test_unknown_names_are_refused_with_the_known_ones():
    with pytest.raises(ValueError, match="'eps'.*epsilon, sample, v_prediction"):
        ModelDenoiser(lambda x, t: x, TABLE, "eps")
    with pytest.raises(ValueError, match="'learned'.*learned_range"):
        ModelDenoiser(lambda x, t: x, TABLE, "epsilon", "learned")


def test_tables_without_an_x0_are_refused():
    zero_end = torch.tensor([0.9, 0.5, 0.0], dtype=torch.float64)
    with pytest.raises(ValueError, match="reaches 0"):
        ModelDenoiser(lambda x, t: x, zero_end, "epsilon")
    net = ModelDenoiser(lambda x, t: torch.full_like(x, 2.0), zero_end, "v_prediction")
    assert net(torch.ones(1, 1), torch.tensor([2])).x0.item() == -2.0  # at alpha 0, v is -x0
    with pytest.raises(ValueError, match="within 0..1"):
        ModelDenoiser(lambda x, t: x, torch.tensor([0.5, 1.5]))


def test_clamp_holds_the_range_and_refuses_an_empty_one():
    assert clamp_x0(5.0)(torch.tensor([-9.0, 2.0, 9.0])).tolist() == [-5.0, 2.0, 5.0]
    for limit in (0.0, -1.0, math.nan, math.inf):
        with pytest.raises(ValueError, match="positive and finite"):
            clamp_x0(limit)


@pytest.mark.parametrize(("percentile", "limit"), [(0.995, 1.0), (0.995, 1.5), (0.9, 100.0), (0.5, 2.0), (1.0, 9.0)])
def test_dynamic_threshold_is_diffusers(percentile, limit):
    scheduler = DDPMScheduler(thresholding=True, dynamic_thresholding_ratio=percentile, sample_max_value=limit)
    scales = torch.tensor([0.2, 1, 3, 30]).reshape(4, 1, 1, 1)
    x0 = torch.randn(4, 3, 7, 7, generator=torch.Generator().manual_seed(0)) * scales
    expected = scheduler._threshold_sample(x0)
    torch.testing.assert_close(dynamic_threshold(percentile, limit)(x0), expected, rtol=0, atol=1e-6)


def test_dynamic_threshold_by_hand():
    x0 = torch.tensor([[-4.0, 0.0, 1.0, 2.0, 3.0], [0.1, -0.2, 0.3, 0.4, 0.5]], dtype=torch.float64)
    result = dynamic_threshold(0.875)(x0)  # half way between |x| = 3 and 4: s = 3.5; in the second row s = 1
    expected = torch.tensor([[-1, 0, 1 / 3.5, 2 / 3.5, 3 / 3.5], [0.1, -0.2, 0.3, 0.4, 0.5]], dtype=torch.float64)
    torch.testing.assert_close(result, expected)


def test_dynamic_threshold_refuses_impossible_numbers():
    for percentile in (0.0, 99.5, math.nan):
        with pytest.raises(ValueError, match="percentile"):
            dynamic_threshold(percentile)
    for maximum in (0.5, math.nan):
        with pytest.raises(ValueError, match="maximum"):
            dynamic_threshold(0.995, maximum)
