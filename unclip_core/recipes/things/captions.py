"""Captions of pictures in nine languages: things' names are CLDR's, all other words stand in `words/`.

Templates are made so that no name has to be inflected.
"""

import random
import re
import unicodedata
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache, cached_property
from pathlib import Path

from ...parsing import MalformedInput, checked, read_json
from .art import Art, Named
from .pictures import Picture, Placed
from .sprites import Sprites
from .vocabulary import COLORS, GROUNDS, LANGUAGES, PLACES, RELATIONS, SHAPE_COLORS, SHAPES, SIZES, STYLES

FOLDER = Path(__file__).with_name("words")
LANGUAGE_SHARES = dict(zip(LANGUAGES, (0.28, *(0.09,) * 8), strict=True))
FILLED = 0.45
"""Share of captions with words that say nothing about the picture."""
NOISED = 0.2
"""Share of captions with words that there are not: of what nobody has taught it, a model should take no notice."""
RARE = 4
"""A keyword of at most so many things may stand for a thing's name."""

UNSPACED = ("ja", "zh")
"""Languages without spaces between words."""
LETTERS = {"en": ("bcdfghjklmnprstvwz", "aeiou"), "ru": ("бвгджзклмнпрстфх", "аеиоуыя")}
"""Consonants and vowels that words are made of; all that is not here takes those of English."""
SYLLABLES = {
    "ja": [chr(code) for code in range(0x3042, 0x3094) if unicodedata.normalize("NFD", chr(code)) == chr(code)],
    "ko": [chr(code) for code in range(0xAC00, 0xD7A4, 28)],
    "zh": list("的了是在有和这上来们到时就出会可也对而那得于着下之过发后里么去起无同主方又如前与行成"),
}
"""The same as whole syllables: kana, hangul of two letters, and signs that name no thing."""


@dataclass(frozen=True)
class Words:
    """A language's words. Lists of lists are ways to say each style, ground, place, size or relation.

    Attributes:
        join: what stands between the parts of a caption, one or the other.
        names: how a thing's name may stand; "a/an" becomes what the next letter asks for.
        colors: how a thing is said to have a colour.
        shapes: each shape's name and, where adjectives follow it, its gender.
        shape_colors: gender → the colours' adjectives.
        shape: how shape and colour stand together.
        fillers: what people say around a request, in captions.
        asked: the same for measuring: never in captions.
    """

    join: list[str]
    names: list[str]
    styles: list[list[str]]
    grounds: list[list[str]]
    places: list[list[str]]
    sizes: list[list[str]]
    colors: list[str]
    shapes: list[list[str]]
    shape_colors: dict[str, list[str]]
    shape: str
    relations: list[list[str]]
    fillers: list[str]
    asked: list[str]

    def __post_init__(self) -> None:
        counts = {"styles": STYLES, "grounds": GROUNDS, "places": PLACES, "sizes": SIZES, "colors": COLORS}
        for name, things in {**counts, "shapes": SHAPES, "relations": RELATIONS}.items():
            if len(getattr(self, name)) != len(things):
                raise ValueError(f"{name} must have {len(things)} entries, not {len(getattr(self, name))}")
        if any(len(colors) != SHAPE_COLORS for colors in self.shape_colors.values()):
            raise ValueError(f"shape_colors must have {SHAPE_COLORS} entries each")


@cache
def words(language: str) -> Words:
    """The words of a language. Raises ValueError for one that there is not."""
    if language not in LANGUAGES:
        raise ValueError(f"'{language}' is none of the languages {', '.join(LANGUAGES)}.")
    path = FOLDER / f"{language}.json"
    return checked(Words, read_json(path), f"'{path}'")


@dataclass(frozen=True)
class Captions:
    """Says what is in pictures.

    Attributes:
        names: language → a name and keywords for each concept (see `art`).
        sprites: what tells main colours.
    """

    names: Mapping[str, Sequence[Named]]
    sprites: Sprites

    @cached_property
    def rare(self) -> dict[str, list[tuple[str, ...]]]:
        """Language → for each concept the keywords that can stand for its name."""
        return {language: _rare_keywords(names) for language, names in self.names.items()}

    def caption(
        self, picture: Picture, language: str, chance: random.Random, asked: bool = False, plain: bool = False
    ) -> str:
        """One of the many ways to say what the picture is.

        Args:
            picture: what to tell of.
            language: one of LANGUAGES.
            chance: which way.
            asked: in words of requests that no caption has, and with the things' own names: for measuring.
            plain: with the things' own names and no other words: for measuring.
        """
        said, known = words(language), _Said(self, language, chance, asked or plain)
        core = known.scene(picture) if picture.kind == "scene" else known.one(picture)
        join, facts = chance.choices(said.join, (0.75, 0.25))[0], known.facts(picture)
        filled = asked or (not plain and chance.random() < FILLED)
        filler = chance.choice(said.asked if asked else said.fillers) if filled else "{}"
        if chance.random() < 0.5:
            text = filler.replace("{}", join.join([core, *facts]))
        else:
            text = join.join([filler.replace("{}", core), *facts])
        if not asked and not plain and chance.random() < NOISED:
            text = with_noise(text, language, chance)
        return with_articles(text)


@dataclass(frozen=True)
class _Said:
    """The choices for one caption."""

    captions: Captions
    language: str
    chance: random.Random
    named: bool

    @property
    def words(self) -> Words:
        return words(self.language)

    def one(self, picture: Picture) -> str:
        thing = picture.things[0]
        if picture.kind == "shape":
            name = self.shape(thing)
        else:
            name = self.name(thing)
            color = self.captions.sprites.main_color(thing.style, thing.concept)
            if "color" in picture.says and color >= 0:
                name = _colored(name, self.words.colors[color])
        if "size" in picture.says and picture.size is not None:
            name = self.chance.choice(self.words.sizes[picture.size]).replace("{}", name)
        return self.with_article(name)

    def scene(self, picture: Picture) -> str:
        first, second = (self.with_article(self.name(thing)) for thing in picture.things)
        relation = self.chance.choice(self.words.relations[picture.relation or 0])
        return relation.replace("{a}", first).replace("{b}", second)

    def name(self, thing: Placed) -> str:
        name, keywords = self.captions.names[self.language][thing.concept]
        rare, draw = self.captions.rare[self.language][thing.concept], self.chance.random()
        if self.named or draw < 0.7 or not keywords:
            return name
        if draw < 0.82 and rare:
            return self.chance.choice(rare)
        return f"{name} ({', '.join(self.chance.sample(keywords, min(2, len(keywords))))})"

    def shape(self, thing: Placed) -> str:
        name, *gender = self.words.shapes[thing.concept]
        color = self.words.shape_colors[gender[0] if gender else ""][thing.style]
        return self.words.shape.replace("{color}", color).replace("{shape}", name)

    def with_article(self, name: str) -> str:
        plural = self.language == "en" and re.search(r"[^s]s\b(?! \w)", name.split(" (")[0])
        return name if plural else self.chance.choice(self.words.names).replace("{}", name)

    def facts(self, picture: Picture) -> list[str]:
        facts = []
        if "style" in picture.says:
            facts.append(self.chance.choice(self.words.styles[picture.things[0].style]))
        if "ground" in picture.says:
            facts.append(self.chance.choice(self.words.grounds[picture.ground]))
        if "place" in picture.says:
            facts.append(self.chance.choice(self.words.places[picture.place]))
        self.chance.shuffle(facts)
        return facts


def _colored(name: str, template: str) -> str:
    """The name with its colour, unless it says it itself: "red apple" stays."""
    color = template.replace("{}", "").split()[-1].lower()
    return name if color in name.lower() else template.replace("{}", name)


def with_articles(text: str) -> str:
    """ "a/an apple" → "an apple"; what begins with a digit takes "a"."""
    return re.sub(r"\ba/an (\w)", lambda m: ("an " if m[1].lower() in "aeio" else "a ") + m[1], text)


def with_noise(text: str, language: str, chance: random.Random) -> str:
    """The text with one to three words that there are not, somewhere between its own, or around it."""
    spaced = language not in UNSPACED
    parts = text.split(" ") if spaced else [text]
    for _ in range(chance.randint(1, 3)):
        parts.insert(chance.randint(0, len(parts)), noise_word(language, chance))
    return (" " if spaced else "").join(parts)


def noise_word(language: str, chance: random.Random) -> str:
    """A word that there is not, in the letters of the language."""
    if language in SYLLABLES:
        return "".join(chance.choice(SYLLABLES[language]) for _ in range(chance.randint(2, 4)))
    consonants, vowels = LETTERS.get(language, LETTERS["en"])
    word = "".join(chance.choice(consonants) + chance.choice(vowels) for _ in range(chance.randint(1, 4)))
    return word + (chance.choice(consonants) if chance.random() < 0.5 else "")


def _rare_keywords(names: Sequence[Named]) -> list[tuple[str, ...]]:
    """Keywords of few things, and of no thing's name but their own."""
    counts = Counter(word.lower() for _, keywords in names for word in keywords)
    taken = {name.lower() for name, _ in names}
    return [
        tuple(word for word in keywords if counts[word.lower()] <= RARE and word.lower() not in taken)
        for _, keywords in names
    ]


def caption_language(chance: random.Random) -> str:
    """A language, as often as LANGUAGE_SHARES says."""
    return chance.choices(list(LANGUAGE_SHARES), list(LANGUAGE_SHARES.values()))[0]


def captions_of(art: Art, sprites: Sprites) -> Captions:
    """What tells of these drawings."""
    if missing := set(LANGUAGES) - set(art.names):
        raise MalformedInput(f"There are no names in {sorted(missing)}.")
    return Captions(art.names, sprites)
