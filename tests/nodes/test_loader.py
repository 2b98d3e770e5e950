"""The loader on whole, missing and damaged models: each damage is named in a sentence."""

import json
import shutil

import pytest
import torch
from safetensors.torch import load_file, save_file

from unclip.nodes import defaults, host
from unclip.nodes.clip import UnclipImageEncode, UnclipTextEncode
from unclip.nodes.inputs import InputError
from unclip.nodes.loaders import UnclipLoadModel, read_part
from unclip.unclip_core.clip.adapter import MissingTower
from unclip.unclip_core.families.karlo.random_weights import small_size, write_random_karlo
from unclip.unclip_core.families.loading import load_model
from unclip.unclip_core.models import MissingPart
from unclip.unclip_core.weights.files import CheckpointError, load_weights, save_weights

PARTS = ("clip", "prior", "decoder", "upsampler")


@pytest.fixture
def broken(models, tmp_path, monkeypatch):
    """A copy of the model, to be damaged, which the loader lists as "broken"."""
    monkeypatch.setenv(host.FOLDER_VARIABLE, str(tmp_path))
    return shutil.copytree(models / "mine", tmp_path / "broken")


def complaint():
    with pytest.raises(CheckpointError) as caught:
        UnclipLoadModel().run("broken")
    return str(caught.value)


def test_a_whole_model_gives_its_four_parts(model_folder):
    assert UnclipLoadModel.INPUT_TYPES()["required"]["model"][0] == [
        *defaults.MODELS,
        "mine",
        "other",
        "bundled (tiny)",
    ]
    values = UnclipLoadModel().run("mine")
    assert [type(value.part).__name__ for value in values] == ["Clip", "Prior", "Decoder", "Upsampler"]
    assert {value.family for value in values} == {"test"}


def test_an_unlisted_model_is_refused(model_folder):
    with pytest.raises(InputError, match="no model '../mine'"):
        UnclipLoadModel().run("../mine")


@pytest.mark.parametrize("part", PARTS)
def test_missing_weights(broken, part):
    (broken / f"{part}.safetensors").unlink()
    assert f"{part}.safetensors" in complaint()


@pytest.mark.parametrize("part", PARTS)
@pytest.mark.parametrize("kept", [0, 4, 100, 0.5, -1])
def test_truncated_weights(broken, part, kept):
    path = broken / f"{part}.safetensors"
    data = path.read_bytes()
    path.write_bytes(data[: int(len(data) * kept) if isinstance(kept, float) else kept])
    said = complaint()
    assert path.name in said and "truncated" in said


@pytest.mark.parametrize("data", [b"<html>404</html>" * 50, b"\xff" * 4096, b"PK\x03\x04" + bytes(2000)])
def test_weights_that_are_something_else(broken, data):
    (broken / "decoder.safetensors").write_bytes(data)
    assert "decoder.safetensors" in complaint()


def test_weights_with_a_nan(broken):
    path = broken / "prior.safetensors"
    tensors, config = load_weights(path)
    key = next(key for key, value in tensors.items() if value.is_floating_point())
    tensors[key].view(-1)[0] = torch.nan
    save_weights(path, tensors, config)
    assert "NaN" in (said := complaint()) and key in said


def test_weights_of_other_shapes_missing_and_unknown_keys(broken):
    path = broken / "upsampler.safetensors"
    tensors, config = load_weights(path)
    first, second = sorted(tensors)[:2]
    tensors[first] = torch.zeros(3, 5)
    tensors["stranger"] = tensors.pop(second)
    save_weights(path, tensors, config)
    said = complaint()
    assert first in said and "[3, 5]" in said and second in said and "stranger" in said


@pytest.mark.parametrize("from_size", [None, "large", []])
def test_a_second_upsampler_that_does_not_say_what_it_is_for(broken, from_size):
    tensors, config = load_weights(broken / "upsampler.safetensors")
    config |= {} if from_size is None else {"from_size": from_size}
    save_weights(broken / "second.safetensors", tensors, config)
    index = json.loads((broken / "model_index.json").read_text())
    index["components"]["second_upsampler"] = "second.safetensors"
    (broken / "model_index.json").write_text(json.dumps(index))
    assert "second.safetensors" in complaint()


def test_weights_without_their_configuration(broken):
    path = broken / "decoder.safetensors"
    save_file(load_file(path), path)
    assert "decoder.safetensors" in complaint()


@pytest.mark.parametrize("part", PARTS)
@pytest.mark.parametrize("config", [{}, [], {"net": {}, "diffusion": {}}, {"net": 3}, None])
def test_weights_with_a_configuration_that_says_nothing(broken, part, config):
    path = broken / f"{part}.safetensors"
    tensors, _ = load_weights(path)
    save_weights(path, tensors, config)
    assert f"{part}.safetensors" in complaint()


@pytest.mark.parametrize(
    "index",
    ["", "{", "[]", "{}", '{"format": "unclip-v1"}', '{"format": "unclip-v9", "family": "test"}',
     '{"format": "unclip-v1", "family": "test"}', '{"_class_name": "UnCLIPPipeline"}'],
)  # fmt: skip
def test_an_index_that_is_none(broken, index):
    (broken / "model_index.json").write_text(index)
    assert "model_index.json" in complaint()


@pytest.mark.parametrize("components", [[], {"clip": 3}, {"clip": None}, {"clip": ["clip.safetensors"]}, "clip"])
def test_an_index_with_odd_components(broken, components):
    index = json.loads((broken / "model_index.json").read_text())
    (broken / "model_index.json").write_text(json.dumps({**index, "components": components}))
    assert "model_index.json" in complaint()


@pytest.mark.parametrize("name", ["../mine/clip.safetensors", "/etc/passwd", "a\\b.safetensors", "..", "", "C:x"])
def test_an_index_names_files_of_its_own_folder_alone(broken, name):
    index = json.loads((broken / "model_index.json").read_text())
    (broken / "model_index.json").write_text(json.dumps({**index, "components": index["components"] | {"clip": name}}))
    assert "outside of its folder" in complaint()


@pytest.mark.parametrize("absent", [("prior",), ("upsampler",), ("prior", "upsampler"), ("clip", "decoder")])
def test_a_model_without_some_parts_loads_and_refuses_what_needs_them(broken, absent):
    index = json.loads((broken / "model_index.json").read_text())
    kept = {name: file for name, file in index["components"].items() if name not in absent}
    (broken / "model_index.json").write_text(json.dumps(index | {"components": kept}))
    values = dict(zip(PARTS, UnclipLoadModel().run("broken"), strict=True))
    assert {value.family for value in values.values()} == {"test"}
    for name, value in values.items():
        if name in absent:
            with pytest.raises(MissingPart, match=f"The model 'broken' has no '{name}'; it has {', '.join(kept)}"):
                value.part.module.parameters()
            assert value.patcher is None
        else:
            assert list(value.part.module.parameters())


def test_a_clip_without_an_image_encoder_refuses_images_and_a_karlo_without_a_prior_texts(tmp_path, monkeypatch):
    """As its two published folders are."""
    write_random_karlo(tmp_path / "texts", small_size(), vision=False)
    write_random_karlo(tmp_path / "images", small_size(), prior=False)
    monkeypatch.setenv(host.FOLDER_VARIABLE, str(tmp_path))
    clip, *_ = UnclipLoadModel().run("texts")
    _, prior, *_ = UnclipLoadModel().run("images")
    assert UnclipTextEncode().run(clip, "a frog")["result"][0].condition.embeds.shape == (1, 16)
    with pytest.raises(MissingTower, match="has no image encoder"):
        UnclipImageEncode().run(clip, torch.rand(1, 8, 8, 3))
    with pytest.raises(MissingPart, match="The model 'images' has no 'prior'; it has clip, decoder, upsampler"):
        _ = prior.part


def test_a_changed_file_changes_what_comfyui_compares(broken):
    """IS_CHANGED: the same while nothing changes, another once a file does."""
    before = UnclipLoadModel.IS_CHANGED("broken")
    assert UnclipLoadModel.IS_CHANGED("broken") == before and len(before) == 16
    with open(broken / "prior.safetensors", "ab") as file:
        file.write(b"\0")
    assert UnclipLoadModel.IS_CHANGED("broken") != before


@pytest.mark.parametrize("linked", [{"model": None}, {"prior": None}, {"model": None, "dtype": None, "prior": None}])
def test_a_linked_name_may_be_any_so_all_files_count(broken, linked):
    """ComfyUI hands on None for what a link brings, and takes an error for a change in every run."""
    before = UnclipLoadModel.IS_CHANGED(**linked)
    assert UnclipLoadModel.IS_CHANGED(**linked) == before and len(before) == 16
    with open(broken / "prior.safetensors", "ab") as file:
        file.write(b"\0")
    assert UnclipLoadModel.IS_CHANGED(**linked) != before


@pytest.mark.parametrize(("choice", "dtype"), [("fp16", torch.float16), ("bf16", torch.bfloat16)])
def test_the_weights_have_the_dtype_that_is_asked_for(model_folder, choice, dtype):
    for value in UnclipLoadModel().run("mine", choice):
        kinds = {weight.dtype for weight in value.part.module.parameters() if weight.is_floating_point()}
        assert kinds == {dtype}, value


def test_it_says_once_that_the_processor_computes_in_another_dtype(model_folder, caplog, emulated):
    UnclipLoadModel().run("mine", "bf16")
    assert caplog.messages == ["Weights in bf16, computed in fp32: this processor has no bf16 instructions."]


def test_a_clip_whose_layers_widen_nothing_stays_in_what_is_computed(model_folder, emulated):
    model = load_model(host.model_path("mine"))
    clip = model.clip
    assert clip.adapter.widens
    clip.adapter.widens = False
    assert read_part(model, "clip", torch.bfloat16).part is clip
    assert {weight.dtype for weight in clip.module.parameters()} == {torch.float32}


def test_it_says_nothing_where_weights_are_computed_as_they_are_held(model_folder, caplog, native):
    for choice in defaults.DTYPES:
        UnclipLoadModel().run("mine", choice)
    assert not caplog.messages


def test_weights_are_fp32_by_default_and_another_dtype_is_refused(model_folder):
    for value in UnclipLoadModel().run("mine"):
        assert {weight.dtype for weight in value.part.module.parameters()} == {torch.float32}
    with pytest.raises(InputError, match="no dtype 'fp8'"):
        UnclipLoadModel().run("mine", "fp8")
