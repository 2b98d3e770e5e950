"""Decoding of image and caption files."""

import io
import re
from functools import lru_cache
from typing import Any

from PIL import Image

from .samples import BadSample

NO_IMAGES = frozenset({"BUFR", "EPS", "GRIB", "HDF5", "IPTC", "MPEG", "WMF"})
"""Formats of Pillow's that are left out: it only identifies them, draws them on Windows alone, or runs Ghostscript."""
ORIENTATION = 0x0112
"""EXIF's orientation tag."""
TURNS = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
"""The transpose that undoes each orientation but the upright one (EXIF 2.32, section 4.6.4)."""
_ADDRESS = re.compile(r" ?<[^<>]* object at 0x[0-9a-fA-F]+>")
"""How Pillow names what it was given: another one in every process, and nothing to a reader."""


@lru_cache(maxsize=1)
def image_formats() -> tuple[str, ...]:
    """Return the formats that this Pillow decodes."""
    Image.init()
    return tuple(sorted(set(Image.OPEN) - NO_IMAGES))


@lru_cache(maxsize=1)
def image_endings() -> tuple[str, ...]:
    """Return the endings of the files that this Pillow decodes, in lower case and without the dot; photos' first."""
    formats = image_formats()
    known = {ending[1:].lower() for ending, name in Image.registered_extensions().items() if name in formats}
    usual = ("jpg", "jpeg", "png", "webp", "bmp")
    return (*usual, *sorted(known - set(usual)))


def decode_image(data: bytes, name: str) -> Image.Image:
    """Decode an image file to RGB, rotated as its EXIF says, transparency composited over white.

    Raises:
        BadSample: it is damaged, truncated, of an unknown format, or suspiciously large.
    """
    try:
        with Image.open(io.BytesIO(data), formats=image_formats()) as image:
            return _as_rgb(upright(image))
    except Exception as error:  # a decoder may raise anything
        reason = _ADDRESS.sub("", str(error)) or type(error).__name__
        raise BadSample(name, f"the image cannot be read ({reason})") from error


def upright(image: Image.Image) -> Image.Image:
    """Rotate by EXIF's orientation; no other tag is read, as they are often malformed.

    Raises whatever a decoder may where the image is damaged.
    """
    image.load()  # a TIFF is rotated by Pillow itself in this, and its tag is then gone
    try:
        orientation = image.getexif().get(ORIENTATION)
    except Exception:  # an EXIF that cannot be parsed says nothing of the orientation; the pixels stand apart from it
        return image
    turn = TURNS.get(orientation) if isinstance(orientation, int) else None
    return image if turn is None else image.transpose(turn)


def _as_rgb(image: Image.Image) -> Image.Image:
    if image.mode == "F":
        raise ValueError("its pixels are floating-point numbers of no stated range: save it with 8 or 16 bits")
    if image.mode.startswith("I"):  # 16 bits a pixel, which a plain conversion would cut off at 255
        image = image.point(lambda level: level / 257).convert("L")
    if image.mode in ("RGBA", "LA", "PA") or "transparency" in image.info:
        clear = image.convert("RGBA")
        image = Image.alpha_composite(Image.new("RGBA", clear.size, "white"), clear)
    return image.convert("RGB")


def checked_captions(said: Any, name: str) -> list[str]:
    """Return the captions of a text or of a list of them, as `checked_caption`; what is empty or no text is left out.

    Raises:
        BadSample: a text is not UTF-8.
    """
    texts = [text for text in (said if isinstance(said, list) else [said]) if isinstance(text, str | bytes)]
    return [caption for text in texts if (caption := checked_caption(text, name, False))]


def first_caption(said: Any, name: str, needed: bool) -> str:
    """Return the first caption of a text or of a list of them that is not empty, "" where there is none.

    Raises:
        BadSample: a text is not UTF-8, or it is `needed` and there is none.
    """
    return checked_caption(next(iter(checked_captions(said, name)), None), name, needed)


def checked_caption(text: str | bytes | None, name: str, needed: bool) -> str:
    """Decode and strip a caption.

    Raises:
        BadSample: it is not UTF-8, or it is `needed` and there is none.
    """
    try:
        caption = (text.decode("utf-8-sig") if isinstance(text, bytes) else text or "").strip()
    except UnicodeDecodeError as error:
        raise BadSample(name, f"the caption is no UTF-8 text ({error})") from error
    if needed and not caption:
        raise BadSample(name, "it has no caption")
    return caption
