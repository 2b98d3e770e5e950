"""Write locales/<language>/nodeDefs.json from the node definitions and each language's phrases and words.

`phrases.json` holds sentences (English -> the language; `{n}` stands for a number), `words.json` the names of inputs
and outputs. What these two lack stays English, and is listed: after a change of the nodes run this, translate what it
lists, and run it again. `--untranslated` lists without writing, and is no failure. The help pages that a language has
not are listed too: docs/<node's id>/<language>.md.
"""

import argparse
import json
import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
LOCALES = ROOT / "locales"
DOCS = ROOT / "nodes" / "web" / "docs"
NUMBER = re.compile(r"_(\d+)\b")
SUFFIX = " (unCLIP)"
QUOTES = {"zh": "“”", "ja": "「」", "ko": "‘’", "fr": "«»", "es": "«»", "de": "„“", "ru": "«»"}
"""How a language quotes the name of a node. Turkish is not here: its suffixes follow the English names' sounds."""


class Language:
    """One language's tables.

    Attributes:
        missing: what was asked for and is not in the tables.
    """

    def __init__(self, code: str, phrases: Mapping[str, str], words: Mapping[str, str]) -> None:
        self.code, self.phrases, self.words = code, phrases, words
        self.missing: list[str] = []

    @classmethod
    def of_folder(cls, folder: Path) -> "Language":
        """The language that a folder of `locales` is named for; English needs no tables."""
        if folder.name == "en":
            return cls("en", {}, {})
        return cls(folder.name, read(folder / "phrases.json"), read(folder / "words.json"))

    def sentence(self, text: str, names: Iterable[str]) -> str:
        """The sentence in this language, with the nodes that it names called as the canvas calls them there."""
        said = self.phrase(text)
        if self.code not in QUOTES or said == text:  # what is not translated stays English throughout
            return said
        for name in sorted(names, key=len, reverse=True):
            opening, closing = QUOTES[self.code]
            called = f"{opening}{self.phrase(name).removesuffix(SUFFIX)}{closing}"
            pattern = rf"(?<![A-Za-z]){re.escape(name.removesuffix(SUFFIX))}(?: \(unCLIP\))?(?![A-Za-z])"
            said = re.sub(pattern, called, said)
        return re.sub(" ?([“”「」]) ?", r"\1", said) if self.code in ("zh", "ja") else said

    def phrase(self, text: str) -> str:
        """The sentence as it stands in the table; in English where it does not."""
        if self.code == "en" or text in self.phrases:
            return self.phrases.get(text, text)
        template, numbers = NUMBER.sub("_{n}", text), NUMBER.findall(text)
        if len(set(numbers)) == 1 and template in self.phrases:
            return self.phrases[template].replace("{n}", numbers[0])
        self.missing.append(text)
        return text

    def word(self, name: str) -> str:
        """The name of an input or output in this language; a number behind it stays."""
        base, _, number = name.rpartition("_")
        plain, number = (base, number) if number.isdigit() else (name, "")
        if self.code == "en":
            return name
        if plain not in self.words:
            self.missing.append(plain)
        return f"{self.words.get(plain, plain)} {number}".strip()

    def node(self, node: type, display_name: str, names: Iterable[str]) -> dict[str, Any]:
        """What the canvas needs to show a node in this language."""
        declared = node.INPUT_TYPES()
        inputs = {**declared.get("required", {}), **declared.get("optional", {})}
        outputs = zip(node.RETURN_NAMES, node.OUTPUT_TOOLTIPS, strict=True)
        return {
            "display_name": self.phrase(display_name),
            "description": self.sentence(node.DESCRIPTION, names),
            "inputs": {
                name: {"name": self.word(name), "tooltip": self.sentence(spec[1]["tooltip"], names)}
                for name, spec in inputs.items()
            },
            "outputs": {
                str(slot): {"name": self.word(name), "tooltip": self.sentence(tooltip, names)}
                for slot, (name, tooltip) in enumerate(outputs)
            },
        }


def read(path: Path) -> Any:
    """A JSON file."""
    return json.loads(path.read_text(encoding="utf-8"))


def definitions(language: Language) -> dict[str, Any]:
    """What the canvas needs to show every node in this language."""
    from unclip import NODE_CLASS_MAPPINGS, NODE_DISPLAY_NAME_MAPPINGS

    names = NODE_DISPLAY_NAME_MAPPINGS
    return {key: language.node(node, names[key], names.values()) for key, node in NODE_CLASS_MAPPINGS.items()}


def without_page(code: str, nodes: Iterable[str]) -> list[str]:
    """The ids of the nodes whose help page is not there in the language: ComfyUI shows the English one."""
    return [key for key in nodes if code != "en" and not (DOCS / key / f"{code}.md").is_file()]


def main() -> None:
    """Write all languages, or none, and list what they lack."""
    parser = argparse.ArgumentParser(description="Write the nodes' words in every language.")
    parser.add_argument("--untranslated", action="store_true", help="only list what is not translated")
    only_list = parser.parse_args().untranslated
    for folder in sorted(path for path in LOCALES.iterdir() if path.is_dir()):
        language = Language.of_folder(folder)
        nodes = definitions(language)
        if not only_list:
            text = json.dumps(nodes, indent=2, ensure_ascii=False) + "\n"
            (folder / "nodeDefs.json").write_text(text, encoding="utf-8")
        for missing in dict.fromkeys(language.missing):
            print(f"{language.code}, not translated: {missing}")
        for key in without_page(language.code, nodes):
            print(f"{language.code}, no help page: {key}")


if __name__ == "__main__":
    main()
