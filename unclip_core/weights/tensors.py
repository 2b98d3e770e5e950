"""Weight files as named tensors that stay on the disk until they are read: safetensors, or a pickle.

Nothing is copied on opening: safetensors and zip-format pickles are mapped into memory, so that a tensor costs
memory only while, or if, it is cast.
"""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open
from torch import Tensor

from .dtypes import is_finite, is_weight, kind_of, name_of, of_safetensors
from .files import CheckpointError, unreadable
from .torch_archive import check_archive, check_legacy, is_archive

PICKLES = (".bin", ".ckpt", ".pt", ".pth", ".th")


class Tensors:
    """Named tensors of one source.

    Attributes:
        source: the file, or folder of shards, as errors name it.
        shapes: shape by key.
        metadata: what the header of a safetensors file says besides.
        kinds: by key the dtype, or the name of what no weights are (see `weights.dtypes`).
    """

    def __init__(
        self,
        source: Path,
        shapes: Mapping[str, tuple[int, ...]],
        read: Callable[[str], Tensor],
        files: Mapping[str, Path] | None = None,
        kinds: Mapping[str, torch.dtype | str] | None = None,
        metadata: Mapping[str, str] | None = None,
    ) -> None:
        self.source, self.shapes, self.kinds = source, dict(shapes), dict(kinds or {})
        self.metadata = metadata or {}
        self._read, self._files = read, files or {}

    def file(self, key: str) -> Path:
        """The file that holds `key`."""
        return self._files.get(key, self.source)

    def read(self, key: str) -> Tensor:
        """The tensor of `key`, mapped where the file allows it.

        Raises:
            CheckpointError: it is no weight, the bytes cannot be read, or hold NaN or infinity.
        """
        if not is_weight(kind := self.kinds.get(key, torch.float32)):
            raise CheckpointError(
                f"'{self.file(key)}' holds '{key}' as {name_of(kind)}: weights are dense and of floating point."
            )
        try:
            tensor = self._read(key)
        except CheckpointError:
            raise
        except Exception as error:  # whatever damaged bytes make of the reader
            raise CheckpointError(f"'{key}' cannot be read from '{self.file(key)}' ({error}).") from error
        if not is_finite(tensor):
            raise CheckpointError(f"'{self.file(key)}' holds NaN or infinity in '{key}': the file is damaged.")
        return tensor

    def only(self, wanted: Callable[[str], bool], extra: Mapping[str, Tensor] | None = None) -> "Tensors":
        """The same source with the keys that are `wanted` only, and with `extra` tensors from elsewhere."""
        extra = extra or {}
        shapes = {key: shape for key, shape in self.shapes.items() if wanted(key)}
        shapes |= {key: tuple(value.shape) for key, value in extra.items()}
        kinds = self.kinds | {key: kind_of(value) for key, value in extra.items()}
        read = self._read
        return Tensors(self.source, shapes, lambda key: extra[key] if key in extra else read(key), self._files, kinds)


def in_memory(source: Path, held: Mapping[str, Tensor]) -> Tensors:
    """Tensors that were unpickled already."""
    shapes = {key: tuple(value.shape) for key, value in held.items()}
    return Tensors(source, shapes, held.__getitem__, kinds={key: kind_of(value) for key, value in held.items()})


def open_file(path: Path) -> Tensors:
    """The tensors of one file: safetensors, or a pickle of tensors (read without running anything it holds).

    Raises:
        CheckpointError: the file is missing, truncated, no weight file, or holds more than tensors.
    """
    _need_file(path)
    if path.suffix == ".safetensors":
        return _open_safetensors(path)
    content = load_pickle(path)
    if isinstance(content, Mapping) and isinstance(content.get("state_dict"), Mapping):
        content = content["state_dict"]
    if not isinstance(content, Mapping) or not all(
        isinstance(key, str) and isinstance(value, Tensor) for key, value in content.items()
    ):
        raise CheckpointError(f"'{path}' holds no dictionary of tensors.")
    return in_memory(path, content)


def load_pickle(path: Path) -> Any:
    """What a pickle of torch holds, tensors mapped from the file; only tensors and plain containers are let in.

    Raises:
        CheckpointError: it is missing or damaged, or asks for anything else.
    """
    _need_file(path)
    if zipped := is_archive(path):
        check_archive(path)
    else:
        check_legacy(path)
    try:
        return torch.load(path, map_location="cpu", weights_only=True, mmap=zipped)
    except Exception as error:  # a pickle's bytes may make its reader raise anything
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise CheckpointError(
            f"'{path}' cannot be read as torch weights ({reason}): it is damaged, truncated "
            f"({path.stat().st_size:,} bytes), or holds more than tensors."
        ) from error


def _need_file(path: Path) -> None:
    if not path.is_file():
        raise CheckpointError(f"Weights are missing: there is no file '{path}'.")


def _open_safetensors(path: Path) -> Tensors:
    try:
        file = safe_open(path, framework="pt")
        slices = {key: file.get_slice(key) for key in file.keys()}  # noqa: SIM118
        shapes = {key: tuple(part.get_shape()) for key, part in slices.items()}
        kinds = {key: of_safetensors(part.get_dtype()) for key, part in slices.items()}
        metadata = file.metadata()
    except Exception as error:  # whatever a damaged header makes of the reader
        raise unreadable(path, error) from error
    return Tensors(path, shapes, file.get_tensor, kinds=kinds, metadata=metadata)
