"""Edits by two texts, measured: true pictures turned to another ground, style, colour or expression."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

from torch import Tensor

from ...diffusion.noise import sample_seeds
from ...embedding.arithmetic import blend, text_diff
from ...models import UnclipModel
from ...pipelines import embed_text, encode_text, sample_prior
from .captions import with_articles, words
from .dataset import World
from .judge import Judge, Verdict
from .measures import BATCH, drawn_large, embeds_of, single
from .pictures import Picture, picture_random
from .vocabulary import GROUNDS, SHAPE_COLORS, concepts

THETA = 0.35
"""How far text diffs go."""
KINDS = ("ground", "style", "color", "expression")
FACES = (0x1F600, 0x1F64F)
"""The code points of faces, with the people that make gestures."""


@dataclass(frozen=True)
class Edit:
    """What is turned in a true picture, what it should then be (of a colour its index), and the texts of both."""

    kind: str
    before: Picture
    after: Picture
    texts: tuple[str, str]
    color: int = -1


Turn = Callable[[UnclipModel, Tensor, Sequence[Edit], Sequence[int]], Tensor]
"""From true pictures' embeddings `[B, D]`, the edits of each and a seed each to the embeddings that are drawn."""


def by_text_diff(model: UnclipModel, embeds: Tensor, part: Sequence[Edit], seeds: Sequence[int]) -> Tensor:
    """Toward what CLIP says of one text beyond the other (Ramesh et al. 2022, section 3.3), as *Text Diff* does."""
    old, new = (embed_text(model.clip, [edit.texts[side] for edit in part]) for side in (0, 1))
    return text_diff(embeds, old, new, THETA)


def by_prior(model: UnclipModel, embeds: Tensor, part: Sequence[Edit], seeds: Sequence[int]) -> Tensor:
    """Add what the prior draws of the new text and take off what it draws of the old, as *Embedding Blend* does.

    Both are drawn from the same noise, so that they differ in what the texts differ in; and unlike the texts' own
    embeddings they lie where images' ones do.
    """
    texts = [encode_text(model.clip, [edit.texts[side] for edit in part]) for side in (0, 1)]
    old, new = (sample_prior(model.prior, text, seeds=seeds) for text in texts)
    return blend([embeds, new, old], [1.0, 1.0, -1.0])


def edits(
    model: UnclipModel,
    world: World,
    judge: Judge,
    count: int,
    seed: int,
    turn: Turn = by_text_diff,
    told: bool = False,
) -> dict[str, float]:
    """Edits of true pictures by `turn`: what was asked turned, the thing stayed (top-5), both; and both by kind.

    Of an expression the thing that stays is a face: the new one is what is asked for. Where the decoder is `told`, it
    reads the new text beside the embedding.
    """
    asked = [edit_of(world, number, seed) for number in range(count)]
    turned, stayed = [], []
    for at in range(0, count, BATCH):
        part = asked[at : at + BATCH]
        before = embeds_of(model, world, [edit.before for edit in part])
        embeds = turn(model, before, part, sample_seeds(seed + at, len(part)))
        text = encode_text(model.clip, [edit.texts[1] for edit in part]) if told else None
        for image, edit in zip(drawn_large(model, embeds, seed, at, text), part, strict=True):
            one, other = judged(judge, image, edit)
            turned.append(one)
            stayed.append(other)
    both = [all(pair) for pair in zip(turned, stayed, strict=True)]
    kinds = {kind: [right for right, edit in zip(both, asked, strict=True) if edit.kind == kind] for kind in KINDS}
    shares = {
        "turned": turned,
        "stayed": stayed,
        "all": both,
        **{kind: found for kind, found in kinds.items() if found},
    }
    return {**{name: sum(values) / len(values) for name, values in shares.items()}, "n": count}


def edit_of(world: World, number: int, seed: int) -> Edit:
    """The edit of that number; the kinds take turns."""
    chance, kind = picture_random(seed, number, "measure edit"), KINDS[number % len(KINDS)]
    attempt = 0
    while True:
        picture = single(world, number + 1000 * attempt, seed)
        thing, attempt = picture.things[0], attempt + 1
        name = world.captions.names["en"][thing.concept][0]
        if kind == "ground":
            after = replace(picture, ground=chance.randrange(1, len(GROUNDS)))
            return Edit(kind, picture, after, _captions(world, picture, after, seed))
        if kind == "style" and len(world.sprites.styles[thing.concept]) > 1:
            others = [style for style in world.sprites.styles[thing.concept] if style != thing.style]
            after = replace(picture, things=(replace(thing, style=chance.choice(others)),))
            return Edit(kind, picture, after, _captions(world, picture, after, seed))
        if kind == "color" and 0 <= world.sprites.main_color(thing.style, thing.concept) < SHAPE_COLORS:
            main = world.sprites.main_color(thing.style, thing.concept)
            color = chance.choice([c for c in range(SHAPE_COLORS) if c != main])
            said = [with_articles("a/an " + words("en").colors[c].replace("{}", name)) for c in (main, color)]
            return Edit(kind, picture, picture, (said[0], said[1]), color)
        if kind == "expression" and is_face(thing.concept):
            faces = [c for c in range(len(concepts())) if is_face(c) and thing.style in world.sprites.styles[c]]
            other = chance.choice([face for face in faces if face != thing.concept])
            after = replace(picture, things=(replace(thing, concept=other),))
            new = world.captions.names["en"][other][0]
            return Edit(kind, picture, after, (with_articles(f"a/an {name}"), with_articles(f"a/an {new}")))


def is_face(concept: int) -> bool:
    """Whether a thing is one of the faces."""
    code = concepts()[concept].split("-")
    return len(code) == 1 and FACES[0] <= int(code[0], 16) <= FACES[1]


def judged(judge: Judge, image: Tensor, edit: Edit) -> tuple[bool, bool]:
    """Whether what was asked turned, and whether the thing stayed, in a drawing `[3, H, W]`."""
    seen, thing = judge.one(image), edit.before.things[0].concept
    turned = {
        "ground": lambda: judge.ground(image) == edit.after.ground,
        "style": lambda: seen.style == edit.after.things[0].style,
        "color": lambda: seen.color == edit.color,
        "expression": lambda: edit.after.things[0].concept in seen.things,
    }[edit.kind]()
    return turned, _is_a_face(seen) if edit.kind == "expression" else thing in seen.things


def _is_a_face(seen: Verdict) -> bool:
    return bool(seen.things) and is_face(seen.things[0])


def _captions(world: World, before: Picture, after: Picture, seed: int) -> tuple[str, str]:
    said: Sequence[str] = [
        world.captions.caption(picture, "en", picture_random(seed, 0, "measure wording"), plain=True)
        for picture in (before, after)
    ]
    return said[0], said[1]
