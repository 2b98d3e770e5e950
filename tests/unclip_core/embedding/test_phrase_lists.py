"""Phrase lists: templates, slots, brackets, and what is no phrase list."""

import pytest

from unclip.unclip_core.embedding.phrase_lists import BUILT_IN, PhraseError, parse_phrases, read_phrases
from unclip.unclip_core.world import vocabulary

TEXT = """
# a comment
template: a/an {color} {shape}[, {place}[ at {time}]]( on {ground})

color:
  red
  orange
  red

shape:
  circle
place:
  here
time:
  noon
ground:
  grass
"""


def test_a_caption_says_the_parts_whose_slots_are_filled():
    phrases = parse_phrases(TEXT)
    [template] = phrases.templates
    filling = {"color": "red", "shape": "circle"}
    assert template.caption(filling) == "a red circle"
    assert template.caption({**filling, "color": "orange", "ground": "grass"}) == "an orange circle on grass"
    filling |= {"ground": "grass", "place": "here"}
    assert template.caption(filling) == "a red circle, here on grass"
    assert template.caption({**filling, "time": "noon"}) == "a red circle, here at noon on grass"


def test_an_inner_part_is_not_said_without_the_outer_one():
    [template] = parse_phrases(TEXT).templates
    assert template.caption({"color": "red", "shape": "circle", "time": "noon"}) == "a red circle"


def test_parts_in_parentheses_must_be_said():
    [template] = parse_phrases(TEXT).templates
    assert [part.optional for part in template.parts] == [False, True, True, False]
    filling = {"color": "red", "shape": "circle"}
    assert not template.is_whole(filling)
    assert template.is_whole({**filling, "ground": "grass"})


def test_fillings_are_all_combinations_and_repeated_phrases_count_once():
    phrases = parse_phrases("template: {color} and {color 2}\ncolor:\nred\nblue\nred")
    [part] = phrases.templates[0].parts
    pairs = [(filling["color"], filling["color 2"]) for filling in phrases.fillings(part)]
    assert sorted(pairs) == [("blue", "blue"), ("blue", "red"), ("red", "blue"), ("red", "red")]


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", "no template"),
        ("# nothing\ncolor:\n red", "no template"),
        ("template: a {color}", r"no phrases for the slot \{color\}"),
        ("template: a {color}\ncolor:\n", r"no phrases for the slot \{color\}"),
        ("template: a cat\nred", "line 2: 'red' belongs to no slot"),
        ("template: {a} {a}\na:\nx", r"line 1: \{a\} is there twice"),
        ("template: {A b}\na:\nx", r"line 1: \{A b\} is no slot"),
        ("template: [{a}\na:\nx", "'\\[' is never closed"),
        ("template: {a}]\na:\nx", "'\\]' closes nothing"),
        ("template: [{a})\na:\nx", "'\\)' closes nothing"),
        ("template: {a} [really]\na:\nx", "no slot of its own"),
        ("template: <1>", "cannot hold '<'"),
        ("template:", "empty"),
        ("template: {a}{b}\na:\n" + "\n".join(map(str, range(100))) + "\nb:\n" + "\n".join(map(str, range(100))),
         r"\{a\} and \{b\} can be filled in 10,000 ways"),
    ],
)  # fmt: skip
def test_what_is_no_phrase_list_is_refused_with_its_line(text, words):
    with pytest.raises(PhraseError, match=words):
        parse_phrases(text)


def test_files_are_read_or_named(tmp_path):
    path = tmp_path / "mine.txt"
    path.write_bytes("\ufefftemplate: ein {wort}\r\nwort:\r\n  größer\r\n".encode())
    assert read_phrases(path).options == {"wort": ("größer",)}
    path.write_bytes(b"\xff\xfe\x00")
    with pytest.raises(PhraseError, match="no UTF-8 text"):
        read_phrases(path)
    with pytest.raises(PhraseError, match=r"missing\.txt.*cannot be read"):
        read_phrases(tmp_path / "missing.txt")
    path.write_text("template: x\n\n\noops")
    with pytest.raises(PhraseError, match=r"mine\.txt, line 4"):
        read_phrases(path)


def test_the_worlds_list_names_everything_in_the_world():
    options = read_phrases(BUILT_IN["world"]).options
    for name, words in {
        "size": vocabulary.SIZE_WORDS, "color": vocabulary.COLOR_WORDS, "shape": vocabulary.SHAPE_WORDS,
        "place": vocabulary.PLACE_WORDS, "relation": vocabulary.RELATION_WORDS,
        "background": vocabulary.BACKGROUND_WORDS,
    }.items():  # fmt: skip
        assert options[name] == tuple(synonyms[0] for synonyms in words)


def test_the_list_of_images_can_be_read():
    phrases = read_phrases(BUILT_IN["pictures"])
    filling = {"subject": "a corgi", "medium": "an oil painting", "action": "playing the trumpet"}
    assert phrases.templates[0].caption(filling) == "an oil painting of a corgi playing the trumpet"
    assert len(phrases.options["subject"]) > 200
