"""A folder of images, each with its caption beside it: `cat.jpg` and `cat.txt`, subfolders too."""

from collections.abc import Sequence
from pathlib import Path

from ..output import legible
from .decoding import checked_caption, decode_image, image_endings
from .fingerprint import digest, file_fingerprint
from .samples import BadSample, Sample


class ImageFolder:
    """The images among some files of a folder, sorted by path."""

    def __init__(self, folder: Path, names: Sequence[str]) -> None:
        """Tell images from other files.

        Args:
            folder: what the names are relative to.
            names: of the files, with "/" between the parts.
        """
        self.folder = folder
        self._names = sorted(name for name in names if _ending(name) in image_endings())
        stems = {_stem(name) for name in self._names}
        alone = sorted(name for name in names if _stem(name) not in stems)
        self.passed_over = {legible(name): _reason(name) for name in alone}

    def __len__(self) -> int:
        return len(self._names)

    def name(self, index: int) -> str:
        """See `Collection.name`."""
        return self._names[index]

    def read(self, index: int, captions: bool = True) -> Sample:
        """See `Collection.read`."""
        name = self._names[index]
        try:
            data = (self.folder / name).read_bytes()
        except OSError as error:
            raise BadSample(name, f"the file cannot be read ({error})") from error
        return Sample(decode_image(data, name), self._caption(name, captions), name)

    def caption(self, index: int) -> str:
        """See `Collection.caption`."""
        return self._caption(self._names[index], False)

    def captions(self, index: int) -> list[str]:
        """See `Collection.captions`; a file holds one."""
        return [caption] if (caption := self.caption(index)) else []

    def fingerprint(self) -> str:
        """See `Collection.fingerprint`: of names, sizes and modification times."""
        paths = [self.folder / name for name in self._names]
        texts = [path.with_suffix(".txt") for path in paths]
        return digest([*self._names, *map(file_fingerprint, paths), *map(file_fingerprint, texts)])

    def _caption(self, name: str, needed: bool) -> str:
        text = (self.folder / name).with_suffix(".txt")
        try:
            said = text.read_bytes() if text.is_file() else None
        except OSError as error:
            raise BadSample(name, f"the caption cannot be read ({error})") from error
        return checked_caption(said, name, needed)


def _ending(name: str) -> str:
    return Path(name).suffix[1:].lower()


def _stem(name: str) -> str:
    return Path(name).with_suffix("").as_posix()


def _reason(name: str) -> str:
    return "a caption without its image" if _ending(name) == "txt" else "no image that is read"
