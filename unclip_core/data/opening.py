"""Which kind of collection a path is."""

from pathlib import Path

from .folder import ImageFolder
from .huggingface import SavedDataset
from .samples import Collection
from .shards import Shards


def open_images(path: str | Path) -> Collection:
    """The images at `path`: a .tar shard or a folder of them, a saved Hugging Face dataset, or a folder of images.

    Raises:
        ValueError: there is nothing at the path, or no image in it.
    """
    path = Path(path)
    if path.is_file() and path.suffix == ".tar":
        return Shards([path])
    if not path.is_dir():
        raise ValueError(
            f"There is no data at '{path}': name a folder of images with .txt captions, a folder that "
            "a Hugging Face dataset was saved to, a .tar shard, or a folder of shards."
        )
    if (path / "dataset_info.json").is_file() or (path / "dataset_dict.json").is_file():
        return SavedDataset(path)
    shards = sorted(path.glob("*.tar"))
    return Shards(shards) if shards else ImageFolder(path)
