"""What CLIP says of a collection, read row by row from safetensors shards."""

import math
from bisect import bisect_right
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from itertools import accumulate
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open
from torch import Tensor, nn

from ..parsing import MalformedInput, checked, parse_json, read_json
from ..weights.files import CheckpointError

INDEX, NULL = "index.json", "null.safetensors"
PER_TEXT = ("text_embeds", "text_states", "text_mask")
PER_ROW = ("image_embeds", *PER_TEXT)


@dataclass(frozen=True)
class StoreIndex:
    """What stands in the index of a store.

    Attributes:
        counts: rows of each shard.
        bad: name → reason of the samples that have no row.
        silent: the same of those whose caption is empty.
        mean: of the image embeddings.
        std: of the image embeddings.
        null: the file of the empty prompt's encoding.
        tokens: length of CLIP's context.
    """

    counts: list[int]
    bad: dict[str, str]
    silent: dict[str, str]
    mean: list[float]
    std: list[float]
    null: str
    tokens: int

    def __post_init__(self) -> None:
        if any(count < 0 for count in self.counts) or not 0 < self.tokens <= 2**16:
            raise ValueError("counts or tokens are out of range")
        if len(self.mean) != len(self.std) or not all(map(math.isfinite, [*self.mean, *self.std])):
            raise ValueError("mean and std do not go together")
        if self.null != NULL:
            raise ValueError(f"null is {self.null!r}, not {NULL!r}")


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
        index = read_index(folder)
        self.bad = dict(index.bad)
        self._counts = index.counts
        self._ends = list(accumulate(self._counts))
        self._chosen = self._captioned() if captions and index.silent else None
        if self._chosen is not None:
            self.bad |= index.silent
        self.rows = (self._ends or [0])[-1] if self._chosen is None else len(self._chosen)
        if not self.rows:
            name, reason = next(iter(self.bad.items()), ("", "there are none"))
            raise ValueError(f"None of the {len(self.bad):,} samples can be used; the first, '{name}': {reason}.")
        self.mean, self.std = (torch.tensor([values]) for values in (index.mean, index.std))
        self._tokens = index.tokens

    def row(self, number: int, chance: torch.Generator | None = None) -> dict[str, Tensor]:
        """Row 0..rows - 1: "image_embeds" `[D]`, "text_embeds" `[D]`, "text_states" `[T, W]`, "text_mask" `[T]`.

        Of several captions `chance` picks one; without it the first is taken.
        """
        shard, place = self._place(number)
        file = Shard(shard_path(self.folder, shard))
        first, count = file.texts(place)
        said = first if chance is None or count == 1 else first + int(torch.randint(count, (), generator=chance))
        texts = {name: file.row(name, said) for name in PER_TEXT}
        return self._padded({"image_embeds": file.row("image_embeds", place), **texts})

    def columns(self, names: Sequence[str] = PER_ROW) -> dict[str, Tensor]:
        """Tables of all rows: "image_embeds" `[N, D]`, and of each "text_x" an "every_text_x" `[N, C, …]`.

        C is the largest number of captions; "lengths" `[N]` tells how many a row has, behind them is 0. States are as
        they are kept, in half precision.
        """
        shards = [Shard(shard_path(self.folder, number)) for number in range(len(self._counts))]
        lengths = torch.cat([shard.tensor("texts") for shard in shards])
        columns = {}
        for name in names:
            every = torch.cat([self._lengthened(name, shard.tensor(name)) for shard in shards])
            if name in PER_TEXT:
                columns[f"every_{name}"] = self._rows_of(by_row(every, lengths))
            else:
                columns[name] = self._rows_of(every)
        return columns | ({"lengths": self._rows_of(lengths)} if set(names) & set(PER_TEXT) else {})

    def image_embed(self, number: int) -> Tensor:
        """The image embedding `[D]` of a row alone."""
        shard, place = self._place(number)
        return Shard(shard_path(self.folder, shard)).row("image_embeds", place)

    def source(self, number: int) -> int:
        """The number of the sample in its collection."""
        shard, place = self._place(number)
        return int(Shard(shard_path(self.folder, shard)).row("index", place))

    def sources(self) -> list[int]:
        """The numbers of all rows' samples in their collection."""
        parts = [Shard(shard_path(self.folder, number)).tensor("index") for number in range(len(self._counts))]
        return self._rows_of(torch.cat(parts)).tolist()

    def null(self) -> dict[str, Tensor]:
        """What CLIP says of the empty prompt: as `row`, without the image embedding."""
        file = Shard(self.folder / NULL)
        return self._padded({name: file.row(name, 0) for name in PER_TEXT})

    def _place(self, number: int) -> tuple[int, int]:
        if not 0 <= number < self.rows:
            raise IndexError(f"there is no row {number} among {self.rows} rows of embeddings")
        number = number if self._chosen is None else int(self._chosen[number])
        shard = bisect_right(self._ends, number)
        return shard, number - (self._ends[shard] - self._counts[shard])

    def _rows_of(self, every: Tensor) -> Tensor:
        return every if self._chosen is None else every[self._chosen]

    def _captioned(self) -> Tensor:
        flags = [Shard(shard_path(self.folder, number)).tensor("captioned") for number in range(len(self._counts))]
        return torch.cat(flags).nonzero()[:, 0]

    def _padded(self, row: dict[str, Tensor]) -> dict[str, Tensor]:
        """A row with its text at full length, the states in float32."""
        padded = {name: self._lengthened(name, tensor[None])[0] for name, tensor in row.items()}
        return padded | {"text_states": padded["text_states"].float()}

    def _lengthened(self, name: str, rows: Tensor) -> Tensor:
        """Texts are kept as long as the longest of their shard: what is behind them is never read."""
        if name == "text_mask":
            return nn.functional.pad(rows.bool(), (0, self._tokens - rows.shape[1]))
        return nn.functional.pad(rows, (0, 0, 0, self._tokens - rows.shape[1])) if name == "text_states" else rows


class Shard:
    """A safetensors file of embeddings; whatever is wrong with it is a CheckpointError that names it."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def tensor(self, name: str) -> Tensor:
        """Read one whole tensor. Raises CheckpointError."""
        try:
            return _opened(self._path).get_tensor(name)
        except Exception as error:  # safetensors raises what it meets in a damaged file
            raise self._damaged(error) from error

    def row(self, name: str, place: int) -> Tensor:
        """Read one row of a tensor. Raises CheckpointError."""
        try:
            return _opened(self._path).get_slice(name)[place : place + 1][0]
        except Exception as error:  # safetensors raises what it meets in a damaged file
            raise self._damaged(error) from error

    def texts(self, place: int) -> tuple[int, int]:
        """Where a row's texts begin, and how many there are. Raises CheckpointError."""
        try:
            ends = _text_ends(self._path)
            first = 0 if place == 0 else ends[place - 1]
            return first, ends[place] - first
        except Exception as error:  # safetensors raises what it meets in a damaged file
            raise self._damaged(error) from error

    def notes(self, name: str) -> dict[str, str]:
        """Read a table of reasons by names out of the header. Raises CheckpointError."""
        try:
            text = (_opened(self._path).metadata() or {}).get(name, "")
            return checked(dict[str, str], parse_json(text, f"'{name}' in its header"), f"'{name}' in its header")
        except Exception as error:  # safetensors raises what it meets in a damaged file
            raise self._damaged(error) from error

    def _damaged(self, error: Exception) -> CheckpointError:
        return CheckpointError(
            f"The embeddings '{self._path}' cannot be read ({error}): delete the file, and they are made again."
        )


def read_index(folder: Path) -> StoreIndex:
    """Read the index of a store. Raises CheckpointError where it is missing or damaged."""
    path = folder / INDEX
    if not path.is_file():
        raise CheckpointError(f"'{folder}' holds no embeddings that are complete: its {INDEX} is missing.")
    try:
        return checked(StoreIndex, read_json(path), f"'{path}'")
    except (MalformedInput, OSError) as error:
        raise CheckpointError(f"{error} Delete '{path}', and it is made again.") from error


def shard_path(folder: Path, number: int) -> Path:
    """Name the file of shard `number`."""
    return folder / f"embeddings-{number:06d}.safetensors"


def by_row(texts: Tensor, lengths: Tensor) -> Tensor:
    """Texts `[M, …]`, so many of each row as `lengths` `[N]` says, as `[N, C, …]`: behind a row's last one is 0."""
    most = int(lengths.max())
    if int(lengths.min()) == most:
        return texts.unflatten(0, (len(lengths), most))
    rows = texts.new_zeros(len(lengths), most, *texts.shape[1:])
    rows[torch.arange(most)[None] < lengths[:, None]] = texts
    return rows


def chosen_texts(rows: dict[str, Tensor], said: Tensor) -> dict[str, Tensor]:
    """Rows of `EmbeddingStore.columns` `[B, …]`, each with one of its texts, by `said` `[B]` in 0..1."""
    rows = dict(rows)
    lengths = rows.pop("lengths")
    return rows | {name: picked(rows.pop(f"every_{name}"), lengths, said) for name in PER_TEXT}


def picked(every: Tensor, lengths: Tensor, said: Tensor) -> Tensor:
    """One of the first `lengths` `[B]` of each row of `every` `[B, C, …]`, by `said` `[B]` in 0..1: `[B, …]`."""
    at = torch.minimum((said * lengths).long(), lengths - 1)
    return every[torch.arange(len(at), device=at.device), at]


@lru_cache(maxsize=256)
def _text_ends(path: Path) -> list[int]:
    return _opened(path).get_tensor("texts").cumsum(0).tolist()


@lru_cache(maxsize=256)
def _opened(path: Path) -> Any:
    return safe_open(path, framework="pt")
