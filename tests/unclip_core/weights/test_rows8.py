"""Matrices in eight bits: how far off, how small, and what damaged ones are told."""

import pytest
import torch
from own_training import config_of, train, write_images
from safetensors.torch import save_file

from unclip.unclip_core.families.convert import convert
from unclip.unclip_core.families.loading import load_model
from unclip.unclip_core.weights.files import CheckpointError, load_weights, save_weights
from unclip.unclip_core.weights.rows8 import SCALE, code_rows, decode_rows


def test_an_element_is_off_by_half_a_level_of_its_row_at_most():
    matrix = torch.randn(40, 33, generator=torch.Generator().manual_seed(0)) * torch.logspace(-7, 3, 40)[:, None]
    convolution = torch.randn(16, 4, 3, 3, generator=torch.Generator().manual_seed(1))
    zeros = torch.zeros(16, 16)
    tensors = {"m": matrix, "c": convolution, "z": zeros}
    back = decode_rows(code_rows(tensors))
    for name, tensor in tensors.items():
        most = tensor.flatten(1).abs().amax(dim=1) / 254
        off = (back[name] - tensor).flatten(1).abs().amax(dim=1)
        assert (off <= most * (1 + 1e-4)).all() and back[name].shape == tensor.shape, name


def test_vectors_statistics_and_counts_stay():
    tensors = {"b": torch.randn(64), "clip_mean": torch.randn(1, 64), "n": torch.arange(400).view(20, 20)}
    coded = code_rows(tensors)
    assert set(coded) == set(tensors) and all(torch.equal(coded[name], tensors[name]) for name in tensors)


def test_a_file_of_them_is_small_and_read_back(tmp_path):
    matrix = torch.randn(512, 512, generator=torch.Generator().manual_seed(0))
    save_weights(tmp_path / "m.safetensors", code_rows({"m": matrix}), {"width": 3})
    assert (tmp_path / "m.safetensors").stat().st_size < 1.02 * 512 * 512
    tensors, config = load_weights(tmp_path / "m.safetensors", torch.float16)
    assert config == {"width": 3} and tensors["m"].dtype == torch.float16
    torch.testing.assert_close(tensors["m"].float(), matrix, rtol=0.01, atol=0.03)


@pytest.mark.parametrize(
    ("scale", "said"),
    [(None, "int8"), (torch.ones(3), "int8"), (torch.full((16,), float("nan")), "NaN or infinity in 'm'")],
)
def test_without_its_scales_it_is_refused(tmp_path, scale, said):
    tensors = {"m": torch.ones(16, 16, dtype=torch.int8)} | ({} if scale is None else {"m" + SCALE: scale})
    save_file(tensors, tmp_path / "m.safetensors", {"config": "{}"})
    with pytest.raises(CheckpointError, match=said):
        load_weights(tmp_path / "m.safetensors")


def test_a_model_is_converted_and_is_nearly_the_same(tmp_path):
    images = write_images(tmp_path / "images")
    for stage in ("clip", "prior", "decoder"):
        assert train(stage, images, tmp_path / "m", config_of(stage, 1)) == 0
    target = convert(tmp_path / "m", tmp_path / "small", "fp16", ["decoder"])
    sizes = [(folder / "decoder.safetensors").stat().st_size for folder in (tmp_path / "m", target)]
    assert sizes[1] < 0.4 * sizes[0]
    old, new = (load_model(folder) for folder in (tmp_path / "m", target))
    for name, tensor in old.decoder.net.state_dict().items():
        other = new.decoder.net.state_dict()[name]
        assert (other - tensor).abs().max() <= tensor.abs().max() / 250 + 1e-6, name
    assert torch.equal(old.prior.net.clip_std, new.prior.net.clip_std)
    for parts, to, said in ((["upsampler"], "x", "no part"), (["decoder"], "small", "not empty")):
        with pytest.raises(CheckpointError, match=said):
            convert(tmp_path / "m", tmp_path / to, "fp16", parts)
