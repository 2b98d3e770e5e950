"""The forward chain's moments, and the plot's pixels."""

import math

import pytest
import torch

from unclip.unclip_core.diffusion.forward import add_noise, diffuse
from unclip.unclip_core.diffusion.noise import NoiseSource
from unclip.unclip_core.plotting.plots import Curve, plot


def test_noise_is_added_at_one_level_for_all_or_one_each():
    x0, noise = torch.full((2, 3), 2.0), torch.full((2, 3), -1.0)
    torch.testing.assert_close(add_noise(x0, noise, 0.36), torch.full((2, 3), 0.6 * 2 - 0.8))
    each = add_noise(x0, noise, torch.tensor([0.36, 1.0]))
    torch.testing.assert_close(each, torch.tensor([[0.4] * 3, [2.0] * 3]))


def test_the_states_have_the_moments_of_q_and_of_one_chain():
    levels = [1.0, 0.9, 0.5, 0.5, 0.05, 0.0]
    x0 = torch.full((1, 1, 200, 200), 0.6)
    states = diffuse(x0, levels, NoiseSource([1]))
    assert states.shape == (6, 1, 1, 200, 200)
    assert torch.equal(states[0], x0) and torch.equal(states[2], states[3])
    for x, ab in zip(states, levels, strict=True):
        assert float(x.mean()) == pytest.approx(0.6 * math.sqrt(ab), abs=0.02)
        assert float(x.var()) == pytest.approx(1 - ab, abs=0.02)
    # Cov(x_s, x_t) of the chain is sqrt(ab_t / ab_s) * (1 - ab_s)
    one, two = (states[i] - math.sqrt(levels[i]) * x0 for i in (1, 4))
    assert float((one * two).mean()) == pytest.approx(math.sqrt(0.05 / 0.9) * 0.1, abs=0.01)


@pytest.mark.parametrize("levels", [[], [0.5, 0.6], [1.1], [-0.1], [math.nan]])
def test_levels_that_are_none_or_rise_are_refused(levels):
    with pytest.raises(ValueError, match="level|alpha-bars"):
        diffuse(torch.zeros(1, 3, 2, 2), levels, NoiseSource([1]))


def test_nan_is_refused():
    with pytest.raises(ValueError, match="NaN"):
        diffuse(torch.full((1, 3, 2, 2), math.nan), [0.5], NoiseSource([1]))


def columns_of(image, colour):
    """Where the colour is found: x and y of each pixel."""
    rows, columns = torch.where(((image * 255).round() == torch.tensor(colour).float()).all(-1))
    return columns, rows


def test_a_falling_line_falls_on_the_plot_and_its_mark_is_a_dot():
    red = (200, 0, 0)
    image = plot(
        [Curve("", [0, 1, 2], [2, math.inf, 0], red), Curve("", [0, 2], [2, 0], red, marks=[1])],
        title="falling",
        x_label="t",
        y_range=(0, 2),
        size=(300, 200),
    )
    assert image.shape == (200, 300, 3) and 0 <= image.min() <= image.max() <= 1
    columns, rows = columns_of(image, red)
    left, right = rows[columns < 100].float().mean(), rows[columns > 200].float().mean()
    assert left < right  # y grows downwards
    assert (rows[columns > columns.max() - 3].diff() == 1).sum() >= 3  # the dot is thicker than the line


def test_a_plot_of_nothing_is_refused():
    with pytest.raises(ValueError, match="points"):
        plot([], title="", x_label="", y_range=(0, 1))
