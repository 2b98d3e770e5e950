"""The gradients of one optimizer step: added up over its parts, their norm, and whether all was finite."""

import math
from collections.abc import Mapping, Sequence
from contextlib import nullcontext
from typing import Any

import torch
from torch import Tensor

from .batch_sources import Part


def accumulate_gradients(processes: Any, objective: Any, parts: Sequence[Part]) -> dict[str, Tensor]:
    """Add up the gradients of a step's parts; returns the parts' mean losses by name.

    Args:
        processes: accelerate's Accelerator, or `OneProcess`.
        objective: as `processes` prepared it.
        parts: of the step's batch, on the device.
    """
    values: dict[str, Tensor] = {}
    for number, part in enumerate(parts, start=1):
        last = number == len(parts)
        with nullcontext() if last else processes.no_sync(objective):
            found = objective(part)
            processes.backward(found["loss"] / len(parts))
        for name, value in found.items():
            values[name] = values.get(name, 0) + value.detach() / len(parts)
    return values


def norm_figures(processes: Any, stepper: Any, norm: Tensor) -> dict[str, Tensor]:
    """The gradients' norm; in fp16 also whether they overflowed, and the step was skipped for a smaller scale.

    stepper: the optimizer as `processes` prepared it.
    """
    if processes.scaler is None:
        return {"grad_norm": norm}
    skipped = torch.tensor(float(stepper.step_was_skipped), device=norm.device)
    return {"grad_norm": torch.where(skipped > 0, 0.0, norm), "skipped": skipped}


def check_finite(sums: Mapping[str, float], means: Mapping[str, float], step: int) -> None:
    """Raise FloatingPointError where the loss or its gradient was not finite in one of the steps up to `step`."""
    if not all(math.isfinite(sums.get(name, 0.0)) for name in ("loss", "grad_norm")):
        raise FloatingPointError(
            f"the loss of step {step} or its gradient is not finite, or that of one of the "
            f"{sums['steps']:.0f} steps up to it ({means}): "
            "lower training.lr, or train with another precision. The last checkpoint stands."
        )
