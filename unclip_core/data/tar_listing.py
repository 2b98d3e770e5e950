"""Where the members of a .tar file lie, of joined and damaged ones too.

`tarfile` takes two blocks of zeros, or a damaged header, for the end of the file. Here it goes on behind them, and
what it had to skip is told.
"""

import json
import os
import tarfile
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import BinaryIO

from ..parsing import MalformedInput, checked, read_json
from .fingerprint import file_fingerprint

BLOCK = tarfile.BLOCKSIZE
FORMAT = 1
"""Of the index beside a shard."""
_MAGIC = {b"\x1f\x8b", b"BZh", b"\xfd7zXZ\0", b"\x28\xb5\x2f\xfd"}
"""How files begin that gzip, bzip2, xz and zstd wrote."""


@dataclass(frozen=True)
class TarListing:
    """What a .tar file holds.

    Attributes:
        members: name, first byte and length of each file, in their order.
        links: names of the members that are links.
        damage: what is to be said of the places that could not be read, by their first byte as text.
    """

    members: list[tuple[str, int, int]]
    links: list[str]
    damage: dict[str, str]


@dataclass(frozen=True)
class TarIndex:
    """What stands in the index beside a shard: of which file it is (size and time of change), and its listing."""

    format: int
    file: str
    listing: TarListing

    def __post_init__(self) -> None:
        if any(start < 0 or size < 0 for _, start, size in self.listing.members):
            raise ValueError("a member lies before the start of the file")


def index_path(path: Path) -> Path:
    """Name the index of a .tar file, a hidden file beside it."""
    return path.with_name(f".{path.name}.index.json")


def listed_tar(path: Path) -> TarListing:
    """List a .tar file by the index beside it, or by its headers where that is missing, damaged or out of date.

    The index is then written anew, where the folder can be written. Raises OSError where the file cannot be read.
    """
    of = file_fingerprint(path)
    with suppress(OSError, MalformedInput):
        index = checked(TarIndex, read_json(index_path(path)), f"'{index_path(path)}'")
        if (index.format, index.file) == (FORMAT, of):
            return index.listing
    listing = list_tar(path)
    aside = index_path(path).with_suffix(f".{os.getpid()}.part")
    with suppress(OSError):  # it only saves time: a folder that is read-only, or full, does without
        try:
            aside.write_text(json.dumps(asdict(TarIndex(FORMAT, of, listing))), encoding="utf-8")
            os.replace(aside, index_path(path))
        finally:
            aside.unlink(missing_ok=True)
    return listing


def is_compressed(path: Path) -> bool:
    """Tell whether a file begins as compressed ones do. Raises OSError where it cannot be read."""
    with open(path, "rb") as file:
        start = file.read(6)
    return any(start.startswith(magic) for magic in _MAGIC)


def list_tar(path: Path) -> TarListing:
    """Read the headers of all members. Raises OSError where the file cannot be read."""
    found = TarListing([], [], {})
    size, expected = path.stat().st_size, 0
    with open(path, "rb") as file:
        for info, end in _headers(file, size):
            _note_gap(found, file, expected, info.offset)
            expected = end
            if info.isfile():
                found.members.append((info.name, info.offset_data, info.size))
            elif info.issym() or info.islnk():
                found.links.append(info.name)
        _note_gap(found, file, expected, size)
    if expected > size:
        found.damage[str(size)] = f"the shard breaks off after {size:,} bytes; what came then is missing"
    return found


def _headers(file: BinaryIO, size: int) -> Iterator[tuple[tarfile.TarInfo, int]]:
    """Yield each member and the place behind its data; after a header that is none, the next one that is."""
    start = 0
    while start < size:
        file.seek(start)
        tar = None
        try:
            tar = tarfile.TarFile(fileobj=file, mode="r", ignore_zeros=True)
            for info in tar:
                yield info, tar.offset
                start = tar.offset
                tar.members = []  # type: ignore[attr-defined]  # its own look-ups alone need them; a shard has a million
            return
        except Exception:  # whatever a damaged header makes it raise; the gap that this leaves is told
            start = max(start, tar.offset if tar is not None else 0) + BLOCK


def _note_gap(found: TarListing, file: BinaryIO, start: int, end: int) -> None:
    """Note bytes between members that are not the zeros which end a .tar file."""
    if end <= start or _is_blank(file, start, end):
        return
    found.damage[str(start)] = f"the shard is damaged in bytes {start:,} to {end - 1:,}; what stood there is lost"


def _is_blank(file: BinaryIO, start: int, end: int) -> bool:
    file.seek(start)
    while start < end:
        chunk = file.read(min(2**20, end - start))
        if not chunk or chunk.strip(b"\0"):
            return not chunk
        start += len(chunk)
    return True
