"""Phrase lists: captions with slots, and what may stand in each slot, read from a text file.

    # Lines that begin with # are comments.
    template: a/an( {size}) {color} {shape}[ {relation} a/an {color 2} {shape 2}]

    size:
      small
      large
    …

A template names slots in {braces}; a number behind the name asks for a second choice from the same list. What stands in
no brackets is filled first, all its slots together; then each part in turn: one in [brackets] may be left out, one in
(parentheses) is always said. Parts may hold parts. "a/an" becomes what the next letter asks for.
"""

import re
from dataclasses import dataclass
from itertools import product
from math import prod
from pathlib import Path

__all__ = ["BUILT_IN", "Part", "PhraseError", "Phrases", "Template", "parse_phrases", "read_phrases"]

FOLDER = Path(__file__).parent / "phrases"
BUILT_IN = {path.stem: path for path in sorted(FOLDER.glob("*.txt"))}
"""The lists that ship with the pack, by name."""

FILLINGS_MAX = 4096
"""Fillings of one part that are tried together."""

_SLOT = re.compile(r"\{([^{}]*)\}")
_PAIRS = {"[": "]", "(": ")"}
_NAME = re.compile(r"[a-z_]+( \d+)?")


class PhraseError(ValueError):
    """A phrase list that cannot be used; the message names the line."""


Filling = dict[str, str]
"""slot → phrase."""


@dataclass(frozen=True)
class Part:
    """A piece of a template that is said as a whole or not at all.

    Attributes:
        text: the piece; `{slot}` is to be filled, `<n>` is where part `n` goes.
        slots: the names of its own slots.
        parent: the number of the part that it lies in; None for the whole template.
        optional: whether it may be left out of the part that it lies in.
    """

    text: str
    slots: tuple[str, ...]
    parent: int | None
    optional: bool


@dataclass(frozen=True)
class Template:
    """A caption with slots; part 0 is the whole of it, without its parts."""

    parts: tuple[Part, ...]

    def caption(self, filling: Filling) -> str:
        """The sentence in which every part is said whose slots are filled."""
        text = re.sub(r"\s+", " ", self._say(0, filling)).strip()
        return re.sub(r"\ba/an (?=(\W*\w))", lambda found: "an " if found[1][-1] in "aeiouAEIOU" else "a ", text)

    def said(self, number: int, filling: Filling) -> bool:
        """Whether a part is said: its slots are filled, and those of the parts around it."""
        part = self.parts[number]
        return all(slot in filling for slot in part.slots) and (part.parent is None or self.said(part.parent, filling))

    def is_whole(self, filling: Filling) -> bool:
        """Whether all is said that may not be left out."""
        return all(
            part.optional or self.said(number, filling)
            for number, part in enumerate(self.parts)
            if part.parent is None or self.said(part.parent, filling)
        )

    def _say(self, number: int, filling: Filling) -> str:
        if not self.said(number, filling):
            return ""
        text = _SLOT.sub(lambda found: filling[found[1]], self.parts[number].text)
        return re.sub(r"<(\d+)>", lambda found: self._say(int(found[1]), filling), text)


@dataclass(frozen=True)
class Phrases:
    """A phrase list: templates, and the phrases of each slot."""

    templates: tuple[Template, ...]
    options: dict[str, tuple[str, ...]]

    def choices(self, slot: str) -> tuple[str, ...]:
        """The phrases for a slot; "color 2" takes those of "color"."""
        return self.options[list_of(slot)]

    def fillings(self, part: Part) -> list[Filling]:
        """Every way to fill a part's own slots."""
        return [dict(zip(part.slots, each, strict=True)) for each in product(*map(self.choices, part.slots))]


def list_of(slot: str) -> str:
    """The name of the list that a slot's phrases come from."""
    return slot.split(" ")[0]


def read_phrases(path: str | Path) -> Phrases:
    """The phrase list in a UTF-8 text file.

    Raises:
        PhraseError: there is no such file, it is no text, or it is no phrase list.
    """
    path = Path(path)
    try:
        text = path.read_text(encoding="utf-8-sig")
    except OSError as error:
        raise PhraseError(f"The phrase list '{path}' cannot be read: {error.strerror}.") from error
    except UnicodeDecodeError as error:
        raise PhraseError(f"'{path}' is no UTF-8 text, so it is no phrase list.") from error
    return parse_phrases(text, path.name)


def parse_phrases(text: str, source: str = "the phrase list") -> Phrases:
    """The phrase list in a text; `source` is what error messages call it.

    Raises:
        PhraseError: it is empty, or a line does not belong; the message says which.
    """
    templates: list[Template] = []
    options: dict[str, list[str]] = {}
    current: list[str] | None = None
    for number, raw in enumerate(text.splitlines(), start=1):
        line, place = raw.strip(), f"{source}, line {number}"
        if not line or line.startswith("#"):
            continue
        if line.startswith("template:"):
            templates.append(_template(line.removeprefix("template:").strip(), place))
        elif re.fullmatch(r"[a-z_]+:", line):
            current = options.setdefault(line[:-1], [])
        elif current is None:
            raise PhraseError(f"{place}: {line!r} belongs to no slot; write a line such as 'color:' above it.")
        elif line not in current:
            current.append(line)
    phrases = Phrases(tuple(templates), {name: tuple(lines) for name, lines in options.items()})
    _check(phrases, source)
    return phrases


def _template(text: str, place: str) -> Template:
    """Cut a template into parts, an inner one out of its outer one."""
    parents: list[int | None] = [None]
    pieces, kinds, inside = [""], ["("], [0]
    for letter in text:
        if letter in _PAIRS:
            pieces[inside[-1]] += f"<{len(pieces)}>"
            parents.append(inside[-1])
            inside.append(len(pieces))
            pieces.append("")
            kinds.append(letter)
        elif letter in _PAIRS.values():
            if _PAIRS[kinds[inside.pop()]] != letter or not inside:
                raise PhraseError(f"{place}: a {letter!r} closes nothing in {text!r}.")
        elif letter in "<>":
            raise PhraseError(f"{place}: a template cannot hold {letter!r}.")
        else:
            pieces[inside[-1]] += letter
    if len(inside) != 1:
        raise PhraseError(f"{place}: a {kinds[inside[-1]]!r} is never closed in {text!r}.")
    slots = [tuple(_SLOT.findall(piece)) for piece in pieces]
    parts = tuple(
        Part(piece, held, parent, kind == "[")
        for piece, held, parent, kind in zip(pieces, slots, parents, kinds, strict=True)
    )
    _check_slots(parts, text, place)
    return Template(parts)


def _check_slots(parts: tuple[Part, ...], text: str, place: str) -> None:
    slots = [slot for part in parts for slot in part.slots]
    for slot in slots:
        if not _NAME.fullmatch(slot):
            raise PhraseError(f"{place}: {{{slot}}} is no slot; a slot is a name such as {{color}} or {{color 2}}.")
        if slots.count(slot) > 1:
            raise PhraseError(f"{place}: {{{slot}}} is there twice; call the second one {{{list_of(slot)} 2}}.")
    if any(not part.slots for part in parts[1:]):
        raise PhraseError(f"{place}: a part in brackets has no slot of its own in {text!r}.")
    if not text:
        raise PhraseError(f"{place}: the template is empty.")


def _check(phrases: Phrases, source: str) -> None:
    if not phrases.templates:
        raise PhraseError(f"{source} has no template: write a line such as 'template: a photo of {{subject}}'.")
    for template in phrases.templates:
        for part in template.parts:
            for slot in part.slots:
                if not phrases.options.get(list_of(slot)):
                    raise PhraseError(
                        f"{source} has no phrases for the slot {{{slot}}}: list them below a line '{list_of(slot)}:'."
                    )
            count = prod(len(phrases.choices(slot)) for slot in part.slots)
            if count > FILLINGS_MAX:
                names = "} and {".join(part.slots)
                raise PhraseError(
                    f"{source}: {{{names}}} can be filled in {count:,} ways, too many to try together "
                    f"(at most {FILLINGS_MAX:,}): put one of them in [brackets]."
                )
