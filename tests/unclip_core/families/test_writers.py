"""What is written is read before it counts: no half a folder is left, and none that does not load."""

import errno
import os
from dataclasses import asdict, replace
from pathlib import Path

import pytest
import torch
from factories import write_model
from kakao_files import write_kakao

from unclip.unclip_core.families.convert import convert
from unclip.unclip_core.families.kandinsky22 import decoder_writer
from unclip.unclip_core.families.kandinsky22.random_decoder import small_size as small_decoder
from unclip.unclip_core.families.kandinsky22.random_decoder import write_random_decoder
from unclip.unclip_core.families.karlo.random_weights import small_size, write_random_karlo
from unclip.unclip_core.families.loading import SHAPES, load_model
from unclip.unclip_core.families.native.family import FAMILY as NATIVE
from unclip.unclip_core.families.native.index import read_index
from unclip.unclip_core.families.registry import TrainedPart
from unclip.unclip_core.nets.params import params_to_dict
from unclip.unclip_core.weights import files
from unclip.unclip_core.weights.files import CheckpointError


def names(folder):
    return sorted(path.name for path in folder.iterdir())


@pytest.fixture(scope="module")
def karlo(tmp_path_factory):
    return write_random_karlo(tmp_path_factory.mktemp("models") / "karlo", small_size())


def full_after(monkeypatch, count):
    """A disk that takes `count` files more."""
    left = iter(range(count))
    sync = os.fsync

    def limited(descriptor):
        if next(left, None) is None:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        sync(descriptor)

    monkeypatch.setattr(files.os, "fsync", limited)


@pytest.fixture(scope="module")
def decoder(tmp_path_factory):
    """A decoder of Kandinsky 2.2, whose card names a prior that is not there."""
    place = tmp_path_factory.mktemp("models")
    return write_random_decoder(place / "decoder", small_decoder(), prior="kandinsky-community/kandinsky-2-2-prior")


def fails_on_full_disks(monkeypatch, place, counts, write):
    """Write on disks that take so many files more; each time nothing is left in `place`."""
    for count in counts:
        with monkeypatch.context() as patch:
            full_after(patch, count)
            with pytest.raises(OSError, match="No space left"):
                write()
        assert names(place) == [], count


def test_a_decoder_on_a_full_disk_leaves_nothing_and_does_not_block_the_next(decoder, tmp_path, monkeypatch):
    """Seven files: the weights and configurations of two nets, scheduler, card, index."""
    target = tmp_path / "new" / "folder"
    fails_on_full_disks(monkeypatch, tmp_path, [0, 1, 2, 4, 5, 6], lambda: convert(decoder, target))
    convert(decoder, target)
    assert names(tmp_path / "new") == ["folder"] and names(target) == names(decoder)
    load_model(target).reader.check()


def test_a_decoder_that_its_own_reader_refuses_is_not_written(decoder, tmp_path, monkeypatch):
    monkeypatch.setattr(decoder_writer.decoder_config, "movq_config", lambda params: {"latent_channels": 4})
    with pytest.raises(CheckpointError):
        convert(decoder, tmp_path / "new")
    assert names(tmp_path) == []


def test_a_failed_conversion_leaves_nothing_and_does_not_block_the_next(karlo, tmp_path, monkeypatch):
    target = tmp_path / "new" / "folder"
    fails_on_full_disks(monkeypatch, tmp_path, [0, 1, 7, 15], lambda: convert(karlo, target))
    convert(karlo, target)
    assert names(tmp_path) == ["new"] and names(tmp_path / "new") == ["folder"]
    load_model(target).reader.check()


def test_a_conversion_into_an_empty_folder(karlo, tmp_path):
    (tmp_path / "there").mkdir()
    convert(karlo, tmp_path / "there")
    assert names(tmp_path) == ["there"]
    assert load_model(tmp_path / "there").reader.parts == {"clip", "prior", "decoder", "upsampler"}


def test_a_conversion_into_the_folder_where_one_stands(karlo, tmp_path, monkeypatch):
    (tmp_path / "there").mkdir()
    monkeypatch.chdir(tmp_path / "there")
    fails_on_full_disks(monkeypatch, tmp_path / "there", [0, 7], lambda: convert(karlo, "."))
    convert(karlo, ".")
    assert names(Path()) == names(karlo) and names(tmp_path) == ["there"]
    load_model(".").reader.check()
    convert(SHAPES, tmp_path / "coded", "fp16", ["decoder"])
    (tmp_path / "empty").mkdir()
    monkeypatch.chdir(tmp_path / "empty")
    convert(SHAPES, ".", "fp16", ["decoder"])
    assert names(Path()) == names(tmp_path / "coded")


def test_a_net_that_the_layout_cannot_say_is_refused_by_name(tmp_path):
    """Channels that begin at twice the model's own (channels_multiple = [2, 1]): diffusers reads another net there."""
    sizes = small_size()
    unet = replace(sizes.decoder.unet, channels=(64, 32), attention=(False, True), time_channels=32)
    unet = replace(unet, groups=32, head_dim=16)
    write_kakao(tmp_path / "source", replace(sizes, decoder=replace(sizes.decoder, unet=unet)))
    assert load_model(tmp_path / "source").decoder.net.unet.params.channels == (64, 32)
    with pytest.raises(
        CheckpointError, match="diffusers would write.*time_embed_dim 128 is not unet.time_embed_dim 256"
    ):
        convert(tmp_path / "source", tmp_path / "target")
    assert names(tmp_path) == ["source"]


def test_kakaobrains_files_are_converted_where_the_layout_can_say_them(tmp_path):
    write_kakao(tmp_path / "source")
    target = convert(tmp_path / "source", tmp_path / "target")
    before, after = (load_model(folder).decoder.net.state_dict() for folder in (tmp_path / "source", target))
    assert all(torch.equal(before[key], after[key]) for key in before)


def trained(model, **changes):
    prior = model.prior
    config = {"net": params_to_dict(prior.net.params), "diffusion": asdict(prior.diffusion), "unit_norm": True}
    tensors = prior.net.state_dict()
    return TrainedPart("prior", model.family, config | changes, tensors, torch.float32)


@pytest.mark.parametrize(
    "changes", [{"unit_norm": "yes"}, {"diffusion": {"train_steps": 10**9}}, {"net": {"layers": 3}}]
)
def test_a_trained_part_that_would_not_load_is_not_written(tmp_path, changes):
    model = load_model(write_model(tmp_path))
    with pytest.raises(CheckpointError, match=r"header of .*prior\.safetensors"):
        NATIVE.write_trained(model, tmp_path / "out", trained(model, **changes))
    assert not (tmp_path / "out").exists()
    NATIVE.write_trained(model, tmp_path / "out", trained(model))
    assert load_model(tmp_path / "out").prior.unit_norm


def test_the_index_is_read_once(tmp_path, monkeypatch):
    from unclip.unclip_core.families.native import index, reader

    write_model(tmp_path)
    read = []
    monkeypatch.setattr(reader, "read_index", lambda folder: read.append(folder) or index.read_index(folder))
    model = load_model(tmp_path)
    assert all(getattr(model, part) for part in ("clip", "prior", "decoder", "upsampler"))
    assert len(read) == 1


def test_byte_order_marks_before_index_and_configurations_are_passed_over(karlo, tmp_path):
    import shutil

    folder = shutil.copytree(karlo, tmp_path / "karlo")
    for path in folder.rglob("*"):
        if path.suffix in (".json", ".txt"):
            path.write_bytes(b"\xef\xbb\xbf" + path.read_bytes())
    model = load_model(folder)
    model.reader.check()
    assert model.clip.adapter.encode_text(["a red cat"]).embeds.shape == (1, 16)
    write_model(tmp_path)
    index = tmp_path / "model_index.json"
    index.write_bytes(b"\xef\xbb\xbf" + index.read_bytes())
    assert read_index(tmp_path).family == "test" and load_model(tmp_path).prior is not None


def test_a_coded_model_on_a_full_disk_leaves_nothing_and_does_not_block_the_next(tmp_path, monkeypatch):
    """Six files: five parts and the index."""
    target = tmp_path / "new" / "small"
    fails_on_full_disks(monkeypatch, tmp_path, [0, 2, 5], lambda: convert(SHAPES, target, "fp16", ["decoder"]))
    convert(SHAPES, target, "fp16", ["decoder"])
    assert len(names(target)) == 6 and load_model(target).decoder.net is not None
