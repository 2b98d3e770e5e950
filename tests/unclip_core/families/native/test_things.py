"""The bundled model of things as it ships: complete, small enough, licensed, and it draws well-known things."""

import json
from pathlib import Path

import pytest
import torch

from unclip.unclip_core.embedding.phrase_lists import BUILT_IN, read_phrases
from unclip.unclip_core.families.loading import THINGS, load_model
from unclip.unclip_core.pipelines import encode_image, encode_text, text_to_image
from unclip.unclip_core.pipelines.settings import Settings

ROOT = Path(__file__).parents[4]
MIB = 2**20
EASY = ("cat face", "red apple", "panda", "fox", "hamburger")
NAMES = 100
"""Things that a drawing is to be told apart from, the easy ones among them."""


@pytest.fixture(scope="module")
def model():
    return load_model(THINGS)


def test_the_files_are_small_enough():
    index = json.loads((THINGS / "model_index.json").read_text())
    assert sorted(index["components"]) == ["clip", "decoder", "prior", "upsampler"]
    sizes = [item.stat().st_size for item in THINGS.iterdir() if item.is_file()]
    assert max(sizes) <= 48 * MIB and sum(sizes) <= 80 * MIB


def test_it_is_the_model_that_people_meet(model):
    assert load_model().folder == THINGS and model.family == "things"
    assert all(getattr(model, part) for part in ("clip", "prior", "decoder", "upsampler"))


def test_card_and_notice_name_the_sources_and_their_licences():
    for text in ((THINGS / "README.md").read_text(encoding="utf-8"), (ROOT / "NOTICE").read_text(encoding="utf-8")):
        assert "graphics by Twitter, Inc and other contributors" in text
        assert all(name in text for name in ("Noto Emoji", "Fluent Emoji", "Microsoft", "Google", "emojibase-data"))
        assert all(word in text for word in ("CC-BY", "Apache", "MIT", "Unicode License v3"))


def test_words_that_it_does_not_know_are_named_as_they_were_written(model):
    unknown = model.clip.adapter.unknown_words
    assert unknown("a red apple, flat style on a navy background") == []
    for known in ("kırmızı elma", "Katzengesicht", "manzana roja", "pomme rouge", "кошка", "고양이"):
        assert unknown(known) == []
    assert unknown("Ein Zorbel") == ["zorbel"] and unknown("bir flurble") == ["flurble"]
    assert unknown("кошка и флурбл") == ["флурбл"]


def test_it_knows_what_it_is_said_to_draw(model):
    phrases = read_phrases(BUILT_IN["things"]).options
    assert len(phrases["thing"]) > 1200 and set(EASY) <= {*phrases["thing"], "red apple"}
    assert not [phrase for each in phrases.values() for phrase in each if model.clip.adapter.unknown_words(phrase)]


@pytest.mark.slow
def test_its_own_clip_finds_what_was_asked_for_in_its_drawings(model):
    """Among 100 names by image and text alone: chance would put one of twenty among the first five."""
    others = [name for name in read_phrases(BUILT_IN["things"]).options["thing"] if name not in EASY]
    names = [*EASY, *others[:: len(others) // (NAMES - len(EASY))][: NAMES - len(EASY)]]
    with torch.inference_mode():
        drawn = text_to_image(model, [f"a {name}" for name in EASY], range(len(EASY)), Settings(candidates=1)).large
        texts = encode_text(model.clip, [f"a {name}" for name in names]).embeds
        first = (encode_image(model.clip, drawn) @ texts.T).topk(5).indices
    found = [row in nearest.tolist() for row, nearest in enumerate(first)]
    assert len(names) == NAMES and sum(found) >= 4, found
