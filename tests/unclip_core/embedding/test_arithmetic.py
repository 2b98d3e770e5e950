"""Arithmetic of embeddings: angles, lengths, and the cases without a direction."""

import math

import pytest
import torch

from unclip.unclip_core.embedding.arithmetic import (
    SameDirection,
    blend,
    cosine,
    lerp,
    nlerp,
    normalize,
    similarity,
    slerp,
    text_diff,
)

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
    for between in (slerp, lerp, nlerp):
        result = between(A, B, t)
        assert result.shape == (3, 5, 64)
        torch.testing.assert_close(result[1], between(A, B, 0.5))
        torch.testing.assert_close(between(A[:1], B, t), between(A[:1].expand(5, 64), B, t))


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
    for call in (
        lambda: slerp(A, broken, 0.5),
        lambda: slerp(broken, A, 0.5),
        lambda: normalize(broken),
        lambda: cosine(A, broken),
    ):
        with pytest.raises(ValueError, match="length 0, NaN or infinity"):
            call()


@pytest.mark.parametrize("t", [-0.1, 1.1, math.nan, torch.tensor([0.5, 2.0]), torch.zeros(2, 2)])
def test_positions_outside_the_way_are_refused(t):
    for between in (slerp, lerp, nlerp):
        with pytest.raises(ValueError, match="0..1"):
            between(A, B, t)


def test_embeddings_of_different_width_are_refused_with_both_shapes():
    for call in (lambda: slerp(A, B[:, :9], 0.5), lambda: lerp(A, B[:, :9], 0.5), lambda: cosine(A, B[:, :9])):
        with pytest.raises(ValueError, match=r"\(5, 64\) and \(5, 9\)"):
            call()


# ---- nlerp ----


@pytest.mark.parametrize("t", [0.0, 0.2, 0.5, 0.9, 1.0])
def test_nlerp_has_the_direction_of_the_straight_line_and_the_length_of_slerp(t):
    result, line = nlerp(A, 3 * B, t), (1 - t) * normalize(A) + t * normalize(B)
    torch.testing.assert_close(angle(result, line), torch.zeros(5, dtype=F64), rtol=0, atol=1e-14)
    torch.testing.assert_close(result.norm(dim=-1), slerp(A, 3 * B, t).norm(dim=-1))


def test_nlerp_meets_slerp_at_the_ends_and_halfway_and_nowhere_else():
    t = torch.tensor([0.0, 0.25, 0.5, 1.0])
    straight, round_ = nlerp(A, B, t), slerp(A, B, t)
    torch.testing.assert_close(straight[[0, 2, 3]], round_[[0, 2, 3]], rtol=0, atol=1e-13)
    assert (straight[1] - round_[1]).abs().max() > 1e-3


def test_nlerp_of_opposites_names_slerp():
    with pytest.raises(ValueError, match="use slerp"):
        nlerp(A, -A, 0.5)
    with pytest.raises(ValueError, match="row 4: "):
        nlerp(A, torch.cat([B[:3], -A[3:]]), torch.tensor([0.1, 0.5]))
    assert bool(torch.isfinite(nlerp(A, -A, 0.25)).all())


# ---- blend ----


def test_a_blend_is_the_weighted_mean_of_directions_at_the_weighted_mean_length():
    c, weights = A.flip(0) + B, [2.0, -1.0, 0.5]
    result = blend([A, B, c], weights)
    mean = 2 * normalize(A) - normalize(B) + 0.5 * normalize(c)
    length = (2 * A.norm(dim=-1) + B.norm(dim=-1) + 0.5 * c.norm(dim=-1)) / 3.5
    torch.testing.assert_close(result, length[:, None] * normalize(mean))
    torch.testing.assert_close(blend([A, B, c], [10 * w for w in weights]), result)


def test_equal_parts_of_two_are_halfway_and_one_alone_is_itself():
    torch.testing.assert_close(blend([A, B], [3.0, 3.0]), slerp(A, B, 0.5))
    torch.testing.assert_close(blend([A, B], [0.7, 0.0]), A)
    torch.testing.assert_close(blend([A[:1], B], [1.0, 2.0]), blend([A[:1].expand(5, -1), B], [1.0, 2.0]))
    assert blend([A.float(), B.float()], [1.0, 1.0]).dtype == torch.float32


@pytest.mark.parametrize(
    ("embeds", "weights", "words"),
    [
        ([], [], "at least one"), ([A, B], [1.0], "2 and 1"), ([A, B], [0.0, 0.0], "not all 0"),
        ([A, B], [1.0, math.nan], "finite"), ([A, A], [1.0, -1.0], "cancel"), ([A, 0 * A], [1.0, 1.0], "length 0"),
        ([A, torch.cat([B[:2], A[2:]])], [1.0, -1.0], "row 3: "), ([A[0], A[0]], [1.0, -1.0], "row 1: "),
        ([A, B[:, :9]], [1.0, 1.0], "do not fit"), ([A, B[:2]], [1.0, 1.0], "do not fit"),
    ],
)  # fmt: skip
def test_blends_that_lead_nowhere_are_refused(embeds, weights, words):
    with pytest.raises(ValueError, match=words):
        blend(embeds, weights)


# ---- text diff ----


@pytest.mark.parametrize("theta", [0.0, 0.3, 1.0])
def test_a_text_diff_turns_a_share_of_the_angle_toward_the_difference(theta):
    before, after = 2 * A.flip(0), B.flip(0)
    toward = normalize(normalize(after) - normalize(before))
    turned = text_diff(3 * A, before, after, theta)
    torch.testing.assert_close(angle(A, turned), theta * angle(A, toward), rtol=0, atol=1e-13)
    torch.testing.assert_close(angle(turned, toward), (1 - theta) * angle(A, toward), rtol=0, atol=1e-13)
    torch.testing.assert_close(turned.norm(dim=-1), 3 * A.norm(dim=-1))


def test_text_diffs_of_batches_pair_up_and_thetas_come_first():
    thetas = torch.tensor([0.1, 0.4])
    frames = text_diff(A, B[:1], A[2:3], thetas)
    assert frames.shape == (2, 5, 64)
    torch.testing.assert_close(frames[1, 3:4], text_diff(A[3:4], B[:1], A[2:3], 0.4))
    torch.testing.assert_close(text_diff(A[:1], B, A.flip(0), 0.2)[4:], text_diff(A[:1], B[4:], A[:1], 0.2))


def test_texts_that_mean_the_same_have_no_difference():
    with pytest.raises(SameDirection, match="row 1: the two texts mean the same"):
        text_diff(A, B, 2 * B, 0.3)
    after = A.clone()
    after[[2, 4]] = 3 * B[[2, 4]]
    with pytest.raises(SameDirection) as caught:
        text_diff(A, B, after, torch.tensor([0.1, 0.4]))
    assert caught.value.row == 2
    with pytest.raises(ValueError, match="0..1"):
        text_diff(A, A, B, math.nan)


# ---- similarity ----


def test_similarity_is_every_cosine():
    a, b = torch.tensor([[3.0, 0.0], [1.0, 1.0]]), torch.tensor([[0.0, 2.0], [5.0, 0.0], [-1.0, -1.0]])
    half = math.sqrt(0.5)
    torch.testing.assert_close(similarity(a, b), torch.tensor([[0.0, 1.0, -half], [half, half, -1.0]]))
    with pytest.raises(ValueError, match="length 0"):
        similarity(a, 0 * b)
    with pytest.raises(ValueError, match="compared"):
        similarity(a, torch.ones(2, 3))
