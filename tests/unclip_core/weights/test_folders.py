"""Folders that are written whole or not at all: new ones, and empty ones that have to stay the folder they are."""

import errno
import os
import shutil
from pathlib import Path

import pytest

from unclip.unclip_core.weights.files import CheckpointError, write_whole
from unclip.unclip_core.weights.folders import whole_folder

FILES = {"a": b"1", "index": b"2", "part/b": b"3", "z": b"4"}


def write(target):
    with whole_folder(target, "index") as aside:
        for name, data in FILES.items():
            write_whole(aside / name, data)


def contents(folder):
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def names(folder):
    return sorted(path.name for path in folder.iterdir())


@pytest.fixture
def there(tmp_path):
    (tmp_path / "place" / "there").mkdir(parents=True)
    return tmp_path / "place" / "there"


@pytest.fixture
def mounted(there, monkeypatch):
    """An empty folder where a disk is mounted: it cannot be removed, and nothing is renamed to it from outside."""
    rmdir, rename = Path.rmdir, Path.rename

    def refuse_rmdir(path):
        if path == there:
            raise OSError(errno.EBUSY, os.strerror(errno.EBUSY), str(path))
        rmdir(path)

    def refuse_rename(path, target):
        if (there in path.parents) != (there in Path(target).parents):
            raise OSError(errno.EXDEV, os.strerror(errno.EXDEV), str(path))
        return rename(path, target)

    monkeypatch.setattr(Path, "rmdir", refuse_rmdir)
    monkeypatch.setattr(Path, "rename", refuse_rename)
    return there


def test_a_new_folder_takes_its_name_at_the_end(tmp_path):
    with whole_folder(tmp_path / "new" / "folder", "index") as aside:
        write_whole(aside / "index", b"")
        assert names(tmp_path / "new") == [aside.name]
    assert names(tmp_path) == ["new"] and names(tmp_path / "new") == ["folder"]


def test_where_a_disk_is_mounted_what_is_written_moves_out_of_a_folder_inside(mounted):
    write(mounted)
    assert contents(mounted) == FILES and names(mounted) == ["a", "index", "part", "z"]
    assert names(mounted.parent) == ["there"]


def test_the_folder_where_one_stands_stays_that_folder(there, monkeypatch):
    monkeypatch.chdir(there)
    before = os.stat(there).st_ino
    write(Path())
    assert os.stat(there).st_ino == before and contents(there) == contents(Path()) == FILES


@pytest.mark.parametrize("made", [True, False])
def test_what_a_link_points_to_is_written_and_the_link_stays(tmp_path, made):
    if made:
        (tmp_path / "large" / "disk").mkdir(parents=True)
    (tmp_path / "link").symlink_to(Path("large", "disk"), target_is_directory=True)
    write(tmp_path / "link")
    assert (tmp_path / "link").is_symlink() and contents(tmp_path / "large" / "disk") == FILES
    assert names(tmp_path) == ["large", "link"] and names(tmp_path / "large") == ["disk"]


@pytest.mark.parametrize("failing", range(4))
def test_an_entry_that_cannot_move_leaves_nothing_and_the_index_is_the_last(there, monkeypatch, failing):
    rename, moved = Path.rename, []

    def limited(path, target):
        if len(moved) == failing and Path(target).parent == there:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(target))
        moved.append(path.name)
        return rename(path, target)

    with monkeypatch.context() as patch:
        patch.setattr(Path, "rename", limited)
        with pytest.raises(OSError, match="No space left"):
            write(there)
    assert moved[:failing] == ["a", "part", "z"][:failing] and names(there) == []
    write(there)
    assert contents(there) == FILES


def test_an_error_while_it_is_written_leaves_an_empty_folder_empty(there):
    with pytest.raises(KeyError), whole_folder(there, "index") as aside:
        write_whole(aside / "a", b"1")
        raise KeyError
    assert names(there) == [] and names(there.parent) == ["there"]


def test_a_folder_that_holds_something_is_refused_before_and_after(there):
    write(there)
    for target in (there, there / "a"):
        with pytest.raises(CheckpointError, match="not empty: name a new folder"):
            write(target)
    shutil.rmtree(there)
    there.mkdir()
    with pytest.raises(CheckpointError, match="not empty"), whole_folder(there, "index") as aside:
        write_whole(aside / "a", b"late")
        write(there)  # another process, which was faster
    assert contents(there) == FILES


def test_what_a_killed_process_left_does_not_count(there):
    left = there / f".{'0f' * 16}.part"
    left.mkdir()
    write(there)
    assert contents(there) == FILES and left.is_dir()
    (there.parent / "other" / ".mine.part").mkdir(parents=True)
    with pytest.raises(CheckpointError, match="not empty"):
        write(there.parent / "other")
