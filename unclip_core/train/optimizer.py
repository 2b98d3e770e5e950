"""The optimizer of every training: Muon for hidden matrices, AdamW for the rest; and the weights' average."""

import math
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from ..weights.computing import computing_dtype

SMALLEST = 32
"""The shorter side, from which on a matrix is worth Muon's iterations."""


class MuonAdamW(torch.optim.Optimizer):
    """Muon and AdamW over the parameters of a module, as one optimizer.

    Muon (Jordan et al. 2024) updates hidden matrices, here also convolutions as matrices of out x (in * cells), by
    the nearest orthogonal matrix to their momentum, at AdamW's scale (Liu et al. 2025, section 2.2). AdamW (Loshchilov
    & Hutter 2019) updates embeddings, vectors, and matrices too small or too large for that; without `muon`
    everything.

    Parameters of less than float32 get float32 masters: a bfloat16 module is faster on a CPU than autocast, but its
    updates are far below bfloat16's resolution, so they are gathered in the masters and copied back after each step.
    So do those that are channels last, of which Muon could not make matrices in place.
    Call `gather_gradients` before clipping: the gradients then lie on `param_groups`. Move the module to its device
    before.
    """

    def __init__(
        self,
        module: nn.Module,
        lr: float,
        weight_decay: float,
        betas: tuple[float, float] = (0.9, 0.999),
        muon: bool = True,
        max_side: int = 2048,
    ) -> None:
        """Sort the parameters that require gradients.

        Args:
            module: what is trained, on its device.
            lr: learning rate until `set_lr` is called.
            weight_decay: of matrices; vectors are not decayed.
            betas: AdamW's.
            muon: whether Muon updates the hidden matrices.
            max_side: the longest that the shorter side of a matrix may be for Muon, whose cost grows with its cube.

        Raises:
            ValueError: this torch has no Muon.
        """
        named = {name: p for name, p in module.named_parameters() if p.requires_grad}
        self._masters = {name: _master(p) for name, p in named.items()}
        self._copied = [(named[name], m) for name, m in self._masters.items() if m is not named[name]]
        super().__init__([{"params": list(self._masters.values())}], {"lr": lr})
        hidden = hidden_matrices(module, max_side) if muon else []
        self._hidden = [self._masters[name] for name in hidden]
        rest = [m for name, m in self._masters.items() if name not in set(hidden)]
        groups = [
            {"params": [m for m in rest if m.ndim > 1], "weight_decay": weight_decay},
            {"params": [m for m in rest if m.ndim <= 1], "weight_decay": 0.0},
        ]
        self._inner: dict[str, torch.optim.Optimizer] = {
            "adamw": torch.optim.AdamW(groups, lr=lr, betas=betas, fused=True)
        }
        # Muon takes matrices; these share their memory with the masters.
        self._matrices = [m.detach().flatten(1).requires_grad_(True) for m in self._hidden]
        self._precision: AbstractContextManager[Any] = nullcontext()
        if self._matrices:
            self._inner["muon"] = _muon(self._matrices, lr, weight_decay)
            if computing_dtype(torch.bfloat16, self._matrices[0].device) != torch.bfloat16:
                self._precision = _Float32ForBfloat16()

    @property
    def masters(self) -> dict[str, Tensor]:
        """The float32 parameters by name; those of a float32 module are its own."""
        return {name: m.detach() for name, m in self._masters.items()}

    def set_lr(self, lr: float) -> None:
        """Set the learning rate of the next step."""
        for optimizer in (self, *self._inner.values()):
            for group in optimizer.param_groups:
                group["lr"] = lr

    def gather_gradients(self) -> None:
        """Move the gradients of parameters that are no masters themselves to theirs: in float32, and laid out alike.

        torch's fused AdamW takes number after number as they lie in memory, whatever their places are.
        """
        for parameter, master in self._copied:
            master.grad = None if parameter.grad is None else parameter.grad.float().contiguous()
            parameter.grad = None

    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> None:
        """Update the masters by their gradients, and the parameters by the masters."""
        for matrix, master in zip(self._matrices, self._hidden, strict=True):
            matrix.grad = None if master.grad is None else master.grad.reshape(matrix.shape)
        with self._precision:
            for optimizer in self._inner.values():
                optimizer.step()
        self.copy_back()

    @torch.no_grad()
    def copy_back(self) -> None:
        """Round the masters to the parameters that they stand for."""
        if self._copied:
            parameters, masters = zip(*self._copied, strict=True)
            torch._foreach_copy_(list(parameters), list(masters))

    def zero_grad(self, set_to_none: bool = True) -> None:
        """Drop all gradients."""
        super().zero_grad(set_to_none)
        for parameter, _ in self._copied:
            parameter.grad = None

    def state_dict(self) -> dict[str, Any]:
        """The moments, by inner optimizer; the masters are kept by whoever keeps the weights."""
        return {name: optimizer.state_dict() for name, optimizer in self._inner.items()}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on from these moments. Raises KeyError where they are of another choice of optimizers."""
        for name, optimizer in self._inner.items():
            optimizer.load_state_dict(state[name])


class _Float32ForBfloat16(TorchFunctionMode):
    """Gives torch's Muon float32 where it asks for bfloat16 to iterate in, which a CPU without it emulates.

    A matrix of 512 x 512 takes 76 ms in place of 2,318 (one thread, AMD EPYC with AVX2).
    """

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func is torch.Tensor.bfloat16:
            return args[0].float().clone()  # as a copy, which Muon goes on to divide in place
        return func(*args, **(kwargs or {}))


class WeightAverage:
    """The exponential moving average of named weights, float32."""

    def __init__(self, weights: Mapping[str, Tensor], decay: float) -> None:
        """Begin at `weights`; `decay` is per step, 0..1."""
        self.tensors = {name: tensor.detach().float().clone() for name, tensor in weights.items()}
        self._decay = decay

    @torch.no_grad()
    def update(self, weights: Mapping[str, Tensor], step: int) -> None:
        """Move towards the weights after step number `step` (the first is 1).

        A young average forgets faster, so that it is not made of the initial weights (Karras et al. 2022).
        """
        decay = min(self._decay, step / (9 + step))
        torch._foreach_lerp_(list(self.tensors.values()), [weights[name] for name in self.tensors], 1 - decay)


def hidden_matrices(module: nn.Module, max_side: int) -> list[str]:
    """The names of the trained parameters that Muon updates: matrices and convolutions that are no embeddings."""
    tables = {id(m.weight) for m in module.modules() if isinstance(m, nn.Embedding)}
    return [
        name
        for name, p in module.named_parameters()
        if p.requires_grad
        and p.ndim > 1
        and SMALLEST <= min(p.shape[0], p[0].numel()) <= max_side
        and id(p) not in tables
        and not name.endswith("embedding")
    ]


def cosine_lr(
    step: int, steps: int, peak: float, warmup: int, share_of_time: float = 0.0, floor: float = 0.01
) -> float:
    """Linear warm-up to `peak`, then a half cosine to `floor * peak` at the end.

    Args:
        step: the step, from 0 on.
        steps: at which the cosine ends; 0 where time alone ends it.
        peak: the largest learning rate.
        warmup: steps of warm-up.
        share_of_time: 0..1, how much of a limited time is over; the further of steps and time counts.
        floor: share of the peak at the end.
    """
    if step < warmup:
        return peak * (step + 1) / warmup
    share_of_steps = (step - warmup) / max(1, steps - warmup) if steps else 0.0
    progress = min(1.0, max(share_of_steps, share_of_time))
    return peak * (floor + (1 - floor) * 0.5 * (1 + math.cos(math.pi * progress)))


def _master(parameter: nn.Parameter) -> Tensor:
    if parameter.dtype == torch.float32 and parameter.is_contiguous():
        return parameter
    return parameter.detach().float().clone(memory_format=torch.contiguous_format).requires_grad_(True)


def _muon(matrices: list[Tensor], lr: float, weight_decay: float) -> torch.optim.Optimizer:
    if not hasattr(torch.optim, "Muon"):
        raise ValueError(
            f'training.optimizer "muon" needs torch 2.9 or later, and this is {torch.__version__}: '
            'write optimizer = "adamw".'
        )
    return torch.optim.Muon(matrices, lr=lr, weight_decay=weight_decay, adjust_lr_fn="match_rms_adamw")
