"""CSV and JSONL files as a Ray dataset. Imported late: Ray has to be there."""

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from ray.data.datasource import FileBasedDatasource

from .text_tables import blocks

if TYPE_CHECKING:
    import pyarrow as pa

ENDINGS = {"csv": ["csv"], "json": ["jsonl", "json"]}


class TextTable(FileBasedDatasource):
    """The rows of a file, or of all files of a kind in a folder, as `text_tables.blocks` gives them."""

    def __init__(self, path: str, kind: str) -> None:
        super().__init__(path, file_extensions=ENDINGS[kind])
        self._kind = kind

    def _read_stream(self, f: Any, path: str) -> "Iterator[pa.Table]":
        yield from blocks(self._kind, f, path)
