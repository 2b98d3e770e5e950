"""What every collection of images gives: an image, its caption and a name; and how images are decoded."""

import io
from collections.abc import Iterator, MutableMapping
from typing import NamedTuple, Protocol

from PIL import Image, ImageOps

IMAGE_ENDINGS = ("jpg", "jpeg", "png", "webp", "bmp")


class Sample(NamedTuple):
    """An image (RGB, of any size), its caption ("" where none is asked for and there is none), and its name."""

    image: Image.Image
    caption: str
    name: str


class BadSample(ValueError):
    """A sample that cannot be used; the message says why, `name` says which."""

    def __init__(self, name: str, reason: str) -> None:
        super().__init__(f"{name}: {reason}")
        self.name, self.reason = name, reason

    def __reduce__(self) -> tuple[type, tuple[str, str]]:
        return type(self), (self.name, self.reason)


class Collection(Protocol):
    """Images by number, in an order that stays the same for the same files."""

    def __len__(self) -> int:
        """How many samples there are, bad ones included."""
        ...

    def read(self, index: int, captions: bool = True) -> Sample:
        """Sample number `index`, 0..len - 1; with `captions` one without a caption is a bad one.

        Raises:
            BadSample: the image is damaged or the caption is missing or no text.
        """
        ...

    def fingerprint(self) -> str:
        """A short text that differs when the files do."""
        ...


def samples(
    collection: Collection, bad: MutableMapping[str, str] | None = None, captions: bool = True
) -> Iterator[Sample]:
    """Every good sample in order; the bad ones are left out and noted in `bad` as name → reason."""
    for index in range(len(collection)):
        try:
            yield collection.read(index, captions)
        except BadSample as error:
            if bad is not None:
                bad[error.name] = error.reason


def decode_image(data: bytes, name: str) -> Image.Image:
    """The RGB image in an encoded file, turned as its EXIF says, transparency over white.

    Raises:
        BadSample: it is damaged, truncated, of an unknown format, or suspiciously large.
    """
    try:
        with Image.open(io.BytesIO(data)) as image:
            turned = ImageOps.exif_transpose(image)
            if turned.mode.startswith("I"):  # 16 bits a pixel, which a plain conversion would cut off at 255
                turned = turned.point(lambda level: level / 257).convert("L")
            if turned.mode in ("RGBA", "LA", "PA") or "transparency" in turned.info:
                clear = turned.convert("RGBA")
                turned = Image.alpha_composite(Image.new("RGBA", clear.size, "white"), clear)
            return turned.convert("RGB")
    except (OSError, SyntaxError, ValueError, EOFError, Image.DecompressionBombError) as error:
        raise BadSample(name, f"the image cannot be read ({error or type(error).__name__})") from error


def checked_caption(text: str | bytes | None, name: str, needed: bool) -> str:
    """A caption with its surrounding blanks removed.

    Raises:
        BadSample: it is no UTF-8, or it is `needed` and there is none.
    """
    try:
        caption = (text.decode("utf-8-sig") if isinstance(text, bytes) else text or "").strip()
    except UnicodeDecodeError as error:
        raise BadSample(name, f"the caption is no UTF-8 text ({error})") from error
    if needed and not caption:
        raise BadSample(name, "it has no caption")
    return caption


def summary(bad: MutableMapping[str, str], total: int, named: int = 20) -> str:
    """One text about the samples that were left out: their number, and the first `named` with their reasons."""
    if not bad:
        return f"all {total:,} samples could be read"
    lines = [f"{len(bad):,} of {total:,} samples were left out:"]
    lines += [f"  {name}: {reason}" for name, reason in sorted(bad.items())[:named]]
    more = len(bad) - named
    return "\n".join(lines + ([f"  … and {more:,} more"] if more > 0 else []))
