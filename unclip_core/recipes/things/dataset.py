"""The data as files that `unclip train --data` reads: webdataset shards, and what was held out."""

import io
import json
import tarfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from tqdm import tqdm

from ...data.tar_listing import listed_tar
from ...plotting.sheets import tiled
from ...weights.files import write_whole
from .art import read_art
from .captions import Captions, caption_language, captions_of
from .drawing import draw
from .pictures import SHARES, Picture, Shares, draw_picture, picture_random
from .sources import PACKAGES, fetch
from .sprites import Sprites, load_sprites
from .vocabulary import (
    COLORS,
    GROUNDS,
    HELD_OUT_SHAPES,
    LANGUAGES,
    SHAPES,
    concepts,
    held_out_ground,
    well_known,
)

SHARD = 10_000
"""Pictures of a shard."""
SMALL, LARGE = 64, 256
"""Pixels of the decoder's pictures, and of the upsampler's."""
SHOWN, COLUMNS = 96, 12
"""Pictures on the sheet, and in a row of it."""
SPRITES, FETCHED = "sprites", "packages"
HANDED = 64
"""Pictures that a process draws before it hands them on."""


@dataclass(frozen=True)
class World:
    """All that pictures and captions are made of."""

    sprites: Sprites
    captions: Captions

    def sample(self, seed: int, index: int, shares: Shares) -> tuple[Picture, str]:
        """Training picture number `index` and its caption; the same for the same three."""
        chance = picture_random(seed, index, "train")
        picture = draw_picture(chance, self.sprites, shares)
        return picture, self.captions.caption(picture, caption_language(chance), chance)

    def other_captions(self, seed: int, index: int, picture: Picture, count: int) -> list[str]:
        """`count` further captions of that picture, each in a language and in words of its own.

        The last ones are in the fewest words, one a language as far as they go, which others can be compared with.
        """
        plain = LANGUAGES[: min(count, len(LANGUAGES))]
        chances = [picture_random(seed, index, f"caption {number}") for number in range(1, count - len(plain) + 1)]
        said = [self.captions.caption(picture, caption_language(chance), chance) for chance in chances]
        for language in plain:
            chance = picture_random(seed, index, f"plain {language}")
            said.append(self.captions.caption(picture, language, chance, plain=True))
        return said


def open_world(folder: Path, packages: Path | None = None, workers: int = 0) -> World:
    """The world of the packages in `packages` (default: fetched into `folder`); renderings are kept in `folder`.

    Drawings without a rendering are rendered by `workers` processes beside this one, or by this one where it is 0.

    Raises:
        WrongPackage: a package is not the one that is meant.
        MalformedInput: a package does not hold what is looked for.
        OSError: a file or the registry cannot be read.
    """
    place = packages or folder / FETCHED
    fetch(place)
    art = read_art(place)
    sprites = load_sprites(art, folder / SPRITES, workers)
    return World(sprites, captions_of(art, sprites))


def make_data(
    output: Path,
    small: int,
    large: int,
    seed: int = 0,
    shares: Shares = SHARES,
    packages: Path | None = None,
    captions: int = 1,
    workers: int = 0,
) -> None:
    """Write `small/*.tar` (64 px, for CLIP, prior and decoder), `large/*.tar` (256 px, for the upsampler).

    `about.json` beside them tells settings, sources and held-out pairs; `sheet.png` shows the first pictures. A shard
    that stands there already is not made again: the same call goes on where an earlier one stopped, and one that asks
    for more adds to it.

    Args:
        output: the folder.
        small: pictures of 64 px.
        large: pictures of 256 px.
        seed: of all that is chosen.
        shares: of scenes and shapes.
        packages: a folder with the packages' files; None fetches them into `output/packages`.
        captions: of a picture of 64 px, 1 or more; with more than one each picture has a .json in place of a .txt.
        workers: processes that draw beside this one, 0 or more; the files are the same.

    Raises:
        ValueError: `captions` or `workers` is out of range, `output` holds data of other settings or more pictures, or
            a package is not what it should be.
        OSError: a file or the registry cannot be read.
    """
    if captions < 1:
        raise ValueError(f"A picture has 1 caption or more, not {captions}.")
    if workers < 0:
        raise ValueError(f"workers must be 0 or more, got {workers}.")
    output.mkdir(parents=True, exist_ok=True)
    world = open_world(output, packages, workers)
    several = {"captions": captions} if captions > 1 else {}
    _write_about(output, {"seed": seed, "scenes": shares.scenes, "shapes": shares.shapes} | several)
    _write_sheet(output, world, seed, shares)
    for name, count, pixels, said in (("small", small, SMALL, captions), ("large", large, LARGE, 1)):
        (output / name).mkdir(exist_ok=True)
        shards = [(output / name / f"{first // SHARD:04}.tar", first) for first in range(0, count, SHARD)]
        wanted = {path: range(first, min(count, first + SHARD)) for path, first in shards}
        there = {path: _pictures_in(path) for path in sorted((output / name).glob("*.tar"))}
        if count:
            _check_no_more(there, wanted)
        missing = {path: part for path, part in wanted.items() if there.get(path, 0) < len(part)}
        numbers = [number for each in missing.values() for number in each]
        samples = _drawn(_Drawn(world, pixels, seed, shares, said), numbers, workers, name)
        for path, part in missing.items():
            _write_shard(path, islice(samples, len(part)))


def _write_sheet(output: Path, world: World, seed: int, shares: Shares) -> None:
    """`sheet.png` with the first pictures, `sheet.txt` with their captions."""
    first = [world.sample(seed, number, shares) for number in range(SHOWN)]
    images = [torch.from_numpy(np.array(draw(picture, world.sprites, SMALL))) for picture, _ in first]
    Image.fromarray(tiled(images, COLUMNS).numpy()).save(output / "sheet.png")
    lines = [f"{number // COLUMNS + 1}.{number % COLUMNS + 1} {caption}\n" for number, (_, caption) in enumerate(first)]
    (output / "sheet.txt").write_text("".join(lines), encoding="utf-8")


@dataclass(frozen=True)
class _Drawn:
    """Pictures by their numbers: name, PNG, and captions, in the form that a DataLoader takes."""

    world: World
    pixels: int
    seed: int
    shares: Shares
    captions: int

    def __getitem__(self, number: int) -> tuple[str, bytes, list[str]]:
        picture, caption = self.world.sample(self.seed, number, self.shares)
        others = self.world.other_captions(self.seed, number, picture, self.captions - 1) if self.captions > 1 else []
        return f"{number:07}", _png(draw(picture, self.world.sprites, self.pixels)), [caption, *others]


def _drawn(pictures: Any, numbers: Sequence[int], workers: int, name: str) -> Iterator[tuple[str, bytes, list[str]]]:
    """The pictures of these numbers in their order, drawn by so many processes."""
    groups = [list(numbers[at : at + HANDED]) for at in range(0, len(numbers), HANDED)]
    loader = torch.utils.data.DataLoader(pictures, batch_sampler=groups, num_workers=workers, collate_fn=list)
    with tqdm(total=len(numbers), desc=name, unit="picture", mininterval=5, disable=not numbers) as progress:
        for group in loader:
            yield from group
            progress.update(len(group))


def _pictures_in(path: Path) -> int:
    """How many pictures a shard holds."""
    return sum(name.endswith(".png") for name, _, _ in listed_tar(path).members)


def _check_no_more(there: dict[Path, int], wanted: dict[Path, range]) -> None:
    """Raise ValueError where a folder's shards hold pictures beyond those that are asked for."""
    if any(count > len(wanted.get(path, ())) for path, count in there.items()):
        asked = sum(len(part) for part in wanted.values())
        folder, held = next(iter(there)).parent, sum(there.values())
        raise ValueError(
            f"'{folder}' holds {held:,} pictures, and {asked:,} are asked for: ask for as many, or name another folder."
        )


def _write_shard(path: Path, samples: Iterator[tuple[str, bytes, list[str]]]) -> None:
    part = path.with_suffix(".part")
    with tarfile.open(part, "w") as tar:
        for name, png, captions in samples:
            _add(tar, f"{name}.png", png)
            if len(captions) == 1:
                _add(tar, f"{name}.txt", captions[0].encode())
            else:
                _add(tar, f"{name}.json", json.dumps({"captions": captions}, ensure_ascii=False).encode())
    part.replace(path)


def _png(image: Image.Image) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, "png", compress_level=4)
    return buffer.getvalue()


def _add(tar: tarfile.TarFile, name: str, data: bytes) -> None:
    member = tarfile.TarInfo(name)
    member.size = len(data)
    tar.addfile(member, io.BytesIO(data))


def _write_about(output: Path, settings: dict[str, float]) -> None:
    path = output / "about.json"
    about = {"settings": settings, "sources": _sources(), "held_out": held_out()}
    data = (json.dumps(about, indent=1) + "\n").encode()
    if path.is_file() and path.read_bytes() != data:
        raise ValueError(f"'{output}' holds data of other settings (see '{path.name}' there): name another folder.")
    write_whole(path, data)


def _sources() -> list[dict[str, str]]:
    return [
        {"package": package.name, "version": package.version, "licence": package.licence, "credit": package.credit}
        for package in PACKAGES.values()
    ]


def held_out() -> dict[str, list]:
    """The pairs that are never trained: things (each with each), things and grounds, shapes and colours."""
    grounds, colors = list(GROUNDS), list(COLORS)
    pairs = ((concept, ground) for concept in range(len(concepts())) for ground in range(len(grounds)))
    return {
        "things": [concepts()[index] for index in sorted(well_known())],
        "things_and_grounds": [(concepts()[c], grounds[g]) for c, g in pairs if held_out_ground(c, g)],
        "shapes_and_colors": sorted((SHAPES[shape], colors[color]) for shape, color in HELD_OUT_SHAPES),
    }
