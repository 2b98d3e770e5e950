"""Write locales/<language>/nodeDefs.json from the node definitions and each language's phrases and words.

`phrases.json` holds sentences (English -> the language; `{n}` stands for a number), `words.json` the names of inputs
and outputs. After a change of the nodes: run this, add what it says is missing to these two files, and run it again.
"""

import json
import re
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
LOCALES = ROOT / "locales"
NUMBER = re.compile(r"_(\d+)\b")
SUFFIX = " (unCLIP)"
QUOTES = {"zh": "“”", "ja": "「」", "ko": "‘’", "fr": "«»", "es": "«»", "de": "„“", "ru": "«»"}
"""How a language quotes the name of a node. Turkish is not here: its suffixes follow the English names' sounds."""


class Language:
    """One language's tables; `missing` gathers what they lack."""

    def __init__(self, code: str) -> None:
        self.folder, self.code = LOCALES / code, code
        english = code == "en"
        self.phrases = {} if english else read(self.folder / "phrases.json")
        self.words = {} if english else read(self.folder / "words.json")
        self.missing: list[str] = []

    def sentence(self, text: str, names: Iterable[str]) -> str:
        """The sentence in this language, with the nodes that it names called as the canvas calls them there."""
        said = self.phrase(text)
        if self.code not in QUOTES:
            return said
        for name in sorted(names, key=len, reverse=True):
            opening, closing = QUOTES[self.code]
            called = f"{opening}{self.phrase(name).removesuffix(SUFFIX)}{closing}"
            pattern = rf"(?<![A-Za-z]){re.escape(name.removesuffix(SUFFIX))}(?: \(unCLIP\))?(?![A-Za-z])"
            said = re.sub(pattern, called, said)
        return re.sub(" ?([“”「」]) ?", r"\1", said) if self.code in ("zh", "ja") else said

    def phrase(self, text: str) -> str:
        """The sentence as it stands in the table."""
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


def main() -> int:
    """Write all languages; returns 1 where something is missing."""
    from unclip import NODE_CLASS_MAPPINGS, NODE_DISPLAY_NAME_MAPPINGS

    lacking = 0
    for folder in sorted(path for path in LOCALES.iterdir() if path.is_dir()):
        language = Language(folder.name)
        names = NODE_DISPLAY_NAME_MAPPINGS
        nodes = {key: language.node(node, names[key], names.values()) for key, node in NODE_CLASS_MAPPINGS.items()}
        text = json.dumps(nodes, indent=2, ensure_ascii=False) + "\n"
        (folder / "nodeDefs.json").write_text(text, encoding="utf-8")
        for missing in dict.fromkeys(language.missing):
            print(f"{folder.name}: {missing}")
        lacking += len(language.missing)
    return 1 if lacking else 0


if __name__ == "__main__":
    sys.exit(main())
