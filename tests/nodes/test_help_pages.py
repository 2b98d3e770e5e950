"""Help pages in other languages against the English ones: a page that lags behind fails, with its name and language.

A page that is missing is no failure: the canvas shows the English one, and `make lint` lists it.
"""

import json
import re
from pathlib import Path

import pytest

import unclip

ROOT = Path(unclip.__file__).parent
DOCS = ROOT / unclip.WEB_DIRECTORY / "docs"
LANGUAGES = sorted(path.name for path in (ROOT / "locales").iterdir() if path.name != "en")
SAMPLE = "UnclipDescribe"
FENCED = re.compile(r"^```.*?^```$", re.MULTILINE | re.DOTALL)


def blocks(text):
    """The kind of every block of a page in order: a heading's level, an item and whose, an image, a paragraph."""
    found, inside = [], False
    for line in FENCED.sub("```", text).splitlines():
        starts = re.match(r"#+ |- \*\*\w+\*\*(?=\W)|- |!\[|```", line, re.ASCII)
        if starts or (line.strip() and not inside):
            found.append(starts[0].strip() if starts else "paragraph")
        inside = bool(line.strip())
    return found


def outline(text):
    """What a page says in no language: it has to be the same in all of them.

    Code spans may change their order within a page, and numbers their separators (1,231 or 1.231).
    """
    prose = FENCED.sub("", text)
    return {
        "blocks": blocks(text),
        "images and links": re.findall(r"\]\(([^)\s]+)\)", prose),
        "code": sorted(re.findall(r"`[^`\n]+`", prose)),
        "fenced code": FENCED.findall(text),
    }


def numbers(text):
    """Every run of digits of a page; of 1,231 all at once, however a language parts the thousands."""
    return set(re.findall(r"\d+", re.sub(r"(?<=\d)[,.\u00a0\u202f](?=\d{3}(?!\d))", "", text)))


def lags(english, page):
    """What of the English page the other does not have, or has otherwise."""
    ours, theirs = outline(english), outline(page)
    wrong = {part: (ours[part], theirs[part]) for part in ours if ours[part] != theirs[part]}
    missing = numbers(english) - numbers(page)
    return {**wrong, "numbers": sorted(missing)} if missing else wrong


def pages(language):
    """(node's id, English page, page in the language) of every page that there is."""
    for path in sorted(DOCS.glob(f"*/{language}.md")):
        english = DOCS / f"{path.parent.name}.md"
        yield path.parent.name, english.read_text(encoding="utf-8"), path.read_text(encoding="utf-8")


@pytest.mark.parametrize("language", LANGUAGES)
def test_a_page_says_what_the_english_one_says(language):
    """If this fails after a change of an English page: change the page of this language likewise, or delete it."""
    assert {node: wrong for node, english, page in pages(language) if (wrong := lags(english, page))} == {}


def canvas(language):
    """What the canvas shows of each node in a language."""
    return json.loads((ROOT / "locales" / language / "nodeDefs.json").read_text(encoding="utf-8"))


@pytest.mark.parametrize("language", LANGUAGES)
def test_a_page_calls_its_node_as_the_canvas_does(language):
    names = canvas(language)
    titles = {node: page.splitlines()[0] for node, _, page in pages(language)}
    assert titles == {node: f"# {names[node]['display_name']}" for node in titles}


def labels(node, shown):
    """name -> label of a node's inputs and outputs, where the label says more than the name."""
    outputs = unclip.NODE_CLASS_MAPPINGS[node].RETURN_NAMES
    named = [(name, said["name"]) for name, said in shown["inputs"].items()]
    named += [(name, shown["outputs"][str(slot)]["name"]) for slot, name in enumerate(outputs)]
    return {name: label for name, label in named if label.casefold() != name.replace("_", " ").casefold()}


@pytest.mark.parametrize("language", LANGUAGES)
def test_a_page_tells_the_labels_that_the_canvas_shows(language):
    """In brackets behind each name: **image** (Bild, optional)."""
    shown = canvas(language)
    wrong = [
        (node, name, label)
        for node, _, page in pages(language)
        for name, label in labels(node, shown[node]).items()
        if not re.search(rf"^- \*\*{name}\*\* ?[(（]{re.escape(label)}[,，、)）]", page, re.MULTILINE)
    ]
    assert wrong == []


def test_every_page_is_of_a_node_and_a_language():
    """ComfyUI looks for docs/<node's id>/<language>.md."""
    found = [path.relative_to(DOCS) for path in DOCS.rglob("*.md") if path.parent != DOCS]
    assert [path for path in found if len(path.parts) != 2 or path.stem not in LANGUAGES] == []
    assert {path.parts[0] for path in found} <= set(unclip.NODE_CLASS_MAPPINGS)


@pytest.mark.parametrize(
    ("part", "old", "new"),
    [
        ("blocks", "- **top_k**", "- **top**"),
        ("blocks", "- **top_k**", "**top_k**"),
        ("blocks", "## Notes", "# Notes"),
        ("blocks", "## Outputs\n", ""),
        ("images and links", "UnclipDescribe.jpg", "../UnclipDescribe.jpg"),
        ("code", "`pictures`", "`images`"),
        ("code", "`pictures`", "pictures"),
        ("fenced code", "  small\n", "  klein\n"),
    ],
)
def test_a_page_that_lags_behind_is_told(part, old, new):
    english = (DOCS / f"{SAMPLE}.md").read_text(encoding="utf-8")
    assert old in english and lags(english, english) == {}
    assert part in lags(english, english.replace(old, new))


def test_a_number_that_changed_is_told():
    """But not how a language writes it."""
    for written in (
        "1.231 Dinge, 0,25 bis 1",
        "1\u00a0231 Dinge, 0.25 à 1",
        "1231 Dinge, 0.25 to 1",
        "1,231가지, 0.25~1",
    ):
        assert lags("1,231 things, 0.25 to 1\n", f"{written}\n") == {}
    assert lags("1 to 128\n", "1 bis 64\n") == {"numbers": ["128"]}
