"""The output folder: whole parts or none, what is done, and what a run finds there."""

import json
import tarfile
from contextlib import contextmanager
from dataclasses import replace

import pytest

pytest.importorskip("pyarrow", reason="unclip map needs the extra [ray], which is not installed")

import numpy as np
from pyarrow import fs, parquet

from unclip.cli.mapping.results import Output, Result
from unclip.cli.mapping.rows import Row, digest
from unclip.cli.mapping.tasks import run_batch

REAL_FILES = fs.LocalFileSystem
RESULTS = [
    Result(f"id{i}", i, {"prompt": f"a {i}"}, image=bytes([i]) * 9, embedding=[i / 2, 1.0], score=0.5) for i in range(3)
]
BAD = Result("bad", 9, {"prompt": "x"}, error="it cannot be drawn")


def read(folder, kind="part"):
    return [row for path in sorted(folder.glob(f"{kind}-*.parquet")) for row in parquet.read_table(path).to_pylist()]


def test_what_is_written_is_read_back(tmp_path):
    folder = Output(str(tmp_path)).open()
    folder.write([*RESULTS, BAD])
    first = read(tmp_path)[0]
    assert first["id"] == "id0" and first["embedding"] == [0.0, 1.0] and first["image"] == b"\0" * 9
    assert json.loads(first["row"]) == {"prompt": "a 0"}
    assert read(tmp_path, "failed")[0]["error"] == "it cannot be drawn"
    assert folder.count() == (3, 1)
    assert set(folder.done().tolist()) == {digest(r.id) for r in RESULTS}, "a row that failed is not done"


def test_a_batch_that_is_made_twice_stands_there_once(tmp_path):
    folder = Output(str(tmp_path)).open()
    folder.write(RESULTS)
    folder.write(RESULTS)
    assert folder.count() == (3, 0)


def test_the_next_run_takes_up_what_is_whole_and_tries_the_rest_again(tmp_path):
    folder = Output(str(tmp_path)).open()
    folder.begin({"task": "t"})
    folder.write([*RESULTS, BAD])
    (tmp_path / "part-abc.parquet.123.unfinished").write_bytes(b"half")
    again = Output(str(tmp_path)).open()
    again.begin({"task": "t"})
    assert again.count() == (3, 0) and not list(tmp_path.glob("*.unfinished"))
    with pytest.raises(ValueError, match="holds another run, which differs in seed, task, as 'run.json' there says"):
        again.begin({"task": "u", "seed": 1})


def test_a_folder_in_which_nothing_was_made_takes_any_run(tmp_path):
    folder = Output(str(tmp_path)).open()
    folder.begin({"task": "t"})
    folder.write([BAD])
    (tmp_path / "part-abc.parquet.123.unfinished").write_bytes(b"half")
    folder.begin({"task": "u"})
    assert json.loads((tmp_path / "run.json").read_text()) == {"task": "u"} and folder.count() == (0, 0)
    (tmp_path / "part-abc.tar").write_bytes(b"a shard whose table is missing: its worker died in between")
    with pytest.raises(ValueError, match="holds another run"):
        folder.check({"task": "v"})


def test_a_full_disk_leaves_no_half_file(tmp_path, monkeypatch):
    monkeypatch.setattr(fs, "LocalFileSystem", NearlyFullDisk)
    folder = Output(str(tmp_path)).open()
    with pytest.raises(OSError, match="No space left"):
        folder.write(RESULTS)
    assert list(tmp_path.iterdir()) == []


class NearlyFullDisk:
    """The local file system; each file takes a hundred bytes, and then the disk is full."""

    def __init__(self):
        self._files = REAL_FILES()

    def __getattr__(self, name):
        return getattr(self._files, name)

    @contextmanager
    def open_output_stream(self, path):
        with self._files.open_output_stream(path) as stream:
            stream.write(b"x" * 100)
            raise OSError(28, "No space left on device")
            yield stream


def test_images_as_files_and_shards(tmp_path):
    folder = Output(str(tmp_path), files=True, shards=True).open()
    folder.write([replace(result, ending="jpg") for result in RESULTS])
    rows = read(tmp_path)
    assert [(tmp_path / row["path"]).read_bytes() for row in rows] == [r.image for r in RESULTS]
    assert "image" not in rows[0]
    (shard,) = tmp_path.glob("*.tar")
    with tarfile.open(shard) as tar:
        members = {member.name: tar.extractfile(member).read() for member in tar}
    name = digest("id1").hex()
    assert members[f"{name}.jpg"] == b"\1" * 9 and members[f"{name}.txt"] == b"a 1"
    assert json.loads(members[f"{name}.json"])["seed"] == 1


def test_of_a_batch_only_the_rows_at_fault_fail():
    def task(rows):
        if any(row.values["prompt"] == "x" for row in rows):
            raise RuntimeError("odd")
        return [Result(row.id, row.seed, row.values) for row in rows]

    rows = [Row(name, 0, {"prompt": name}) for name in "axb"]
    assert [(r.id, r.error) for r in run_batch(task, rows)] == [("a", None), ("x", "odd"), ("b", None)]


def test_what_is_the_machines_fault_ends_the_run():
    def task(rows):
        raise OSError(28, "No space left on device")

    with pytest.raises(OSError, match="No space left"):
        run_batch(task, [Row("a", 0, {})])


def test_no_row_is_done_in_a_new_folder(tmp_path):
    done = Output(str(tmp_path / "new")).open().done()
    assert len(done) == 0 and not np.isin(np.array([b"x" * 16], "S16"), done).any()
