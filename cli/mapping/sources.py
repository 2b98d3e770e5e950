"""Where rows come from: a table that Ray Data reads, or a collection of images that is listed here."""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from ...unclip_core.output import legible
from .engine import first_line
from .paths import absolute
from .results import DIGEST
from .rows import ID, Row, digest, make_rows
from .tasks import INDEX, NAME
from .text_tables import entries

if TYPE_CHECKING:
    import pyarrow as pa
    from ray.data import Dataset

TABLES = {".csv": "csv", ".jsonl": "json", ".json": "json", ".parquet": "parquet"}


def read_table(path: str) -> "Dataset":
    """Open a table as a Ray dataset: a file, a folder of files of one kind, or an address.

    Workers elsewhere read it: they get an absolute path.

    Raises:
        ValueError: there is nothing, the ending is none of `TABLES`, a folder has files of several kinds, or Parquet
            that cannot be read.
    """
    kind = _kind(path)
    import ray.data

    from .text_source import TextTable

    if kind != "parquet":
        return ray.data.read_datasource(TextTable(absolute(path), kind))
    try:
        return ray.data.read_parquet(absolute(path))
    except ValueError as error:  # pyarrow's does not say which file
        raise ValueError(f"'{path}' is no Parquet table that can be read: {first_line(error)}") from error


def _kind(path: str) -> str:
    folder = Path(path)
    files = (
        [file for file in folder.rglob("*") if not file.name.startswith((".", "_"))] if folder.is_dir() else [folder]
    )
    kinds = {TABLES[ending] for file in files if (ending := file.suffix.lower()) in TABLES}
    if len(kinds) > 1:
        raise ValueError(
            f"'{path}' has tables of several kinds, {', '.join(sorted(kinds))}: name a folder of one kind."
        )
    if not kinds:
        raise ValueError(f"'{path}' is no table: files ending in {', '.join(TABLES)} are read.")
    if "://" not in path and not folder.exists():
        raise ValueError(f"There is no table at '{path}'.")
    return kinds.pop()


def list_collection(path: str) -> "Dataset":
    """List a collection of images as a Ray dataset of the rows of `listing`.

    Raises:
        ValueError: there is nothing at the path.
    """
    import ray.data

    return ray.data.from_arrow(listing(path))


def listing(path: str) -> "pa.Table":
    """List a collection of images: "id" and "name", which are the sample's name in Unicode, and "index".

    Raises:
        ValueError: there is nothing at the path.
    """
    import pyarrow as pa

    from ...unclip_core.data.opening import open_images

    images = open_images(path)
    names = pa.array([legible(images.name(index)) for index in range(len(images))], pa.string())
    return pa.table({ID: names, NAME: names, INDEX: range(len(names))})


def rows_left(table: "pa.Table", seed: int, count: int, done: NDArray[np.bytes_]) -> list[Row]:
    """Name the rows of a part of the table (`make_rows`), and leave out those whose digest is in `done`."""
    rows = list(make_rows(_entries(table), seed, count))
    if not len(done):
        return rows
    is_done = np.isin(np.array([digest(row.id) for row in rows], DIGEST), done)
    return [row for row, out in zip(rows, is_done, strict=True) if not out]


def digests_of(table: "pa.Table", count: int, check: Callable[[Row], None] = lambda row: None) -> NDArray[np.bytes_]:
    """Return the digests of the ids in a part of the table, every row of which passes `check`."""
    rows = list(make_rows(_entries(table), count=count))
    for row in rows:
        check(row)
    return np.array([digest(row.id) for row in rows], DIGEST)


def _entries(table: "pa.Table") -> list[Mapping[str, Any]]:
    """The rows of a table, of text columns without blanks around the cells."""
    return [
        {name: value.strip() if isinstance(value, str) else value for name, value in row.items()}
        for row in entries(table)
    ]
