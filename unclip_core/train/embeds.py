"""What CLIP says of a collection, computed once and kept as safetensors shards that are read row by row."""

import hashlib
import json
from bisect import bisect_right
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import lru_cache
from itertools import accumulate
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor, nn
from tqdm import tqdm

from ..clip.adapter import ClipAdapter
from ..data.center_crop import center_crop
from ..data.fingerprint import digest
from ..data.samples import BadSample, Collection
from ..weights.files import CheckpointError, write_whole

INDEX = "index.json"
SHARD = 1024
BATCH = 32


class EmbeddingStore:
    """Embeddings of the good samples of a collection, by row; on request of those with a caption alone.

    Attributes:
        rows: number of good samples.
        bad: name → reason of those that were left out.
        mean: of the image embeddings, `[1, D]` float32.
        std: of the image embeddings, `[1, D]` float32.
    """

    def __init__(self, folder: Path, captions: bool = False) -> None:
        """Open the shards; with `captions` only rows of samples that have one.

        Raises:
            CheckpointError: the index or a shard cannot be read.
            ValueError: there is no such row.
        """
        self.folder = folder
        index = _read_index(folder)
        if index is None:
            raise CheckpointError(f"'{folder}' holds no embeddings that are complete: its {INDEX} is missing.")
        self.bad: dict[str, str] = index["bad"]
        self._counts: list[int] = index["counts"]
        self._ends = list(accumulate(self._counts))
        self._chosen = self._captioned() if captions and index["silent"] else None
        if self._chosen is not None:
            self.bad |= index["silent"]
        self.rows = self._ends[-1] if self._chosen is None else len(self._chosen)
        if not self.rows:
            name, reason = next(iter(self.bad.items()), ("", "there are none"))
            raise ValueError(f"None of the {len(self.bad):,} samples can be used; the first, '{name}': {reason}.")
        self.mean, self.std = (torch.tensor([index[name]]) for name in ("mean", "std"))
        self._tokens, self._null = index["tokens"], index["null"]

    def row(self, number: int) -> dict[str, Tensor]:
        """Row 0..rows - 1: "image_embeds" `[D]`, "text_embeds" `[D]`, "text_states" `[T, W]`, "text_mask" `[T]`."""
        shard, place = self._place(number)
        return self._padded(self._row(shard, place))

    def source(self, number: int) -> int:
        """The number of the sample in its collection."""
        shard, place = self._place(number)
        return int(_opened(_shard(self.folder, shard)).get_tensor("index")[place])

    def null(self) -> dict[str, Tensor]:
        """What CLIP says of the empty prompt: as `row`, without the image embedding."""
        file = _opened(self.folder / self._null)
        return self._padded({name: file.get_tensor(name)[0] for name in file.keys()})  # noqa: SIM118

    def _place(self, number: int) -> tuple[int, int]:
        if not 0 <= number < self.rows:
            raise IndexError(f"there is no row {number} among {self.rows} rows of embeddings")
        number = number if self._chosen is None else int(self._chosen[number])
        shard = bisect_right(self._ends, number)
        return shard, number - (self._ends[shard] - self._counts[shard])

    def _captioned(self) -> Tensor:
        flags = [_opened(_shard(self.folder, number)).get_tensor("captioned") for number in range(len(self._counts))]
        return torch.cat(flags).nonzero()[:, 0]

    def _row(self, shard: int, place: int) -> dict[str, Tensor]:
        file = _opened(_shard(self.folder, shard))
        names = ("image_embeds", "text_embeds", "text_states", "text_mask")
        return {name: file.get_slice(name)[place : place + 1][0] for name in names}

    def _padded(self, row: dict[str, Tensor]) -> dict[str, Tensor]:
        """Texts are kept as long as the longest of their shard: what is behind them is never read."""
        missing = self._tokens - len(row["text_mask"])
        row["text_mask"] = nn.functional.pad(row["text_mask"].bool(), (0, missing))
        row["text_states"] = nn.functional.pad(row["text_states"].float(), (0, 0, 0, missing))
        return row


@dataclass(frozen=True)
class Workers:
    """The processes that share the work: this one's number, how many there are, and how to wait for all."""

    rank: int = 0
    world: int = 1
    wait: Callable[[], None] = lambda: None


def embed_collection(
    collection: Collection, clip: ClipAdapter, folder: Path, captions: bool = True, workers: Workers | None = None
) -> EmbeddingStore:
    """The embeddings of a collection: computed into `folder`, or opened where they stand there already.

    They are kept in a subfolder named after data and CLIP, so that other data or another CLIP never meet them. What an
    interrupted run finished is used.

    Args:
        captions: whether a sample without a caption is left out; else it counts as one with an empty caption. The
            files are the same.

    Raises:
        ValueError: no sample is good, or this CLIP lacks a tower.
        OSError: the disk is full; what is written so far is whole.
    """
    workers = workers or Workers()
    name = digest([collection.fingerprint(), weights_fingerprint(clip.model), str(SHARD)])
    folder = folder / name
    shards = range(-(-len(collection) // SHARD))
    missing = {number for number in shards if not _shard(folder, number).is_file()}
    complete = (folder / INDEX).is_file() and not missing
    workers.wait()
    if not complete:
        mine = [number for number in shards[workers.rank :: workers.world] if number in missing]
        for number in tqdm(mine, desc="embed", unit="shard", disable=None if workers.rank == 0 else True):
            _write_shard(collection, clip, folder, number)
        workers.wait()
        if workers.rank == 0:
            _write_index(folder, clip, len(shards))
        workers.wait()
    return EmbeddingStore(folder, captions)


@torch.no_grad()
def _write_shard(collection: Collection, clip: ClipAdapter, folder: Path, number: int) -> None:
    good, bad, silent, parts = [], {}, {}, []
    for index in range(number * SHARD, min(len(collection), (number + 1) * SHARD)):
        try:
            sample = collection.read(index, captions=False)
            if not sample.caption:
                silent[sample.name] = "it has no caption"
            good.append((index, center_crop(sample.image, clip.image_size), sample.caption))
        except BadSample as error:
            bad[error.name] = error.reason
        if len(good) == BATCH:
            parts.append(_encoded(clip, good))
            good = []
    if good or not parts:
        parts.append(_encoded(clip, good))
    joined = {name: torch.cat([part[name] for part in parts]) for name in parts[0]}
    data = save(_trimmed(joined), metadata={"bad": json.dumps(bad), "silent": json.dumps(silent)})
    write_whole(_shard(folder, number), data)


def _encoded(clip: ClipAdapter, good: list[tuple[int, Tensor, str]]) -> dict[str, Tensor]:
    own = {
        "index": torch.tensor([index for index, _, _ in good], dtype=torch.int64),
        "captioned": torch.tensor([bool(caption) for _, _, caption in good], dtype=torch.bool),
    }
    text = clip.encode_text([caption for _, _, caption in good] or [""])
    size = clip.image_size
    squares = torch.stack([square for _, square, _ in good] or [torch.zeros(size, size, 3, dtype=torch.uint8)])
    named = {
        "image_embeds": clip.encode_image(squares.float() / 255),
        "text_embeds": text.embeds,
        "text_states": text.states.half(),
        "text_mask": text.mask,
    }
    return own | {name: tensor[: len(good)].cpu() for name, tensor in named.items()}


def _trimmed(row: dict[str, Tensor]) -> dict[str, Tensor]:
    mask = row["text_mask"]
    length = int(mask.any(dim=0).sum()) if len(mask) else 1
    return {
        name: (tensor[:, :length] if name in ("text_states", "text_mask") else tensor).contiguous()
        for name, tensor in row.items()
    }


def _write_index(folder: Path, clip: ClipAdapter, shards: int) -> None:
    counts: list[int] = []
    bad: dict[str, str] = {}
    silent: dict[str, str] = {}
    total: Any = 0.0
    squares: Any = 0.0
    for number in range(shards):
        file = _opened(_shard(folder, number))
        embeds = file.get_tensor("image_embeds").double()
        counts.append(len(embeds))
        bad |= json.loads(file.metadata()["bad"])
        silent |= json.loads(file.metadata()["silent"])
        total, squares = total + embeds.sum(dim=0), squares + embeds.square().sum(dim=0)
    rows = max(1, sum(counts))
    mean = total / rows
    # A dimension in which all are alike has no width to divide by.
    std = (squares / rows - mean.square()).clamp(min=0).sqrt().clamp(min=1e-6)
    text = encode_text_null(clip)
    write_whole(folder / "null.safetensors", save(_trimmed(text)))
    index = {
        "counts": counts,
        "bad": bad,
        "silent": silent,
        "mean": mean.tolist(),
        "std": std.tolist(),
        "null": "null.safetensors",
        "tokens": clip.context_length,
    }
    write_whole(folder / INDEX, json.dumps(index).encode())


@torch.no_grad()
def encode_text_null(clip: ClipAdapter) -> dict[str, Tensor]:
    """What CLIP says of the empty prompt, one row, as tensors by name."""
    text = clip.encode_text([""])
    return {"text_embeds": text.embeds.cpu(), "text_states": text.states.half().cpu(), "text_mask": text.mask.cpu()}


def weights_fingerprint(module: nn.Module) -> str:
    """A fingerprint of a module's weights."""
    total = hashlib.blake2b(digest_size=16)
    for name, tensor in module.state_dict().items():
        total.update(name.encode())
        total.update(tensor.detach().cpu().contiguous().flatten().view(torch.uint8).numpy().data)
    return total.hexdigest()


def _shard(folder: Path, number: int) -> Path:
    return folder / f"embeddings-{number:06d}.safetensors"


@lru_cache(maxsize=256)
def _opened(path: Path) -> Any:
    try:
        return safe_open(path, framework="pt")
    except (SafetensorError, OSError) as error:
        raise CheckpointError(
            f"The embeddings '{path}' cannot be read ({error}): delete the file, and they are made again."
        ) from error


def _read_index(folder: Path) -> Mapping[str, Any] | None:
    try:
        return json.loads((folder / INDEX).read_text(encoding="utf-8"))
    except FileNotFoundError:
        return None
    except (OSError, ValueError) as error:
        raise CheckpointError(
            f"'{folder / INDEX}' cannot be read ({error}): delete it, and it is made again."
        ) from error
