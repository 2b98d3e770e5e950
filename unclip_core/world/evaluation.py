"""Prompts to evaluate a model on, and counts of what the judge finds right."""

import random
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence

from torch import Tensor

from .captions import caption
from .judge import SCORES, judge, score
from .scenes import KINDS, SPLITS, Scene, sample_scene

FRACTIONS = (*SCORES[:-1], "place_if_bound", SCORES[-1])
"""Keys of `Tally.fractions`; `place_if_bound` is the place's among images whose things are right, 0 without any."""

Prompt = tuple[str, str, Scene, str]
"""(split, kind, scene, caption)."""

Fractions = dict[str, dict[str, dict[str, float]]]
"""split → kind → one of FRACTIONS → fraction of the images, 0..1; and "n", the number of images."""


def evaluation_scenes(n: int, seed: int) -> list[Prompt]:
    """Draw prompts for evaluation: paraphrases that state everything.

    Args:
        n: prompts of each split, at least 1; half of them (rounded up) are singles.
        seed: the same seed gives the same prompts.

    Raises:
        ValueError: n is below 1.
    """
    if n < 1:
        raise ValueError(f"cannot evaluate on {n} prompts: at least 1 is needed")
    # Seeded by a string, so that the sequence differs from that of a training with the same integer.
    rng = random.Random(f"unclip evaluation {seed}")
    prompts: list[Prompt] = []
    for split in SPLITS:
        for index in range(n):
            scene = sample_scene(rng, KINDS[index % 2], split)
            prompts.append((split, scene.kind, scene, caption(scene, rng, full=True)))
    return prompts


class Tally:
    """Scores counted by split and kind."""

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
        """Judge and count one image a prompt.

        Args:
            prompts: B of them.
            images: `[B, 3, H, W]` in 0..1.

        Returns:
            Each image's scores, as `score` gives them.

        Raises:
            ValueError: there are not as many images as prompts.
        """
        if len(prompts) != len(images):
            raise ValueError(f"{len(images)} images for {len(prompts)} prompts")
        judged = [score(judge(image), scene) for (_, _, scene, _), image in zip(prompts, images, strict=True)]
        for (split, kind, _, _), scores in zip(prompts, judged, strict=True):
            self.add(split, kind, scores)
        return judged

    def fractions(self) -> Fractions:
        """Return FRACTIONS and "n" for each split and kind counted so far."""
        result: Fractions = {}
        for split in SPLITS:
            for kind in KINDS:
                if n := self._count[split, kind]:
                    right = self._right[split, kind]
                    counted = dict.fromkeys(FRACTIONS, n) | {"place_if_bound": max(1, right["bound"])}
                    fractions = {name: right[name] / counted[name] for name in FRACTIONS}
                    result.setdefault(split, {})[kind] = {**fractions, "n": n}
        return result
