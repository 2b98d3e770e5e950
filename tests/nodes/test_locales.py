"""The canvas in other languages: every word of every node is there, and English is what the nodes say."""

import json
import re
from pathlib import Path

import pytest

import unclip

ROOT = Path(unclip.__file__).parent
LANGUAGES = ["de", "en", "es", "fr", "ja", "ko", "ru", "tr", "zh"]
ALPHABETS = {"zh": "[\u4e00-\u9fff]", "ja": "[\u3040-\u30ff\u4e00-\u9fff]", "ko": "[\uac00-\ud7af]", "ru": "[а-яё]"}


def read(language, name):
    return json.loads((ROOT / "locales" / language / f"{name}.json").read_text(encoding="utf-8"))


def said(key):
    """What a node says of itself, in the form that ComfyUI reads."""
    node = unclip.NODE_CLASS_MAPPINGS[key]
    declared = node.INPUT_TYPES()
    inputs = {**declared.get("required", {}), **declared.get("optional", {})}
    outputs = enumerate(zip(node.RETURN_NAMES, node.OUTPUT_TOOLTIPS, strict=True))
    return {
        "display_name": unclip.NODE_DISPLAY_NAME_MAPPINGS[key],
        "description": node.DESCRIPTION,
        "inputs": {name: {"name": name, "tooltip": spec[1]["tooltip"]} for name, spec in inputs.items()},
        "outputs": {str(slot): {"name": name, "tooltip": tooltip} for slot, (name, tooltip) in outputs},
    }


def leaves(tree, path=()):
    """(path, text) of every text of a tree of objects."""
    for key, value in tree.items():
        if isinstance(value, dict):
            yield from leaves(value, (*path, key))
        else:
            yield (*path, key), value


def test_the_languages_are_the_promised_ones():
    assert sorted(path.name for path in (ROOT / "locales").iterdir()) == LANGUAGES


def test_english_is_what_the_nodes_say():
    """If this fails after a change of the nodes: run .ci/locales.py, which says what is missing in which language."""
    assert read("en", "nodeDefs") == {key: said(key) for key in unclip.NODE_CLASS_MAPPINGS}


@pytest.mark.parametrize("language", LANGUAGES)
def test_every_word_of_every_node_is_there(language):
    expected = dict(leaves({key: said(key) for key in unclip.NODE_CLASS_MAPPINGS}))
    found = dict(leaves(read(language, "nodeDefs")))
    assert set(found) == set(expected)
    assert [path for path, text in found.items() if not text.strip()] == []


@pytest.mark.parametrize("language", [language for language in LANGUAGES if language != "en"])
def test_sentences_are_translated(language):
    english = dict(leaves({key: said(key) for key in unclip.NODE_CLASS_MAPPINGS}))
    sentences = {
        path: text
        for path, text in leaves(read(language, "nodeDefs"))
        if path[-1] in ("description", "tooltip", "display_name")
    }
    assert [path for path, text in sentences.items() if text == english[path]] == []
    if language in ALPHABETS:
        script = re.compile(ALPHABETS[language], re.IGNORECASE)
        assert [path for path, text in sentences.items() if not script.search(text)] == []


@pytest.mark.parametrize("language", LANGUAGES)
def test_quoted_names_of_inputs_and_numbers_survive(language):
    """A sentence that quotes 'known' or says 0.25 has to say so in every language."""
    quoted = re.compile(r"'[a-z_]+'|\d+\.\d+|\b[a-z]+_\d\b|_[a-z]+\b|safetensors|ddim|fp32", re.ASCII)
    english = dict(leaves({key: said(key) for key in unclip.NODE_CLASS_MAPPINGS}))
    for path, text in leaves(read(language, "nodeDefs")):
        if path[-1] != "name":
            assert set(quoted.findall(english[path])) <= set(quoted.findall(text)), (path, text)


@pytest.mark.parametrize("language", LANGUAGES)
@pytest.mark.parametrize("file", ["nodeDefs", "main"])
def test_no_text_holds_what_the_canvas_takes_for_its_own_syntax(language, file):
    """ComfyUI's texts are messages in which @ links, | divides and braces are filled in."""
    assert [text for _, text in leaves(read(language, file)) if set("@|{}") & set(text)] == []


@pytest.mark.parametrize("language", LANGUAGES)
def test_the_menu_is_there(language):
    folders = {part for node in unclip.NODE_CLASS_MAPPINGS.values() for part in node.CATEGORY.split("/")}
    stock = {"image", "model", "sampling"}  # ComfyUI has these in every language
    assert set(read(language, "main")["nodeCategories"]) == folders - stock
