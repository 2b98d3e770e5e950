"""The measures against closed forms, plain loops and scipy."""

import math

import pytest
import torch

from unclip.unclip_core.evaluate.distances import frechet_distance, kernel_distance
from unclip.unclip_core.evaluate.manifolds import precision_recall


def draws(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def with_moments(mean, root, count=50, seed=0):
    """Vectors whose mean and covariance (n - 1) are exactly `mean` and `root` rootᵀ."""
    rows = draws(count, len(mean), seed=seed)
    rows = rows - rows.mean(dim=0)
    rows = torch.linalg.qr(rows).Q * (count - 1) ** 0.5
    return rows @ root.T + mean


# ---- FID ----


def test_fid_of_gaussians_along_common_axes():
    """Σ (σ₁ - σ₂)² + ‖μ₁ - μ₂‖², in a turned frame."""
    frame = torch.linalg.qr(draws(4, 4)).Q
    one, two = torch.tensor([1.0, 2, 3, 0.5]).double(), torch.tensor([2.0, 2, 0.25, 1]).double()
    shift = torch.tensor([1.0, -2, 0, 0.5]).double()
    first = with_moments(torch.zeros(4).double(), frame @ one.diag(), seed=1)
    second = with_moments(shift, frame @ two.diag(), count=70, seed=2)
    expected = float((one - two).square().sum() + shift.square().sum())
    assert frechet_distance(first, second) == pytest.approx(expected, rel=1e-12)


def test_fid_against_the_root_of_the_matrix():
    """Covariances that do not commute: scipy's matrix root says what eq. 6 is."""
    linalg = pytest.importorskip("scipy.linalg")
    first, second = draws(40, 5, seed=3) @ draws(5, 5, seed=4), draws(60, 5, seed=5) + 0.3
    one, two = first.T.cov().numpy(), second.T.cov().numpy()
    shift = (first.mean(dim=0) - second.mean(dim=0)).numpy()
    expected = shift @ shift + (one + two - 2 * linalg.sqrtm(one @ two).real).trace()
    assert frechet_distance(first, second) == pytest.approx(float(expected), rel=1e-9)


@pytest.mark.parametrize("count", [3, 8, 100])
def test_fid_of_a_set_from_itself_is_nought(count):
    """With fewer vectors than numbers too, where the covariance has no root that can be inverted."""
    vectors = draws(count, 8) * 10
    assert frechet_distance(vectors, vectors) < 1e-10
    assert frechet_distance(vectors, vectors + 1) == pytest.approx(8, rel=1e-12)
    assert frechet_distance(vectors.float(), vectors.flip(0).float()) < 1e-10


# ---- KID ----


def looped(first, second):
    """Eq. 4 of Bińkowski et al., pair by pair."""

    def kernel(x, y):
        return (sum(a * b for a, b in zip(x, y, strict=True)) / len(x) + 1) ** 3

    rows, columns = first.tolist(), second.tolist()
    own = [
        sum(kernel(x, y) for i, x in enumerate(part) for j, y in enumerate(part) if i != j)
        / (len(part) * (len(part) - 1))
        for part in (rows, columns)
    ]
    return sum(own) - 2 * sum(kernel(x, y) for x in rows for y in columns) / (len(rows) * len(columns))


def test_kid_is_the_double_loop(monkeypatch):
    first, second = draws(7, 3), draws(5, 3, seed=1) * 2 + 1
    assert kernel_distance(first, second) == pytest.approx(looped(first, second), rel=1e-12)
    monkeypatch.setattr("unclip.unclip_core.evaluate.distances.ROWS", 2)
    assert kernel_distance(first, second) == pytest.approx(looped(first, second), rel=1e-12)


def test_kid_is_unbiased():
    """Two samples of one distribution: the mean over many draws lies within its own error of 0, for few vectors."""
    found = torch.tensor([kernel_distance(draws(6, 2, seed=2 * i), draws(6, 2, seed=2 * i + 1)) for i in range(2000)])
    assert abs(float(found.mean())) < 4 * float(found.std()) / math.sqrt(len(found))
    assert (found < 0).any()


# ---- precision and recall ----


def test_the_same_set_is_precise_and_whole():
    vectors = draws(30, 4)
    assert precision_recall(vectors, vectors) == (1.0, 1.0)


def test_sets_far_apart_have_neither():
    vectors = draws(30, 4)
    assert precision_recall(vectors, vectors + 100) == (0.0, 0.0)


def test_one_of_two_clusters_drawn_is_precise_but_not_whole():
    one, two = draws(20, 3) * 0.1, draws(20, 3, seed=1) * 0.1 + 50
    assert precision_recall(torch.cat([one, two]), one) == (1.0, 0.5)
    assert precision_recall(one, torch.cat([one, two])) == (0.5, 1.0)


@pytest.mark.parametrize(
    ("neighbours", "expected"),
    [
        # Of the drawn, 2.5 lies within 3 ± 2; of the true, all but 8 lie within -2 ± 4.5 or 2.5 ± 4.5.
        (1, (0.25, 0.75)),
        # -2 lies within 0 ± 3, 2.5 within several, 20 and 21 beyond 8 ± 7; all true ones lie within -2 ± 22.
        (2, (0.5, 1.0)),
    ],
)
def test_on_a_line_by_hand(neighbours, expected, monkeypatch):
    """True at 0, 1, 3, 8: the nearest others lie 1, 1, 2, 5 away, the second nearest 3, 2, 3, 7.

    Drawn at -2, 2.5, 20, 21: nearest 4.5, 4.5, 1, 1; second nearest 22, 17.5, 17.5, 18.5.
    """
    true, drawn = (torch.tensor(row)[:, None] for row in ([0.0, 1, 3, 8], [-2.0, 2.5, 20, 21]))
    assert precision_recall(true, drawn, neighbours) == expected
    monkeypatch.setattr("unclip.unclip_core.evaluate.manifolds.ROWS", 3)
    assert precision_recall(true, drawn, neighbours) == expected


# ---- refusals ----


@pytest.mark.parametrize("measure", [frechet_distance, kernel_distance, precision_recall])
def test_sets_that_do_not_go_together_are_refused(measure):
    with pytest.raises(ValueError, match=r"not \[4, 3\] and \[4, 2\]"):
        measure(draws(4, 3), draws(4, 2))
    with pytest.raises(ValueError, match="there are 9 and 1"):
        measure(draws(9, 3), draws(1, 3))
    with pytest.raises(ValueError, match="NaN or infinity"):
        measure(draws(9, 3), draws(9, 3).log())
    with pytest.raises(ValueError, match="neighbours must be 1 or more, not 0"):
        precision_recall(draws(9, 3), draws(9, 3), 0)
