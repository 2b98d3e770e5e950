"""Listings: linked folders are entered, each once, and loops end."""

import os

import pytest

from unclip.unclip_core.listing import files_below, visible


def names(folder):
    return [path.relative_to(folder).as_posix() for path in files_below(folder)]


def write(path):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(b"x")


def test_linked_folders_are_entered_and_loops_end(tmp_path):
    for inner in ("in/a.txt", "in/deep/b.txt", "out/c.txt", "out/more/d.txt"):
        write(tmp_path / inner)
    (tmp_path / "in" / "linked").symlink_to(tmp_path / "out", target_is_directory=True)
    (tmp_path / "in" / "back").symlink_to(tmp_path / "in", target_is_directory=True)
    (tmp_path / "out" / "up").symlink_to(tmp_path, target_is_directory=True)
    listed = names(tmp_path / "in")
    assert [name for name in listed if not name.startswith("linked/up/")] == [
        "a.txt", "deep/b.txt", "linked/c.txt", "linked/more/d.txt",
    ]  # fmt: skip
    assert len({os.path.realpath(tmp_path / "in" / name) for name in listed}) == len(listed)


def test_a_folder_that_is_also_linked_from_beside_keeps_its_own_name(tmp_path):
    write(tmp_path / "z" / "a.txt")
    (tmp_path / "a").symlink_to(tmp_path / "z", target_is_directory=True)
    assert names(tmp_path) == ["z/a.txt"]


def test_a_folder_that_cannot_be_read_is_told(tmp_path):
    told = []
    assert files_below(tmp_path / "none", told.append) == [] and isinstance(told[0], OSError)
    with pytest.raises(FileNotFoundError):
        raise told[0]


def test_hidden_files_are_not_listed_where_a_folder_is_read(tmp_path):
    for name in ("b.yaml", "a.yml", "._b.yaml", "c.txt", "configs/d.yaml", "configs/._d.yaml", ".hidden/e.yaml"):
        write(tmp_path / name)
    assert [path.name for path in visible(tmp_path)] == ["a.yml", "b.yaml", "c.txt", "configs"]
    assert [path.name for path in visible(tmp_path, "*.y*ml")] == ["a.yml", "b.yaml"]
    assert visible(tmp_path, "configs/*.yaml") == [tmp_path / "configs" / "d.yaml"]
    assert visible(tmp_path / "gone") == []
