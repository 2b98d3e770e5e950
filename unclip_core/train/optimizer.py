"""AdamW and Muon on float32 master weights with a moving average, for modules that compute in bfloat16."""

import math
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

MUON_SIDES = range(32, 257)
"""The shorter side of the matrices that Muon is worth its iterations for."""


class MasterOptimizer:
    """AdamW (Loshchilov & Hutter 2019), and on request Muon, on fp32 copies of a module's parameters.

    Muon (Jordan et al. 2024) updates hidden matrices, here also convolutions as matrices of out x (in * cells), by
    the nearest orthogonal matrix to their momentum, at AdamW's scale (Liu et al. 2025, section 2.2); AdamW does the
    rest. A pure bf16 module is faster on a CPU than autocast; its updates are far below bf16's resolution, so they are
    gathered in fp32 and copied back after each step. With an fp32 module the copies cost memory but change nothing.
    """

    def __init__(self, module: nn.Module, lr: float, weight_decay: float, ema: float, muon: bool = False) -> None:
        """Make the masters; `ema` is the decay of the moving average per step (0..1)."""
        named = [(name, p) for name, p in module.named_parameters() if p.requires_grad]
        self._names = [name for name, _ in named]
        self._parameters = [p for _, p in named]
        self._masters = [
            p.detach().float().clone(memory_format=torch.contiguous_format).requires_grad_(True)
            for p in self._parameters
        ]
        self._averages = [m.detach().clone() for m in self._masters]
        self._decay = ema
        self._hidden = [m for m in self._masters if muon and _is_hidden(m)]
        # Muon takes matrices; these share their memory with the masters.
        self._matrices = [m.detach().flatten(1).requires_grad_(True) for m in self._hidden]
        chosen = {id(m) for m in self._hidden}
        rest = [m for m in self._masters if id(m) not in chosen]
        groups = [
            {"params": [m for m in rest if m.ndim > 1], "weight_decay": weight_decay},
            {"params": [m for m in rest if m.ndim <= 1], "weight_decay": 0.0},
        ]
        self._optimizers: dict[str, torch.optim.Optimizer] = {
            "adam": torch.optim.AdamW(groups, lr=lr, betas=(0.9, 0.99), fused=True)
        }
        if self._matrices:
            self._optimizers["muon"] = torch.optim.Muon(
                self._matrices, lr=lr, weight_decay=weight_decay, adjust_lr_fn="match_rms_adamw"
            )

    def step(self, lr: float, step: int, max_norm: float = 1.0) -> Tensor:
        """Clip the gradients to `max_norm`, update with this `lr`, average, and return the gradients' norm."""
        for master, parameter in zip(self._masters, self._parameters, strict=True):
            master.grad = None if parameter.grad is None else parameter.grad.float()
            parameter.grad = None
        norm = torch.nn.utils.clip_grad_norm_(self._masters, max_norm, foreach=True)
        for matrix, master in zip(self._matrices, self._hidden, strict=True):
            matrix.grad = None if master.grad is None else master.grad.reshape(matrix.shape)
        for optimizer in self._optimizers.values():
            for group in optimizer.param_groups:
                group["lr"] = lr
            optimizer.step()
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
        return {
            "masters": [m.detach() for m in self._masters],
            "averages": self._averages,
            **{name: optimizer.state_dict() for name, optimizer in self._optimizers.items()},
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on from `state`, and put its masters into the module."""
        with torch.no_grad():
            torch._foreach_copy_(self._masters, list(state["masters"]))
            torch._foreach_copy_(self._averages, list(state["averages"]))
            torch._foreach_copy_(self._parameters, self._masters)
        for name, optimizer in self._optimizers.items():
            optimizer.load_state_dict(state[name])


def _is_hidden(master: Tensor) -> bool:
    return master.ndim > 1 and min(master.shape[0], master[0].numel()) in MUON_SIDES


def cosine_lr(step: int, steps: int, peak: float, warmup: int, floor: float = 0.01) -> float:
    """Linear warm-up to `peak`, then a half cosine to `floor * peak` at the last step."""
    if step < warmup:
        return peak * (step + 1) / warmup
    progress = min(1.0, (step - warmup) / max(1, steps - warmup))
    return peak * (floor + (1 - floor) * 0.5 * (1 + math.cos(math.pi * progress)))
