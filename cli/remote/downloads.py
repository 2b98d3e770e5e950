"""A server's files on this disk: streamed, checked for being what they are called, and named by this side alone."""

from __future__ import annotations

import asyncio
import os
from pathlib import Path, PurePosixPath

from ...unclip_core.parsing import decode_text, parse_json
from .answers import SavedFile, plain
from .rows import Row
from .server import ComfyServer, OddAnswer

NAME_BYTES = 120
"""Bytes of UTF-8 that a row's name gets in its files' names; file systems take 143 to 255 for all of it."""

IMAGES = {
    "PNG": ".png", "JPEG": ".jpg", "MPO": ".jpg", "WEBP": ".webp", "GIF": ".gif", "TIFF": ".tif", "BMP": ".bmp",
    "AVIF": ".avif", "JPEG2000": ".jp2",
}  # fmt: skip
"""Formats of Pillow that count as images, and their suffixes. None of them runs a program to be decoded."""

OTHERS = {
    ".mp4": (4, b"ftyp"), ".mov": (4, b"ftyp"), ".webm": (0, b"\x1aE\xdf\xa3"), ".mkv": (0, b"\x1aE\xdf\xa3"),
    ".flac": (0, b"fLaC"), ".mp3": (0, b"ID3"), ".ogg": (0, b"OggS"), ".opus": (0, b"OggS"), ".wav": (8, b"WAVE"),
    ".glb": (0, b"glTF"), ".latent": (8, b"{"), ".safetensors": (8, b"{"),
}  # fmt: skip
"""What else ComfyUI saves: the suffix → the bytes that such a file has at an offset."""

TEXTS = (".svg", ".txt", ".json", ".csv", ".md")
"""What else it saves, without such bytes: text in UTF-8, checked as far as its kind has an end."""

FRAMES_PIXELS = 2**31
"""Pixels of all frames of one file that are decoded to check it."""

_PART = ".part"


def remove_leftovers(folder: Path) -> None:
    """Remove what an earlier run had begun to download when it was killed."""
    for path in folder.glob(f".row*{_PART}"):
        path.unlink(missing_ok=True)


async def download(server: ComfyServer, file: SavedFile, folder: Path, stem: str) -> str:
    """Download a file to `folder`, whole or not at all.

    Returns:
        Its name there: `stem` and the suffix of its real format.

    Raises:
        OddAnswer: it is empty, broken, too large, or neither an image nor what its suffix says.
        Unreachable, Unusable: as of the server.
        OSError: it cannot be written.
    """
    aside = folder / f".{stem}{_PART}"
    try:
        with aside.open("wb") as target:
            await server.fetch(file, target.write)
            target.flush()
            os.fsync(target.fileno())
        try:
            suffix = await asyncio.to_thread(suffix_of, aside, file.filename)
        except ValueError as error:
            raise OddAnswer(f"{server.url}/view gives no usable file for '{plain(file.filename)}': {error}") from error
        os.replace(aside, folder / (stem + suffix))
    finally:
        aside.unlink(missing_ok=True)
    return stem + suffix


def suffix_of(path: Path, original: str) -> str:
    """The suffix that a downloaded file gets, after a look at all of it.

    Raises:
        ValueError: it is no image that can be decoded to its end, nor what the suffix of `original` says.
    """
    if not path.stat().st_size:
        raise ValueError("it is empty.")
    claimed = PurePosixPath(original).suffix.lower()
    offset, mark = OTHERS.get(claimed, (0, b""))
    with path.open("rb") as file:
        start = file.read(64)
    if mark and start[offset : offset + len(mark)] == mark:
        return claimed
    no_text = _fault_of_text(path, claimed) if claimed in TEXTS else ""
    if claimed in TEXTS and not no_text:
        return claimed
    try:
        return _image_suffix(path)
    except Exception as error:  # a decoder may raise anything
        if no_text:
            raise ValueError(no_text) from error
        began = plain(start[:24].decode("ascii", errors="replace"))
        raise ValueError(f"it is no whole image (it begins with {began!r}; {plain(str(error))}).") from error


def _fault_of_text(path: Path, suffix: str) -> str:
    """Why a file is no whole text of its kind; "" where it is one."""
    try:
        text = decode_text(path.read_bytes(), "it")
        if suffix == ".json":
            parse_json(text, "it")
    except ValueError as error:
        return f"it is no whole {suffix} ({plain(str(error))})."
    if "\0" in text:
        return f"it is no whole {suffix} (a text holds no zero bytes)."
    if suffix == ".svg" and not ("<svg" in text and text.rstrip().endswith(">")):
        return "it is no whole .svg (there is no <svg> with its end)."
    return ""


def _image_suffix(path: Path) -> str:
    from PIL import Image, ImageSequence

    Image.init()
    formats = [name for name in IMAGES if name in Image.OPEN]
    with Image.open(path, formats=formats) as image:
        image.verify()  # checksums to the end of the file, where the format has them
    with Image.open(path, formats=formats) as image:
        pixels = 0
        for frame in ImageSequence.Iterator(image):
            pixels += frame.width * frame.height
            if pixels > FRAMES_PIXELS:
                raise ValueError(f"its frames have more than {FRAMES_PIXELS:,} pixels")
            frame.load()
        return IMAGES[image.format or ""]


def stem_of(row: Row, number: int) -> str:
    """The name of a row's file here, without suffix: "row00007-name-2" is the second file of row 7."""
    said = "".join(letter if letter.isalnum() or letter in "-_ " else "_" for letter in row.name).strip()[:80]
    said = said.encode()[:NAME_BYTES].decode(errors="ignore").strip()
    return f"row{row.number:05}{f'-{said}' if said else ''}-{number}"
