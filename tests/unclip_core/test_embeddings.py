"""Arithmetic of embeddings: angles, lengths, and the cases without a direction."""

import math

import pytest
import torch

from unclip.unclip_core.embeddings import cosine, lerp, normalize, slerp

F64 = torch.float64
GENERATOR = torch.Generator().manual_seed(0)
A, B = (torch.randn(5, 64, generator=GENERATOR, dtype=F64) for _ in range(2))


def angle(a, b):
    """Half-angle formula: acos has lost half of the digits at 0 and pi."""
    u, v = (x / x.norm(dim=-1, keepdim=True) for x in (a, b))
    return 2 * torch.atan2((u - v).norm(dim=-1), (u + v).norm(dim=-1))


def test_normalize_gives_length_one_in_the_same_direction():
    result = normalize(3 * A)
    torch.testing.assert_close(result.norm(dim=-1), torch.ones(5, dtype=F64))
    torch.testing.assert_close(result * (3 * A).norm(dim=-1, keepdim=True), 3 * A)
    assert normalize(A.half()).dtype == torch.float16


def test_cosine_by_hand_and_within_one():
    a, b = torch.tensor([[3.0, 0.0], [1.0, 1.0], [2.0, 0.0]]), torch.tensor([[0.0, 5.0], [2.0, 2.0], [-1.0, 0.0]])
    torch.testing.assert_close(cosine(a, b), torch.tensor([0.0, 1.0, -1.0]))
    assert cosine(A, A).max() <= 1 and cosine(A[:, None], B).shape == (5, 5)


@pytest.mark.parametrize("t", [0.0, 0.25, 0.5, 0.9, 1.0])
def test_slerp_turns_evenly_and_its_length_grows_evenly(t):
    result = slerp(A, 3 * B, t)
    whole = angle(A, B)
    torch.testing.assert_close(angle(A, result), t * whole, rtol=0, atol=1e-14)
    torch.testing.assert_close(angle(result, B), (1 - t) * whole, rtol=0, atol=1e-14)
    length = (1 - t) * A.norm(dim=-1) + 3 * t * B.norm(dim=-1)
    torch.testing.assert_close(result.norm(dim=-1), length)


def test_slerp_is_shoemakes_formula():
    u, v = normalize(A), normalize(B)
    whole = angle(u, v)[:, None]
    expected = (torch.sin(0.3 * whole) * v + torch.sin(0.7 * whole) * u) / torch.sin(whole)
    torch.testing.assert_close(slerp(u, v, 0.3), expected)


def test_slerp_ends_where_it_should():
    torch.testing.assert_close(slerp(A, B, 0.0), A, rtol=0, atol=1e-13)
    torch.testing.assert_close(slerp(A, B, 1.0), B, rtol=0, atol=1e-13)


def test_many_points_come_first():
    t = torch.tensor([0.0, 0.5, 1.0])
    for blend in (slerp, lerp):
        result = blend(A, B, t)
        assert result.shape == (3, 5, 64)
        torch.testing.assert_close(result[1], blend(A, B, 0.5))
        torch.testing.assert_close(blend(A[:1], B, t), blend(A[:1].expand(5, 64), B, t))


@pytest.mark.parametrize("size", [1e-3, 1e-6, 1e-8, 1e-10, 1e-14, 0.0])
def test_slerp_of_near_parallels_stays_between_them(size):
    b = A + size * B
    result = slerp(A, b, 0.25)
    # the arc leaves the chord by less than the square of its angle, and rounding is 1e-16 of the length
    assert (result - (A + 0.25 * size * B)).abs().max().item() < 5 * size**2 + 1e-14


@pytest.mark.parametrize("size", [1e-3, 1e-6, 1e-8, 1e-10, 1e-14, 0.0])
def test_slerp_of_near_opposites_takes_a_way_around(size):
    b = -A + size * B
    points = slerp(A, b, torch.linspace(0, 1, 9))
    assert bool(torch.isfinite(points).all())
    torch.testing.assert_close(points[-1], b, rtol=0, atol=1e-13)
    turns = angle(points[:-1], points[1:])
    torch.testing.assert_close(turns, (angle(A, b) / 8).expand(8, 5), rtol=0, atol=1e-13)
    lengths = torch.lerp(A.norm(dim=-1), b.norm(dim=-1), torch.linspace(0, 1, 9, dtype=F64)[:, None])
    torch.testing.assert_close(points.norm(dim=-1), lengths)


def test_slerp_of_opposites_is_the_same_each_time_and_alone():
    assert torch.equal(slerp(A, -A, 0.5)[2:3], slerp(A[2:3], -A[2:3], 0.5))


def test_slerp_of_single_numbers_is_refused():
    with pytest.raises(ValueError, match=r"two numbers or more, got shape \(3, 1\)"):
        slerp(torch.ones(3, 1), -torch.ones(3, 1), 0.5)


def test_slerp_keeps_dtype_and_is_exact_in_single_precision():
    single = slerp(A.float(), B.float(), 0.4)
    assert single.dtype == torch.float32
    torch.testing.assert_close(single.double(), slerp(A.float().double(), B.float().double(), 0.4), rtol=0, atol=1e-6)
    assert slerp(A.half(), B.half(), 0.4).dtype == torch.float16


def test_lerp_is_the_straight_line():
    torch.testing.assert_close(lerp(A, B, 0.25), 0.75 * A + 0.25 * B)
    assert torch.equal(lerp(A, B, 0.0), A) and torch.equal(lerp(A, B, 1.0), B)


@pytest.mark.parametrize("bad", [0.0, math.nan, math.inf])
def test_rows_without_direction_are_refused(bad):
    broken = A.clone()
    broken[3] = bad
    for call in (lambda: slerp(A, broken, 0.5), lambda: slerp(broken, A, 0.5), lambda: normalize(broken),
                 lambda: cosine(A, broken)):
        with pytest.raises(ValueError, match="length 0, NaN or infinity"):
            call()


@pytest.mark.parametrize("t", [-0.1, 1.1, math.nan, torch.tensor([0.5, 2.0]), torch.zeros(2, 2)])
def test_positions_outside_the_way_are_refused(t):
    for blend in (slerp, lerp):
        with pytest.raises(ValueError, match="0..1"):
            blend(A, B, t)


def test_embeddings_of_different_width_are_refused_with_both_shapes():
    for call in (lambda: slerp(A, B[:, :9], 0.5), lambda: lerp(A, B[:, :9], 0.5), lambda: cosine(A, B[:, :9])):
        with pytest.raises(ValueError, match=r"\(5, 64\) and \(5, 9\)"):
            call()
