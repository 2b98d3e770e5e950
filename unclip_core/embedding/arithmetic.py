"""Arithmetic of CLIP's embedding space."""

import math
from collections.abc import Sequence

import torch
from torch import Tensor

__all__ = ["blend", "cosine", "lerp", "nlerp", "normalize", "on_host", "similarity", "slerp", "text_diff"]
__all__ += ["SameDirection", "weighted_sum"]

_SAME = 1e-5
"""Lengths, next to 1, up to which a sum of directions counts as none: float32 rounding leaves about 1e-7."""


class SameDirection(ValueError):
    """Two texts have one direction, so that there is none from one to the other.

    Attributes:
        row: of the first such pair, from 0.
    """

    def __init__(self, row: int) -> None:
        """Name the row."""
        super().__init__(f"row {row + 1}: the two texts mean the same to CLIP, there is no direction between them")
        self.row = row


def on_host(x: Tensor) -> Tensor:
    """Return ``x`` as float64 on the CPU.

    In this order: `x.to("cpu", torch.float64)` casts where x lies, and Apple's and some of Intel's devices have no
    float64.
    """
    return x.cpu().double()


def normalize(x: Tensor) -> Tensor:
    """Return ``x`` `[..., D]` with rows of length 1.

    Raises:
        ValueError: rows of length 0, NaN or infinity.
    """
    return x / _norms(x, "embedding").to(x)


def cosine(a: Tensor, b: Tensor) -> Tensor:
    """Return the cosine of the angle between rows of `[..., D]`, in -1..1 and of shape `[...]`.

    Raises:
        ValueError: as ``normalize``.
    """
    _check_pair(a, b)
    return (normalize(a) * normalize(b)).sum(-1).clamp(-1, 1)


def lerp(a: Tensor, b: Tensor, t: float | Tensor) -> Tensor:
    """Return ``(1 - t) * a + t * b`` for a, b `[B, D]`: `[B, D]` for a number t, `[N, B, D]` for t `[N]`.

    Raises:
        ValueError: shapes that disagree and a t outside 0..1.
    """
    a, b = _check_pair(a, b)
    weight = _weights(t, a)
    return torch.lerp(a.expand(*weight.shape[:-2], *a.shape), b, weight.to(a))


def slerp(a: Tensor, b: Tensor, t: float | Tensor) -> Tensor:
    """Return points between a and b `[B, D]` on a great circle: `[B, D]` for a number t, `[N, B, D]` for t `[N]`.

    The angle grows linearly with t (Shoemake 1985; Ramesh et al. 2022, section 3.2, "interpolations"), and so
    does the length, from |a| to |b|. A batch of 1 serves all rows of the other. For opposite directions,
    where every great circle leads there, a fixed one is chosen. Computed in float64, returned in a's dtype on
    a's device.

    Raises:
        ValueError: shapes that disagree, D < 2, a t outside 0..1, or rows of length 0, NaN or inf.
    """
    a, b = _check_pair(a, b)
    if a.ndim == 0 or a.shape[-1] < 2:
        raise ValueError(f"slerp needs rows of two numbers or more, got shape {tuple(a.shape)}")
    weight = _weights(t, a)
    start, end = on_host(a), on_host(b)
    length_a, length_b = _norms(start, "first embedding"), _norms(end, "second embedding")
    u, v = start / length_a, end / length_b
    angle = 2 * torch.atan2((u - v).norm(dim=-1, keepdim=True), (u + v).norm(dim=-1, keepdim=True))
    direction = torch.cos(weight * angle) * u + torch.sin(weight * angle) * _across(u, v)
    return (torch.lerp(length_a, length_b, weight) * direction).to(a)


def nlerp(a: Tensor, b: Tensor, t: float | Tensor) -> Tensor:
    """Return points of the straight line between the directions of a and b `[B, D]`, renormalised: as ``slerp``.

    It stays on the same arc as slerp does and meets it at t = 0, 1/2 and 1, but turns fastest halfway; the length
    grows evenly from |a| to |b|. Shapes and errors as of ``slerp``; opposite directions have no middle and raise too.
    """
    a, b = _check_pair(a, b)
    weight = _weights(t, a)
    start, end = on_host(a), on_host(b)
    length_a, length_b = _norms(start, "first embedding"), _norms(end, "second embedding")
    line = torch.lerp(start / length_a, end / length_b, weight)
    if (row := _first_short(line)) is not None:
        raise ValueError(
            f"row {row + 1}: the straight line between opposite embeddings passes through zero; use slerp for them"
        )
    return (torch.lerp(length_a, length_b, weight) * normalize(line)).to(a)


def blend(embeds: Sequence[Tensor], weights: Sequence[float]) -> Tensor:
    """Return the weighted mean of the directions of several embeddings `[B, D]`, at their weighted mean length.

    ``z = L · norm(Σ w_i z_i / |z_i|)`` with ``L = Σ |w_i| |z_i| / Σ |w_i|``: a negative weight leads away from an
    embedding, and the common scale of the weights does not matter. A batch of 1 serves all rows of the others.
    Two embeddings in equal parts give what ``slerp`` gives halfway. Computed in float64, returned as the first.

    Raises:
        ValueError: no embeddings, counts that differ, weights that are not finite or all 0, shapes that disagree, rows
            of length 0, NaN or inf, or directions that cancel out.
    """
    if not embeds or len(embeds) != len(weights):
        raise ValueError(f"a blend needs one weight an embedding and at least one: {len(embeds)} and {len(weights)}")
    scale = torch.tensor([float(weight) for weight in weights], dtype=torch.float64)
    if not bool(torch.isfinite(scale).all()) or not bool(scale.any()):
        raise ValueError(f"weights of a blend must be finite and not all 0, got {list(weights)}")
    try:
        rows = torch.stack(torch.broadcast_tensors(*(on_host(each) for each in embeds)))
    except RuntimeError as error:
        raise ValueError(f"embeddings of shapes {[tuple(each.shape) for each in embeds]} do not fit") from error
    lengths = _norms(rows, "an embedding to blend")
    shares = (scale / scale.abs().sum()).view(-1, *[1] * (rows.ndim - 1))
    mean = (shares * rows / lengths).sum(0)
    if (row := _first_short(mean)) is not None:
        raise ValueError(
            f"row {row + 1}: these weights cancel the embeddings out, nothing is left to point anywhere: change one"
        )
    return ((shares.abs() * lengths).sum(0) * normalize(mean)).to(embeds[0])


def weighted_sum(embeds: Sequence[Tensor], weights: Sequence[float]) -> Tensor:
    """Return ``Σ w_i z_i`` of several embeddings `[B, D]`, as Kandinsky's `interpolate` mixes them.

    The weights are taken as they are, and the length that results is what it is; `blend` keeps the mean length. A batch
    of 1 serves all rows of the others.

    Raises:
        ValueError: no embeddings, counts that differ, weights that are not finite, or shapes that disagree.
    """
    if not embeds or len(embeds) != len(weights):
        raise ValueError(f"a sum needs one weight an embedding and at least one: {len(embeds)} and {len(weights)}")
    if not all(math.isfinite(weight) for weight in weights):
        raise ValueError(f"weights of a sum must be finite, got {list(weights)}")
    try:
        rows = torch.broadcast_tensors(*embeds)
    except RuntimeError as error:
        raise ValueError(f"embeddings of shapes {[tuple(each.shape) for each in embeds]} do not fit") from error
    return torch.stack([weight * row for weight, row in zip(weights, rows, strict=True)]).sum(0)


def text_diff(image: Tensor, before: Tensor, after: Tensor, theta: float | Tensor) -> Tensor:
    """Return image embeddings [B, D] turned toward what a text says beyond another: [B, D], or [N, B, D] for theta [N].

    ``z_θ = slerp(z_i, z_d, θ)`` with the text diff ``z_d = norm(z_t - z_t0)`` of the text embeddings ``after`` and
    ``before`` (Ramesh et al. 2022, section 3.3; there θ runs from 0 to between 0.25 and 0.5). The texts count by
    their directions, and the images keep their lengths.

    Raises:
        ValueError: as ``slerp``.
        SameDirection: the two texts have the same direction.
    """
    apart = normalize(on_host(after)) - normalize(on_host(before))
    if (row := _first_short(apart)) is not None:
        raise SameDirection(row)
    image = image.expand(len(apart), -1) if len(image) == 1 else image
    return slerp(image, (normalize(apart) * _norms(image, "image embedding")).to(image), theta)


def similarity(a: Tensor, b: Tensor) -> Tensor:
    """Return the cosine of every row of a `[A, D]` with every row of b `[B, D]`, float32 `[A, B]` in -1..1.

    Raises:
        ValueError: rows of different widths or without a direction.
    """
    if a.ndim != 2 or b.ndim != 2 or a.shape[1] != b.shape[1]:
        raise ValueError(f"embeddings of shapes {tuple(a.shape)} and {tuple(b.shape)} cannot be compared")
    u, v = (normalize(on_host(each)) for each in (a, b))
    return (u @ v.T).clamp(-1, 1).float()


def _across(u: Tensor, v: Tensor) -> Tensor:
    """Return unit rows orthogonal to ``u``, in the plane of ``u`` and ``v``.

    Where these are collinear there is no such plane: a fixed direction that depends on ``u`` alone is taken.
    """
    across = _reject(v, u)
    axis = torch.zeros_like(u).scatter_(-1, u.abs().argmin(-1, keepdim=True), 1.0)  # far from u
    across = torch.where(across.norm(dim=-1, keepdim=True) < 1e-15, axis, across)
    across = _reject(across / across.norm(dim=-1, keepdim=True), u)  # again: a short one was mostly rounding
    return across / across.norm(dim=-1, keepdim=True)


def _reject(x: Tensor, u: Tensor) -> Tensor:
    """Return what is left of rows ``x`` without their component along unit rows ``u``."""
    return x - (x * u).sum(-1, keepdim=True) * u


def _first_short(x: Tensor) -> int | None:
    """Return the first row, from 0, of ``x`` `[B, D]`, or of any of `[N, B, D]`, that has no length to speak of."""
    short = (x.norm(dim=-1) < _SAME).reshape(-1, x.shape[-2] if x.ndim > 1 else 1).any(0).nonzero()
    return int(short[0]) if len(short) else None


def _norms(x: Tensor, what: str) -> Tensor:
    """Return the rows' lengths, float64 `[..., 1]` on the CPU."""
    norms = on_host(x).norm(dim=-1, keepdim=True)
    if not bool((torch.isfinite(norms) & (norms > 0)).all()):
        raise ValueError(f"{what} has a row of length 0, NaN or infinity, which has no direction")
    return norms


def _check_pair(a: Tensor, b: Tensor) -> tuple[Tensor, Tensor]:
    """Return both with one shape, a batch of 1 spread; raises ValueError if they do not fit."""
    try:
        return torch.broadcast_tensors(a, b)
    except RuntimeError as error:
        raise ValueError(f"embeddings of shapes {tuple(a.shape)} and {tuple(b.shape)} do not fit") from error


def _weights(t: float | Tensor, a: Tensor) -> Tensor:
    """Return t as float64 [1, 1] or `[N, 1, 1]`, on the CPU."""
    weight = on_host(t) if isinstance(t, Tensor) else torch.as_tensor(t, dtype=torch.float64)
    if weight.ndim > 1 or not bool(((weight >= 0) & (weight <= 1)).all()):
        raise ValueError(f"interpolation needs numbers within 0..1, got {t}")
    return weight.reshape(*weight.shape, *([1] * a.ndim))
