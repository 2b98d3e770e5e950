"""Transitions from a to b in frames: their inputs, the places of the frames between 0 and 1, and their order."""

from typing import Any

import torch
from torch import Tensor

from . import defaults, inputs
from .inputs import Number

T = Number("t", defaults.BLEND_MIN, defaults.BLEND_MAX, 0.01)
T_END = Number("t_end", defaults.BLEND_MIN, defaults.BLEND_MAX, 0.01)


def transition_inputs(one: str) -> dict[str, inputs.Widget]:
    """Return the inputs of a transition from a to b; `one` is what the tooltips call a single frame."""
    return {
        "t": T.widget(defaults.BLEND, "The place from a (0) to b (1), or of the first frame."),
        "frames": inputs.int_widget(
            defaults.FRAMES, 1, defaults.FRAMES_MAX, f"1: one {one}, at t. More: from t to t_end."
        ),
        "t_end": T_END.widget(defaults.BLEND_END, "With several frames: the place of the last one."),
    }


def check_transition(t: Any, frames: Any, t_end: Any) -> Tensor:
    """Return the places of a transition's frames between a (0) and b (1), float64 `[frames]`.

    Raises:
        InputError: a number is none, or out of its range.
    """
    return places(T.check(t), T_END.check(t_end), check_frames(frames))


def check_frames(frames: Any) -> int:
    """Return `frames` if it is a number of frames.

    Raises:
        InputError: it is not a whole number, or out of range.
    """
    return inputs.check_int("frames", frames, 1, defaults.FRAMES_MAX)


def places(start: float, end: float, frames: int) -> Tensor:
    """Space `frames` numbers from `start` to `end` in equal steps, both included: float64 `[frames]`."""
    return torch.linspace(start, start if frames == 1 else end, frames, dtype=torch.float64)


def sample_major(frames: Tensor) -> Tensor:
    """Reorder frames `[N, B, D]` to `[B * N, D]`: all of the first sample, then all of the second."""
    return frames.transpose(0, 1).flatten(0, 1)
