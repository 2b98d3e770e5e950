"""A file that takes another's place on Windows, which renames nothing over a file that is mapped."""

import os

import pytest
import torch

from unclip.unclip_core.families.download_record import Record
from unclip.unclip_core.weights import replacing
from unclip.unclip_core.weights.files import load_weights, save_weights
from unclip.unclip_core.weights.replacing import put_in_place


@pytest.fixture
def mapped(monkeypatch):
    """Files that are mapped: nothing is renamed over them, nor are they deleted. "fast" ones are not renamed either."""
    held, fast = set(), set()
    replace, rename, unlink = os.replace, os.rename, replacing.Path.unlink

    def same(path, files):
        return os.path.exists(path) and os.stat(path).st_ino in files

    def windows_replace(source, target):
        if same(target, held):
            raise PermissionError(13, "Access is denied", str(target))
        replace(source, target)

    def windows_rename(source, target):
        if same(source, fast):
            raise PermissionError(13, "The process cannot access the file", str(source))
        rename(source, target)

    def windows_unlink(path, missing_ok=False):
        if same(path, held):
            raise PermissionError(13, "Access is denied", str(path))
        unlink(path, missing_ok=missing_ok)

    monkeypatch.setattr(os, "replace", windows_replace)
    monkeypatch.setattr(os, "rename", windows_rename)
    monkeypatch.setattr(replacing.Path, "unlink", windows_unlink)

    def hold(path, keeps=False):
        held.add(path.stat().st_ino)
        fast.update({path.stat().st_ino} if keeps else ())
        return held.clear

    return hold


def weights_of(path):
    return load_weights(path)[0]["w"].tolist()


def save(path, number):
    save_weights(path, {"w": torch.full((3,), float(number))}, {})


def names(folder):
    return sorted(path.name for path in folder.iterdir())


def test_weights_that_are_mapped_are_replaced_and_go_once_nobody_needs_them(mapped, tmp_path):
    path = tmp_path / "decoder.safetensors"
    save(path, 1)
    (tmp_path / ".mine.old").write_bytes(b"somebody's")
    let_go = mapped(path)
    save(path, 2)
    assert weights_of(path) == [2.0] * 3
    (old,) = set(names(tmp_path)) - {path.name, ".mine.old"}
    assert weights_of(tmp_path / old) == [1.0] * 3
    save(path, 3)
    assert weights_of(path) == [3.0] * 3 and old in names(tmp_path)
    let_go()
    save(path, 4)
    assert weights_of(path) == [4.0] * 3 and names(tmp_path) == [".mine.old", path.name]


def test_a_file_that_a_program_keeps_stays_what_it_was_and_that_is_said(mapped, tmp_path):
    path = tmp_path / "decoder.safetensors"
    save(path, 1)
    mapped(path, keeps=True)
    with pytest.raises(PermissionError, match="another program has it open.*decoder.safetensors"):
        save(path, 2)
    assert weights_of(path) == [1.0] * 3 and names(tmp_path) == [path.name]


def test_where_the_new_file_cannot_take_the_place_the_old_one_comes_back(mapped, tmp_path):
    path, new = tmp_path / "w", tmp_path / "new"
    path.write_bytes(b"old")
    new.write_bytes(b"new")
    mapped(path)
    mapped(new, keeps=True)
    with pytest.raises(PermissionError, match="cannot access the file"):
        put_in_place(new, path)
    assert path.read_bytes() == b"old" and names(tmp_path) == ["new", "w"]


def test_a_folder_does_not_give_way(mapped, tmp_path):
    (tmp_path / "new").write_bytes(b"new")
    (tmp_path / "there").mkdir()
    mapped(tmp_path / "there")
    with pytest.raises(PermissionError, match="Access is denied"):
        put_in_place(tmp_path / "new", tmp_path / "there")
    assert (tmp_path / "there").is_dir()


def test_a_download_takes_the_place_of_a_model_that_is_loaded(mapped, tmp_path):
    (tmp_path / "w.bin").write_bytes(b"before")
    (tmp_path / "w.part").write_bytes(b"after")
    mapped(tmp_path / "w.bin")
    record = Record.read(tmp_path)
    record.replace("w.bin", tmp_path / "w.part", "2")
    assert (tmp_path / "w.bin").read_bytes() == b"after" and Record.read(tmp_path).versions == {"w.bin": "2"}
