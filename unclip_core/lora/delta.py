"""LoRA: low-rank changes of a prior's or a decoder's weights, added with a strength.

W' = W + strength · (alpha / r) · B A, with A `[r, in]` and B `[out, r]` (Hu et al. 2021, arXiv 2106.09685, section
4.1); of a convolution A is `[r, in, k, k]` and B `[out, r, 1, 1]`. `lora.files` reads and writes the files.
"""

import copy
import math
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from itertools import chain
from pathlib import Path
from typing import TypeVar

import torch
from torch import Tensor, nn

from ..models import Decoder, Prior
from ..nets.decoder import DecoderNet
from ..nets.prior import PriorTransformer
from ..weights.files import CheckpointError

STAGES: dict[str, type[nn.Module]] = {"prior": PriorTransformer, "decoder": DecoderNet}
"""The parts that can be adapted, and their nets."""

Net = TypeVar("Net", bound=nn.Module)
Adaptable = TypeVar("Adaptable", Prior, Decoder)


@dataclass(frozen=True, eq=False)
class Lora:
    """The adapters of one file, on the CPU.

    Attributes:
        source: the file, as errors name it.
        stage: "prior" or "decoder".
        family: the model family that it was trained for; None where the file does not say, as peft's own do not.
        factors: A and B by the name of the module whose weight they change.
        scales: alpha / r (or what the file's configuration makes of them) by the same names.
    """

    source: Path
    stage: str
    family: str | None
    factors: Mapping[str, tuple[Tensor, Tensor]]
    scales: Mapping[str, float]

    def delta(self, module: str, device: torch.device, dtype: torch.dtype) -> Tensor:
        """scale · B A, the change of a module's weight at strength 1: `[out, in]`, or `[out, in, k, k]`."""
        a, b = (factor.to(device, dtype) for factor in self.factors[module])
        return (b.flatten(1) @ a.flatten(1)).view(len(b), *a.shape[1:]) * self.scales[module]


Change = tuple[Lora, float]
"""A LoRA and its strength: 0 changes nothing, 1 is what was trained, below 0 leads away from it."""


def stage_of(net: nn.Module) -> str:
    """The stage that a net belongs to, a name in `STAGES`.

    Raises:
        ValueError: it is neither a prior's nor a decoder's.
    """
    for stage, kind in STAGES.items():
        if isinstance(net, kind):
            return stage
    raise ValueError(f"A {type(net).__name__} takes no LoRA: only nets of {' and '.join(STAGES)} do.")


def check_fits(lora: Lora, part: Prior | Decoder) -> None:
    """Refuse a LoRA of another stage or family, or with modules or shapes that the part's net has not.

    Raises:
        CheckpointError: it does not fit; the message names the file, the key and both shapes.
    """
    stage = stage_of(part.net)
    if lora.stage != stage:
        raise CheckpointError(f"'{lora.source}' is a LoRA for the {lora.stage}, not for the {stage}.")
    if lora.family not in (None, part.family):
        raise CheckpointError(
            f"'{lora.source}' was trained for the model family '{lora.family}'; this {stage} is of "
            f"'{part.family}', whose weights mean something else. Load the model it was trained on."
        )
    check_shapes(lora, part.net)


def check_shapes(lora: Lora, net: nn.Module) -> None:
    """Refuse a LoRA with modules or shapes that the net has not.

    Raises:
        CheckpointError: the first few of those are named, with both shapes.
    """
    weights = _weights(net)
    problems = []
    for name, (a, b) in lora.factors.items():
        if name not in weights:
            problems.append(f"'{name}' is no layer of it")
            continue
        made, wanted = [len(b), *a.shape[1:]], list(weights[name].shape)
        if made != wanted:
            problems.append(
                f"'{name}': A {list(a.shape)} and B {list(b.shape)} change a weight of {made}, "
                f"the {lora.stage}'s is {wanted}"
            )
    if problems:
        more = f" (and {len(problems) - 5} more)" if len(problems) > 5 else ""
        raise CheckpointError(f"'{lora.source}' does not fit this {lora.stage}: {'; '.join(problems[:5])}{more}.")


def apply_lora(part: Adaptable, lora: Lora, strength: float) -> Adaptable:
    """The part with the LoRA added; its unchanged tensors are those of the part given, which stays as it is.

    Raises:
        CheckpointError: the LoRA does not fit.
        ValueError: the strength is not finite.
    """
    check_fits(lora, part)
    net = with_loras(part.net, [(lora, strength)])
    return part if net is part.net else replace(part, net=net)


def with_loras(net: Net, changes: Sequence[Change]) -> Net:
    """A copy of the net with all `changes` added; it shares every tensor that they leave alone.

    Where nothing changes (no LoRA, or all of strength 0) it is the net itself.

    Raises:
        ValueError: a strength is not finite.
    """
    if not effective(changes):
        return net
    twin = shared_copy(net)
    _fill(twin, net, changes)
    return twin


def effective(changes: Sequence[Change]) -> list[Change]:
    """Those of the changes that change something.

    Raises:
        ValueError: a strength is not finite.
    """
    for lora, strength in changes:
        if not math.isfinite(strength):
            raise ValueError(f"The strength of '{lora.source}' is {strength}; it must be a finite number.")
    return [change for change in changes if change[1] != 0]


def shared_copy(net: Net) -> Net:
    """A copy of the modules that holds the very same parameters and buffers.

    What else hangs on the modules (a host's own notes on them, say) is not looked into.
    """
    twin = copy.copy(net)
    twin._parameters, twin._buffers = dict(net._parameters), dict(net._buffers)
    children = net._modules.items()
    twin._modules = {name: None if child is None else shared_copy(child) for name, child in children}
    return twin


@contextmanager
def filled(twin: nn.Module, net: nn.Module, changes: Sequence[Change]) -> Iterator[None]:
    """While the context lasts, `twin` (a `shared_copy` of `net`) holds the net's tensors with the `changes` added.

    They are computed on the device where the net lies, and given up at the end; `net` is never touched.
    """
    _fill(twin, net, effective(changes))
    try:
        yield
    finally:
        _fill(twin, net, ())


def changed_bytes(net: nn.Module, changes: Sequence[Change]) -> int:
    """The size of the weights that `changes` make anew, which a net with them needs beside its own."""
    names = {name for lora, _ in effective(changes) for name in lora.factors}
    return sum(weight.numel() * weight.element_size() for name, weight in _weights(net).items() if name in names)


def _weights(net: nn.Module) -> dict[str, Tensor]:
    """The weights that can be adapted, by the names of their layers: those of linear layers and convolutions."""
    return {name: layer.weight for name, layer in net.named_modules() if isinstance(layer, nn.Linear | nn.Conv2d)}


@torch.no_grad()
def _fill(twin: nn.Module, net: nn.Module, changes: Sequence[Change]) -> None:
    """Make every parameter and buffer of `twin` the net's own, but for the weights that `changes` change."""
    layers = dict(twin.named_modules())
    for name, layer in net.named_modules():
        layers[name]._parameters.update(layer._parameters)
        layers[name]._buffers.update(layer._buffers)
    for name in dict.fromkeys(chain.from_iterable(lora.factors for lora, _ in changes)):
        layer = layers[name]
        layer.weight = nn.Parameter(_changed(layer.weight, name, changes), requires_grad=False)


def _changed(weight: Tensor, name: str, changes: Sequence[Change]) -> Tensor:
    """A weight with all that `changes` add to it, summed in float32 at least and rounded once."""
    dtype = torch.promote_types(weight.dtype, torch.float32)
    total = weight.to(dtype)
    for lora, strength in changes:
        if name in lora.factors:
            total = total + strength * lora.delta(name, weight.device, dtype)
    return total.to(weight.dtype)
