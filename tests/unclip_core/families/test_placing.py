"""Files that one folder takes over from another: what lies there afterwards is the file, whatever the original was."""

import os

import pytest

from unclip.unclip_core.families import placing

DATA = bytes(range(256))


@pytest.fixture(params=[0, 1 << 20], ids=["linked", "copied"])
def least(request, monkeypatch):
    """The size from which on files are linked."""
    monkeypatch.setattr(placing, "LINKED", request.param)
    return request.param


@pytest.fixture
def snapshot(tmp_path):
    """A file of a hub's cache: a relative link to where the bytes are."""
    (tmp_path / "blobs").mkdir()
    (tmp_path / "snapshots" / "one").mkdir(parents=True)
    (tmp_path / "blobs" / "f00").write_bytes(DATA)
    path = tmp_path / "snapshots" / "one" / "w.bin"
    path.symlink_to(os.path.join("..", "..", "blobs", "f00"))
    return path


def test_of_a_link_the_file_behind_it_is_taken(snapshot, least, tmp_path):
    target = tmp_path / "made" / "prior" / "deep" / "w.bin"
    placing.copy_or_link(snapshot, target)
    assert target.read_bytes() == DATA and not target.is_symlink()
    blob = tmp_path / "blobs" / "f00"
    assert os.path.samefile(blob, target) == (least == 0)
    blob.unlink()
    assert target.read_bytes() == DATA


def test_a_link_to_nothing_gives_way_and_a_whole_file_stays(snapshot, least, tmp_path):
    target = tmp_path / "made" / "w.bin"
    target.parent.mkdir()
    target.symlink_to(os.path.join("..", "..", "blobs", "f00"))
    assert not target.exists()
    placing.copy_or_link(snapshot, target)
    assert target.read_bytes() == DATA and not target.is_symlink()
    target.unlink()
    target.write_bytes(b"trained")
    placing.copy_or_link(snapshot, target)
    assert target.read_bytes() == b"trained"
