"""The output: a folder (or an address that pyarrow knows) of Parquet parts, each whole or absent.

A part holds one batch, and is named after the ids in it: a batch that is made twice, because its worker died between
writing and saying so, replaces its own file. What is done is what stands in the parts. Rows that failed stand in parts
of their own ("failed-…"), which the next run takes away as it tries them again.
"""

import hashlib
import io
import json
import os
import uuid
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from ...unclip_core.parsing import checked, parse_json
from .rows import DIGEST_BYTES, digest

if TYPE_CHECKING:
    from pyarrow.fs import FileSystem

RUN_FILE = "run.json"
PART, FAILED = "part-", "failed-"
UNFINISHED = ".unfinished"
ADDED_KEYS = ("dtype", "workflow")
"""Of a run's description: folders that were made before there were these keys do not say them."""

DIGEST = np.dtype(f"S{DIGEST_BYTES}")


@dataclass(frozen=True)
class Result:
    """What became of a row.

    Attributes:
        id: the row's.
        seed: that it was made with.
        row: the table's columns.
        image: an encoded image, and its file ending in `ending`.
        embedding: CLIP's image embedding `[D]`.
        score: cosine of that with the prompt's text embedding.
        text: a caption, of the task `describe`.
        error: why there is nothing of the above.
    """

    id: str
    seed: int
    row: Mapping[str, Any]
    image: bytes | None = None
    ending: str = "png"
    embedding: Sequence[float] | None = None
    score: float | None = None
    text: str | None = None
    error: str | None = None


@dataclass(frozen=True)
class Output:
    """Where results go.

    Attributes:
        place: a folder, or an address such as s3://bucket/folder.
        files: images become files below images/, and the table has their paths; otherwise they stand in the table.
        shards: a webdataset shard beside each part too.
    """

    place: str
    files: bool = False
    shards: bool = False

    def open(self) -> "Folder":
        """Return the folder, made if it is missing."""
        return Folder(self)


class Folder:
    """An output folder that is open.

    Raises:
        ValueError: the address is not known.
        OSError: it cannot be made.
    """

    def __init__(self, output: Output) -> None:
        from pyarrow import fs

        self._output = output
        self._files: FileSystem
        if "://" in output.place:
            self._files, self._root = fs.FileSystem.from_uri(output.place)
        else:
            self._files, self._root = fs.LocalFileSystem(), os.path.abspath(output.place)
        self._files.create_dir(self._root, recursive=True)

    def check(self, description: Mapping[str, Any]) -> None:
        """See whether a run of this description may write here; changes nothing.

        It may where nothing has been made yet, and where the description is that of before. What a folder does not say
        of `ADDED_KEYS` is not compared.

        Raises:
            ValueError: the folder holds another run.
        """
        if not self._holds_parts():
            return
        said = self._said()
        known = {*said, *description} - {name for name in ADDED_KEYS if name not in said}
        if said and (other := [name for name in known if said.get(name) != description.get(name)]):
            raise ValueError(
                f"'{self._output.place}' holds another run, which differs in {', '.join(sorted(other))}, as "
                f"'{RUN_FILE}' there says. Name another output, or go on with that run's own options and workflow."
            )

    def begin(self, description: Mapping[str, Any]) -> None:
        """Take up a run, or begin one: the folder says its description, half-written and failed parts go.

        Raises:
            ValueError: as of `check`.
        """
        self.check(description)
        if not self._holds_parts() or self._said() != description:
            self._write(RUN_FILE, json.dumps(description, indent=2).encode())
        for name in self._names():
            if name.startswith(FAILED) or name.endswith(UNFINISHED):
                self._files.delete_file(self._path(name))

    def done(self) -> NDArray[np.bytes_]:
        """Return the sorted digests of the ids that are done, 16 bytes each."""
        found = [digest(name) for part in self._names(PART) for name in self._ids(part)]
        return np.sort(np.frombuffer(b"".join(found), DIGEST))

    def count(self) -> tuple[int, int]:
        """Return how many rows stand in the parts, done and failed."""
        done, failed = (sum(map(self._rows, self._names(kind))) for kind in (PART, FAILED))
        return done, failed

    def write(self, results: Sequence[Result]) -> None:
        """Write a batch: images first, then the table, so that a row that is done has all its files.

        Raises:
            OSError: the disk is full, or the place is gone; no part of the batch counts then.
        """
        good, bad = ([r for r in results if (r.error is None) == fine] for fine in (True, False))
        for kind, some in ((PART, good), (FAILED, bad)):
            if some:
                name = kind + hashlib.blake2b("\0".join(r.id for r in some).encode(), digest_size=10).hexdigest()
                if self._output.shards:
                    self._write(f"{name}.tar", _shard(some))
                self._write(f"{name}.parquet", self._table(some))

    def _table(self, results: Sequence[Result]) -> bytes:
        import pyarrow as pa
        from pyarrow import parquet

        columns: dict[str, tuple[list[Any], pa.DataType]] = {
            "id": ([r.id for r in results], pa.string()),
            "seed": ([r.seed for r in results], pa.int64()),
            "row": ([json.dumps(dict(r.row), default=str, sort_keys=True) for r in results], pa.string()),
            "embedding": ([r.embedding for r in results], pa.list_(pa.float32())),
            "score": ([r.score for r in results], pa.float32()),
            "text": ([r.text for r in results], pa.string()),
            "error": ([r.error for r in results], pa.string()),
        }
        if self._output.files:
            columns["path"] = ([self._image_file(r) for r in results], pa.string())
        else:
            columns["image"] = ([r.image for r in results], pa.binary())
        table = pa.table({name: pa.array(values, kind) for name, (values, kind) in columns.items()})
        sink = io.BytesIO()
        parquet.write_table(table, sink)
        return sink.getvalue()

    def _image_file(self, result: Result) -> str | None:
        """Write a result's image and return its path within the output; 4,096 folders keep each of them small."""
        if result.image is None:
            return None
        name = digest(result.id).hex()
        path = f"images/{name[:3]}/{name}.{result.ending}"
        self._files.create_dir(self._path(path.rpartition("/")[0]), recursive=True)
        self._write(path, result.image)
        return path

    def _ids(self, part: str) -> list[str]:
        from pyarrow import parquet

        with self._files.open_input_file(self._path(part)) as file:
            return list(parquet.read_table(file, columns=["id"])["id"].to_pylist())

    def _rows(self, part: str) -> int:
        """How many rows a part says it has, in its last few bytes."""
        from pyarrow import parquet

        with self._files.open_input_file(self._path(part)) as file:
            return int(parquet.read_metadata(file).num_rows)

    def _names(self, kind: str = "") -> Iterator[str]:
        """Names of the files in the folder; of a `kind`, its tables."""
        from pyarrow import fs

        found = self._files.get_file_info(fs.FileSelector(self._root, recursive=not kind))
        names = [entry.path[len(self._root) :].lstrip("/\\") for entry in found if entry.is_file]
        return iter([n for n in names if not kind or n.startswith(kind) and n.endswith(".parquet")])

    def _holds_parts(self) -> bool:
        """Whether anything was made, were it a shard alone whose table could not be written any more."""
        from pyarrow import fs

        found = self._files.get_file_info(fs.FileSelector(self._root))
        return any(e.is_file and e.base_name.startswith(PART) and not e.base_name.endswith(UNFINISHED) for e in found)

    def _said(self) -> dict[str, Any]:
        """The description that the folder says; nothing where it says none."""
        said = self._read(RUN_FILE)
        where = f"'{self._path(RUN_FILE)}'"
        return {} if said is None else checked(dict[str, Any], parse_json(said, where), where)

    def _read(self, name: str) -> bytes | None:
        try:
            with self._files.open_input_file(self._path(name)) as file:
                return bytes(file.read())
        except FileNotFoundError:
            return None

    def _write(self, name: str, data: bytes) -> None:
        """Write a file, whole or not at all."""
        unfinished = self._path(f"{name}.{uuid.uuid4().hex}{UNFINISHED}")
        try:
            with self._files.open_output_stream(unfinished) as stream:
                stream.write(data)
            self._files.move(unfinished, self._path(name))
        except BaseException:
            self._discard(unfinished)
            raise

    def _discard(self, path: str) -> None:
        try:
            self._files.delete_file(path)
        except OSError:
            pass  # it was never made, or the place is gone: the next run looks for such files

    def _path(self, name: str) -> str:
        return f"{self._root}/{name}"


def _shard(results: Sequence[Result]) -> bytes:
    """A webdataset shard: of each row its image, its text and the rest as JSON."""
    import tarfile

    sink = io.BytesIO()
    with tarfile.open(fileobj=sink, mode="w") as tar:
        for result in results:
            rest = {"id": result.id, "seed": result.seed, "row": dict(result.row), "score": result.score}
            prompt = result.text or str(result.row.get("prompt", ""))
            said = json.dumps(rest, default=str).encode()
            members = {result.ending: result.image, "txt": prompt.encode(), "json": said}
            for ending, data in members.items():
                if data is not None:
                    member = tarfile.TarInfo(f"{digest(result.id).hex()}.{ending}")
                    member.size = len(data)
                    tar.addfile(member, io.BytesIO(data))
    return sink.getvalue()
