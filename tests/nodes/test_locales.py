"""The canvas in other languages: what is not translated stays English, and is listed, and fails nothing here.

Of a node that the files do not have at all, ComfyUI shows what the node says itself.
"""

import json
import re
import runpy
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
    written = read("en", "nodeDefs")
    assert written == {key: said(key) for key in unclip.NODE_CLASS_MAPPINGS if key in written}
    assert set(written) <= set(unclip.NODE_CLASS_MAPPINGS) and len(written) >= 31


@pytest.mark.parametrize("language", LANGUAGES)
def test_every_word_of_every_node_is_there(language):
    written = read("en", "nodeDefs")
    found = dict(leaves(read(language, "nodeDefs")))
    assert set(found) == set(dict(leaves(written)))
    assert [path for path, text in found.items() if not text.strip()] == []


@pytest.mark.parametrize("language", ALPHABETS)
def test_sentences_that_are_not_english_are_in_the_languages_script(language):
    english, script = dict(leaves(read("en", "nodeDefs"))), re.compile(ALPHABETS[language], re.IGNORECASE)
    sentences = {
        path: text
        for path, text in leaves(read(language, "nodeDefs"))
        if path[-1] in ("description", "tooltip", "display_name") and text != english[path]
    }
    assert len(sentences) > 100
    assert [path for path, text in sentences.items() if not script.search(text)] == []


class OfTwoInputs:
    """What the tool reads of a node."""

    DESCRIPTION = "Does something."
    RETURN_NAMES = ("image",)
    OUTPUT_TOOLTIPS = ("What came of it.",)

    @classmethod
    def INPUT_TYPES(cls):
        return {
            "required": {"seed": ("INT", {"tooltip": "The seed."})},
            "optional": {f"image_{i}": ("IMAGE", {"tooltip": f"Goes before image_{i}."}) for i in (1, 2)},
        }


def test_what_is_not_translated_stays_english_and_is_listed():
    language = runpy.run_path(str(ROOT / ".ci" / "locales.py"))["Language"]
    phrases = {"The seed.": "Der Startwert.", "Goes before image_{n}.": "Kommt vor image_{n}.", "A Node": "Ein Knoten"}
    german = language("de", phrases, {"seed": "Startwert", "image": "Bild"})
    assert german.node(OfTwoInputs, "A Node", ["A Node"]) == {
        "display_name": "Ein Knoten",
        "description": "Does something.",
        "inputs": {
            "seed": {"name": "Startwert", "tooltip": "Der Startwert."},
            "image_1": {"name": "Bild 1", "tooltip": "Kommt vor image_1."},
            "image_2": {"name": "Bild 2", "tooltip": "Kommt vor image_2."},
        },
        "outputs": {"0": {"name": "Bild", "tooltip": "What came of it."}},
    }
    assert german.missing == ["Does something.", "What came of it."]
    nothing = language("de", {}, {})
    assert nothing.node(OfTwoInputs, "A Node", ["A Node"])["inputs"]["seed"] == {"name": "seed", "tooltip": "The seed."}
    sentences = {"Does something.", "The seed.", "Goes before image_1.", "Goes before image_2.", "What came of it."}
    assert set(nothing.missing) == {"A Node", "seed", "image"} | sentences


@pytest.mark.parametrize("language", [language for language in LANGUAGES if language != "en"])
def test_the_list_is_of_what_the_files_have_in_english(language):
    tool = runpy.run_path(str(ROOT / ".ci" / "locales.py"))
    listed = tool["Language"].of_folder(ROOT / "locales" / language)
    tool["definitions"](listed)
    sentences = [
        text
        for (path, text), (_, english) in zip(
            leaves(read(language, "nodeDefs")), leaves(read("en", "nodeDefs")), strict=True
        )
        if path[-1] in ("description", "tooltip", "display_name") and text == english
    ]
    assert set(sentences) <= set(listed.missing)


def test_help_pages_that_are_missing_are_listed(tmp_path, monkeypatch):
    without_page = runpy.run_path(str(ROOT / ".ci" / "locales.py"))["without_page"]
    monkeypatch.setitem(without_page.__globals__, "DOCS", tmp_path)
    (tmp_path / "Here").mkdir()
    (tmp_path / "Here" / "de.md").touch()
    assert without_page("de", ["Here", "There"]) == ["There"]
    assert without_page("fr", ["Here"]) == ["Here"] and without_page("en", ["Here"]) == []


@pytest.mark.parametrize("language", LANGUAGES)
def test_quoted_names_of_inputs_and_numbers_survive(language):
    """A sentence that quotes 'known' or says 0.25 has to say so in every language."""
    quoted = re.compile(r"'[a-z_]+'|\d+\.\d+|\b[a-z]+_\d\b|_[a-z]+\b|safetensors|ddim|fp32", re.ASCII)
    english = dict(leaves(read("en", "nodeDefs")))
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
