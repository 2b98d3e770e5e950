"""Another judge, which nobody trained: it names a thing after the known drawings that lie nearest to it."""

from functools import lru_cache

import torch
from torch import Tensor

from .crops import CROP, cut, find_box, ground_color, nearest_ground
from .dataset import World
from .pictures import Picture
from .sprites import Sprites
from .vocabulary import GROUNDS

SIDE = CROP // 2
"""Pixels that drawings are compared at: fewer than the judge sees, so that an outline a pixel off is still the same."""


class Neighbours:
    """Reads pictures `[3, H, W]` in 0..1, as `Judge` does."""

    def __init__(self, world: World) -> None:
        self._sprites = world.sprites
        self._keys = list(world.sprites.keys)
        self._known = lru_cache(maxsize=len(GROUNDS))(self._known_before)

    def named(self, image: Tensor, most: int = 5) -> tuple[int, ...]:
        """The `most` things whose drawings, in any style before that ground, are nearest; none where nothing stands."""
        image = image.float().cpu()
        ground = ground_color(image)
        box = find_box(image, ground)
        if box is None:
            return ()
        seen = cut(image, box, ground, SIDE).flatten()
        near = (self._known(nearest_ground(ground)) - seen).square().sum(dim=1)
        found: dict[int, None] = {}
        for row in near.argsort().tolist():
            found.setdefault(self._keys[row][1])
            if len(found) == most:
                break
        return tuple(found)

    def score(self, image: Tensor, picture: Picture) -> dict[str, bool]:
        """Whether it names a picture's one thing, "near_top1", and has it among its first five, "near_top5"."""
        named, wanted = self.named(image), picture.things[0].concept
        return {"near_top1": named[:1] == (wanted,), "near_top5": wanted in named}

    def _known_before(self, ground: int) -> Tensor:
        """All drawings in their boxes before a ground, `[N, 3 * SIDE * SIDE]`."""
        color = torch.tensor(list(GROUNDS.values())[ground]) / 255
        return torch.stack([crop.flatten() for crop in boxed(self._sprites, color, SIDE)])


def boxed(sprites: Sprites, ground: Tensor, pixels: int = CROP) -> list[Tensor]:
    """All drawings, each in its box before a ground `[3]`, `[3, pixels, pixels]`, in the sprites' order."""
    crops = []
    for stored in sprites.stored:
        rgba = torch.from_numpy(stored.copy()).float().permute(2, 0, 1) / 255
        crops.append(crop_of(rgba[:3] * rgba[3:] + (1 - rgba[3:]) * ground[:, None, None], ground, pixels))
    return crops


def crop_of(image: Tensor, ground: Tensor, pixels: int = CROP) -> Tensor:
    """The thing in an image `[3, H, W]` in its box `[3, pixels, pixels]`; where nothing is to be seen, plain ground."""
    box = find_box(image, ground)
    plain = ground[:, None, None].expand(3, pixels, pixels)
    return plain if box is None else cut(image, box, ground, pixels)
