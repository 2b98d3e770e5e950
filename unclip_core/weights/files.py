"""Weight files: safetensors with the configuration in the header, written whole or not at all, read strictly."""

import json
import os
import uuid
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from math import prod
from pathlib import Path
from typing import Any, BinaryIO

import torch
from safetensors import safe_open
from safetensors.torch import save
from torch import Tensor, nn

from ..parsing import MalformedInput, checked, parse_json
from .choices import DTYPE_NAMES
from .dtypes import FLOATS, as_float, is_finite, kind_of, name_of
from .replacing import put_in_place
from .rows8 import decode_rows

CONFIG_KEY = "config"


DTYPES = dict(zip(DTYPE_NAMES, (torch.float32, torch.float16, torch.bfloat16), strict=True))
"""The dtypes of weights, as commands and configurations name them."""


class CheckpointError(MalformedInput):
    """A weight file or model folder that cannot be used; the message names the file, the key and the shapes."""


@contextmanager
def whole_file(path: Path) -> Iterator[BinaryIO]:
    """A file to write that is whole or absent: written aside, flushed, then renamed to `path`.

    Raises:
        OSError: the disk is full, the folder cannot be written, or a program keeps the file that is there; nothing is
            left behind.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    aside = path.with_name(f".{uuid.uuid4().hex}.part")  # short: with the file's own name in it, it might be too long
    try:
        with open(aside, "wb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        put_in_place(aside, path)
    finally:
        aside.unlink(missing_ok=True)


def write_whole(path: Path, data: bytes) -> None:
    """Write `data` to `path`, whole or not at all.

    Raises:
        OSError: the disk is full or the folder cannot be written; nothing is left behind.
    """
    with whole_file(path) as file:
        file.write(data)


@dataclass(frozen=True)
class Entry:
    """One tensor to be written: its key, dtype and shape, and what makes it when its turn comes."""

    key: str
    dtype: torch.dtype
    shape: tuple[int, ...]
    make: Callable[[], Tensor]


_NAMES = {torch.float32: "F32", torch.float16: "F16", torch.bfloat16: "BF16", torch.int64: "I64"}


def stream_weights(path: str | Path, entries: Sequence[Entry], metadata: Mapping[str, str] | None = None) -> None:
    """Write safetensors at `path` one tensor at a time: never more than one of them in memory for it.

    Raises:
        OSError: the file could not be written; nothing is left behind.
        CheckpointError: a number is too large for its entry's dtype; nothing is left behind.
        ValueError: what an entry makes is not of the shape that it states.
    """
    header: dict[str, Any] = {"__metadata__": dict(metadata or {"format": "pt"})}
    end = 0
    for entry in entries:
        start, end = end, end + prod(entry.shape) * entry.dtype.itemsize
        header[entry.key] = {"dtype": _NAMES[entry.dtype], "shape": list(entry.shape), "data_offsets": [start, end]}
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    with whole_file(Path(path)) as file:
        file.write(len(text).to_bytes(8, "little") + text)
        for entry in entries:
            made = entry.make()
            cast = cast_weight(made, entry.dtype, entry.key, path) if entry.dtype.is_floating_point else made
            tensor = cast.to("cpu", entry.dtype).contiguous()
            if tuple(tensor.shape) != entry.shape:
                raise ValueError(f"'{entry.key}' is {list(tensor.shape)}, not the {list(entry.shape)} that it states.")
            file.write(tensor.reshape(-1).view(torch.uint8).numpy().data)


def save_weights(path: str | Path, tensors: Mapping[str, Tensor], config: Mapping[str, Any]) -> None:
    """Save `tensors` as safetensors at `path`, with `config` as JSON in the header.

    Raises:
        OSError: the file could not be written; nothing is left behind.
    """
    contiguous = {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}
    write_whole(Path(path), save(contiguous, metadata={CONFIG_KEY: json.dumps(config)}))


def cast_weight(tensor: Tensor, dtype: torch.dtype | None, name: str, source: str | Path) -> Tensor:
    """Cast a tensor as `as_float` does, and refuse what becomes infinite by it.

    Raises:
        CheckpointError: it holds finite numbers too large for `dtype`; the message has its name and the source.
    """
    cast = as_float(tensor, dtype)
    if cast.dtype == tensor.dtype or torch.finfo(cast.dtype).max >= torch.finfo(tensor.dtype).max or is_finite(cast):
        return cast
    if not is_finite(tensor):
        return cast  # it was so before: not for the cast to say
    other = ": take bfloat16" if cast.dtype == torch.float16 else ""
    raise CheckpointError(f"'{name}' of '{source}' holds values too large for {name_of(cast.dtype)}{other}.")


def cast_weights(
    tensors: Mapping[str, Tensor], dtype: torch.dtype | None, source: str | Path, keep: Collection[str] = ()
) -> dict[str, Tensor]:
    """Cast each tensor by `cast_weight`, those named in `keep` to float32; raises CheckpointError as there."""
    kept = frozenset(keep)
    return {
        name: cast_weight(tensor, torch.float32 if name in kept else dtype, name, source)
        for name, tensor in tensors.items()
    }


def load_weights(
    path: str | Path, dtype: torch.dtype | None = None, keep: Collection[str] = ()
) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Read a file written by `save_weights`: its tensors (floating ones cast to `dtype`) and its configuration.

    Matrices that `rows8` has coded come back as floating ones.

    Args:
        path: of the file.
        dtype: None leaves each as it is.
        keep: names of tensors that are float32 whatever the dtype (statistics).

    Raises:
        CheckpointError: the file is missing, truncated, corrupt, or carries no configuration, or a number is too large
            for `dtype`.
    """
    path = Path(path)
    if not path.is_file():
        raise CheckpointError(f"Weights are missing: there is no file '{path}'. Install the model again.")
    try:
        with safe_open(path, framework="pt") as file:
            metadata = file.metadata()
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    except Exception as error:  # whatever a damaged header makes of the reader
        raise unreadable(path, error) from error
    config = _header_config(path, metadata)
    tensors = decode_rows(tensors)
    for name, tensor in tensors.items():
        if tensor.dtype not in (*FLOATS, torch.int64):
            raise CheckpointError(
                f"'{path}' holds '{name}' as {name_of(kind_of(tensor))}: weights are of floating point, counts int64."
            )
        if not is_finite(tensor):
            raise CheckpointError(f"'{path}' holds NaN or infinity in '{name}': the file is damaged.")
    return cast_weights(tensors, dtype, path, keep), config


def unreadable(path: Path, error: Exception) -> CheckpointError:
    """The error for a file that safetensors refuses."""
    return CheckpointError(
        f"'{path}' cannot be read as safetensors ({error}). It is damaged or truncated "
        f"({path.stat().st_size:,} bytes): get the file again."
    )


def load_strictly(module: nn.Module, tensors: Mapping[str, Tensor], source: str | Path) -> None:
    """Put `tensors` into `module`, whose parameters may lie on the meta device; every key and shape must match.

    Raises:
        CheckpointError: keys are missing or unknown, or shapes differ; the first few are named with both shapes.
    """
    expected = module.state_dict()
    problems = [f"missing '{name}' {list(expected[name].shape)}" for name in expected if name not in tensors]
    problems += [f"unknown '{name}' {list(tensors[name].shape)}" for name in tensors if name not in expected]
    problems += [
        f"'{name}' has shape {list(tensors[name].shape)}, the model needs {list(expected[name].shape)}"
        for name in expected
        if name in tensors and tensors[name].shape != expected[name].shape
    ]
    problems += [
        f"'{name}' is {name_of(tensors[name].dtype)}, the model needs {name_of(expected[name].dtype)}"
        for name in expected
        if name in tensors and tensors[name].is_floating_point() != expected[name].is_floating_point()
    ]
    if problems:
        more = f" (and {len(problems) - 5} more)" if len(problems) > 5 else ""
        raise CheckpointError(f"'{source}' does not fit its configuration: {'; '.join(problems[:5])}{more}.")
    module.load_state_dict(dict(tensors), assign=True)


def _header_config(path: Path, metadata: Mapping[str, str] | None) -> dict[str, Any]:
    try:
        text = (metadata or {})[CONFIG_KEY]
        return checked(dict[str, Any], parse_json(text, f"The '{CONFIG_KEY}'"), f"The '{CONFIG_KEY}'")
    except (KeyError, MalformedInput) as error:
        raise CheckpointError(
            f"'{path}' carries no readable '{CONFIG_KEY}' in its safetensors header ({error}), so its shape is "
            "unknown. It was not written by this project's training or conversion."
        ) from error
