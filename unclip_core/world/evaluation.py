"""Prompts to evaluate a model with, and the tally of how many images the judge finds right."""

import random
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence

from torch import Tensor

from .captions import caption
from .judge import SCORES, judge, score
from .scenes import KINDS, SPLITS, Scene, sample_scene

FRACTIONS = (*SCORES[:-1], "place_if_bound", SCORES[-1])
"""What `Tally.fractions` tells; `place_if_bound` of the images that have the right things, 0 where there are none."""

Prompt = tuple[str, str, Scene, str]
"""(split, kind, scene, caption)."""

Fractions = dict[str, dict[str, dict[str, float]]]
"""split → kind → one of FRACTIONS → how many images have it right, 0..1; and "n", how many there were."""


def evaluation_scenes(n: int, seed: int) -> list[Prompt]:
    """`n` prompts of each split, half of them (rounded up) singles; always the same for a seed.

    Captions are paraphrases that state everything. Raises ValueError if n < 1.
    """
    if n < 1:
        raise ValueError(f"cannot evaluate on {n} prompts: at least 1 is needed")
    # A text seeds another sequence than the integer that training may have been seeded with.
    rng = random.Random(f"unclip evaluation {seed}")
    prompts: list[Prompt] = []
    for split in SPLITS:
        for index in range(n):
            scene = sample_scene(rng, KINDS[index % 2], split)
            prompts.append((split, scene.kind, scene, caption(scene, rng, full=True)))
    return prompts


class Tally:
    """Counts scores by split and kind."""

    def __init__(self) -> None:
        """Start with nothing counted."""
        self._right: dict[tuple[str, str], Counter[str]] = defaultdict(Counter)
        self._count: Counter[tuple[str, str]] = Counter()

    def add(self, split: str, kind: str, scores: Mapping[str, bool]) -> None:
        """Count one image's scores, as `score` gives them."""
        self._count[split, kind] += 1
        right = {name: int(scores[name]) for name in SCORES}
        self._right[split, kind].update(right | {"place_if_bound": right["place"] * right["bound"]})

    def add_images(self, prompts: Sequence[Prompt], images: Tensor) -> list[dict[str, bool]]:
        """Judge and count one image [3, H, W] (0..1) a prompt: images is [B, 3, H, W]. Returns each one's scores.

        Raises ValueError if there are not as many images as prompts.
        """
        if len(prompts) != len(images):
            raise ValueError(f"{len(images)} images for {len(prompts)} prompts")
        judged = [score(judge(image), scene) for (_, _, scene, _), image in zip(prompts, images, strict=True)]
        for (split, kind, _, _), scores in zip(prompts, judged, strict=True):
            self.add(split, kind, scores)
        return judged

    def fractions(self) -> Fractions:
        """What has been counted: FRACTIONS and "n", for each split and kind met so far."""
        result: Fractions = {}
        for split in SPLITS:
            for kind in KINDS:
                if n := self._count[split, kind]:
                    right = self._right[split, kind]
                    counted = dict.fromkeys(FRACTIONS, n) | {"place_if_bound": max(1, right["bound"])}
                    fractions = {name: right[name] / counted[name] for name in FRACTIONS}
                    result.setdefault(split, {})[kind] = {**fractions, "n": n}
        return result
