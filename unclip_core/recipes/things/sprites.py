"""The drawings as pixels: every thing in every style that there is of it, and the plain shapes in their colours."""

import io
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from tqdm import tqdm

from ...weights.files import write_whole
from .art import Art
from .vocabulary import COLORS, SHAPE_COLORS, SHAPES, Rgb, concepts

STORED = 128
"""Pixels of the stored renderings; larger ones are rendered when they are asked for."""
MAIN_SHARE = 0.5
"""Share of a drawing's pixels that must be nearest to a colour for it to be the drawing's main colour."""
_OUTLINES = {
    "circle": '<circle cx="50" cy="50" r="46"/>',
    "square": '<rect x="8" y="8" width="84" height="84"/>',
    "triangle": '<path d="M50 6 96 90H4z"/>',
    "diamond": '<path d="M50 3 90 50 50 97 10 50z"/>',
    "star": '<path d="M50 3 61.8 37.9 98.6 38.2 69 60.1 80.1 95.2 50 73.8 19.9 95.2 31 60.1 1.4 38.2 38.2 37.9z"/>',
    "cross": '<path d="M36 6h28v30h30v28H64v30H36V64H6V36h30z"/>',
    "ring": '<circle cx="50" cy="50" r="35" fill="none" stroke-width="22"/>',
    "heart": '<path d="M50 92C20 68 4 50 4 32A24 24 0 0 1 50 22 24 24 0 0 1 96 32C96 50 80 68 50 92z"/>',
}


def shape_svg(shape: int, color: int) -> str:
    """A plain shape as SVG."""
    red, green, blue = list(COLORS.values())[color]
    paint = f"#{red:02x}{green:02x}{blue:02x}"
    group = f'<g fill="{paint}" stroke="{paint}" stroke-width="0">{_OUTLINES[SHAPES[shape]]}</g>'
    return f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 100 100">{group}</svg>'


def render(drawing: str | bytes, pixels: int) -> Image.Image:
    """A drawing as an RGBA image of `pixels` squared, in the middle of it where it is not square.

    Raises:
        ValueError: it cannot be rendered, or resvg-py is not installed.
    """
    if isinstance(drawing, bytes):
        with Image.open(io.BytesIO(drawing)) as image:
            return image.convert("RGBA").resize((pixels, pixels), Image.Resampling.LANCZOS)
    try:
        from resvg_py import svg_to_bytes
    except ImportError as error:
        raise ValueError('Drawings are rendered by resvg-py: pip install "resvg-py>=0.5"') from error
    try:
        data = svg_to_bytes(svg_string=drawing, width=pixels, height=pixels, skip_system_fonts=True)
    except Exception as error:
        raise ValueError(f"A drawing cannot be rendered ({error}): {drawing[:80]}…") from error
    with Image.open(io.BytesIO(data)) as image:
        return _centered(image.convert("RGBA"), pixels)


def _centered(image: Image.Image, pixels: int) -> Image.Image:
    if image.size == (pixels, pixels):
        return image
    canvas = Image.new("RGBA", (pixels, pixels))
    canvas.paste(image, ((pixels - image.width) // 2, (pixels - image.height) // 2))
    return canvas


@dataclass(frozen=True)
class Sprites:
    """Drawings and their stored renderings.

    Attributes:
        keys: (style, concept) of each sprite.
        drawings: what each is rendered from.
        stored: their pixels, uint8 `[N, STORED, STORED, 4]`, not premultiplied.
        main_colors: index of each sprite's main colour, or -1.
    """

    keys: Sequence[tuple[int, int]]
    drawings: Sequence[str | bytes]
    stored: np.ndarray
    main_colors: Sequence[int]

    @cached_property
    def index(self) -> Mapping[tuple[int, int], int]:
        """(style, concept) → the sprite's number."""
        return {key: number for number, key in enumerate(self.keys)}

    @cached_property
    def styles(self) -> tuple[tuple[int, ...], ...]:
        """The styles that there are of each concept."""
        found: list[list[int]] = [[] for _ in concepts()]
        for style, concept in self.keys:
            found[concept].append(style)
        return tuple(map(tuple, found))

    def main_color(self, style: int, concept: int) -> int:
        """The main colour's index, or -1."""
        return self.main_colors[self.index[style, concept]]

    def image(self, style: int, concept: int, pixels: int) -> Image.Image:
        """A thing as RGBA of `pixels` squared."""
        number = self.index[style, concept]
        if pixels > STORED:
            return render(self.drawings[number], pixels)
        return Image.fromarray(self.stored[number]).resize((pixels, pixels), Image.Resampling.BICUBIC)


def load_sprites(art: Art, cache: Path, workers: int = 0) -> Sprites:
    """The sprites of these drawings; their renderings are kept as `cache/sprites.npy`, rendered where it is missing.

    They are rendered by `workers` processes beside this one, or by this one where it is 0.
    """
    cache.mkdir(parents=True, exist_ok=True)
    pixels, colors = cache / "sprites.npy", cache / "main-colors.json"
    keys, drawings = list(art.drawings), list(art.drawings.values())
    if not (pixels.is_file() and colors.is_file()):
        _store(drawings, pixels, colors, workers)
    stored = np.load(pixels, mmap_mode="r")
    main = json.loads(colors.read_text(encoding="utf-8"))
    if stored.shape != (len(keys), STORED, STORED, 4) or len(main) != len(keys):
        raise ValueError(f"'{pixels}' holds other drawings than the packages: delete it, and it is made anew.")
    return Sprites(keys, drawings, stored, main)


class _Rendered:
    """Drawings as stored pixels, in the form that a DataLoader takes."""

    def __init__(self, drawings: Sequence[str | bytes]) -> None:
        self._drawings = drawings

    def __len__(self) -> int:
        return len(self._drawings)

    def __getitem__(self, number: int) -> np.ndarray:
        return np.asarray(render(self._drawings[number], STORED))


def _store(drawings: Sequence[str | bytes], pixels: Path, colors: Path, workers: int) -> None:
    rendered: Any = _Rendered(drawings)
    loader = torch.utils.data.DataLoader(rendered, batch_size=None, num_workers=workers, collate_fn=_as_it_is)
    shown = tqdm(loader, total=len(drawings), desc="render", unit="drawing", mininterval=5)
    stacked = np.stack(list(shown))
    part = pixels.with_suffix(".part.npy")
    np.save(part, stacked)
    part.replace(pixels)
    write_whole(colors, json.dumps([main_color(image) for image in stacked]).encode())


def _as_it_is(image: np.ndarray) -> np.ndarray:
    return image


def main_color(image: np.ndarray) -> int:
    """The index of the colour that most of the opaque pixels of `[H, W, 4]` are nearest to; -1 without such a one."""
    opaque = image[image[..., 3] > 127][:, :3].astype(np.float32)
    if not len(opaque):
        return -1
    counts = np.bincount(nearest_color(opaque, list(COLORS.values())), minlength=len(COLORS))
    best = int(counts.argmax())
    return best if counts[best] >= MAIN_SHARE * len(opaque) else -1


def nearest_color(pixels: np.ndarray, palette: Sequence[Rgb]) -> np.ndarray:
    """For each of pixels `[N, 3]` (0..255) the index of the nearest of the palette's colours."""
    distances = np.square(pixels[:, None] - np.asarray(palette, np.float32)[None]).sum(axis=-1)
    return distances.argmin(axis=1)


def shape_image(shape: int, color: int, pixels: int) -> Image.Image:
    """A plain shape as RGBA of `pixels` squared."""
    if not 0 <= color < SHAPE_COLORS:
        raise ValueError(f"Shapes have colours 0..{SHAPE_COLORS - 1}, not {color}.")
    return render(shape_svg(shape, color), pixels)
