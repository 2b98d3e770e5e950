"""Schedules and spacings against their formulas, and against diffusers' tables."""

import math
from fractions import Fraction

import pytest
import torch
from diffusers import DDIMScheduler, UnCLIPScheduler

from unclip.unclip_core.diffusion import schedules
from unclip.unclip_core.diffusion.schedules import Steps, alpha_bar, make_steps, plan_steps, timesteps


def cosine_alpha_bar(u):
    return math.cos((u + 0.008) / 1.008 * math.pi / 2) ** 2


def test_cosine_betas_follow_the_papers_formula():
    betas = schedules.cosine_betas()
    ab = [cosine_alpha_bar(i / 1000) for i in range(1001)]
    expected = [min(1 - ab[i + 1] / ab[i], 0.999) for i in range(1000)]
    assert betas.dtype == torch.float64
    torch.testing.assert_close(betas, torch.tensor(expected, dtype=torch.float64), rtol=1e-12, atol=1e-15)


def test_cosine_alpha_bar_is_the_squared_cosine_before_the_cap():
    table = alpha_bar(schedules.cosine_betas())
    expected = [cosine_alpha_bar((i + 1) / 1000) / cosine_alpha_bar(0) for i in range(999)]
    torch.testing.assert_close(table[:999], torch.tensor(expected, dtype=torch.float64), rtol=1e-9, atol=0)
    assert table[999] == pytest.approx(table[998].item() * (1 - 0.999), rel=1e-12)


def test_linear_and_scaled_linear_betas():
    linear, scaled = schedules.linear_betas(5, 0.1, 0.5), schedules.scaled_linear_betas(3, 0.01, 0.09)
    torch.testing.assert_close(linear, torch.tensor([0.1, 0.2, 0.3, 0.4, 0.5], dtype=torch.float64))
    torch.testing.assert_close(scaled, torch.tensor([0.01, 0.04, 0.09], dtype=torch.float64))


def test_alpha_bar_is_the_product_of_what_is_left():
    betas = torch.tensor([0.1, 0.25, 0.5], dtype=torch.float64)
    expected = torch.tensor([0.9, 0.675, 0.3375], dtype=torch.float64)
    torch.testing.assert_close(alpha_bar(betas), expected, rtol=1e-15, atol=0)


def test_float32_cosine_table_is_diffusers_bit_for_bit():
    table = alpha_bar(schedules.cosine_betas(), torch.float32)
    assert table.dtype == torch.float64
    assert torch.equal(table, UnCLIPScheduler().alphas_cumprod.double())


@pytest.mark.parametrize(("name", "start", "end"), [("linear", 1e-4, 0.02), ("scaled_linear", 0.00085, 0.012)])
def test_float32_linear_tables_are_diffusers_within_float32(name, start, end):
    table = alpha_bar(schedules.SCHEDULES[name](1000, start, end), torch.float32)
    reference = DDIMScheduler(beta_schedule=name, beta_start=start, beta_end=end).alphas_cumprod.double()
    torch.testing.assert_close(table, reference, rtol=0, atol=1.2e-7)


def test_float64_table_is_more_exact_than_diffusers():
    exact = 1 - cosine_alpha_bar(1 / 1000) / cosine_alpha_bar(0)
    float64 = 1 - alpha_bar(schedules.cosine_betas())[0].item()
    float32 = 1 - alpha_bar(schedules.cosine_betas(), torch.float32)[0].item()
    assert float64 == pytest.approx(exact, rel=1e-11)
    assert float32 / exact - 1 == pytest.approx(5e-4, rel=0.1)


@pytest.mark.parametrize("name", sorted(schedules.SCHEDULES))
@pytest.mark.parametrize("steps", [1, 2, 4000])
def test_schedules_give_descending_tables_of_any_length(name, steps):
    table = alpha_bar(schedules.SCHEDULES[name](steps))
    assert table.shape == (steps,)
    assert bool((table > 0).all() and (table < 1).all() and (table.diff() < 0).all())


@pytest.mark.parametrize(
    "call",
    [
        lambda: schedules.linear_betas(0),
        lambda: schedules.linear_betas(10, 0.5, 0.1),
        lambda: schedules.scaled_linear_betas(10, 0.0, 0.1),
        lambda: schedules.cosine_betas(10, max_beta=1.0),
        lambda: schedules.cosine_betas(10, s=math.nan),
        lambda: alpha_bar(torch.tensor([0.1, -0.1])),
        lambda: alpha_bar(torch.tensor([0.1, math.nan])),
        lambda: alpha_bar(torch.ones(2, 2) / 2),
    ],
)
def test_impossible_schedules_are_refused(call):
    with pytest.raises(ValueError, match="got"):
        call()


def test_snr_and_its_logarithm():
    ab = torch.tensor([0.0, 0.2, 0.5, 0.8, 1.0], dtype=torch.float64)
    torch.testing.assert_close(schedules.snr(ab), torch.tensor([0, 0.25, 1, 4, math.inf], dtype=torch.float64))
    expected = torch.tensor([-math.inf, -math.log(4), 0, math.log(4), math.inf], dtype=torch.float64)
    torch.testing.assert_close(schedules.log_snr(ab), expected)


@pytest.mark.parametrize("spacing", ["linspace", "leading", "karlo"])
def test_spacings_are_diffusers_for_every_count(spacing):
    scheduler = UnCLIPScheduler() if spacing == "karlo" else DDIMScheduler(timestep_spacing=spacing)
    for steps in range(2, 1001):
        scheduler.set_timesteps(steps)
        assert torch.equal(timesteps(steps, 1000, spacing), scheduler.timesteps), steps


def test_trailing_is_exact_and_is_diffusers_where_that_does_not_drift():
    for steps in (*range(2, 65), 103, 192, 500, 999, 1000):
        exact = [round(Fraction(1000 * k, steps)) - 1 for k in range(steps, 0, -1)]
        assert timesteps(steps, 1000, "trailing").tolist() == exact, steps
    scheduler = DDIMScheduler(timestep_spacing="trailing")
    for steps in (2, 4, 5, 7, 10, 16, 20, 25, 30, 50, 100, 250, 999, 1000):
        scheduler.set_timesteps(steps)
        assert torch.equal(timesteps(steps, 1000, "trailing"), scheduler.timesteps), steps


def test_karlos_published_super_resolution_steps():
    assert timesteps(7, 1000, "karlo").tolist() == [999, 832, 666, 500, 333, 166, 0]


@pytest.mark.parametrize("spacing", sorted(schedules.SPACINGS))
def test_every_count_gives_distinct_steps_in_range_and_one_step_starts_from_noise(spacing):
    for train in (1, 2, 10, 77, 1000):
        assert timesteps(1, train, spacing).tolist() == [train - 1]
        for steps in range(1, train + 1, 1 + train // 50):
            plan = timesteps(steps, train, spacing)
            assert plan.dtype == torch.int64 and len(plan) == steps
            assert 0 <= plan[-1] and plan[0] < train and bool((plan.diff() < 0).all())
    assert timesteps(1000, 1000, spacing).tolist() == list(range(999, -1, -1))


def test_offset_moves_the_leading_timesteps_as_in_diffusers():
    scheduler = DDIMScheduler(timestep_spacing="leading", steps_offset=1)
    scheduler.set_timesteps(50)
    assert torch.equal(timesteps(50, 1000, "leading", offset=1), scheduler.timesteps)
    with pytest.raises(ValueError, match="outside 0..999"):
        timesteps(1000, 1000, "leading", offset=1)


@pytest.mark.parametrize("steps", [0, -3, 1001])
def test_step_counts_outside_the_training_steps_are_refused_with_both_numbers(steps):
    with pytest.raises(ValueError, match=f"1000.*{steps}"):
        timesteps(steps)


def test_unknown_spacing_is_refused_with_the_known_ones():
    with pytest.raises(ValueError, match="'karras'.*karlo, karlo_native, leading, linspace, trailing"):
        timesteps(10, 1000, "karras")


def test_make_steps_reads_the_table_and_ends_clean():
    table = alpha_bar(schedules.cosine_betas())
    plan = make_steps(4, table, "trailing")
    assert plan.timesteps.tolist() == [999, 749, 499, 249] and len(plan) == 4
    assert plan.alpha_bar.tolist() == [table[t].item() for t in (999, 749, 499, 249)] + [1.0]


@pytest.mark.parametrize(
    ("times", "ab", "message"),
    [
        ([2, 1], [0.1, 0.2], "N \\+ 1 alpha-bars"),
        ([], [1.0], "N >= 1"),
        ([1, 2], [0.1, 0.2, 1.0], "descending"),
        ([2, 1], [0.2, 0.2, 1.0], "ascending"),
        ([2, 1], [0.1, 0.2, 1.5], "ascending"),
        ([2, 1], [0.1, math.nan, 1.0], "ascending"),
    ],
)
def test_impossible_plans_are_refused(times, ab, message):
    with pytest.raises(ValueError, match=message):
        Steps(torch.tensor(times, dtype=torch.int64), torch.tensor(ab, dtype=torch.float64))


def test_plans_of_the_wrong_type_or_outside_the_table_are_refused():
    with pytest.raises(ValueError, match="float64"):
        Steps(torch.tensor([0]), torch.tensor([0.5, 1.0]))
    for betas in (torch.ones(2), torch.zeros(1), torch.tensor([math.nan])):
        with pytest.raises(ValueError, match="one beta a step"):
            Steps(torch.tensor([0]), torch.tensor([0.5, 1.0], dtype=torch.float64), betas)
    with pytest.raises(ValueError, match="outside the table's 0..9"):
        plan_steps(torch.tensor([10, 0]), alpha_bar(schedules.linear_betas(10)))
