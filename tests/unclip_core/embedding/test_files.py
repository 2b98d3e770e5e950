"""Embeddings in files: what goes in comes out; what is none is refused."""

import json

import pytest
import torch
from safetensors import safe_open

from unclip.unclip_core.embedding.files import EmbeddingInfo, load_embeddings, save_embeddings
from unclip.unclip_core.weights.files import CheckpointError, save_weights

EMBEDS = torch.randn(3, 7, generator=torch.Generator().manual_seed(0))
INFO = EmbeddingInfo("tiny", "prior", ("a red circle", "ein Kreis, größer"), 2**64 - 1)


def test_embeddings_come_back_with_what_is_known_of_them(tmp_path):
    save_embeddings(tmp_path / "e.safetensors", EMBEDS, INFO)
    embeds, info = load_embeddings(tmp_path / "e.safetensors")
    assert torch.equal(embeds, EMBEDS) and info == INFO
    save_embeddings(tmp_path / "e.safetensors", EMBEDS.half(), EmbeddingInfo("karlo", "image"))
    embeds, info = load_embeddings(tmp_path / "e.safetensors")
    assert torch.equal(embeds, EMBEDS.half().float()) and info == EmbeddingInfo("karlo", "image", (), None)


def test_the_header_names_family_prompt_and_seed(tmp_path):
    save_embeddings(tmp_path / "e.safetensors", EMBEDS, INFO)
    with safe_open(tmp_path / "e.safetensors", framework="pt") as file:
        header = json.loads(file.metadata()["config"])
    assert (header["family"], header["seed"]) == ("tiny", 2**64 - 1)
    assert header["prompts"] == ["a red circle", "ein Kreis, größer"]


@pytest.mark.parametrize(
    ("tensors", "header", "words"),
    [
        ({"embeds": EMBEDS}, {"kind": "unclip-pca"}, "no embeddings"),
        ({"embeds": EMBEDS}, {"kind": "unclip-embedding"}, "no whole header"),
        ({"embeds": EMBEDS[0]}, {"kind": "unclip-embedding"}, r"\[B, D\]"),
        ({"other": EMBEDS}, {"kind": "unclip-embedding"}, "'other'"),
        ({"embeds": EMBEDS * torch.nan}, {"kind": "unclip-embedding"}, "NaN"),
        ({"embeds": EMBEDS[:0]}, {"kind": "unclip-embedding"}, r"\[0, 7\]"),
        ({"embeds": EMBEDS.int()}, {"kind": "unclip-embedding"}, "floating point"),
        ({"embeds": EMBEDS}, {"kind": "unclip-embedding", "family": "t", "source": "s", "prompts": 3, "seed": 1},
         "no whole header"),
    ],
)  # fmt: skip
def test_what_is_no_file_of_embeddings_is_refused(tmp_path, tensors, header, words):
    save_weights(tmp_path / "e.safetensors", tensors, header)
    with pytest.raises(CheckpointError, match=words):
        load_embeddings(tmp_path / "e.safetensors")


def test_damaged_and_missing_files_are_named(tmp_path):
    path = tmp_path / "e.safetensors"
    save_embeddings(path, EMBEDS, INFO)
    path.write_bytes(path.read_bytes()[:-5])
    for name in ("e.safetensors", "missing.safetensors"):
        with pytest.raises(CheckpointError, match=name):
            load_embeddings(tmp_path / name)
