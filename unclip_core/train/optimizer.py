"""AdamW on float32 master weights with an exponential moving average, for modules that compute in bfloat16."""

import math
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn


class MasterAdamW:
    """AdamW (Loshchilov & Hutter 2019) on fp32 copies of a module's parameters.

    A pure bf16 module is faster on a CPU than autocast; its updates are far below bf16's resolution, so they are
    gathered in fp32 and copied back after each step. With an fp32 module the copies cost memory but change nothing.
    """

    def __init__(self, module: nn.Module, lr: float, weight_decay: float, ema: float) -> None:
        """Make the masters; `ema` is the decay of the moving average per step (0..1)."""
        named = [(name, p) for name, p in module.named_parameters() if p.requires_grad]
        self._names = [name for name, _ in named]
        self._parameters = [p for _, p in named]
        self._masters = [p.detach().float().clone().requires_grad_(True) for p in self._parameters]
        self._averages = [m.detach().clone() for m in self._masters]
        self._decay = ema
        matrices = [m for m in self._masters if m.ndim > 1]
        vectors = [m for m in self._masters if m.ndim <= 1]
        groups = [{"params": matrices, "weight_decay": weight_decay}, {"params": vectors, "weight_decay": 0.0}]
        self._adam = torch.optim.AdamW(groups, lr=lr, betas=(0.9, 0.99), fused=True)

    def step(self, lr: float, step: int, max_norm: float = 1.0) -> Tensor:
        """Clip the gradients to `max_norm`, update with this `lr`, average, and return the gradients' norm."""
        for master, parameter in zip(self._masters, self._parameters, strict=True):
            master.grad = None if parameter.grad is None else parameter.grad.float()
            parameter.grad = None
        norm = torch.nn.utils.clip_grad_norm_(self._masters, max_norm, foreach=True)
        for group in self._adam.param_groups:
            group["lr"] = lr
        self._adam.step()
        with torch.no_grad():
            torch._foreach_copy_(self._parameters, self._masters)
            # A young average forgets faster, so that it is not made of the initial noise (Karras et al. 2022).
            decay = min(self._decay, (1 + step) / (10 + step))
            torch._foreach_lerp_(self._averages, [m.detach() for m in self._masters], 1 - decay)
        return norm

    def averages(self) -> dict[str, Tensor]:
        """The averaged parameters by name, fp32."""
        return dict(zip(self._names, self._averages, strict=True))

    def masters(self) -> dict[str, Tensor]:
        """The parameters as trained by name, fp32."""
        return {name: m.detach() for name, m in zip(self._names, self._masters, strict=True)}

    def state_dict(self) -> dict[str, Any]:
        """Everything needed to go on: masters, averages, moments."""
        return {"masters": [m.detach() for m in self._masters], "averages": self._averages,
                "adam": self._adam.state_dict()}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on from `state`, and put its masters into the module."""
        with torch.no_grad():
            torch._foreach_copy_(self._masters, list(state["masters"]))
            torch._foreach_copy_(self._averages, list(state["averages"]))
            torch._foreach_copy_(self._parameters, self._masters)
        self._adam.load_state_dict(state["adam"])


def cosine_lr(step: int, steps: int, peak: float, warmup: int, floor: float = 0.01) -> float:
    """Linear warm-up to `peak`, then a half cosine to `floor * peak` at the last step."""
    if step < warmup:
        return peak * (step + 1) / warmup
    progress = min(1.0, (step - warmup) / max(1, steps - warmup))
    return peak * (floor + (1 - floor) * 0.5 * (1 + math.cos(math.pi * progress)))
