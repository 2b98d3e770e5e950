"""torch's zip archives, read without running anything that they hold.

`check_archive` looks at the directory of an archive before anybody reads it; `open_torchscript` takes the weights out
of a TorchScript archive, whose code `torch.jit.load` would compile and, in a module's `__setstate__`, run.
"""

import pickle
import re
import struct
import zipfile
from collections import OrderedDict
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from pickletools import genops
from typing import Any, NamedTuple

import torch
from torch import Tensor

from .files import CheckpointError

_STORAGES = {
    "FloatStorage": torch.float32,
    "HalfStorage": torch.float16,
    "BFloat16Storage": torch.bfloat16,
    "DoubleStorage": torch.float64,
    "LongStorage": torch.int64,
    "IntStorage": torch.int32,
    "ShortStorage": torch.int16,
    "CharStorage": torch.int8,
    "ByteStorage": torch.uint8,
    "BoolStorage": torch.bool,
}
_LISTS = {"build_intlist", "build_doublelist", "build_boollist", "build_tensorlist"}
_CODE_MAX = 64 << 20  # bytes of a TorchScript archive's code, which alone torch packs; OpenAI's CLIP has 0.3 MB
_LEGACY_PICKLES, _LEGACY_DATA = 4, 3  # magic number, protocol, system, data; storages follow
_LEGACY_SMALL = 1 << 16  # a number that costs nothing
_LOCAL_HEADER = 30  # bytes, before an entry's name
_STATE = re.compile(r"^ {2}__(?:parameters|buffers)__ = \[(.*)\]$")


class _Object:
    """What stands for an instance of a class of the archive: its attributes, and nothing that acts."""

    kind = ""
    attributes: Mapping[str, Any] = {}

    def __setstate__(self, state: object) -> None:
        if isinstance(state, dict):
            self.attributes = {name: value for name, value in state.items() if isinstance(name, str)}


class _Storage(NamedTuple):
    numbers: Tensor


def check_archive(path: Path) -> None:
    """Refuse an archive that unpacks to more than the file holds: torch packs nothing but TorchScript's code.

    Raises:
        CheckpointError: an entry is packed or larger than the file, or the directory is damaged.
    """
    code = 0
    for entry in _entries(path).values():
        if "/code/" in entry.filename:
            code += entry.file_size
        elif entry.compress_type != zipfile.ZIP_STORED or entry.file_size > path.stat().st_size:
            raise CheckpointError(
                f"'{path}' holds the entry '{entry.filename}' packed ({entry.compress_size:,} bytes for "
                f"{entry.file_size:,}), which torch never writes: it is not read."
            )
    if code > _CODE_MAX:
        raise CheckpointError(f"'{path}' holds {code:,} bytes of code, more than any model has: it is not read.")


def check_legacy(path: Path) -> None:
    """Refuse a file of torch before 1.6 that names storages larger than itself: torch makes room before it reads.

    Raises:
        CheckpointError: a number of its pickles is larger than the file, or the file cannot be read.
    """
    try:
        size = path.stat().st_size
        with open(path, "rb") as file:
            for number in range(_LEGACY_PICKLES):
                largest = max((abs(value) for _, value, _ in genops(file) if isinstance(value, int)), default=0)
                if number == _LEGACY_DATA and largest > max(size, _LEGACY_SMALL):
                    raise CheckpointError(
                        f"'{path}' of {size:,} bytes speaks of {str(largest)[:20]} numbers: it is damaged."
                    )
    except CheckpointError:
        raise
    except Exception as error:  # whatever damaged pickles make of the reader
        raise CheckpointError(f"'{path}' cannot be read as torch weights ({error}).") from error


def is_archive(path: Path) -> bool:
    """Whether the file is an archive, be it one that cannot be read: Python's own question may raise of such."""
    try:
        return zipfile.is_zipfile(path)
    except zipfile.BadZipFile:
        return True


def is_torchscript(path: Path) -> bool:
    """Whether the file is a TorchScript archive, as OpenAI published CLIP.

    Raises:
        CheckpointError: it is a damaged archive.
    """
    return is_archive(path) and any("/code/" in name for name in _entries(path))


def open_torchscript(path: Path) -> dict[str, Tensor]:
    """The parameters and buffers of a TorchScript archive by their keys, mapped from the file.

    Raises:
        CheckpointError: it is damaged, or holds what is no module of tensors.
    """
    check_archive(path)
    archive = _Archive(path)
    try:
        root = archive.unpickled()
        if not isinstance(root, _Object):
            raise pickle.UnpicklingError("it holds no module")
        return dict(_state(root, archive.state_names(), "", set()))
    except CheckpointError:
        raise
    except Exception as error:  # a pickle's bytes may make its reader raise anything
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise CheckpointError(f"'{path}' cannot be read as a TorchScript archive ({reason}).") from error


def _entries(path: Path) -> dict[str, zipfile.ZipInfo]:
    try:
        with zipfile.ZipFile(path) as archive:
            return {entry.filename: entry for entry in archive.infolist()}
    except Exception as error:  # whatever a damaged directory makes of the reader
        raise CheckpointError(f"'{path}' cannot be read as an archive of torch ({error}).") from error


class _Archive:
    """The entries of one archive, and the bytes behind them."""

    def __init__(self, path: Path) -> None:
        self.path, self.entries = path, _entries(path)
        size = path.stat().st_size
        self._bytes = torch.from_file(str(path), shared=False, size=size, dtype=torch.uint8)
        pickles = [name for name in self.entries if name.endswith("/data.pkl") and name.count("/") == 1]
        if len(pickles) != 1:
            raise CheckpointError(f"'{path}' is no TorchScript archive: it holds no data.pkl.")
        self.root = pickles[0].removesuffix("data.pkl")

    def unpickled(self) -> Any:
        """What data.pkl describes, as `_Object`s, tensors and plain containers."""
        with zipfile.ZipFile(self.path) as archive, archive.open(f"{self.root}data.pkl") as file:
            return _Unpickler(file, self.storage).load()

    def state_names(self) -> dict[str, frozenset[str]]:
        """Of each class of the archive's code, by its name, the attributes that are parameters or buffers."""
        found: dict[str, frozenset[str]] = {}
        with zipfile.ZipFile(self.path) as archive:
            for name in self.entries:
                if name.startswith(f"{self.root}code/") and name.endswith(".py"):
                    module = name.removeprefix(f"{self.root}code/").removesuffix(".py").replace("/", ".")
                    found |= dict(_names_in(module, archive.read(name).decode("utf-8", "replace")))
        return found

    def storage(self, key: str, dtype: torch.dtype) -> Tensor:
        """The numbers of the entry data/`key`, one-dimensional."""
        entry = self.entries[f"{self.root}data/{key}"]
        start = entry.header_offset
        header = bytes(self._bytes[start : start + _LOCAL_HEADER].numpy())
        name, extra = struct.unpack("<HH", header[26:30])
        start += _LOCAL_HEADER + name + extra
        data = self._bytes[start : start + entry.file_size]
        if len(data) != entry.file_size:
            raise ValueError(f"the entry data/{key} is cut short")
        aligned = (data.storage_offset() + data.data_ptr()) % dtype.itemsize == 0 and start % dtype.itemsize == 0
        return (data if aligned else data.clone()).view(dtype)


class _Unpickler(pickle.Unpickler):
    """Knows no class and no function but those named here, none of which acts on anything outside of the result."""

    def __init__(self, file: Any, storage: Callable[[str, torch.dtype], Tensor]) -> None:
        super().__init__(file)
        self._storage = storage

    def find_class(self, module: str, name: str) -> Any:
        if module.startswith("__torch__"):
            return type("Archived", (_Object,), {"kind": f"{module}.{name}"})
        if module == "torch" and name in _STORAGES:
            return _STORAGES[name]
        known = {
            ("torch._utils", "_rebuild_tensor_v2"): _tensor,
            ("torch._utils", "_rebuild_parameter"): lambda data, *_: data,
            ("torch.jit._pickle", "restore_type_tag"): lambda value, _: value,
            ("collections", "OrderedDict"): OrderedDict,
        }
        if module == "torch.jit._pickle" and name in _LISTS:
            return list
        if (module, name) not in known:
            raise pickle.UnpicklingError(f"it asks for {module}.{name}, which no weights need")
        return known[module, name]

    def persistent_load(self, pid: Any) -> _Storage:
        kind, dtype, key, _, count = pid
        if kind != "storage" or not isinstance(dtype, torch.dtype) or not isinstance(key, str):
            raise pickle.UnpicklingError("it names a storage in an unknown way")
        numbers = self._storage(key, dtype)
        if len(numbers) != count:
            raise pickle.UnpicklingError(f"the entry data/{key} holds {len(numbers):,} numbers in place of {count:,}")
        return _Storage(numbers)


def _tensor(storage: _Storage, offset: int, size: tuple[int, ...], stride: tuple[int, ...], *_: object) -> Tensor:
    whole = [offset, *size, *stride]
    if len(size) != len(stride) or not all(isinstance(n, int) and n >= 0 for n in whole):
        raise ValueError(f"a tensor of shape {size} and strides {stride} at {offset}")
    last = offset + sum((n - 1) * step for n, step in zip(size, stride, strict=True))
    if 0 not in size and last >= len(storage.numbers):
        raise ValueError(f"a tensor of shape {tuple(size)} lies beyond the end of its storage")
    return storage.numbers.as_strided(size, stride, storage.numbers.storage_offset() + offset)


def _names_in(module: str, code: str) -> Iterator[tuple[str, frozenset[str]]]:
    """Of each class in the code (text, never run), its name and the names that it lists as parameters and buffers."""
    kind = ""
    names: set[str] = set()
    for line in code.splitlines():
        if line.startswith("class "):
            if kind:
                yield kind, frozenset(names)
            kind, names = f"{module}.{line[6:].split('(')[0].strip()}", set()
        elif kind and (listed := _STATE.match(line)):
            names |= set(re.findall(r'"([^"]*)"', listed[1]))
    if kind:
        yield kind, frozenset(names)


def _state(
    module: _Object, names: dict[str, frozenset[str]], prefix: str, above: set[int]
) -> Iterator[tuple[str, Tensor]]:
    if id(module) in above:
        raise ValueError("a module holds itself")
    for name, value in module.attributes.items():
        if isinstance(value, Tensor) and name in names.get(module.kind, ()):
            yield prefix + name, value
        elif isinstance(value, _Object):
            yield from _state(value, names, f"{prefix}{name}.", above | {id(module)})
