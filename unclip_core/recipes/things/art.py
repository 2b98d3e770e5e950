"""The drawings and names in the packages: by style and thing, and by language and thing."""

import tarfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ...parsing import MalformedInput, parse_json
from .sources import PACKAGES
from .vocabulary import LANGUAGES, STYLES, concepts

Named = tuple[str, tuple[str, ...]]
"""What a thing is called, and its other keywords."""
_JOINER, _EMOJI_LOOK = "200d", "fe0f"


@dataclass(frozen=True)
class Art:
    """What the packages hold of this world's things.

    Attributes:
        drawings: SVG text, or the bytes of a WebP of 256 px, by (style, concept), in that order.
        names: language → a name for each concept.
    """

    drawings: dict[tuple[int, int], str | bytes]
    names: dict[str, tuple[Named, ...]]


def read_art(folder: Path) -> Art:
    """Read the packages' files in `folder` (see `sources.fetch`).

    Raises:
        MalformedInput: a package does not hold what is looked for.
        OSError: a file is missing.
    """
    by_name = {key: _icons(folder, key) for key in ("shaded", "cartoon", "flat", "3d gaps", "retro")}
    icon_names = _icon_names(folder)
    drawings: dict[tuple[int, int], str | bytes] = {}
    three = _webps(folder)
    for style, key in enumerate(STYLES):
        for index, code in enumerate(concepts()):
            if key == "3d" and code in three:
                drawings[style, index] = three[code]
            elif (svg := _find(by_name["3d gaps" if key == "3d" else key], icon_names, code)) is not None:
                drawings[style, index] = svg
    return Art(drawings, {language: _names(folder, language) for language in LANGUAGES})


def _find(icons: Mapping[str, str], names: list[Mapping[str, str]], code: str) -> str | None:
    """The drawing under any of the names that the packages have for a code point."""
    return next((icons[known[code]] for known in names if known.get(code) in icons), None)


def _icon_names(folder: Path) -> list[Mapping[str, str]]:
    """Code points → icon's name, of the packages that have it; the others use the same names."""
    return [_member(folder, key, "chars.json") for key in ("shaded", "cartoon", "flat")]


def _icons(folder: Path, key: str) -> dict[str, str]:
    """Icon's name → SVG, of a package of Iconify's."""
    held = _member(folder, key, "icons.json")
    size = held.get("width", 16), held.get("height", 16)
    icons = {name: _svg(icon, size) for name, icon in held["icons"].items()}
    for name, alias in held.get("aliases", {}).items():
        if alias.get("parent") in icons:
            icons.setdefault(name, icons[alias["parent"]])
    return icons


def _svg(icon: Mapping[str, Any], size: tuple[int, int]) -> str:
    box = icon.get("left", 0), icon.get("top", 0), icon.get("width", size[0]), icon.get("height", size[1])
    view = " ".join(map(str, box))
    space = 'xmlns="http://www.w3.org/2000/svg" xmlns:xlink="http://www.w3.org/1999/xlink"'
    return f'<svg {space} viewBox="{view}">{icon["body"]}</svg>'


def _webps(folder: Path) -> dict[str, bytes]:
    """Code points → WebP, of the 3D package; its files' names hold selectors that ours leave out."""
    found = {}
    for name, data in _members(folder, "3d"):
        stem, _, ending = name.rpartition("/")[2].rpartition(".")
        if ending == "webp":
            found["-".join(part for part in stem.split("-") if part != _EMOJI_LOOK)] = data
    return found


def _names(folder: Path, language: str) -> tuple[Named, ...]:
    held: dict[str, Any] = {}
    for key, part in (("derived names", "annotationsDerived"), ("names", "annotations")):
        held |= _member(folder, key, f"{part}/{language}/annotations.json")[part]["annotations"]
    return tuple(_named(held, code, language) for code in concepts())


def _named(held: Mapping[str, Any], code: str, language: str) -> Named:
    character = "".join(chr(int(part, 16)) for part in code.split("-"))
    entry = held.get(character)
    if entry is None:
        raise MalformedInput(f"CLDR's annotations in '{language}' have no name for {code}.")
    name = entry["tts"][0]
    return name, tuple(word for word in entry["default"] if word != name)


def _member(folder: Path, key: str, name: str) -> Any:
    wanted = f"package/{name}"
    path = folder / PACKAGES[key].file
    with tarfile.open(path) as tar:
        file = tar.extractfile(wanted) if wanted in tar.getnames() else None
        if file is None:
            raise MalformedInput(f"'{path}' has no '{wanted}'.")
        return parse_json(file.read(), f"'{path}': {wanted}")


def _members(folder: Path, key: str) -> Iterator[tuple[str, bytes]]:
    with tarfile.open(folder / PACKAGES[key].file) as tar:
        for member in tar:
            if (file := tar.extractfile(member)) is not None:
                yield member.name, file.read()
