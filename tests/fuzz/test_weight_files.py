"""Single weight files under damage: safetensors, pickles old and new, TorchScript, shards, LoRAs, tokenizers."""

import io
import json

import pytest
import torch
from fuzz.mutations import damaged_bytes, damaged_json, fuzzed, survives
from hypothesis import given
from hypothesis import strategies as st
from safetensors.torch import save, save_file
from torch import nn

from unclip.unclip_core.clip.tokenizer import ClipTokenizer, byte_vocabulary, read_tokenizer, write_tokenizer
from unclip.unclip_core.lora.files import read_lora, write_lora
from unclip.unclip_core.weights.components import open_component
from unclip.unclip_core.weights.files import CheckpointError, load_weights
from unclip.unclip_core.weights.tensors import open_file
from unclip.unclip_core.weights.torch_archive import open_torchscript

TENSORS = {"a.weight": torch.randn(4, 3), "a.bias": torch.zeros(4), "count": torch.tensor([3])}
PEFT = {
    "peft_type": "LORA", "lora_alpha": 4, "r": 2, "init_lora_weights": True, "use_rslora": False, "bias": "none",
    "target_modules": ["to_q"], "rank_pattern": {}, "alpha_pattern": {}, "use_dora": False,
}  # fmt: skip


def saved(**how):
    file = io.BytesIO()
    torch.save(TENSORS, file, **how)
    return file.getvalue()


def scripted():
    file = io.BytesIO()
    torch.jit.save(torch.jit.script(nn.Linear(3, 4)), file)
    return file.getvalue()


ZIPPED, LEGACY, SCRIPT = saved(), saved(_use_new_zipfile_serialization=False), scripted()
SAFE = save(TENSORS, {"config": '{"width": 3}'})


def read_all(path):
    tensors = open_file(path)
    return {key: tensors.read(key) for key in tensors.shapes}


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    return tmp_path_factory.mktemp("files")


def written(path, data):
    path.unlink(missing_ok=True)  # mapped by an earlier try
    path.parent.mkdir(exist_ok=True)
    path.write_bytes(data)
    return path


@fuzzed
@given(data=damaged_bytes(SAFE))
def test_safetensors(place, data):
    path = written(place / "x.safetensors", data)
    survives(lambda: load_weights(path, torch.float32), CheckpointError)
    survives(lambda: read_all(path), CheckpointError)


@fuzzed
@given(config=damaged_json({"width": 3, "deep": {"er": [1, 2]}}))
def test_what_headers_say(place, config):
    path = written(place / "x.safetensors", save(TENSORS, {"config": config.decode("utf-8", "replace")}))
    survives(lambda: load_weights(path), CheckpointError)


@pytest.mark.parametrize("good", [ZIPPED, LEGACY], ids=["zip", "legacy"])
@fuzzed
@given(data=st.data())
def test_pickles(place, good, data):
    path = written(place / "x.bin", data.draw(damaged_bytes(good)))
    survives(lambda: read_all(path), CheckpointError)


@fuzzed
@given(data=damaged_bytes(SCRIPT))
def test_torchscript(place, data):
    path = written(place / "x.pt", data)
    survives(lambda: open_torchscript(path), CheckpointError)


@fuzzed
@given(index=damaged_json({"metadata": {}, "weight_map": {"a.weight": "one.safetensors", "b": "two.safetensors"}}))
def test_indexes_of_shards(place, index):
    folder = place / "shards"
    for name, key in (("one", "a.weight"), ("two", "b")):
        written(folder / f"{name}.safetensors", save({key: torch.ones(2)}))
    written(folder / "x.safetensors.index.json", index)
    survives(lambda: open_component(folder), CheckpointError)


@fuzzed
@given(config=damaged_json(PEFT))
def test_configurations_of_peft(place, config):
    (place / "peft").mkdir(exist_ok=True)
    pair = {"q.lora_A.weight": torch.ones(2, 3), "q.lora_B.weight": torch.ones(4, 2)}
    save_file(pair, place / "peft" / "adapter_model.safetensors")
    written(place / "peft" / "adapter_config.json", config)
    survives(lambda: read_lora(place / "peft" / "adapter_model.safetensors"), CheckpointError)


@fuzzed
@given(data=st.data())
def test_loras(place, data):
    path = place / "lora.safetensors"
    path.unlink(missing_ok=True)
    write_lora(path, {"q": (torch.ones(2, 3), torch.ones(4, 2))}, family="f", stage="prior", rank=2, alpha=1.0)
    written(path, data.draw(damaged_bytes(path.read_bytes())))
    survives(lambda: read_lora(path), CheckpointError)
    config = {"format": "unclip-lora-v1", "family": "f", "stage": "prior", "rank": 2, "alpha": 1.0, "modules": ["q"]}
    pair = {"q.lora_A.weight": torch.ones(2, 3), "q.lora_B.weight": torch.ones(4, 2)}
    written(path, save(pair, {"config": data.draw(damaged_json(config)).decode("utf-8", "replace")}))
    survives(lambda: read_lora(path), CheckpointError)


GOOD_PAIRS = [("a", "b</w>"), ("r", "e"), ("re", "d</w>")]
GOOD_VOCABULARY = byte_vocabulary(GOOD_PAIRS)
WHOLE = {"model": {"vocab": GOOD_VOCABULARY, "merges": [" ".join(pair) for pair in GOOD_PAIRS]}}


@pytest.mark.parametrize("file", ["vocab.json", "tokenizer_config.json", "merges.txt", "tokenizer.json"])
@fuzzed
@given(data=st.data())
def test_tokenizers(place, file, data):
    folder = place / "tokenizer"
    write_tokenizer(ClipTokenizer(GOOD_VOCABULARY, GOOD_PAIRS, 12, pad="!"), folder)
    (folder / "tokenizer.json").unlink(missing_ok=True)
    if file == "tokenizer.json":
        (folder / "vocab.json").unlink()
    good = WHOLE if file == "tokenizer.json" else None
    if file == "merges.txt":
        written(folder / file, data.draw(damaged_bytes((folder / file).read_bytes())))
    else:
        written(folder / file, data.draw(damaged_json(good or json.loads((folder / file).read_text()))))

    def use():
        rows, _ = read_tokenizer(folder, 12, "diffusers", len(GOOD_VOCABULARY)).rows(["A red abb!! é😀"])
        assert 0 <= rows.min() and rows.max() < len(GOOD_VOCABULARY)

    survives(use, CheckpointError)
