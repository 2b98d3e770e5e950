"""Opens a path as the kind of collection that it holds."""

from pathlib import Path

from ..listing import files_below
from .decoding import image_endings
from .folder import ImageFolder
from .huggingface import SavedDataset
from .joined import Joined
from .samples import Collection
from .shards import Shards
from .tar_listing import is_compressed

COMPRESSED = (".tar.gz", ".tgz", ".tar.bz2", ".tbz2", ".tar.xz", ".txz", ".tar.zst")
UNPACK = "unpack it to a plain .tar first, in which samples can be read by their number"


def open_images(path: str | Path) -> Collection:
    """Open the images at `path`: a .tar shard, a saved Hugging Face dataset, or a folder of images and shards.

    Hidden files are left out. Whatever else makes no sample is named in the collection's `passed_over`.

    Raises:
        ValueError: there is nothing at the path, or no image in it.
    """
    path = Path(path)
    if path.is_file():
        return _shard(path)
    if not path.is_dir():
        raise ValueError(
            f"There is no data at '{path}': name a folder of images with .txt captions, a folder that "
            "a Hugging Face dataset was saved to, a .tar shard, or a folder of shards."
        )
    if (path / "dataset_info.json").is_file() or (path / "dataset_dict.json").is_file():
        return SavedDataset(path)
    return _folder(path)


def _shard(path: Path) -> Shards:
    if is_compressed(path):
        raise ValueError(f"'{path}' is compressed: {UNPACK}.")
    if path.suffix.lower() != ".tar":
        raise ValueError(f"'{path}' is no data: a single file must be a .tar shard.")
    return _with_images(Shards({path.name: path}), path)


def _folder(path: Path) -> Collection:
    unread: dict[str, str] = {}
    found = files_below(path, lambda error: unread.update({str(error.filename): f"cannot be read ({error.strerror})"}))
    names = [file.relative_to(path).as_posix() for file in found]
    names = [name for name in names if not any(part.startswith(".") for part in name.split("/"))]
    packed = [name for name in names if name.lower().endswith(COMPRESSED)]
    tars = [name for name in names if name.lower().endswith(".tar")]
    images = ImageFolder(path, sorted({*names} - {*packed, *tars}))
    images.passed_over |= unread | {name: f"it is compressed: {UNPACK}" for name in packed}
    parts: list[Collection] = [_with_images(Shards({name: path / name for name in tars}), path)] if tars else []
    if len(images) or images.passed_over:
        parts.append(images)
    whole: Collection = parts[0] if len(parts) == 1 else Joined(parts or [images])
    if not len(whole):
        raise ValueError(_nothing(path, whole))
    return whole


def _with_images(shards: Shards, path: Path) -> Shards:
    if not shards.has_images:
        raise ValueError(
            f"There is no image in the shards of '{path}': members such as 0001.jpg with 0001.txt are looked for"
            + "".join(f"; {name}: {reason}" for name, reason in list(shards.damage.items())[:3])
            + "."
        )
    return shards


def _nothing(path: Path, found: Collection) -> str:
    met = [f"{name} ({reason})" for name, reason in list(found.passed_over.items())[:3]]
    more = f" What is there: {'; '.join(met)}." if met else ""
    return (
        f"There is no image below '{path}': files ending in {', '.join('.' + e for e in image_endings()[:5])} or "
        f"another ending that Pillow reads are looked for, each with a caption of the same name ending in .txt.{more}"
    )
