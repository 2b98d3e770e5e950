"""webdataset shards: .tar files whose members `0001.jpg` and `0001.txt` make one sample.

A reader of its own in place of the webdataset package: training wants samples by number, so that a step's samples
depend on its number alone, and uncompressed .tar files can be read at any place once their headers are known.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from ..parsing import MalformedInput, parse_json
from .decoding import checked_captions, decode_image, first_caption, image_endings
from .fingerprint import digest, file_fingerprint
from .samples import BadSample, Sample
from .tar_listing import listed_tar

CAPTION_ENDINGS = ("txt", "caption", "text", "json")
JSON_KEYS = ("caption", "text", "prompt")
JSON_LIST = "captions"
"""A .json's key for several captions of one image."""
Place = tuple[int, int]
"""First byte and length of a member's data."""


@dataclass
class _Entry:
    """A sample: where its parts lie in the shard, by ending; `problem` in place of parts is what it lost."""

    shard: str
    name: str
    parts: dict[str, Place] = field(default_factory=dict)
    problem: str = ""


class Shards:
    """The samples of some .tar files, in the order of the files' names and of their members.

    Attributes:
        passed_over: see `Collection`.
        damage: name → reason of the places in shards that are damaged; each counts as one bad sample.
    """

    def __init__(self, paths: Mapping[str, Path]) -> None:
        """Read the members' headers.

        Args:
            paths: of the shards, by the names that their samples' names begin with.

        Raises:
            OSError: a shard cannot be read.
        """
        self.paths = dict(sorted(paths.items()))
        self._entries: list[_Entry] = []
        self.passed_over: dict[str, str] = {}
        for shard, path in self.paths.items():
            listing = listed_tar(path)
            self._entries += self._grouped(shard, listing.members)
            self._entries += [_Entry(shard, f"{shard}@{at}", problem=said) for at, said in listing.damage.items()]
            self._pass_over(shard, listing.links, "a link, and only files are read")
        self.damage = {entry.name: entry.problem for entry in self._entries if entry.problem}

    @property
    def has_images(self) -> bool:
        """Whether there is anything but damage."""
        return len(self._entries) > len(self.damage)

    def __len__(self) -> int:
        return len(self._entries)

    def name(self, index: int) -> str:
        """See `Collection.name`."""
        return self._entries[index].name

    def read(self, index: int, captions: bool = True) -> Sample:
        """See `Collection.read`."""
        entry = self._entries[index]
        if entry.problem:
            raise BadSample(entry.name, entry.problem)
        images = [ending for ending in image_endings() if ending in entry.parts]
        if not images:
            raise BadSample(entry.name, f"it has no image, only {sorted(entry.parts)}")
        image = decode_image(self._bytes(entry, images[0]), entry.name)
        return Sample(image, self._caption(entry, captions), entry.name)

    def caption(self, index: int) -> str:
        """See `Collection.caption`."""
        return self._caption(self._entries[index], False)

    def captions(self, index: int) -> list[str]:
        """See `Collection.captions`; a .json may list them as "captions"."""
        entry = self._entries[index]
        return checked_captions(self._said(entry), entry.name)

    def fingerprint(self) -> str:
        """Return that of the shards' names, sizes and times of change."""
        return digest([*self.paths, *map(file_fingerprint, self.paths.values())])

    def _grouped(self, shard: str, members: list[tuple[str, int, int]]) -> list[_Entry]:
        """Put the members of one key together; a key that comes again, as in joined shards, is another sample."""
        whole = {_split(name)[0] for name, _, _ in members if _split(name)[1] in image_endings()}
        entries: list[_Entry] = []
        latest: dict[str, _Entry] = {}
        seen: dict[str, int] = {}
        for name, start, size in members:
            key, ending = _split(name)
            base = name.rpartition("/")[2]
            if base.startswith("."):
                continue
            first = name[: len(name) - len(base)] + base.partition(".")[0]
            if first != key and first in whole:  # "0001.mask.png" beside "0001.jpg": a part, as webdataset reads it
                self._pass_over(shard, [name], f"a further part of '{first}'")
                continue
            if ending not in image_endings() and ending not in CAPTION_ENDINGS:
                if key not in whole:
                    self._pass_over(shard, [name], "no image that is read")
                continue
            if key not in latest or ending in latest[key].parts:
                seen[key] = seen.get(key, 0) + 1
                again = f" ({seen[key]})" if seen[key] > 1 else ""
                latest[key] = _Entry(shard, f"{shard}/{key}{again}")
                entries.append(latest[key])
            elif ending in image_endings() and any(other in latest[key].parts for other in image_endings()):
                self._pass_over(shard, [name], f"a further image of '{key}'")
            latest[key].parts[ending] = (start, size)
        return entries

    def _pass_over(self, shard: str, names: list[str], reason: str) -> None:
        self.passed_over |= {f"{shard}/{name}": reason for name in names}

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
        return first_caption(self._said(entry), entry.name, needed)

    def _said(self, entry: _Entry) -> bytes | list[str] | None:
        """What a text file holds, or the texts in a .json, the first of them its caption."""
        endings = [ending for ending in CAPTION_ENDINGS if ending in entry.parts]
        if not endings:
            return None
        data = self._bytes(entry, endings[0])
        return _of_json(data, entry.name) if endings[0] == "json" else data


def _split(name: str) -> tuple[str, str]:
    """Split a member's name into key and ending, at the last dot: keys may have dots, as "lens 3.5mm.jpg"."""
    stem, dot, ending = name.rpartition(".")
    return (stem, ending.lower()) if dot and "/" not in ending else (name, "")


def _of_json(data: bytes, name: str) -> list[str]:
    try:
        said = parse_json(data, "its .json")
    except MalformedInput as error:
        raise BadSample(name, str(error)) from error
    if not isinstance(said, Mapping):
        return []
    texts = [said[key] for key in JSON_KEYS if isinstance(said.get(key), str)][:1]
    listed = said.get(JSON_LIST)
    return texts + [text for text in (listed if isinstance(listed, list) else []) if isinstance(text, str)]
