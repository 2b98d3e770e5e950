"""Weight files: whole or absent, strict, and errors that say what is wrong."""

import errno
import os

import pytest
import torch
from torch import nn

from unclip.unclip_core.families.loading import load_model
from unclip.unclip_core.families.native.reader import read_index
from unclip.unclip_core.weights import files
from unclip.unclip_core.weights.files import (
    CheckpointError,
    Entry,
    load_strictly,
    load_weights,
    save_weights,
    stream_weights,
)


@pytest.fixture
def saved(tmp_path):
    path = tmp_path / "net.safetensors"
    save_weights(path, {"weight": torch.arange(6.0).view(2, 3), "count": torch.tensor([3])}, {"width": 3})
    return path


def test_tensors_and_configuration_come_back(saved):
    tensors, config = load_weights(saved)
    assert config == {"width": 3}
    torch.testing.assert_close(tensors["weight"], torch.arange(6.0).view(2, 3))


def test_only_floating_tensors_are_cast(saved):
    tensors, _ = load_weights(saved, torch.float16)
    assert (tensors["weight"].dtype, tensors["count"].dtype) == (torch.float16, torch.int64)


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(CheckpointError, match=r"absent\.safetensors"):
        load_weights(tmp_path / "absent.safetensors")


@pytest.mark.parametrize("keep", [0, 7, 40, -1])
def test_a_truncated_file_is_refused(saved, keep):
    saved.write_bytes(saved.read_bytes()[:keep])
    with pytest.raises(CheckpointError, match=r"net\.safetensors.*truncated"):
        load_weights(saved)


def test_garbage_is_refused(saved):
    saved.write_bytes(bytes(range(256)) * 10)
    with pytest.raises(CheckpointError, match=r"net\.safetensors"):
        load_weights(saved)


def test_nan_is_refused(tmp_path):
    path = tmp_path / "net.safetensors"
    save_weights(path, {"weight": torch.tensor([1.0, float("nan")])}, {})
    with pytest.raises(CheckpointError, match="'weight'"):
        load_weights(path)


def test_a_file_without_configuration_is_refused(tmp_path):
    from safetensors.torch import save_file

    save_file({"weight": torch.zeros(1)}, tmp_path / "net.safetensors")
    with pytest.raises(CheckpointError, match="header"):
        load_weights(tmp_path / "net.safetensors")


@pytest.mark.parametrize(
    ("tensors", "words"),
    [
        ({"weight": torch.zeros(2, 3)}, ["missing 'bias'", r"\[2\]"]),
        ({"weight": torch.zeros(2, 3), "bias": torch.zeros(2), "extra": torch.zeros(4)}, ["unknown 'extra'", r"\[4\]"]),
        ({"weight": torch.zeros(3, 2), "bias": torch.zeros(2)}, ["'weight'", r"\[3, 2\]", r"\[2, 3\]"]),
    ],
)
def test_a_misfit_names_file_key_and_shapes(tensors, words):
    module = nn.Linear(3, 2)
    before = module.weight.detach().clone()
    with pytest.raises(CheckpointError) as caught:
        load_strictly(module, tensors, "net.safetensors")
    for word in ["net.safetensors", *words]:
        assert caught.match(word)
    torch.testing.assert_close(module.weight, before)


def test_a_full_disk_leaves_nothing_behind(saved, monkeypatch):
    before = saved.read_bytes()

    def full(descriptor: int) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(files.os, "fsync", full)
    with pytest.raises(OSError, match="No space left"):
        save_weights(saved, {"weight": torch.zeros(1000)}, {})
    assert saved.read_bytes() == before
    assert [item.name for item in saved.parent.iterdir()] == [saved.name]


def test_a_folder_without_index_is_named(tmp_path):
    with pytest.raises(CheckpointError, match=r"model_index\.json"):
        read_index(tmp_path)


@pytest.mark.parametrize("text", ["{", "[]", '{"format": "other", "family": "x"}', '{"format": "unclip-v1"}'])
def test_an_unusable_index_is_refused(tmp_path, text):
    (tmp_path / "model_index.json").write_text(text)
    with pytest.raises(CheckpointError, match=r"model_index\.json"):
        load_model(tmp_path)


def test_a_missing_component_is_named(tmp_path):
    (tmp_path / "model_index.json").write_text('{"format": "unclip-v1", "family": "x", "components": {"clip": "c"}}')
    with pytest.raises(CheckpointError, match="has no 'prior'; it has clip"):
        _ = load_model(tmp_path).prior


def test_a_bad_configuration_is_named(tmp_path):
    (tmp_path / "model_index.json").write_text(
        '{"format": "unclip-v1", "family": "x", "components": {"decoder": "d.safetensors"}}'
    )
    save_weights(tmp_path / "d.safetensors", {"weight": torch.zeros(1)}, {"net": {"width": 3}, "diffusion": {}})
    with pytest.raises(CheckpointError, match=r"configuration in the header of .*d\.safetensors"):
        _ = load_model(tmp_path).decoder


@pytest.mark.parametrize(
    ("number", "dtype", "said"),
    [
        (1e5, torch.float16, "too large for float16: take bfloat16"),
        (-1e5, torch.float16, "too large for float16: take bfloat16"),
        (torch.finfo(torch.float32).max, torch.bfloat16, r"too large for bfloat16\."),
        (1e300, torch.float32, r"too large for float32\."),
    ],
)
def test_what_a_cast_would_make_infinite_is_refused(tmp_path, number, dtype, said):
    path, wide = tmp_path / "net.safetensors", torch.tensor([1.0, number], dtype=torch.float64)
    held = wide if wide.float().isinf().any() else wide.float()
    save_weights(path, {"weight": held, "count": torch.tensor([3])}, {})
    with pytest.raises(CheckpointError, match=f"'weight' of .*net.safetensors' holds values {said}"):
        load_weights(path, dtype)
    assert load_weights(path)[0]["weight"].tolist() == held.tolist()
    entries = [Entry("weight", dtype, (2,), lambda: held), Entry("count", torch.int64, (1,), lambda: torch.tensor([3]))]
    with pytest.raises(CheckpointError, match=said):
        stream_weights(tmp_path / "written.safetensors", entries)
    assert not (tmp_path / "written.safetensors").exists()


def test_what_fits_is_cast_and_what_is_kept_is_float32(tmp_path):
    path, numbers = tmp_path / "net.safetensors", torch.tensor([0.1, 65504.0])
    save_weights(path, {"weight": numbers, "mean": numbers.clone(), "std": numbers.half()}, {})
    tensors, _ = load_weights(path, torch.float16, keep=("mean", "std"))
    assert torch.equal(tensors["weight"], numbers.half()) and torch.equal(tensors["mean"], numbers)
    assert torch.equal(tensors["std"], numbers.half().float())
