"""CLIP's embeddings of a collection, computed once and kept as safetensors shards."""

import hashlib
import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Protocol

import torch
from safetensors.torch import save
from torch import Tensor, nn

from ..clip.adapter import TextCondition
from ..data.center_crop import center_crop
from ..data.fingerprint import digest
from ..data.samples import BadSample, Collection
from ..output import legible
from ..weights.files import write_whole
from .embedding_store import INDEX, NULL, EmbeddingStore, Shard, StoreIndex, shard_path
from .progress import Progress

SHARD = 1024
"""Samples of a shard, the bad ones included."""
BATCH = 256
"""Samples, or texts, that CLIP reads at once."""
LAYOUT = "every caption"
"""What a shard holds; part of a store's name, so that one of another layout is not opened."""


class Embedder(Protocol):
    """What embeddings are computed by: a `ClipAdapter`, or its image tower alone."""

    @property
    def model(self) -> nn.Module:
        """What holds the weights."""
        ...

    @property
    def image_size(self) -> int:
        """Side of the images, px."""
        ...

    @property
    def context_length(self) -> int:
        """Tokens of a text."""
        ...

    def read_vision(self) -> None:
        """Read the image encoder now, where it was put off."""
        ...

    def encode_image(self, images: Tensor) -> Tensor:
        """Images `[B, S, S, 3]` in 0..1 to embeddings `[B, D]`."""
        ...

    def encode_text(self, prompts: Sequence[str]) -> TextCondition:
        """Encode texts."""
        ...

    def encode_texts(self, prompts: Sequence[str]) -> TextCondition:
        """Encode many texts."""
        ...


@dataclass(frozen=True)
class Workers:
    """Who shares the work.

    Attributes:
        rank: number of this process.
        world: how many processes embed, each its shards.
        wait: waits for all of them.
        readers: processes that read and decode images beside this one; 0 for none.
        batch: samples that CLIP reads at once.
        write: has others write the shards of these numbers into a folder; None does it here.
    """

    rank: int = 0
    world: int = 1
    wait: Callable[[], None] = lambda: None
    readers: int = 0
    batch: int = BATCH
    write: Callable[[Path, Sequence[int]], None] | None = None


@dataclass(frozen=True)
class _Read:
    """A sample as it was read; one without a `square` uint8 `[S, S, 3]` is a bad one."""

    index: int
    name: str
    square: Tensor | None
    captions: tuple[str, ...] = ()
    reason: str = ""


def embed_collection(
    collection: Collection, clip: Embedder, folder: Path, captions: bool = True, workers: Workers | None = None
) -> EmbeddingStore:
    """Compute the embeddings of a collection into `folder`, or open them where they stand there already.

    They are kept in a subfolder named after data and CLIP, so that other data or another CLIP never meet them. What an
    interrupted run finished is used.

    Args:
        collection: images and captions.
        clip: on the device that is to compute.
        folder: for the subfolder.
        captions: whether a sample without a caption is left out; else it counts as one with an empty caption. The
            files are the same.
        workers: who shares the work; None for this process alone.

    Raises:
        ValueError: no sample is good, or this CLIP lacks a tower.
        OSError: the disk is full; what is written so far is whole.
    """
    workers = workers or Workers()
    folder = folder / store_name(collection, clip)
    shards = range(-(-len(collection) // SHARD))
    missing = {number for number in shards if not shard_path(folder, number).is_file()}
    complete = (folder / INDEX).is_file() and not missing
    workers.wait()
    if not complete:
        mine = [number for number in shards[workers.rank :: workers.world] if number in missing]
        if workers.write is None:
            write_shards(collection, clip, folder, mine, workers)
        elif mine:
            workers.write(folder, mine)
        workers.wait()
        if workers.rank == 0:
            _write_index(folder, clip, len(shards))
        workers.wait()
    return EmbeddingStore(folder, captions)


def store_name(collection: Collection, clip: Embedder) -> str:
    """Return the name of the subfolder for a collection and a CLIP as they are now."""
    clip.read_vision()  # else another image encoder beside the same text encoder would go by the same name
    return digest([collection.fingerprint(), weights_fingerprint(clip.model), str(SHARD), LAYOUT])


@torch.no_grad()
def write_shards(
    collection: Collection, clip: Embedder, folder: Path, numbers: Sequence[int], workers: Workers
) -> None:
    """Write the shards of these numbers, each whole or not at all; raises OSError where the disk is full."""
    ranges = [range(number * SHARD, min(len(collection), (number + 1) * SHARD)) for number in numbers]
    total, done = sum(map(len, ranges)), 0
    batches = _batches(collection, clip.image_size, ranges, workers)
    with Progress("embed", "sample", total, shown=workers.rank == 0 and total > 0) as progress:
        for number, indices in zip(numbers, ranges, strict=True):
            read: list[_Read] = []
            parts = []
            while len(read) < len(indices):
                batch = next(batches)
                read += batch
                parts.append(_encoded(clip, [sample for sample in batch if sample.square is not None]))
                progress.update(done + len(read))
            done += len(read)
            write_whole(shard_path(folder, number), _packed(read, parts))


def _batches(collection: Collection, size: int, ranges: Sequence[range], workers: Workers) -> Iterator[list[_Read]]:
    """Read all samples in order, so many at once; no batch crosses the end of a shard."""
    groups = [
        list(indices[first : first + workers.batch])
        for indices in ranges
        for first in range(0, len(indices), workers.batch)
    ]
    dataset: Any = _Squares(collection, size)
    return iter(
        torch.utils.data.DataLoader(dataset, batch_sampler=groups, num_workers=workers.readers, collate_fn=list)
    )


class _Squares:
    """A collection's samples as CLIP sees them, in the form that a DataLoader takes."""

    def __init__(self, collection: Collection, size: int) -> None:
        self._collection, self._size = collection, size

    def __getitem__(self, index: int) -> _Read:
        try:
            sample, captions = self._collection.read(index, captions=False), self._collection.captions(index)
        except BadSample as error:
            return _Read(index, error.name, None, reason=error.reason)
        return _Read(index, sample.name, center_crop(sample.image, self._size), tuple(captions))


def _encoded(clip: Embedder, good: list[_Read]) -> dict[str, Tensor]:
    """Tables of these samples `[N, …]` and of all their texts `[M, …]`, an empty one where there is no caption."""
    texts = [text for sample in good for text in sample.captions or ("",)]
    own = {
        "index": torch.tensor([sample.index for sample in good], dtype=torch.int64),
        "texts": torch.tensor([len(sample.captions) or 1 for sample in good], dtype=torch.int64),
        "captioned": torch.tensor([bool(sample.captions) for sample in good], dtype=torch.bool),
    }
    size = clip.image_size
    found = [sample.square for sample in good if sample.square is not None]
    squares = torch.stack(found or [torch.zeros(size, size, 3, dtype=torch.uint8)])
    said = [_text_tables(clip, texts[at : at + BATCH] or [""]) for at in range(0, len(texts) or 1, BATCH)]
    tables = {name: torch.cat([part[name] for part in said])[: len(texts)] for name in said[0]}
    return own | {"image_embeds": clip.encode_image(squares.float() / 255)[: len(good)].cpu()} | tables


def _text_tables(clip: Embedder, texts: Sequence[str]) -> dict[str, Tensor]:
    said = clip.encode_texts(texts)
    return {"text_embeds": said.embeds.cpu(), "text_states": said.states.half().cpu(), "text_mask": said.mask.cpu()}


def _packed(read: list[_Read], parts: list[dict[str, Tensor]]) -> bytes:
    """A shard as safetensors, with the bad samples and those without a caption in its header."""
    bad = {legible(sample.name): sample.reason for sample in read if sample.square is None}
    silent = {legible(s.name): "it has no caption" for s in read if s.square is not None and not s.captions}
    joined = {name: torch.cat([part[name] for part in parts]) for name in parts[0]}
    return save(_trimmed(joined), {"bad": json.dumps(bad), "silent": json.dumps(silent)})


def _trimmed(row: dict[str, Tensor]) -> dict[str, Tensor]:
    mask = row["text_mask"]
    length = int(mask.any(dim=0).sum()) if len(mask) else 1
    return {
        name: (tensor[:, :length] if name in ("text_states", "text_mask") else tensor).contiguous()
        for name, tensor in row.items()
    }


def _write_index(folder: Path, clip: Embedder, shards: int) -> None:
    counts: list[int] = []
    bad: dict[str, str] = {}
    silent: dict[str, str] = {}
    total: Any = 0.0
    squares: Any = 0.0
    for number in range(shards):
        file = Shard(shard_path(folder, number))
        embeds = file.tensor("image_embeds").double()
        counts.append(len(embeds))
        bad |= file.notes("bad")
        silent |= file.notes("silent")
        total, squares = total + embeds.sum(dim=0), squares + embeds.square().sum(dim=0)
    rows = max(1, sum(counts))
    mean = total / rows
    # A dimension in which all are alike has no width to divide by.
    std = (squares / rows - mean.square()).clamp(min=0).sqrt().clamp(min=1e-6)
    write_whole(folder / NULL, save(_trimmed(encode_text_null(clip))))
    index = StoreIndex(counts, bad, silent, mean.tolist(), std.tolist(), NULL, clip.context_length)
    write_whole(folder / INDEX, json.dumps(asdict(index)).encode())


@torch.no_grad()
def encode_text_null(clip: Embedder) -> dict[str, Tensor]:
    """Encode the empty prompt: one row, as tensors by name."""
    text = clip.encode_text([""])
    return {"text_embeds": text.embeds.cpu(), "text_states": text.states.half().cpu(), "text_mask": text.mask.cpu()}


def weights_fingerprint(module: nn.Module) -> str:
    """Return a fingerprint of a module's weights."""
    total = hashlib.blake2b(digest_size=16)
    for name, tensor in module.state_dict().items():
        total.update(name.encode())
        total.update(tensor.detach().cpu().contiguous().flatten().view(torch.uint8).numpy().data)
    return total.hexdigest()
