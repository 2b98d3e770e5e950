"""CLIP as two towers that stand alone, with the tokenizer and the image preparation of their own folder."""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from ..nets.clip_towers import TextTower, VisionTower, VisionTowerParams
from .adapter import ClipAdapter, MissingTower
from .image_input import ImageInput
from .tokenizer import ClipTokenizer


class Towers(nn.Module):
    """The towers that a folder has, under one roof, so that they are moved together."""

    def __init__(self, text: TextTower | None, vision: VisionTower | None) -> None:
        super().__init__()
        self.text, self.vision = text, vision


@dataclass(frozen=True)
class LateVision:
    """An image encoder that is read when the first image comes in.

    Attributes:
        params: its shape.
        image_input: how images are made ready for it.
        read: reads it, its weights in the dtype that is given.
    """

    params: VisionTowerParams
    image_input: ImageInput
    read: Callable[[torch.dtype], VisionTower]


class TowerAdapter(ClipAdapter):
    """A CLIP of towers that may be there or not; embeddings are not normalised."""

    model: Towers
    widens = True

    def __init__(
        self,
        text: TextTower | None,
        vision: VisionTower | LateVision | None,
        tokenizer: ClipTokenizer | None,
        image_input: ImageInput | None,
        source: str,
    ) -> None:
        """Wrap built towers; `source` names their folder in errors.

        A `LateVision` brings its own `image_input`, and goes with a text tower, whose dtype and device it takes over.
        """
        super().__init__()
        self._late = vision if isinstance(vision, LateVision) else None
        built = None if isinstance(vision, LateVision) else vision
        self.model = Towers(text, built).eval().requires_grad_(False)
        self._image_input = self._late.image_input if self._late else image_input
        self.tokenizer, self.source = tokenizer, source

    @property
    def embed_dim(self) -> int:
        """Width `D` of the joint embedding space."""
        return (self._vision_params() if self.model.text is None else self.model.text.params).embed_dim

    @property
    def context_length(self) -> int:
        """Number `T` of text tokens, start and end included."""
        return self._text().params.context

    @property
    def image_size(self) -> int:
        """Side of the square image that the vision tower sees, in px."""
        return self._vision_params().image_size

    @property
    def image_input(self) -> ImageInput:
        """As the folder states it."""
        self._vision_params()
        assert self._image_input is not None  # comes with the vision tower
        return self._image_input

    @property
    def has_text(self) -> bool:
        """Whether the folder has a text encoder."""
        return self.model.text is not None

    @property
    def has_vision(self) -> bool:
        """Whether the folder has an image encoder."""
        return self.model.vision is not None or self._late is not None

    @property
    def vision_is_late(self) -> bool:
        """Whether the image encoder is not read yet."""
        return self.model.vision is None and self._late is not None

    def read_vision(self) -> None:
        """Read the image encoder now."""
        if self.vision_is_late:
            self.vision_tower()

    @property
    def temperature(self) -> float:
        """These folders leave it out.

        100 is what OpenAI's models ended at (Radford et al. 2021, section 2.5: clipped "to prevent scaling the
        logits by more than 100").
        """
        return 100.0

    def read_tokens(self, ids: Tensor) -> tuple[Tensor, Tensor]:
        """Token ids `[B, T]` to token states `[B, T, W]` and embeddings `[B, D]`."""
        return self._text()(ids, self._text_tokenizer.ends(ids))

    def read_pixels(self, pixels: Tensor) -> Tensor:
        """Normalised pixels `[B, 3, S, S]` to embeddings `[B, D]`."""
        return self.vision_tower()(pixels)

    def with_image_encoder(self, other: ClipAdapter) -> "TowerAdapter":
        """This folder's text encoder and the other's image encoder."""
        if not isinstance(other, TowerAdapter) or not other.has_vision or other.embed_dim != self.embed_dim:
            raise ValueError(
                f"'{other.source}' has no image encoder that gives embeddings of {self.embed_dim} numbers, as "
                f"'{self.source}' reads them."
            )
        return TowerAdapter(self.model.text, other.vision_tower(), self.tokenizer, other.image_input, other.source)

    def _text(self) -> TextTower:
        if self.model.text is None:
            raise MissingTower(f"'{self.source}' has no text encoder: its CLIP cannot read text.")
        return self.model.text

    def vision_tower(self) -> VisionTower:
        """The image encoder, read now where it was not yet. Raises MissingTower."""
        if self.model.vision is None and self._late is not None:
            weight = next(self._text().parameters())
            self.model.vision = self._late.read(weight.dtype).to(weight.device)
        if self.model.vision is None:
            raise self._sees_nothing()
        return self.model.vision

    def _vision_params(self) -> VisionTowerParams:
        if self._late is not None:
            return self._late.params
        if self.model.vision is None:
            raise self._sees_nothing()
        return self.model.vision.params

    def _sees_nothing(self) -> MissingTower:
        return MissingTower(
            f"'{self.source}' has no image encoder: its CLIP cannot read images. For image variations take the model "
            "folder that has one (karlo-v1-alpha-image-variations)."
        )
