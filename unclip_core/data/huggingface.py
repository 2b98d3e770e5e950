"""A Hugging Face dataset on the disk, as `Dataset.save_to_disk` writes it; needs the package `datasets`."""

from pathlib import Path
from typing import Any

from .decoding import checked_captions, decode_image, first_caption
from .fingerprint import digest, file_fingerprint
from .samples import BadSample, Sample

CAPTION_COLUMNS = ("caption", "text", "captions", "prompt", "sentence", "sentences")


class SavedDataset:
    """The rows of a saved dataset: its first column of images, and the first of texts with a usual name."""

    def __init__(self, folder: Path) -> None:
        """Open it; of a dict of splits, "train" is taken.

        Raises:
            ValueError: the package is missing, the folder cannot be read, or has no column of images.
        """
        try:
            import datasets
        except ImportError as error:
            raise ValueError(
                f"'{folder}' is a Hugging Face dataset, which needs the package 'datasets': pip install datasets."
            ) from error
        self.folder = folder
        self.passed_over: dict[str, str] = {}
        try:
            rows = datasets.load_from_disk(str(folder))
        except Exception as error:  # whatever the package raises on damaged files
            raise ValueError(f"The dataset in '{folder}' cannot be read ({error}).") from error
        if isinstance(rows, datasets.DatasetDict):
            if "train" not in rows:
                raise ValueError(
                    f"The dataset in '{folder}' has the splits {sorted(rows)} and no 'train': name the "
                    "folder of one of them."
                )
            self.passed_over = {name: "a split that is not read; only 'train' is" for name in rows if name != "train"}
            self.folder, rows = folder / "train", rows["train"]
        self._image, self._caption = _columns(rows, folder, datasets.Image)
        # Without the format that it may have been saved with, which leaves out columns or gives tensors.
        self._rows = rows.with_format(None).cast_column(self._image, datasets.Image(decode=False))
        self._texts = self._rows.select_columns([self._caption] if self._caption else [])

    def __len__(self) -> int:
        return len(self._rows)

    def name(self, index: int) -> str:
        """See `Collection.name`."""
        return f"{self.folder.name}[{index}]"

    def read(self, index: int, captions: bool = True) -> Sample:
        """See `Collection.read`."""
        name = self.name(index)
        try:
            row = self._rows[index]
            cell = row[self._image] or {}
            data = cell.get("bytes")
            if data is None and cell.get("path"):
                data = Path(cell["path"]).read_bytes()
        except Exception as error:  # whatever the package raises on a damaged row
            raise BadSample(name, f"the row cannot be read ({error or type(error).__name__})") from error
        if data is None:
            raise BadSample(name, "it has no image")
        said = row[self._caption] if self._caption else None
        return Sample(decode_image(data, name), first_caption(said, name, captions), name)

    def caption(self, index: int) -> str:
        """See `Collection.caption`."""
        return first_caption(self._cell(index), self.name(index), False)

    def captions(self, index: int) -> list[str]:
        """See `Collection.captions`; a cell may hold a list of them."""
        return checked_captions(self._cell(index), self.name(index))

    def _cell(self, index: int) -> Any:
        if self._caption is None:
            return None
        try:
            return self._texts[index][self._caption]
        except Exception as error:  # whatever the package raises on a damaged row
            raise BadSample(self.name(index), f"the caption cannot be read ({error})") from error

    def fingerprint(self) -> str:
        """See `Collection.fingerprint`: of the files' names, sizes and modification times."""
        files = sorted(path for path in self.folder.iterdir() if path.is_file())
        return digest([*(path.name for path in files), *map(file_fingerprint, files)])


def _columns(rows: Any, folder: Path, image_type: type) -> tuple[str, str | None]:
    images = [name for name, kind in rows.features.items() if isinstance(kind, image_type)]
    if not images:
        raise ValueError(
            f"The dataset in '{folder}' has no column of images; its columns are "
            f"{list(rows.features)}. Cast one to datasets.Image()."
        )
    named = [name for name in CAPTION_COLUMNS if name in rows.features]
    return images[0], named[0] if named else None
