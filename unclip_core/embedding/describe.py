"""An image in words: phrases ranked against its CLIP embedding and put together, part by part, into a caption.

CLIP scores how well a text goes with an image (Radford et al. 2021, section 3.1, "zero-shot"); it does not write. So
captions are built from a list of phrases: the part that every caption has is filled in the best way, then each further
part in turn (one that may be left out is kept only where it raises the similarity), then single phrases are exchanged
as long as that helps.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

from .arithmetic import normalize
from .phrase_lists import Filling, Phrases, Template

__all__ = ["Choice", "Describer", "Description"]

WIDTH = 3
"""Captions that are carried on from part to part."""

ROUNDS_MAX = 8
"""Rounds of exchanging single phrases; two or three are usual."""

MEMORY_MAX = 200_000
"""Captions whose embeddings are remembered from one image to the next."""

AT_ONCE = 256

Encode = Callable[[Sequence[str]], Tensor]
"""Texts to their CLIP embeddings `[B, D]`."""


@dataclass(frozen=True)
class Choice:
    """A text and its cosine with the image."""

    text: str
    score: float


@dataclass(frozen=True)
class Description:
    """What CLIP says of an image.

    Attributes:
        caption: the best caption, and its cosine with the image.
        slots: what fills each slot of the caption that is said.
        captions: the best captions that were met, best first; the first is `caption`.
        alternatives: of each slot of the caption the best phrases, with the rest of it unchanged, best first.
    """

    caption: Choice
    slots: Filling
    captions: tuple[Choice, ...]
    alternatives: dict[str, tuple[Choice, ...]]


@dataclass(frozen=True)
class _Draft:
    score: float
    template: Template
    filling: Filling


@dataclass
class _Search:
    """The direction of an image's embedding `[D]`, every caption met so far, and those with all that must be said."""

    image: Tensor
    scores: dict[str, float] = field(default_factory=dict)
    whole: dict[str, float] = field(default_factory=dict)


class Describer:
    """Describes one image after the other with one phrase list; captions are encoded once."""

    def __init__(self, encode: Encode, phrases: Phrases, width: int = WIDTH) -> None:
        """Describe with `phrases`, as the CLIP behind `encode` reads them.

        Raises:
            ValueError: `width` is less than 1.
        """
        if width < 1:
            raise ValueError(f"a description needs at least 1 caption to carry on, not {width}")
        self._encode = encode
        self._phrases = phrases
        self._width = width
        self._memory: dict[str, Tensor] = {}

    def describe(self, embedding: Tensor, top_k: int = 5) -> Description:
        """Describe the image of one image embedding `[D]`; the best `top_k` texts are told.

        Raises:
            ValueError: `top_k` is less than 1, or the embedding has length 0, NaN or infinity.
        """
        if top_k < 1:
            raise ValueError(f"top_k must be 1 or more, got {top_k}")
        search = _Search(normalize(embedding.detach().to("cpu", torch.float32)))
        drafts = [self._grow(template, search) for template in self._phrases.templates]
        best = max((self._polish(draft, search) for draft in drafts), key=lambda draft: draft.score)
        ranked = sorted(search.whole.items(), key=lambda item: -item[1])[:top_k]
        return Description(
            caption=Choice(best.template.caption(best.filling), best.score),
            slots=best.filling,
            captions=tuple(Choice(*item) for item in ranked),
            alternatives=self._alternatives(best, search, top_k),
        )

    def _grow(self, template: Template, search: _Search) -> _Draft:
        """Fill the template part by part, the `width` best drafts at a time."""
        drafts = [_Draft(-2.0, template, {})]
        for part in template.parts:
            takers = [draft for draft in drafts if part.parent is None or template.said(part.parent, draft.filling)]
            fillings = [{**draft.filling, **more} for draft in takers for more in self._phrases.fillings(part)]
            without = drafts if part.optional else [draft for draft in drafts if draft not in takers]
            grown = [*without, *self._score(template, fillings, search)]
            drafts = sorted(grown, key=lambda draft: -draft.score)[: self._width]
        return drafts[0]

    def _polish(self, draft: _Draft, search: _Search) -> _Draft:
        """Exchange single phrases, or drop or add a part, as long as that raises the similarity."""
        for _ in range(ROUNDS_MAX):
            neighbours = [other for slot in draft.filling for other in self._exchanged(draft, slot)]
            neighbours += self._with_or_without_parts(draft)
            neighbours = [other for other in neighbours if draft.template.is_whole(other)]
            found = self._score(draft.template, neighbours, search)
            best = max(found, key=lambda other: other.score, default=draft)
            if best.score <= draft.score:
                break
            draft = best
        return draft

    def _exchanged(self, draft: _Draft, slot: str) -> list[Filling]:
        return [{**draft.filling, slot: phrase} for phrase in self._phrases.choices(slot)]

    def _with_or_without_parts(self, draft: _Draft) -> list[Filling]:
        """The fillings with one more part that has a single slot, and those with one less."""
        fillings = []
        for number, part in enumerate(draft.template.parts):
            if not part.optional:
                continue
            if draft.template.said(number, draft.filling):
                gone = _slots_within(draft.template, number)
                fillings.append({slot: said for slot, said in draft.filling.items() if slot not in gone})
            elif len(part.slots) == 1 and (part.parent is None or draft.template.said(part.parent, draft.filling)):
                fillings += [{**draft.filling, **more} for more in self._phrases.fillings(part)]
        return fillings

    def _alternatives(self, draft: _Draft, search: _Search, top_k: int) -> dict[str, tuple[Choice, ...]]:
        found = {}
        for slot in draft.filling:
            scored = self._score(draft.template, self._exchanged(draft, slot), search)
            ranked = sorted(scored, key=lambda other: -other.score)[:top_k]
            found[slot] = tuple(Choice(other.filling[slot], other.score) for other in ranked)
        return found

    def _score(self, template: Template, fillings: Sequence[Filling], search: _Search) -> list[_Draft]:
        """Drafts of fillings, scored; what is new is encoded, and all is noted."""
        captions = [template.caption(filling) for filling in fillings]
        new = [caption for caption in dict.fromkeys(captions) if caption not in search.scores]
        if new:
            scores = (self._embeds(new) @ search.image).clamp(-1, 1)
            search.scores.update(zip(new, scores.tolist(), strict=True))
        for caption, filling in zip(captions, fillings, strict=True):
            if template.is_whole(filling):
                search.whole[caption] = search.scores[caption]
        pairs = zip(captions, fillings, strict=True)
        return [_Draft(search.scores[caption], template, filling) for caption, filling in pairs]

    def _embeds(self, captions: Sequence[str]) -> Tensor:
        unknown = [caption for caption in captions if caption not in self._memory]
        if len(self._memory) + len(unknown) > MEMORY_MAX:
            self._memory.clear()
            unknown = list(captions)
        for start in range(0, len(unknown), AT_ONCE):
            some = unknown[start : start + AT_ONCE]
            rows = normalize(self._encode(some).detach().to("cpu", torch.float32))
            self._memory.update(zip(some, rows, strict=True))
        return torch.stack([self._memory[caption] for caption in captions])


def _slots_within(template: Template, number: int) -> set[str]:
    """The slots of a part and of the parts in it."""
    inner = [index for index, part in enumerate(template.parts) if part.parent == number]
    return set(template.parts[number].slots).union(*(_slots_within(template, index) for index in inner))
