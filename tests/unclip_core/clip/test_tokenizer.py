"""CLIP's tokenizer against open_clip's and transformers', with the real vocabulary and small ones."""

import json
import sys
import types

import pytest
import torch
from open_clip.tokenizer import SimpleTokenizer
from transformers import CLIPTokenizer

from unclip.unclip_core.clip.tokenizer import (
    ClipTokenizer,
    byte_vocabulary,
    openai_tokenizer,
    read_tokenizer,
    write_tokenizer,
)
from unclip.unclip_core.weights.files import CheckpointError

PROMPTS = [
    "",
    "a cat",
    "A  RED\tcat\n on the mat",
    "it's 1234 o'clock, isn't it?",
    "Ünïcødé, 斑马 and 🦓",
    "supercalifragilisticexpialidocious",
    "x" * 40,
    "word " * 100,
    "a-b_c/d",
    "&amp; &lt;b&gt;",
    "naïve café",
]
END = 49407


@pytest.fixture(scope="module")
def real():
    return openai_tokenizer()


@pytest.mark.parametrize("prompt", PROMPTS)
def test_real_vocabulary_is_open_clips(real, prompt):
    reference = SimpleTokenizer()([prompt])[0]
    ids, lengths = real.rows([prompt])
    assert torch.equal(ids[0], reference)
    assert int(lengths[0]) == min(77, len(SimpleTokenizer().encode(prompt)) + 2)
    assert int(real.ends(ids)[0]) == int(lengths[0]) - 1


def test_real_vocabulary_has_its_known_ids(real):
    assert real.vocabulary["!"] == 0 and real.pad_id == 0
    assert (real.vocabulary["<|startoftext|>"], real.vocabulary["<|endoftext|>"]) == (49406, END)
    assert real.encode("hello!") == [3306, 256]
    assert real.encode("!!!") == [995]


def test_an_end_of_text_within_a_prompt_is_one(real):
    ids, lengths = real.rows(["a <|endoftext|> b"])
    assert ids[0, 2] == END and ids[0, 4] == END
    assert (int(real.ends(ids)[0]), int(lengths[0])) == (2, 5)


@pytest.fixture(scope="module")
def small(tmp_path_factory):
    """A small vocabulary in an order of its own, and transformers' tokenizer of the same files."""
    merges = [("c", "a"), ("ca", "t</w>"), ("r", "e"), ("re", "d</w>"), ("t", "h"), ("th", "e</w>")]
    tokens = sorted(byte_vocabulary(merges), key=lambda token: (token != "!", hash(token) % 977, token))
    folder = tmp_path_factory.mktemp("tokenizer")
    vocabulary = {token: index for index, token in enumerate(tokens)}
    write_tokenizer(ClipTokenizer(vocabulary, merges, 12, pad="!"), folder)
    return folder, CLIPTokenizer.from_pretrained(folder)


@pytest.mark.parametrize("prompt", ["", "the red cat", "Red! Cat!!", "a café, the cat", "the red cat " * 9])
def test_diffusers_conventions_are_transformers(small, prompt):
    folder, reference = small
    ours = read_tokenizer(folder, 12, "diffusers")
    said = reference([prompt], padding="max_length", max_length=12, truncation=True, return_tensors="pt")
    ids, lengths = ours.rows([prompt])
    assert ids[0].tolist() == said.input_ids[0].tolist()
    assert int(lengths[0]) == int(said.attention_mask.sum())


def test_an_exclamation_mark_is_padding_for_diffusers_only(small):
    folder, _ = small
    native, compatible = (read_tokenizer(folder, 12, mode) for mode in ("native", "diffusers"))
    assert compatible.encode("cat!")[-1] == compatible.pad_id
    assert native.encode("cat!")[-1] == native.vocabulary["!</w>"] != native.pad_id


def test_native_mends_text(real):
    assert real.encode("tom &amp;amp; jerry") == real.encode("tom & jerry")
    assert openai_tokenizer(conventions="diffusers").encode("tom &amp; jerry") != real.encode("tom & jerry")


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("vocab.json", "{"),
        ("vocab.json", "[]"),
        ("vocab.json", "{}"),
        ("merges.txt", "#version\na b c\n"),
        ("vocab.json", None),
        ("merges.txt", None),
    ],
)
def test_broken_files_are_named(tmp_path, name, text):
    write_tokenizer(ClipTokenizer(byte_vocabulary([]), [], 12, pad="!"), tmp_path)
    (tmp_path / name).unlink() if text is None else (tmp_path / name).write_text(text)
    with pytest.raises(CheckpointError, match="tokenizer"):
        read_tokenizer(tmp_path, 12)


def test_the_padding_may_be_spelt_as_an_object(tmp_path):
    write_tokenizer(ClipTokenizer(byte_vocabulary([]), [], 12, pad="!"), tmp_path)
    (tmp_path / "special_tokens_map.json").write_text(json.dumps({"pad_token": {"content": "#", "lstrip": False}}))
    assert read_tokenizer(tmp_path, 12).pad == "#"


def test_a_stub_in_open_clips_place_has_no_merges(monkeypatch):
    monkeypatch.setitem(sys.modules, "open_clip", types.ModuleType("open_clip"))
    with pytest.raises(ModuleNotFoundError, match="open_clip is not installed"):
        openai_tokenizer()
