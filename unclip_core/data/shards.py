"""webdataset shards: .tar files whose members `0001.jpg` and `0001.txt` make one sample.

A reader of its own in place of the webdataset package: training wants samples by number, so that a step's samples
depend on its number alone, and uncompressed .tar files can be read at any place once their headers are known.
"""

import json
import tarfile
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from .fingerprint import digest, file_fingerprint
from .samples import IMAGE_ENDINGS, BadSample, Sample, checked_caption, decode_image

CAPTION_ENDINGS = ("txt", "caption", "text", "json")
JSON_KEYS = ("caption", "text", "prompt")


@dataclass
class _Entry:
    """A sample: where its parts begin in the shard and how long they are, by ending."""

    shard: int
    name: str
    parts: dict[str, tuple[int, int]] = field(default_factory=dict)


class Shards:
    """The samples of some .tar files, in the order of the files' names and of their members."""

    def __init__(self, paths: list[Path]) -> None:
        """Read the members' headers; a shard that breaks off counts up to there, and as one bad sample more.

        Raises:
            ValueError: there is no image in them, or a shard is compressed.
        """
        self.paths = sorted(paths)
        self._entries: list[_Entry] = []
        self._broken: dict[int, str] = {}
        for number, path in enumerate(self.paths):
            self._entries += self._scan(number, path)
        if len(self._entries) == len(self._broken):
            raise ValueError(
                f"There is no image in the shards {[path.name for path in self.paths]}: members such as "
                "0001.jpg with 0001.txt are looked for, in .tar files that are not compressed."
            )

    def __len__(self) -> int:
        return len(self._entries)

    def read(self, index: int, captions: bool = True) -> Sample:
        """See `Collection.read`."""
        if index in self._broken:
            raise BadSample(self._entries[index].name, self._broken[index])
        entry = self._entries[index]
        images = [ending for ending in IMAGE_ENDINGS if ending in entry.parts]
        if not images:
            raise BadSample(entry.name, f"it has no image, only {sorted(entry.parts)}")
        image = decode_image(self._bytes(entry, images[0]), entry.name)
        return Sample(image, self._caption(entry, captions), entry.name)

    def fingerprint(self) -> str:
        """Of the shards' names, sizes and times of change."""
        return digest([*(path.name for path in self.paths), *map(file_fingerprint, self.paths)])

    def _scan(self, number: int, path: Path) -> list[_Entry]:
        entries: dict[str, _Entry] = {}
        problem = None
        try:
            with tarfile.open(path, "r:") as tar:
                for member in tar:
                    if member.isfile():
                        self._note(entries, number, path, member)
        except tarfile.CompressionError as error:
            raise ValueError(f"'{path}' is compressed; unpack it to a plain .tar first.") from error
        except (tarfile.TarError, OSError) as error:
            problem = f"the shard breaks off or is damaged ({error})"
        found = list(entries.values())
        if problem is not None:
            self._broken[len(self._entries) + len(found)] = problem
            found.append(_Entry(number, path.name))
        return found

    def _note(self, entries: dict[str, _Entry], number: int, path: Path, member: tarfile.TarInfo) -> None:
        folder, slash, base = member.name.rpartition("/")
        stem, dot, ending = base.partition(".")
        ending = ending.lower()
        if stem and dot and (ending in IMAGE_ENDINGS or ending in CAPTION_ENDINGS):
            key = folder + slash + stem
            entry = entries.setdefault(key, _Entry(number, f"{path.name}/{key}"))
            entry.parts[ending] = (member.offset_data, member.size)

    def _bytes(self, entry: _Entry, ending: str) -> bytes:
        start, size = entry.parts[ending]
        try:
            with open(self.paths[entry.shard], "rb") as file:
                file.seek(start)
                data = file.read(size)
        except OSError as error:
            raise BadSample(entry.name, f"the shard cannot be read ({error})") from error
        if len(data) < size:
            raise BadSample(entry.name, f"the shard ends in the midst of it ({len(data):,} of {size:,} bytes)")
        return data

    def _caption(self, entry: _Entry, needed: bool) -> str:
        endings = [ending for ending in CAPTION_ENDINGS if ending in entry.parts]
        if not endings:
            return checked_caption(None, entry.name, needed)
        data = self._bytes(entry, endings[0])
        return checked_caption(_of_json(data, entry.name) if endings[0] == "json" else data, entry.name, needed)


def _of_json(data: bytes, name: str) -> str | None:
    try:
        said = json.loads(data)
    except ValueError as error:
        raise BadSample(name, f"its .json cannot be read ({error})") from error
    texts = [said[key] for key in JSON_KEYS if isinstance(said, Mapping) and isinstance(said.get(key), str)]
    return texts[0] if texts else None
