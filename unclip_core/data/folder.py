"""A folder of images, each with its caption beside it: `cat.jpg` and `cat.txt`, subfolders too."""

from pathlib import Path

from .fingerprint import digest, file_fingerprint
from .samples import IMAGE_ENDINGS, BadSample, Sample, checked_caption, decode_image


class ImageFolder:
    """The images below a folder, by their paths' order; hidden files are left out."""

    def __init__(self, folder: Path) -> None:
        """List the files. Raises ValueError where there is no image."""
        self.folder = folder
        found = (path for path in folder.rglob("*") if path.suffix[1:].lower() in IMAGE_ENDINGS)
        inner = sorted(path.relative_to(folder).as_posix() for path in found)
        self._names = [name for name in inner if not any(part.startswith(".") for part in name.split("/"))]
        if not self._names:
            raise ValueError(
                f"There is no image below '{folder}': files ending in "
                f"{', '.join('.' + ending for ending in IMAGE_ENDINGS)} are looked for, each with a "
                "caption of the same name ending in .txt."
            )

    def __len__(self) -> int:
        return len(self._names)

    def read(self, index: int, captions: bool = True) -> Sample:
        """See `Collection.read`."""
        name = self._names[index]
        path = self.folder / name
        try:
            data = path.read_bytes()
            text = path.with_suffix(".txt")
            said = text.read_bytes() if text.is_file() else None
        except OSError as error:
            raise BadSample(name, f"the file cannot be read ({error})") from error
        return Sample(decode_image(data, name), checked_caption(said, name, captions), name)

    def fingerprint(self) -> str:
        """Of names, sizes and times of change."""
        paths = [self.folder / name for name in self._names]
        texts = [path.with_suffix(".txt") for path in paths]
        return digest([*self._names, *map(file_fingerprint, paths), *map(file_fingerprint, texts)])
