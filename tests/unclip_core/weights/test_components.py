"""Which files of a folder are a component's weights: as diffusers and transformers write them, and with strays."""

import json

import pytest
import torch
from safetensors.torch import load_file, save_file

from unclip.unclip_core.weights.components import open_component
from unclip.unclip_core.weights.files import CheckpointError

WHOLE = "diffusion_pytorch_model.safetensors"


@pytest.fixture(scope="module")
def unet():
    from diffusers import UNet2DModel

    return UNet2DModel(
        sample_size=8, in_channels=3, out_channels=3, block_out_channels=(32, 64), layers_per_block=1,
        down_block_types=("DownBlock2D",) * 2, up_block_types=("UpBlock2D",) * 2, norm_num_groups=8,
    )  # fmt: skip


def numbers(folder):
    held = open_component(folder)
    return {key: held.read(key) for key in held.shapes}


def same(ours, theirs):
    assert set(ours) == set(theirs)
    return all(torch.equal(value, theirs[key]) for key, value in ours.items())


@pytest.mark.slow
@pytest.mark.parametrize("variant", [None, "fp16"])
@pytest.mark.parametrize("size", ["1GB", "200KB"])
@pytest.mark.parametrize("safe", [True, False])
def test_what_diffusers_writes_is_read(tmp_path, unet, variant, size, safe):
    unet.save_pretrained(tmp_path, variant=variant, max_shard_size=size, safe_serialization=safe)
    shards = len(list(tmp_path.glob("*-of-*")))
    assert (shards > 1) == (size == "200KB")
    assert same(numbers(tmp_path), unet.state_dict())


@pytest.mark.parametrize("variant", [None, "fp16"])
def test_what_transformers_writes_is_read(tmp_path, variant):
    from transformers import CLIPVisionConfig, CLIPVisionModelWithProjection

    config = CLIPVisionConfig(
        hidden_size=16, intermediate_size=32, num_hidden_layers=2, num_attention_heads=2, image_size=16, patch_size=8
    )
    tower = CLIPVisionModelWithProjection(config)
    tower.save_pretrained(tmp_path, variant=variant, max_shard_size="10KB")
    assert len(list(tmp_path.glob("*-of-*"))) > 1
    state = {key: value for key, value in tower.state_dict().items() if not key.endswith("position_ids")}
    assert same(numbers(tmp_path), state)


def test_the_plain_file_comes_before_variant_shards_and_strays(tmp_path, unet):
    half = unet.__class__.from_config(unet.config).half()
    half.save_pretrained(tmp_path, variant="fp16", max_shard_size="200KB")
    unet.save_pretrained(tmp_path)
    assert same(numbers(tmp_path), unet.state_dict())
    some = dict(sorted(load_file(tmp_path / WHOLE).items())[:5])
    save_file(some, tmp_path / "diffusion_pytorch_model-00001-of-00002.safetensors")
    (tmp_path / f"._{WHOLE}").write_bytes(b"\0\5\26\7of another system")
    assert same(numbers(tmp_path), unet.state_dict())


def test_shards_without_an_index_are_named(tmp_path):
    save_file({"a": torch.ones(1)}, tmp_path / "x-00001-of-00002.safetensors")
    with pytest.raises(CheckpointError, match="x-00001-of-00002.safetensors.*no index"):
        open_component(tmp_path)


@pytest.mark.parametrize("safe", [True, False])
def test_what_another_system_leaves_beside_an_index_is_passed_over(tmp_path, unet, safe):
    unet.save_pretrained(tmp_path, max_shard_size="200KB", safe_serialization=safe)
    (index,) = tmp_path.glob("*.index.json")
    index.with_name(f"._{index.name}").write_bytes(b"\0\5\26\7\xff\xfeof another system")
    assert same(numbers(tmp_path), unet.state_dict())


def test_half_a_download_of_shards_counts_for_nothing_beside_a_whole_file(tmp_path):
    save_file({"a": torch.ones(1)}, tmp_path / "model-00001-of-00002.safetensors")
    torch.save({"a": torch.full((2,), 3.0)}, tmp_path / "pytorch_model.bin")
    assert numbers(tmp_path)["a"].tolist() == [3.0, 3.0]
    (tmp_path / "pytorch_model.bin").rename(tmp_path / "pytorch_model-00002-of-00002.bin")
    with pytest.raises(CheckpointError, match="model-00001-of-00002.safetensors.*pytorch_model-00002-of-00002.bin"):
        open_component(tmp_path)


ORDER = [
    "diffusion_pytorch_model.safetensors", "model.safetensors", "model.fp16.safetensors", "pytorch_model.bin",
    "pytorch_model.fp16.bin", "adapter.safetensors", "prior.fp16.safetensors", "args.bin",
]  # fmt: skip
"""Names of weights, each taken before those behind it."""


@pytest.mark.parametrize("first", range(len(ORDER)))
def test_weights_are_told_from_an_optimizers_by_their_names(tmp_path, first):
    for number, name in enumerate(ORDER[first:], start=first):
        tensors = {"a": torch.tensor([float(number)])}
        save_file(tensors, tmp_path / name) if "safetensors" in name else torch.save(tensors, tmp_path / name)
    (tmp_path / "model.safetensors.d").mkdir()
    (tmp_path / "a.safetensors").mkdir()
    assert numbers(tmp_path)["a"].tolist() == [first]


def test_an_index_counts_as_the_file_that_it_stands_for(tmp_path, unet):
    unet.save_pretrained(tmp_path, max_shard_size="200KB")
    save_file({"a": torch.ones(1)}, tmp_path / "adapter.safetensors")
    (tmp_path / "optimizer.bin.index.json").write_text("{")
    assert same(numbers(tmp_path), unet.state_dict())


def test_a_byte_order_mark_before_an_index_is_passed_over(tmp_path, unet):
    unet.save_pretrained(tmp_path, max_shard_size="200KB")
    index = tmp_path / f"{WHOLE}.index.json"
    index.write_bytes(b"\xef\xbb\xbf" + index.read_bytes())
    assert same(numbers(tmp_path), unet.state_dict())


@pytest.mark.parametrize("name", ["../x.safetensors", "/x", "", "a\0b", "x" * 300, "\ud800"])
def test_an_index_that_names_no_file_of_its_folder_is_refused(tmp_path, name):
    (tmp_path / "x.safetensors.index.json").write_text(json.dumps({"weight_map": {"a": name}}))
    with pytest.raises(CheckpointError, match=r"index\.json"):
        open_component(tmp_path)
