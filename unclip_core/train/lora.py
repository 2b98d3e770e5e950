"""LoRA in training: a prior's or a decoder's net wrapped by Hugging Face's peft, its adapters saved and read back.

peft computes what the adapted layers do while they are trained; it is an optional extra. What it learned is added to
weights by `unclip_core.lora`, which needs no peft.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from ..lora.delta import check_shapes, stage_of
from ..lora.files import read_lora, write_lora
from ..nets.convolutions import Conv3x3
from ..nets.image_conditioner import ImageConditioner
from ..nets.layers import AddedKVAttention, ResBlock
from ..nets.linear import Conv1x1, Linear
from ..nets.map_conditioner import MapConditioner
from ..nets.prior import PriorBlock
from ..nets.token_conditioner import TokenConditioner
from ..weights.files import CheckpointError

ADAPTER = "default"
"""The name that peft knows our one adapter by."""

_PLAIN = (nn.Linear, Linear, nn.Conv2d, Conv3x3, Conv1x1)
"""Layers that give what their weight gives. FreeMap, a kind of Linear, lays its output out: peft cannot add to it."""

_BLOCKS: dict[str, tuple[type[nn.Module], ...]] = {
    "attention": (PriorBlock, AddedKVAttention),
    "mlp": (PriorBlock,),
    "conditioner": (TokenConditioner, MapConditioner, ImageConditioner),
    "blocks": (ResBlock,),
}
"""The modules that a group of targets lies in."""

_GROUPS: dict[str, tuple[str, ...]] = {"prior": ("attention", "mlp"), "decoder": ("attention", "conditioner", "blocks")}
"""The groups of targets by stage."""


def default_targets(net: nn.Module) -> tuple[str, ...]:
    """The groups that are adapted unless others are named.

    All of a prior's. Of a decoder's, how it hears of the embedding ("conditioner") and its attention; a decoder without
    attention, as the bundled one, has only its residual "blocks" (convolutions) to draw differently with.

    Raises:
        ValueError: the net is of no stage that takes LoRAs.
    """
    if stage_of(net) == "prior":
        return _GROUPS["prior"]
    attends = any(isinstance(module, AddedKVAttention) for module in net.modules())
    return ("conditioner", "attention" if attends else "blocks")


def target_modules(net: nn.Module, targets: Sequence[str] | None = None) -> list[str]:
    """The names of the layers of some groups, in the net's order.

    Args:
        net: a `PriorTransformer` or a `DecoderNet`.
        targets: of a prior "attention" (queries, keys, values, output) and "mlp"; of a decoder "attention" (with the
            context's keys and values), "conditioner" (its linear layers) and "blocks" (the residual blocks'
            convolutions, and how they hear of the time). None takes `default_targets`.

    Raises:
        ValueError: the stage has no such group, or the net has no layers in any of them.
    """
    stage = stage_of(net)
    chosen = default_targets(net) if targets is None else tuple(targets)
    if unknown := [group for group in chosen if group not in _GROUPS[stage]]:
        raise ValueError(f"Unknown LoRA targets {unknown}; those of a {stage} are {list(_GROUPS[stage])}.")
    names = {name for group in chosen for name in _layers_of(net, group)}
    if not names:
        raise ValueError(
            f"This {stage} has no layers in the LoRA targets {list(chosen)}; take others of {list(_GROUPS[stage])}."
        )
    return [name for name, _ in net.named_modules() if name in names]


def add_lora(
    net: nn.Module, rank: int = 16, alpha: float | None = None, targets: Sequence[str] | None = None
) -> list[str]:
    """Wrap layers of the net in place with peft's LoRA layers and freeze everything else.

    B starts at zero: the net computes what it did. Train the parameters that still require a gradient, float32.

    Args:
        net: a `PriorTransformer` or a `DecoderNet` without adapters.
        rank: r, the rank of the changes.
        alpha: their scale is alpha / r; None takes the rank, a scale of 1.
        targets: groups as in `target_modules`.

    Returns:
        The names of the wrapped layers.

    Raises:
        ValueError: rank, alpha or targets are not usable, or the net is wrapped already.
        MissingPeft: peft is not installed.
    """
    return _wrap(net, rank, float(rank) if alpha is None else alpha, target_modules(net, targets))


class MissingPeft(ValueError):
    """peft is not installed."""


def save_lora(path: str | Path, net: nn.Module, family: str, tensors: Mapping[str, Tensor] | None = None) -> None:
    """Save the adapters of a wrapped net as one safetensors file, whole or not at all.

    Args:
        path: the file, to be laid into `models/loras`.
        net: as `add_lora` left it, or trained further.
        family: the model family that the net belongs to.
        tensors: other values of its parameters under the names of its state dict, such as their moving averages.

    Raises:
        ValueError: the net has no adapters.
        OSError: the file could not be written; nothing is left behind.
    """
    layers = _wrapped(net)
    values = {**net.state_dict(), **(tensors or {})}
    factors = {
        name: tuple(values[f"{name}.lora_{letter}.{ADAPTER}.weight"].detach().cpu() for letter in "AB")
        for name in layers
    }
    layer = next(iter(layers.values()))
    write_lora(
        path,
        factors,
        family=family,
        stage=stage_of(net),
        rank=int(layer.r[ADAPTER]),
        alpha=float(layer.lora_alpha[ADAPTER]),
    )


def load_lora(path: str | Path, net: nn.Module, family: str) -> list[str]:
    """Wrap the net as the file's LoRA was, and fill its adapters: training goes on where the file was saved.

    Returns:
        The names of the wrapped layers.

    Raises:
        CheckpointError: the file is unreadable, for another family or stage, or does not fit the net.
        ValueError: the net is wrapped already.
        MissingPeft: peft is not installed.
    """
    lora = read_lora(path)
    if (lora.stage, lora.family) != (stage_of(net), family):
        raise CheckpointError(
            f"'{path}' is a LoRA for the {lora.stage} of the model family '{lora.family}'; the net "
            f"is the {stage_of(net)} of '{family}'."
        )
    check_shapes(lora, net)
    rank = len(next(iter(lora.factors.values()))[0])
    names = _wrap(net, rank, next(iter(lora.scales.values())) * rank, list(lora.factors))
    layers = _wrapped(net)
    with torch.no_grad():
        for name, (a, b) in lora.factors.items():
            layers[name].lora_A[ADAPTER].weight.copy_(a)
            layers[name].lora_B[ADAPTER].weight.copy_(b)
    return names


def lora_parameters(net: nn.Module) -> dict[str, nn.Parameter]:
    """What of a wrapped net is trained, by its name in the state dict.

    Raises:
        ValueError: the net has no adapters.
    """
    _wrapped(net)
    return {name: parameter for name, parameter in net.named_parameters() if parameter.requires_grad}


def _layers_of(net: nn.Module, group: str) -> list[str]:
    """The plain layers of a group, by name."""
    chosen: Callable[[str], bool] = {
        "attention": lambda name: not name.startswith("mlp"),
        "mlp": lambda name: name.startswith("mlp"),
        "conditioner": lambda name: True,
        "blocks": lambda name: True,
    }[group]
    return [
        f"{at}.{name}"
        for at, block in net.named_modules()
        if isinstance(block, _BLOCKS[group])
        for name, layer in block.named_modules()
        if type(layer) in _PLAIN and chosen(name)
    ]


def _wrap(net: nn.Module, rank: int, alpha: float, names: list[str]) -> list[str]:
    if isinstance(rank, bool) or not isinstance(rank, int) or rank < 1:
        raise ValueError(f"A LoRA's rank must be a whole number above 0, not {rank!r}.")
    if not math.isfinite(alpha) or alpha <= 0:
        raise ValueError(f"A LoRA's alpha must be a number above 0, not {alpha!r}.")
    peft = _peft()
    if any(isinstance(module, peft.tuners.lora.LoraLayer) for module in net.modules()):
        raise ValueError("This net has LoRA adapters already; add them to a net fresh from its file.")
    for name in names:
        if isinstance(net.get_submodule(name), Conv3x3):
            above, _, last = name.rpartition(".")
            setattr(net.get_submodule(above), last, _plain_convolution(net.get_submodule(name)))
    # A pattern, not a list: peft takes a list for the ends of names, and others may end alike.
    pattern = "|".join(name.replace(".", r"\.") for name in names)
    peft.inject_adapter_in_model(
        peft.LoraConfig(r=rank, lora_alpha=alpha, target_modules=pattern), net, adapter_name=ADAPTER
    )
    return list(_wrapped(net))


def _plain_convolution(fast: Conv3x3) -> nn.Conv2d:
    """torch's own convolution with the same parameters.

    peft makes a convolution's A and B of its own class, and Conv3x3 has but one shape. Its short ways only infer.
    """
    plain = nn.Conv2d(fast.in_channels, fast.out_channels, fast.kernel_size, padding=fast.padding, device="meta")
    plain.weight, plain.bias = fast.weight, fast.bias
    return plain.train(fast.training)


def _wrapped(net: nn.Module) -> dict[str, Any]:
    """peft's layers in the net, by the names of what they wrap."""
    kind = _peft().tuners.lora.LoraLayer
    layers = {name: module for name, module in net.named_modules() if isinstance(module, kind)}
    if not layers:
        raise ValueError("This net has no LoRA adapters: call add_lora first.")
    return layers


def _peft() -> Any:
    try:
        import peft
    except ImportError as error:
        raise MissingPeft(f"LoRAs are trained with peft ({error}): pip install peft.") from error
    return peft
