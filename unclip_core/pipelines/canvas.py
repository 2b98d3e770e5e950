"""What an image is drawn on: its size, a picture to start from, a hint of its depth."""

from dataclasses import dataclass

from torch import Tensor
from torch.nn import functional as F

from ..diffusion.forward import add_noise
from ..diffusion.schedules import Steps
from ..models import Decoder
from .arguments import placed
from .images import check_images

ROUNDING = 1e-6  # 0.29 of 100 steps are 29, though 0.29 * 100 is a little less


@dataclass(frozen=True)
class Canvas:
    """What a decoder draws on, besides an embedding.

    Attributes:
        size: (height, width) in px; None takes that of the pictures, or else the decoder's own.
        images: pictures `[B or 1, H, W, 3]` in 0..1 to start from; None starts from noise.
        strength: share of the steps that the pictures are drawn anew in, in (0, 1]; 1 leaves next to nothing of them.
        hint: pictures `[B or 1, H, W, 3]` in 0..1 of the depth, for a decoder that reads hints.
    """

    size: tuple[int, int] | None = None
    images: Tensor | None = None
    strength: float = 1.0
    hint: Tensor | None = None

    def __post_init__(self) -> None:
        """Check the numbers; raises ValueError."""
        if not 0 < self.strength <= 1:
            raise ValueError(f"strength must be above 0 and at most 1, got {self.strength}")
        for name, pictures in (("pictures to start from", self.images), ("hints", self.hint)):
            if pictures is not None:
                check_images(pictures, name)
        if len(sizes := self._sizes()) > 1:
            said = " and ".join(f"{width} × {height}" for height, width in sorted(sizes))
            raise ValueError(f"Size, image and hint must be of one size, but there are {said} px: resize them first.")

    def height_and_width(self, decoder: Decoder) -> tuple[int, int]:
        """Height and width of what is drawn, px."""
        return next(iter(self._sizes()), (decoder.image_size, decoder.image_size))

    def plan(self, plan: Steps) -> Steps:
        """The steps that are made of a plan: all, or with pictures to start from the last `strength` of them.

        Raises:
            ValueError: not one step is left.
        """
        if self.images is None:
            return plan
        kept = self.steps_taken(len(plan))
        if kept == 0:
            raise ValueError(
                f"A strength of {self.strength:g} leaves none of {len(plan)} steps: take at least "
                f"{1 / len(plan):.3g}, or more steps."
            )
        return plan.last(kept)

    def steps_taken(self, steps: int) -> int:
        """How many of so many steps are made: all, or with pictures to start from a share of `strength`."""
        return steps if self.images is None else int(steps * self.strength + ROUNDING)

    def start(self, decoder: Decoder, noise: Tensor, plan: Steps) -> Tensor:
        """The state `[B, C, h, w]` that a run over `plan` starts in, of the noise that it would else start from."""
        if self.images is None:
            return noise
        latents = encoded(decoder, self.images).to(noise)
        return add_noise(spread(latents, len(noise), "images"), noise, float(plan.alpha_bar[0]))

    def beside(self, decoder: Decoder, count: int) -> Tensor | None:
        """What the net sees of the hint beside the latents, `[count, C, h, w]`.

        Raises:
            ValueError: the decoder reads no hints.
        """
        if self.hint is None:
            return None
        if decoder.reads_beside != "hint":
            raise ValueError("This decoder reads no hint: take one that was trained with depth, or leave the hint out.")
        device, _ = placed(decoder.net)
        picture = covering(self.hint.to(device).movedim(-1, 1).float(), decoder)
        return spread(decoder.net.conditioner.read_hint(picture), count, "hints")

    def _sizes(self) -> set[tuple[int, int]]:
        pictures = [picture for picture in (self.images, self.hint) if picture is not None]
        return {*([] if self.size is None else [self.size]), *((p.shape[1], p.shape[2]) for p in pictures)}


def covering(images: Tensor, decoder: Decoder) -> Tensor:
    """Images `[B, C, H, W]`, their last row and column repeated until the decoder's latents cover them exactly."""
    height, width = images.shape[-2:]
    _, h, w = decoder.latent_shape_of(height, width)
    down, across = h * decoder.codec.factor - height, w * decoder.codec.factor - width
    return F.pad(images, (0, across, 0, down), mode="replicate") if down or across else images


def encoded(decoder: Decoder, images: Tensor) -> Tensor:
    """Latents `[B, C, h, w]` of images `[B, H, W, 3]` in 0..1."""
    device, _ = placed(decoder.net)
    return decoder.codec.encode(covering(images.to(device).movedim(-1, 1).float(), decoder) * 2 - 1)


def spread(rows: Tensor, count: int, name: str) -> Tensor:
    """One row for all of `count`, or one each.

    Raises:
        ValueError: there are neither one nor `count`.
    """
    if len(rows) not in (1, count):
        raise ValueError(f"{len(rows)} {name} do not go with {count} image embeddings: give one for all, or one each.")
    return rows.expand(count, *rows.shape[1:])


def cropped(images: Tensor, size: tuple[int, int]) -> Tensor:
    """Images `[B, 3, H, W]` without the rows and columns that were drawn beyond `size`."""
    return images[..., : size[0], : size[1]]


def no_beside(decoder: Decoder, beside: Tensor | None) -> None:
    """Refuse to run a net without what it has to see beside the latents, or with what it does not see.

    Raises:
        ValueError: naming what is missing.
    """
    if decoder.reads_beside == "masked" and beside is None:
        raise ValueError(
            "This decoder was trained for inpainting alone: it needs an image and a mask of what to draw. Take "
            "Inpaint, or a decoder for text to image."
        )
    if decoder.reads_beside == "hint" and beside is None:
        raise ValueError(
            "This decoder draws by a picture of the depth: give it a hint, or take a decoder for text to image."
        )
    if decoder.reads_beside is None and beside is not None:
        raise ValueError("This decoder reads nothing beside the latents: take one for inpainting or for hints.")
