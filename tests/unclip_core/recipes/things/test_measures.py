"""What is measured of CLIP on true pictures of things: names by the phrase list that stands beside the concepts."""

import unicodedata

import pytest
import torch
from things_world import small_world

from unclip.unclip_core.embedding.phrase_lists import BUILT_IN, read_phrases
from unclip.unclip_core.recipes.things import measures
from unclip.unclip_core.recipes.things.vocabulary import GROUNDS, STYLES, concepts

NAMES = read_phrases(BUILT_IN["things"]).choices("thing")


def test_the_phrase_list_has_the_things_in_the_concepts_order():
    """Unicode's own names, as Python has them, tell of hundreds of things which is which."""
    assert len(NAMES) == len(concepts()) == len(set(NAMES))
    place = {name: number for number, name in enumerate(NAMES)}
    official = [unicodedata.name(chr(int(code.split("-")[0], 16)), "").lower() for code in concepts()]
    same = [
        (number, place[name]) for number, name in enumerate(official) if name in place and official.count(name) == 1
    ]
    assert len(same) > 300
    # CLDR, after which they are called here, calls some by the name of another.
    assert sum(number == listed for number, listed in same) > 0.98 * len(same)


def directions(texts):
    """Texts `[B, D]`: a bag of words, each a direction of its own that depends on the word alone."""
    rows = []
    for text in texts:
        words = text.replace(",", "").split()
        rows.append(sum(torch.randn(256, generator=torch.Generator().manual_seed(hash_of(word))) for word in words))
    return torch.stack(rows)


def hash_of(word):
    return sum(ord(letter) * 31**place for place, letter in enumerate(word)) % 2**31


@pytest.fixture
def seeing(monkeypatch):
    """Has CLIP see in a picture the caption of what `say` makes of it."""
    monkeypatch.setattr(measures, "embed_text", lambda clip, texts: directions(texts))

    def use(say):
        monkeypatch.setattr(measures, "embeds_of", lambda model, world, part: directions([say(p) for p in part]))

    return use


class _Model:
    clip = None


def said(picture, thing=0, style=0, ground=0):
    """The caption of a picture, or of one that has another thing, style or ground by so much."""
    placed = picture.things[0]
    names = (
        NAMES[(placed.concept + thing) % len(NAMES)],
        STYLES[(placed.style + style) % len(STYLES)],
        list(GROUNDS)[(picture.ground + ground) % len(GROUNDS)],
    )
    return "a {}, {} style on a {} background".format(*names)


@pytest.mark.parametrize(
    ("wrong", "wanted"),
    [({}, (1, 1, 1)), ({"thing": 600}, (0, 1, 1)), ({"style": 2}, (1, 0, 1)), ({"ground": 3}, (1, 1, 0))],
)
def test_describe_is_measured_by_what_it_says(seeing, wrong, wanted):
    seeing(lambda picture: said(picture, **wrong))
    found = measures.described(_Model(), small_world(), 6, seed=1)
    assert found["n"] == 6 and found["top5"] >= found["top1"]
    measured = found["top1"], found["style"], found["ground"]
    assert all(value > 0.8 if right else value == 0 for value, right in zip(measured, wanted, strict=True)), found
