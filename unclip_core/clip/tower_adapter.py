"""CLIP as two towers that stand alone, with the tokenizer and the image preparation of their own folder."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn

from ..nets.clip_towers import TextTower, VisionTower
from .image_input import ImageInput
from .open_clip_adapter import TextCondition
from .tokenizer import ClipTokenizer


class MissingTower(ValueError):
    """This model folder has only one of CLIP's towers, and the other was asked for."""


class Towers(nn.Module):
    """The towers that a folder has, under one roof, so that they are moved together."""

    def __init__(self, text: TextTower | None, vision: VisionTower | None) -> None:
        super().__init__()
        self.text, self.vision = text, vision


@dataclass(frozen=True)
class TowerTraits:
    """What is asked of any CLIP's configuration.

    Attributes:
        normalize: whether embeddings are scaled to unit length.
        words: the words it was trained on, where that is a closed list.
    """

    normalize: bool = False
    words: tuple[str, ...] = ()


class TowerClip:
    """The same interface as `ClipAdapter`, over towers that may be there or not; embeddings are not normalised."""

    config = TowerTraits()

    def __init__(
        self,
        text: TextTower | None,
        vision: VisionTower | None,
        tokenizer: ClipTokenizer | None,
        image_input: ImageInput | None,
        source: str,
    ) -> None:
        """Wrap built towers; `source` names their folder in errors."""
        self.model = Towers(text, vision).eval().requires_grad_(False)
        self.tokenizer, self.image_input, self.source = tokenizer, image_input, source
        self._null: TextCondition | None = None

    @property
    def embed_dim(self) -> int:
        """Width `D` of the joint embedding space."""
        tower = self.model.text or self.model.vision
        return tower.params.embed_dim

    @property
    def context_length(self) -> int:
        """Number `T` of text tokens, start and end included."""
        return self._text().params.context

    @property
    def image_size(self) -> int:
        """Side of the square image that the vision tower sees, in px."""
        return self._vision().params.image_size

    def tokenize(self, prompts: Sequence[str]) -> Tensor:
        """Token ids `[B, T]`, padded and, where too long, cut with the end of text kept."""
        return self.tokenizer.rows(prompts)[0]

    def token_counts(self, prompts: Sequence[str]) -> list[int]:
        """Tokens of each prompt, start and end included, before any cut."""
        return self.tokenizer.counts(prompts)

    def is_truncated(self, prompt: str) -> bool:
        """Whether the prompt has more tokens than the model reads."""
        return self.token_counts([prompt])[0] > self.context_length

    def unknown_words(self, prompt: str) -> list[str]:
        """None: this vocabulary is open."""
        return []

    def encode_text(self, prompts: Sequence[str]) -> TextCondition:
        """Encode `B` prompts, and with them the empty one; an empty string is a valid prompt.

        Raises:
            MissingTower: the folder has no text encoder.
        """
        tower = self._text()
        if self._null is None:
            self._null = self._encode_text(tower, [""])
        return replace(self._encode_text(tower, prompts), null=self._null.to(tower.positions.device))

    def encode_image(self, images: Tensor) -> Tensor:
        """Encode images `[B, H, W, 3]` in 0..1, of any size, to image embeddings `[B, D]`.

        Raises:
            MissingTower: the folder has no image encoder.
        """
        tower = self._vision()
        pixels = self.image_input(images).to(tower.positions.device, tower.positions.dtype)
        return tower(pixels).float()

    def encode_pixels(self, pixels: Tensor) -> Tensor:
        """Encode images `[B, 3, S, S]` in 0..1 of `image_size` to `[B, D]`; gradients pass.

        Raises:
            MissingTower: the folder has no image encoder.
        """
        tower = self._vision()
        return tower(self.image_input.normalized(pixels).to(tower.positions.dtype)).float()

    @property
    def temperature(self) -> float:
        """What CLIP multiplies cosines by to make them logits: these folders leave it out.

        100 is what OpenAI's models ended at (Radford et al. 2021, section 2.5: clipped "to prevent scaling the
        logits by more than 100").
        """
        return 100.0

    def _encode_text(self, tower: TextTower, prompts: Sequence[str]) -> TextCondition:
        ids, lengths = self.tokenizer.rows(prompts)
        device = tower.positions.device
        states, embeds = tower(ids.to(device), self.tokenizer.ends(ids).to(device))
        # The mask comes from the length: the padding's id can stand in a prompt too.
        mask = torch.arange(ids.shape[1])[None] < lengths[:, None]
        return TextCondition(embeds.float(), states.float(), mask.to(device))

    def _text(self) -> TextTower:
        if self.model.text is None:
            raise MissingTower(f"'{self.source}' has no text encoder: its CLIP cannot read text.")
        return self.model.text

    def _vision(self) -> VisionTower:
        if self.model.vision is None:
            raise MissingTower(
                f"'{self.source}' has no image encoder: its CLIP cannot read images. For image "
                "variations take the model folder that has one (karlo-v1-alpha-image-variations)."
            )
        return self.model.vision
