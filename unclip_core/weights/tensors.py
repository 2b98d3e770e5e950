"""Weight files as named tensors that stay on the disk until they are read: one file, shards, or a pickle.

Nothing is copied on opening: safetensors and zip-format pickles are mapped into memory, so that a tensor costs
memory only while, or if, it is cast.
"""

import re
import zipfile
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open
from torch import Tensor, nn

from ..parsing import checked
from .config_checks import is_file_name, read_table, refused
from .dtypes import as_float, is_finite, is_weight, kind_of, name_of, of_safetensors
from .files import CheckpointError, unreadable
from .meta_init import meta_init
from .torch_archive import check_archive, check_legacy

PICKLES = (".bin", ".ckpt", ".pt", ".pth", ".th")
_INDEX = re.compile(r"(?P<stem>.+)\.index(?P<variant>\.[^.]+)?\.json")
"""The name of an index of shards: "….safetensors.index.json", of a variant "….safetensors.index.fp16.json"."""
_SHARD = re.compile(r".+-\d{5}-of-\d{5}\.\w+")


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
    if not path.is_file():
        raise CheckpointError(f"Weights are missing: there is no file '{path}'.")
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
        CheckpointError: it is damaged, or asks for anything else.
    """
    if zipped := zipfile.is_zipfile(path):
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


def open_component(folder: Path) -> Tensors:
    """The weights of a component's folder: one .safetensors, its shards, or a .bin.

    Of several the plain one is taken, not a variant ("….fp16.safetensors"); a variant is taken if it stands alone.
    Shards that no index names count for nothing beside a whole file.

    Raises:
        CheckpointError: there are none, or a shard is missing.
    """
    for suffix in (".safetensors", ".bin"):
        found = {path for path in folder.glob(f"*{suffix}") if not path.name.startswith(".")}
        indexes = [path for path in folder.glob(f"*{suffix}.index*.json") if _INDEX.fullmatch(path.name)]
        shards = {path.parent / name for path in indexes for name in _weight_map(path).values()}
        strays = {path for path in found - shards if _SHARD.fullmatch(path.name)}
        if whole := [*indexes, *(found - shards - strays)]:
            plain = min(whole, key=lambda path: (_variants(path), path.name))
            return _open_shards(plain) if plain in indexes else open_file(plain)
        if strays:
            names = sorted(path.name for path in strays)
            raise CheckpointError(f"'{folder}' holds the shards {names[:3]}, but no index ('….index.json') of them.")
    raise CheckpointError(f"'{folder}' holds no weights: neither a .safetensors nor a .bin file is there.")


def _variants(path: Path) -> int:
    """How many variants ("fp16") a name states: 0 for the plain file or index."""
    index = _INDEX.fullmatch(path.name)
    name = f"{index['stem']}{index['variant'] or ''}" if index else path.name
    return name.count(".")


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


def _weight_map(index: Path) -> dict[str, str]:
    held = read_table(index).get("weight_map")
    with refused():
        weights: dict[str, str] = checked(dict[str, str], held, f"The weight_map of '{index}'")
    if outside := [name for name in weights.values() if not is_file_name(name)]:
        raise CheckpointError(f"'{index}' names files outside of its folder ({outside[:3]}): they are not read.")
    return weights


def _open_shards(index: Path) -> Tensors:
    weights = _weight_map(index)
    shards = {name: open_file(index.parent / name) for name in sorted(set(weights.values()))}
    for key, name in weights.items():
        if key not in shards[name].shapes:
            raise CheckpointError(f"'{index}' says that '{key}' is in '{name}', where it is not.")
    shapes = {key: shape for shard in shards.values() for key, shape in shard.shapes.items()}
    kinds = {key: kind for shard in shards.values() for key, kind in shard.kinds.items()}
    unlisted = {key: shard.source for shard in shards.values() for key in shard.shapes if key not in weights}
    files = {key: shards[name].source for key, name in weights.items()} | unlisted
    by_file = {shard.source: shard for shard in shards.values()}
    return Tensors(index.parent, shapes, lambda key: by_file[files[key]].read(key), files, kinds)


def fill(
    build: Callable[[], nn.Module],
    origin: Callable[[str], "Origin"],
    tensors: Tensors,
    dtype: torch.dtype | None,
    ignored: Iterable[str] = (),
    keep: Iterable[str] = (),
) -> nn.Module:
    """A net with the weights of `tensors`, each cast to `dtype` as it is read: no moment with two copies.

    With dtype None they stay as they are, so that all of them are mapped.

    Args:
        build: makes the net (on the meta device: no memory), or hands over one that was so made.
        origin: where the net's key stands in the source.
        ignored: endings of keys that a source may hold and nobody needs.
        keep: keys of the net that stay float32 (statistics).

    Raises:
        CheckpointError: keys are missing or unknown, or shapes differ, which is found before anything is read; or a
            tensor is damaged.
    """
    net, origins = planned(build, origin, tensors, ignored)
    kept = set(keep)
    state = {
        key: _cast(source.take(tensors.read(source.key)), torch.float32 if key in kept else dtype, key, tensors)
        for key, source in origins.items()
    }
    net.load_state_dict(state, assign=True)
    return net.eval().requires_grad_(False)


def planned(
    build: Callable[[], nn.Module], origin: Callable[[str], "Origin"], tensors: Tensors, ignored: Iterable[str] = ()
) -> tuple[nn.Module, dict[str, "Origin"]]:
    """The net on the meta device, and where each of its keys stands; no weights are read.

    Raises:
        CheckpointError: keys are missing or unknown, or shapes differ.
    """
    with meta_init():
        net = build()
    origins = {key: origin(key) for key in net.state_dict()}
    shapes = {key: tuple(value.shape) for key, value in net.state_dict().items()}
    needed = {(source.key, source.source_shape(shapes[key])) for key, source in origins.items()}
    check_keys(tensors, needed, tuple(ignored))
    return net, origins


def check_keys(tensors: Tensors, needed: Iterable[tuple[str, tuple[int, ...]]], ignored: tuple[str, ...] = ()) -> None:
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


def _cast(tensor: Tensor, dtype: torch.dtype | None, key: str, tensors: Tensors) -> Tensor:
    if tensor.dtype == dtype:
        return tensor
    cast = as_float(tensor, dtype)
    if dtype == torch.float16 and not is_finite(cast):
        raise CheckpointError(f"'{key}' of '{tensors.source}' holds values too large for float16: take bfloat16.")
    return cast


class Origin:
    """Where one tensor of a net stands in a source: its key there, and which part of that it is.

    Args:
        key: the source's key.
        part, parts: the source holds `parts` projections of equal size, interleaved by heads (of each head first the
            rows of part 0, then those of part 1 …), or `stacked` one after the other; this is number `part`.
        squeeze: a 1-wide convolution stands for a linear layer, so that the source's shape ends in one more 1.
        transpose: the source holds the matrix the other way round.
    """

    def __init__(
        self,
        key: str,
        *,
        part: int = 0,
        parts: int = 1,
        head_dim: int = 0,
        stacked: bool = False,
        squeeze: bool = False,
        transpose: bool = False,
    ) -> None:
        self.key, self.part, self.parts, self.head_dim = key, part, parts, head_dim
        self.stacked, self.squeeze, self.transpose = stacked, squeeze, transpose

    def source_shape(self, shape: tuple[int, ...]) -> tuple[int, ...]:
        """The shape that the source's tensor must have, for one of ours of `shape`."""
        shape = shape[::-1] if self.transpose else shape
        return (shape[0] * self.parts, *shape[1:], *([1] if self.squeeze else [])) if shape else shape

    def take(self, tensor: Tensor) -> Tensor:
        """Our tensor out of the source's."""
        if self.squeeze:
            tensor = tensor.squeeze(-1)
        if self.transpose:
            tensor = tensor.mT
        if self.parts == 1:
            return tensor
        if self.stacked:
            return tensor.chunk(self.parts)[self.part]
        return tensor.unflatten(0, (-1, self.parts, self.head_dim))[:, self.part].flatten(0, 1)
