"""The weights of a point on the pad, against interpolation as scipy and linear algebra have it."""

import numpy as np
import pytest
from scipy.interpolate import RegularGridInterpolator

from unclip.unclip_core.embedding.pad import CORNERS, pad_weights

POINTS = [(x / 4, y / 4) for x in range(5) for y in range(5)] + [(0.13, 0.71), (0.5, 0.99)]


@pytest.mark.parametrize("count", CORNERS)
def test_a_corner_has_all_the_weight_at_its_own_place(count):
    for index, (x, y) in enumerate(CORNERS[count]):
        assert pad_weights(count, x, y) == tuple(float(index == other) for other in range(count))


@pytest.mark.parametrize("count", CORNERS)
@pytest.mark.parametrize("point", POINTS)
def test_weights_are_shares(count, point):
    weights = pad_weights(count, *point)
    assert min(weights) >= 0 and sum(weights) == pytest.approx(1, abs=1e-12)


@pytest.mark.parametrize(("x", "y"), POINTS)
def test_four_corners_are_bilinear(x, y):
    for index, weight in enumerate(pad_weights(4, x, y)):
        at_corners = np.zeros((2, 2))
        at_corners[int(CORNERS[4][index][0]), int(CORNERS[4][index][1])] = 1
        assert weight == pytest.approx(RegularGridInterpolator(((0, 1), (0, 1)), at_corners)((x, y)).item(), abs=1e-12)


@pytest.mark.parametrize(("x", "y"), POINTS)
def test_three_corners_are_barycentric_inside_and_on_the_edge_beside_it(x, y):
    exact = np.linalg.solve(np.vstack([np.array(CORNERS[3]).T, np.ones(3)]), [x, y, 1])
    found = np.array(pad_weights(3, x, y))
    if (exact >= -1e-12).all():
        np.testing.assert_allclose(found, exact, atol=1e-12)
    else:
        assert (found[exact < -1e-12] == 0).all()


def test_two_ends_are_linear_whatever_the_height():
    assert pad_weights(2, 0.25, 0.0) == pad_weights(2, 0.25, 1.0) == (0.75, 0.25)


@pytest.mark.parametrize(("count", "x", "y"), [(1, 0, 0), (5, 0, 0), (4, -0.01, 0), (4, 0, 1.01), (2, float("nan"), 0)])
def test_what_is_no_point_on_a_pad_is_refused(count, x, y):
    with pytest.raises(ValueError, match="pad"):
        pad_weights(count, x, y)
