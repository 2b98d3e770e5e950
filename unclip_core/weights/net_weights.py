"""Nets with the weights of a source: keys and shapes matched without memory, then tensor after tensor read."""

from collections.abc import Callable, Iterable

import torch
from torch import nn

from .dtypes import is_weight, name_of
from .files import CheckpointError, cast_weight
from .key_map import CheckpointKey, KeyMap
from .meta_init import meta_init
from .tensors import Tensors


def load_net(
    build: Callable[[], nn.Module],
    key_map: KeyMap,
    tensors: Tensors,
    dtype: torch.dtype | None,
    ignored: Iterable[str] = (),
    keep: Iterable[str] = (),
) -> nn.Module:
    """A net with the weights of `tensors`, each cast to `dtype` as it is read: no moment with two copies.

    With dtype None they stay as they are, so that all of them are mapped.

    Args:
        build: makes the net (on the meta device: no memory), or hands over one that was so made.
        key_map: where each of the net's keys stands in the source.
        ignored: endings of keys that a source may hold and nobody needs.
        keep: keys of the net that stay float32 (statistics).

    Raises:
        CheckpointError: keys are missing or unknown, or shapes differ, which is found before anything is read; or a
            tensor is damaged.
    """
    net, keys = match_keys(build, key_map, tensors, ignored)
    kept = set(keep)
    state = {
        key: cast_weight(
            source.take(tensors.read(source.key)), torch.float32 if key in kept else dtype, key, tensors.source
        )
        for key, source in keys.items()
    }
    net.load_state_dict(state, assign=True)
    return net.eval().requires_grad_(False)


def match_keys(
    build: Callable[[], nn.Module], key_map: KeyMap, tensors: Tensors, ignored: Iterable[str] = ()
) -> tuple[nn.Module, dict[str, CheckpointKey]]:
    """The net on the meta device, and where each of its keys stands; no weights are read.

    Raises:
        CheckpointError: keys are missing or unknown, or shapes differ.
    """
    with meta_init():
        net = build()
    keys = {key: key_map(key) for key in net.state_dict()}
    shapes = {key: tuple(value.shape) for key, value in net.state_dict().items()}
    needed = {(source.key, source.source_shape(shapes[key])) for key, source in keys.items()}
    _check(tensors, needed, tuple(ignored))
    return net, keys


def _check(tensors: Tensors, needed: Iterable[tuple[str, tuple[int, ...]]], ignored: tuple[str, ...]) -> None:
    """Refuse keys that are missing, unknown (other than `ignored` endings), misshapen, or no weights.

    Raises:
        CheckpointError: the first few are named, with both shapes.
    """
    wanted = dict(needed)
    problems = [f"missing '{key}' {list(shape)}" for key, shape in wanted.items() if key not in tensors.shapes]
    problems += [
        f"unknown '{key}' {list(shape)}"
        for key, shape in tensors.shapes.items()
        if key not in wanted and not key.endswith(tuple(ignored) or "\0")
    ]
    problems += [
        f"'{key}' has shape {list(tensors.shapes[key])} in '{tensors.file(key).name}', the model needs {list(shape)}"
        for key, shape in wanted.items()
        if key in tensors.shapes and tensors.shapes[key] != shape
    ]
    problems += [
        f"'{key}' is {name_of(tensors.kinds[key])}, weights are dense and of floating point"
        for key in wanted
        if not is_weight(tensors.kinds.get(key, torch.float32))
    ]
    if problems:
        more = f" (and {len(problems) - 5} more)" if len(problems) > 5 else ""
        said = "; ".join(sorted(problems)[:5])
        raise CheckpointError(f"'{tensors.source}' does not fit its configuration: {said}{more}.")
