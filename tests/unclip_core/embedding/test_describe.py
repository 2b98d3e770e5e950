"""Describing with a CLIP that is an exact bag of words: the caption with the image's words must be found."""

import re

import pytest
import torch

from unclip.unclip_core.embedding.describe import Describer
from unclip.unclip_core.embedding.phrase_lists import BUILT_IN, parse_phrases, read_phrases
from unclip.unclip_core.evaluate.describe import named_rightly
from unclip.unclip_core.world.captions import caption
from unclip.unclip_core.world.evaluation import evaluation_scenes

ANIMALS = parse_phrases("""
template: a {animal}[ in {place}[ at {time}]][, {mood}]
animal:
  cat
  dog
  fox
place:
  snow
  rain
time:
  noon
  night
mood:
  calm
  wild
""")
WORDS = ("cat", "dog", "fox", "snow", "rain", "noon", "night", "calm", "wild")


class BagOfWords:
    """Counts the words that it knows; two texts are as near as their words."""

    def __init__(self, words=WORDS):
        self.words = words
        self.seen = []

    def __call__(self, texts):
        self.seen += texts
        rows = [[float(word in re.findall(r"\w+", text)) for word in self.words] + [0.01] for text in texts]
        return torch.tensor(rows)


def image(*words, encode=None):
    return (encode or BagOfWords())([" ".join(words)])[0]


@pytest.mark.parametrize("width", [1, 3])
@pytest.mark.parametrize(
    ("words", "caption"),
    [
        (["fox"], "a fox"),
        (["dog", "snow"], "a dog in snow"),
        (["cat", "rain", "night", "wild"], "a cat in rain at night, wild"),
        (["cat", "calm"], "a cat, calm"),
    ],
)
def test_the_caption_says_what_is_there_and_no_more(words, caption, width):
    found = Describer(BagOfWords(), ANIMALS, width).describe(image(*words))
    assert found.caption.text == caption
    assert found.caption.score == pytest.approx(1.0, abs=1e-4)
    assert set(found.slots.values()) == set(words)


def test_captions_and_alternatives_are_ranked_by_their_cosine():
    encode = BagOfWords()
    target = image("dog", "snow", "wild") + 0.5 * image("fox")
    found = Describer(encode, ANIMALS).describe(target, top_k=3)
    assert found.captions[0] == found.caption and len(found.captions) == 3
    scores = [choice.score for choice in found.captions]
    assert scores == sorted(scores, reverse=True)
    for choice in [*found.captions, *found.alternatives["animal"]]:
        if choice.text in encode.seen:
            expected = torch.nn.functional.cosine_similarity(encode([choice.text])[0], target, dim=0).item()
            assert choice.score == pytest.approx(expected, abs=1e-5)
    assert [choice.text for choice in found.alternatives["animal"]] == ["dog", "fox", "cat"]
    assert list(found.alternatives) == list(found.slots)


def test_a_part_in_parentheses_is_said_even_where_it_does_not_help():
    phrases = parse_phrases("template: a {animal}( in {place})\nanimal:\ncat\ndog\nplace:\nsnow\nrain")
    found = Describer(BagOfWords(), phrases).describe(image("dog"))
    assert found.caption.text in ("a dog in snow", "a dog in rain")
    assert all(" in " in choice.text for choice in found.captions)


def test_a_list_of_whole_captions_is_ranked():
    phrases = parse_phrases("template: {text}\ntext:\n  one cat\n  a dog in snow\n  snow")
    found = Describer(BagOfWords(), phrases).describe(image("snow", "dog"))
    assert [choice.text for choice in found.captions] == ["a dog in snow", "snow", "one cat"]


def test_a_caption_is_encoded_once_whatever_the_images():
    encode = BagOfWords()
    describer = Describer(encode, ANIMALS)
    first = describer.describe(image("fox", "rain"))
    describer.describe(image("cat", "snow"))
    assert len(encode.seen) == len(set(encode.seen))
    assert describer.describe(image("fox", "rain")) == first


@pytest.mark.parametrize("bad", [0.0, float("nan")])
def test_what_cannot_be_described_is_refused(bad):
    with pytest.raises(ValueError, match="length 0, NaN"):
        Describer(BagOfWords(), ANIMALS).describe(bad * image("cat"))
    with pytest.raises(ValueError, match="top_k"):
        Describer(BagOfWords(), ANIMALS).describe(image("cat"), top_k=0)
    with pytest.raises(ValueError, match="at least 1 caption"):
        Describer(BagOfWords(), ANIMALS, width=0)


# ---- what is counted as named rightly ----


def told(scene):
    """The slots as a perfect description of a scene fills them, read off its canonical caption."""
    text, phrases = caption(scene), read_phrases(BUILT_IN["world"])
    template = phrases.templates[len(scene.things) - 1]
    pattern = re.escape(re.sub(r"[\[\]()]", "", _source(template))).replace("a/an", "an?")
    pattern = re.sub(r"\\{(\w+)(\\ 2)?\\}", _group(phrases), pattern)
    found = re.fullmatch(pattern, text)
    assert found, (pattern, text)
    return {name.replace("_2", " 2"): value for name, value in found.groupdict().items()}


def _source(template):
    text = template.parts[0].text
    while piece := re.search(r"<(\d+)>", text):
        text = text.replace(piece[0], template.parts[int(piece[1])].text)
    return text


def _group(phrases):
    def group(found):
        options = "|".join(map(re.escape, phrases.options[found[1]]))
        return f"(?P<{found[1]}{'_2' if found[2] else ''}>{options})"

    return group


def test_a_perfect_description_names_everything_and_from_either_side():
    for _, _, scene, _ in evaluation_scenes(10, seed=1):
        slots = told(scene)
        found = named_rightly(slots, scene)
        assert len(found) == (5 if len(scene.things) == 1 else 8)
        assert all(right for _, right in found)
        if len(scene.things) == 2:
            turned = {"to the left of": "to the right of", "to the right of": "to the left of",
                      "above": "below", "below": "above"}  # fmt: skip
            swapped = {name: slots[_other(name)] for name in slots} | {"relation": turned[slots["relation"]]}
            assert all(right for _, right in named_rightly(swapped, scene))
            assert ("relation", False) in named_rightly({**swapped, "relation": slots["relation"]}, scene)


def _other(name):
    if name in ("background", "relation"):
        return name
    return name.removesuffix(" 2") if name.endswith(" 2") else name + " 2"


def test_each_wrong_or_missing_attribute_counts():
    scene = evaluation_scenes(1, seed=1)[0][2]
    slots = told(scene)
    assert sum(right for _, right in named_rightly({**slots, "shape": "cube"}, scene)) == 4
    assert named_rightly({}, scene) == [(name, False) for name, _ in named_rightly(slots, scene)]
    assert ("place", False) in named_rightly({**slots, "relation": "above"}, scene)
