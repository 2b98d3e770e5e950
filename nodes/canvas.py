"""What Decoder Sample draws on besides an embedding: a size, a picture to start from, a hint of the depth."""

from dataclasses import dataclass, replace
from typing import Any

from torch import Tensor

from ..unclip_core.models import Decoder
from ..unclip_core.pipelines import Canvas
from . import defaults, inputs, sockets
from .batches import expand_batch
from .images import filling, to_rgb
from .inputs import InputError, Number

STRENGTH = Number("strength", 0.01, 1.0, 0.01)
UNGUIDED = "Without guidance the negative embedding has no effect."
READS_NO_TEXT = "This decoder reads no text: what is connected to 'text' has no effect on it."


def canvas_inputs() -> dict[str, inputs.Widget]:
    """Return the optional inputs of size, picture, hint and negative embedding."""
    size = "Pixels, for a decoder that draws any size (Kandinsky). 0: the image's own, or else the model's."
    return {
        "width": inputs.int_widget(defaults.OWN_SIZE, 0, defaults.SIZE_MAX, size),
        "height": inputs.int_widget(defaults.OWN_SIZE, 0, defaults.SIZE_MAX, size),
        "image": (
            "IMAGE",
            {"tooltip": "An image to start from in place of noise. It is resized to the size, and cropped."},
        ),
        "strength": STRENGTH.widget(
            defaults.IMAGE_STRENGTH,
            "How far the image may change: the share of the steps that are taken. Without an image it has no effect.",
        ),
        "hint": ("IMAGE", {"tooltip": "A picture of the depth, of Depth Hint, for a decoder that reads one."}),
        "negative": negative_input(),
    }


def negative_input() -> inputs.Widget:
    """Return the optional input of the negative embedding."""
    tooltip = "What guidance leads away from. Leave open for the model's own: no image at all."
    return (sockets.EMBEDDING, {"tooltip": tooltip})


def check_sides(width: Any = defaults.OWN_SIZE, height: Any = defaults.OWN_SIZE) -> None:
    """Check both sides.

    Raises:
        InputError: one is neither 0 nor a length that is drawn.
    """
    for name, value in (("width", width), ("height", height)):
        if inputs.check_int(name, value, 0, defaults.SIZE_MAX) and value < defaults.SIZE_MIN:
            raise InputError(
                f"'{name}' is {value}; it must be 0, the model's own, or from {defaults.SIZE_MIN} to "
                f"{defaults.SIZE_MAX:,} pixels."
            )


@dataclass(frozen=True)
class CanvasInputs:
    """What `N` images are drawn on.

    Attributes:
        size: (height, width) in px.
        images: pictures `[N, H, W, 3]` in 0..1 of that size to start from.
        strength: share of the steps that the pictures are drawn anew in.
        hint: pictures `[N, H, W, 3]` in 0..1 of that size of the depth.
        negative: embeddings `[N, D]` that guidance leads away from.
    """

    size: tuple[int, int]
    images: Tensor | None = None
    strength: float = 1.0
    hint: Tensor | None = None
    negative: Tensor | None = None

    @classmethod
    def of(
        cls,
        decoder: Decoder,
        width: int,
        height: int,
        image: Tensor | None,
        strength: float,
        hint: Tensor | None,
        negative: sockets.EmbeddingValue | None,
    ) -> "CanvasInputs":
        """Make those of a node's inputs, each for one image or one for all.

        Raises:
            InputError: a number is out of range, or the decoder cannot use an input.
            FamilyError: the negative embedding is of another family than the decoder.
        """
        images, hints = (None if picture is None else to_rgb(picture) for picture in (image, hint))
        check_hint(decoder, hints)
        size = size_of(decoder, width, height, hints if images is None else images)
        check_negative(decoder, negative)
        return cls(
            size,
            None if images is None else filling(images, *size),
            STRENGTH.check(strength),
            None if hints is None else filling(hints, *size),
            None if negative is None else negative.embeds,
        )

    @property
    def counts(self) -> dict[str, int]:
        """How many pictures, hints and negative embeddings there are, of those that are given."""
        given = {"image": self.images, "hint": self.hint, "negative": self.negative}
        return {name: len(rows) for name, rows in given.items() if rows is not None}

    def repeated(self, count: int, times: int) -> "CanvasInputs":
        """Return those of `times` images of each of `count` embeddings."""
        rows = {
            name: None if part is None else expand_batch(part, count).repeat_interleave(times, dim=0)
            for name, part in (("images", self.images), ("hint", self.hint), ("negative", self.negative))
        }
        return replace(self, **rows)

    def steps_taken(self, steps: int) -> int:
        """How many of so many steps are taken."""
        return Canvas(self.size, self.images, self.strength).steps_taken(steps)

    def rows(self, rows: slice) -> dict[str, Any]:
        """Return the arguments of `sample_decoder` for these images."""
        images, hint, negative = (None if p is None else p[rows] for p in (self.images, self.hint, self.negative))
        return {"canvas": Canvas(self.size, images, self.strength, hint), "negative_embeds": negative}


def size_of(decoder: Decoder, width: int, height: int, picture: Tensor | None) -> tuple[int, int]:
    """Return (height, width) of what is drawn: as asked for, else a picture's own, else the decoder's.

    Raises:
        InputError: a side is out of range, or not one that the decoder draws.
    """
    check_sides(width, height)
    side = decoder.image_size
    if not decoder.any_size:
        if width not in (0, side) or height not in (0, side):
            raise InputError(
                f"This decoder draws {side} × {side} pixels only: leave 'width' and 'height' at 0, or load one that "
                "draws any size, such as Kandinsky's."
            )
        return side, side
    own = (side, side) if picture is None else (picture.shape[1], picture.shape[2])
    size = height or own[0], width or own[1]
    check_drawable(*size)
    return size


def check_drawable(height: int, width: int) -> None:
    """Refuse to draw at the size of a picture that is too small or too large for it.

    Raises:
        InputError: a side is out of range.
    """
    if not defaults.SIZE_MIN <= min(height, width) <= max(height, width) <= defaults.SIZE_MAX:
        raise InputError(
            f"The image is {width} × {height} pixels, and it is drawn at its own size: that must have sides of "
            f"{defaults.SIZE_MIN} to {defaults.SIZE_MAX:,}. Scale it first."
        )


def check_hint(decoder: Decoder, hint: Tensor | None) -> None:
    """Refuse a hint that the decoder does not read, or a decoder that needs what there is not.

    Raises:
        InputError: naming what is missing or too much.
    """
    if hint is not None and decoder.reads_beside != "hint":
        raise InputError("This decoder reads no hint: load one that was trained with depth, or leave 'hint' open.")
    if hint is None and decoder.reads_beside == "hint":
        raise InputError("This decoder draws by a picture of the depth: connect Depth Hint to 'hint'.")
    if decoder.reads_beside == "masked":
        raise InputError(
            "This decoder was trained for inpainting alone, and Decoder Sample has no mask: take Inpaint or Outpaint, "
            "or load a decoder for text to image."
        )


def check_negative(decoder: Decoder, negative: sockets.EmbeddingValue | None) -> None:
    """Refuse a negative embedding of another family than the decoder; raises FamilyError."""
    if negative is not None:
        sockets.require_family(negative, "negative embedding", decoder.family, "decoder")


def unread(decoder: Decoder, guidance_scale: float, text: bool, negative: bool) -> list[str]:
    """Return a sentence for each input that has no effect in this run."""
    said = [READS_NO_TEXT] if text and not decoder.net.reads_text else []
    return [*said, UNGUIDED] if negative and guidance_scale == 1 else said
