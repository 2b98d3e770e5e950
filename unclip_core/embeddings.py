"""Arithmetic of CLIP's embedding space."""

import torch
from torch import Tensor

__all__ = ["cosine", "lerp", "normalize", "slerp"]


def normalize(x: Tensor) -> Tensor:
    """Return ``x`` [..., D] with rows of length 1.

    Raises ValueError for rows of length 0, NaN or infinity.
    """
    return x / _norms(x, "embedding").to(x.dtype)


def cosine(a: Tensor, b: Tensor) -> Tensor:
    """Return the cosine of the angle between rows of [..., D], in -1..1 and of shape [...].

    Raises as ``normalize``.
    """
    _check_pair(a, b)
    return (normalize(a) * normalize(b)).sum(-1).clamp(-1, 1)


def lerp(a: Tensor, b: Tensor, t: float | Tensor) -> Tensor:
    """Return ``(1 - t) * a + t * b`` for a, b [B, D]: [B, D] for a number t, [N, B, D] for t [N].

    Raises ValueError for shapes that disagree and a t outside 0..1.
    """
    a, b = _check_pair(a, b)
    weight = _weights(t, a)
    return torch.lerp(a.expand(*weight.shape[:-2], *a.shape), b, weight.to(a))


def slerp(a: Tensor, b: Tensor, t: float | Tensor) -> Tensor:
    """Return points between a and b [B, D] on a great circle: [B, D] for a number t, [N, B, D] for t [N].

    The angle grows linearly with t (Shoemake 1985; Ramesh et al. 2022, section 3.2, "interpolations"), and so
    does the length, from |a| to |b|. A batch of 1 serves all rows of the other. For opposite directions,
    where every great circle leads there, a fixed one is chosen. Computed in float64, returned in a's dtype on
    a's device.
    Raises ValueError for shapes that disagree, D < 2, a t outside 0..1, and rows of length 0, NaN or inf.
    """
    a, b = _check_pair(a, b)
    if a.ndim == 0 or a.shape[-1] < 2:
        raise ValueError(f"slerp needs rows of two numbers or more, got shape {tuple(a.shape)}")
    weight = _weights(t, a)
    start, end = a.to("cpu", torch.float64), b.to("cpu", torch.float64)
    length_a, length_b = _norms(start, "first embedding"), _norms(end, "second embedding")
    u, v = start / length_a, end / length_b
    angle = 2 * torch.atan2((u - v).norm(dim=-1, keepdim=True), (u + v).norm(dim=-1, keepdim=True))
    direction = torch.cos(weight * angle) * u + torch.sin(weight * angle) * _across(u, v)
    return (torch.lerp(length_a, length_b, weight) * direction).to(a)


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


def _norms(x: Tensor, what: str) -> Tensor:
    """Return the rows' lengths, float64 [..., 1]."""
    norms = x.to(torch.float64).norm(dim=-1, keepdim=True)
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
    """Return t as float64 [1, 1] or [N, 1, 1]."""
    weight = torch.as_tensor(t, dtype=torch.float64, device="cpu")
    if weight.ndim > 1 or not bool(((weight >= 0) & (weight <= 1)).all()):
        raise ValueError(f"interpolation needs numbers within 0..1, got {t}")
    return weight.reshape(*weight.shape, *([1] * a.ndim))
