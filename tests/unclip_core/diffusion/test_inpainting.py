"""Known pixels, resampling and windows, against closed forms."""

import math

import pytest
import torch

from unclip.unclip_core.diffusion.denoiser import Prediction
from unclip.unclip_core.diffusion.forward import add_noise
from unclip.unclip_core.diffusion.inpainting import InpaintDenoiser, blend_by_mask, repaint
from unclip.unclip_core.diffusion.noise import FixedNoise, NoiseSource
from unclip.unclip_core.diffusion.samplers import SAMPLERS, sample
from unclip.unclip_core.diffusion.schedules import alpha_bar, cosine_betas, make_steps, plan_steps
from unclip.unclip_core.diffusion.windows import Windowed, starts, window_weight

TABLE = alpha_bar(cosine_betas())
RHO = 0.8


def pair(x, t):
    """The best denoiser of pairs of pixels of variance 1 and correlation RHO: ab^.5 S (ab S + (1 - ab) I)^-1 x."""
    ab = TABLE[t[0]].to(x)
    cov = torch.tensor([[1.0, RHO], [RHO, 1.0]]).to(x)
    gain = ab.sqrt() * cov @ torch.linalg.inv(ab * cov + (1 - ab) * torch.eye(2).to(x))
    return Prediction(torch.einsum("ij,bchj->bchi", gain, x))


def zero(x, t):
    return Prediction(torch.zeros_like(x))


MASK = torch.tensor([0.0, 1.0]).reshape(1, 1, 1, 2)  # the left pixel is known, the right one is drawn


def drawn_right(resamples, known_left=1.5, rows=4000):
    known = torch.tensor([known_left, 0.0]).reshape(1, 1, 1, 2)
    noise = NoiseSource([3], "test")
    x = noise.normal((1, rows, 2))
    x0 = repaint(
        InpaintDenoiser(pair, known.expand(1, 1, rows, 2), MASK.expand(1, 1, rows, 2)),
        x,
        make_steps(20, TABLE, "trailing"),
        noise,
        resamples=resamples,
    )
    assert torch.equal(x0[..., 0], torch.full_like(x0[..., 0], known_left))
    return x0[..., 1]


def test_resampling_brings_what_is_drawn_to_what_is_known():
    """Right given left is N(rho * left, 1 - rho^2). Plain replacement falls short of it; resampling does less so."""
    errors = [abs(float(drawn_right(n).mean()) - RHO * 1.5) for n in (1, 4, 12)]
    assert errors[0] > 0.05 and errors[0] > errors[1] > errors[2]
    right = drawn_right(12)
    assert float(right.mean()) == pytest.approx(RHO * 1.5, abs=0.06)
    assert float(right.std()) == pytest.approx(math.sqrt(1 - RHO**2), abs=0.12)  # 20 ancestral steps lose some


@pytest.mark.parametrize("sampler", SAMPLERS)
@pytest.mark.parametrize("count", [1, 2, 5])
def test_every_sampler_ends_in_the_known_pixels_bit_for_bit(sampler, count):
    generator = torch.Generator().manual_seed(1)
    known, mask = torch.randn(2, 3, 6, 6, generator=generator), torch.zeros(2, 1, 6, 6)
    mask[..., 2:4, 3:] = 1
    noise = NoiseSource([5, 6])
    x0 = sample(
        sampler,
        InpaintDenoiser(zero, known, mask),
        noise.normal((3, 6, 6)),
        make_steps(count, TABLE, "trailing"),
        noise,
    )
    fixed = (mask == 0).expand_as(known)
    if sampler == "ddpm":  # its last mean has a factor of x that is 0 but for rounding
        torch.testing.assert_close(x0[fixed], known[fixed], rtol=0, atol=1e-6)
    else:
        assert torch.equal(x0[fixed], known[fixed])
    assert not torch.equal(x0[~fixed], known[~fixed])


def test_the_known_part_stays_a_sample_of_the_forward_process():
    """With x_T = q(x_T | x0), the state after each step has the moments of q(x_t | x0)."""
    steps, seen = make_steps(6, TABLE, "trailing"), []
    known = torch.full((1, 1, 100, 100), 0.7)
    noise = NoiseSource([9])
    start = add_noise(known, noise.normal((1, 100, 100)), float(steps.alpha_bar[0]))
    repaint(
        InpaintDenoiser(zero, known, torch.zeros_like(known)),
        start,
        steps,
        noise,
        resamples=2,
        on_step=lambda info: seen.append(info.x),
    )
    ends = [ab for i, ab in enumerate(steps.alpha_bar.tolist()[1:]) for _ in range(2 if i < 5 else 1)]
    for x, ab in zip(seen, ends, strict=True):
        assert float(x.mean()) == pytest.approx(0.7 * math.sqrt(ab), abs=0.04)
        assert float(x.std()) == pytest.approx(math.sqrt(1 - ab), abs=0.03)


@pytest.mark.parametrize("resamples", [1, 3])
def test_the_last_step_adds_no_noise_where_a_plan_ends_noisy_either(resamples):
    """It ends in the posterior's mean, Ho et al. 2020, eq. 7, of the state before and the x0 seen in it."""
    plan = plan_steps(torch.tensor([700, 300, 40]), TABLE, final=float(TABLE[0]))
    seen, noise = [], NoiseSource([4])
    end = repaint(
        lambda x, t: Prediction(torch.full_like(x, 0.3)),
        noise.normal((1, 8, 8), dtype=torch.float64),
        plan,
        noise,
        resamples=resamples,
        on_step=seen.append,
    )
    s, t = float(TABLE[40]), float(TABLE[0])
    beta = 1 - s / t
    mean = math.sqrt(t) * beta / (1 - s) * 0.3 + math.sqrt(1 - beta) * (1 - t) / (1 - s) * seen[-2].x
    torch.testing.assert_close(end, mean, rtol=0, atol=1e-12)
    drawn = NoiseSource([4])
    for _ in range(1 + 2 * resamples + 2 * (resamples - 1)):  # the start, the steps but the last, the ways back
        drawn.normal((1, 8, 8), dtype=torch.float64)
    assert torch.equal(noise.normal((2,)), drawn.normal((2,)))


def test_a_mask_between_blends():
    drawn, known = torch.tensor([1.0, 1.0, 1.0]), torch.tensor([0.1, 0.1, 0.1])
    kept = blend_by_mask(drawn, known, torch.tensor([0.0, 0.5, 1.0]))
    assert kept[0] == known[0] and kept[2] == drawn[2] and float(kept[1]) == pytest.approx(0.55)


@pytest.mark.parametrize(
    "mask",
    [
        torch.ones(1, 1, 5, 6),
        torch.ones(1, 6, 6),
        torch.full((1, 1, 6, 6), 1.5),
        torch.full((1, 1, 6, 6), math.nan),
        torch.full((1, 1, 6, 6), -0.1),
    ],
)
def test_a_mask_that_does_not_fit_is_refused(mask):
    with pytest.raises(ValueError, match="mask"):
        InpaintDenoiser(zero, torch.zeros(1, 3, 6, 6), mask)


def test_less_than_one_resample_is_refused():
    with pytest.raises(ValueError, match="0 resamples"):
        repaint(zero, torch.zeros(1, 1, 2, 2), make_steps(2, TABLE, "trailing"), FixedNoise([]), resamples=0)


# ---- windows ----


@pytest.mark.parametrize(
    ("length", "size", "stride"), [(64, 64, 32), (65, 64, 32), (200, 64, 32), (97, 16, 16), (9, 3, 1)]
)
def test_windows_cover_the_canvas_and_overlap_as_asked(length, size, stride):
    found = starts(length, size, stride)
    assert found[0] == 0 and found[-1] == length - size
    assert all(0 < b - a <= stride for a, b in zip(found, found[1:], strict=False))


def test_a_canvas_below_the_window_and_a_stride_beyond_it_are_refused():
    with pytest.raises(ValueError, match="20 px is smaller than the window of 64"):
        starts(20, 64, 32)
    with pytest.raises(ValueError, match="stride"):
        Windowed(zero, 8, 9)


def test_pixelwise_denoisers_do_not_notice_the_windows():
    def half(x, t):
        assert x.shape[-2:] == (8, 8)
        return Prediction(0.5 * x + 1, 0.25 * x)

    x = torch.randn(2, 3, 19, 30, generator=torch.Generator().manual_seed(2))
    windowed = Windowed(half, 8, 5)
    blended = windowed(x, torch.zeros(2, dtype=torch.int64))
    torch.testing.assert_close(blended.x0, 0.5 * x + 1)
    torch.testing.assert_close(blended.variance_fraction, 0.25 * x)
    assert windowed.count(19, 30) == 4 * 6


def test_windows_that_disagree_blend_without_a_seam():
    """Each window guesses a number of its own; across their overlap the result goes smoothly from one to the next."""
    calls = []

    def numbered(x, t):
        calls.append(1)
        return Prediction(torch.full_like(x, float(len(calls))))

    row = Windowed(numbered, 16, 8)(torch.zeros(1, 1, 16, 24), torch.zeros(1, dtype=torch.int64)).x0[0, 0, 0]
    assert len(calls) == 2
    assert torch.equal(row[:8], torch.ones(8)) and torch.equal(row[16:], torch.full((8,), 2.0))
    assert bool((row.diff() >= 0).all()) and float(row.diff().max()) < 0.2


def test_the_weight_is_positive_symmetric_and_highest_in_the_middle():
    weight = window_weight(7)
    assert weight.min() > 0 and weight.argmax() == 24
    torch.testing.assert_close(weight, weight.flip(0)) and torch.testing.assert_close(weight, weight.T)
