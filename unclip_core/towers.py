"""CLIP as two towers that stand alone, with the tokenizer and the picture preparation of their own folder."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from PIL import Image
from torch import Tensor, nn

from .clip import TextCondition
from .nets.clip import TextTower, VisionTower
from .tokenizer import ClipTokenizer

OPENAI_MEAN = (0.48145466, 0.4578275, 0.40821073)
OPENAI_STD = (0.26862954, 0.26130258, 0.27577711)


@dataclass(frozen=True)
class PictureInput:
    """How a picture is brought into the shape that a vision tower sees.

    Attributes:
        crop: side of the square that is cut from the middle, in px: the tower's own size.
        shortest_edge: the picture's shorter edge is resized to this first; None resizes both edges to `crop`,
            which squashes what is not square (kakaobrain's own code does that).
        resample: PIL's number of the filter, 3 is bicubic.
        mean: per-channel mean subtracted from pictures in 0..1.
        std: per-channel standard deviation that divides them.
    """

    crop: int
    shortest_edge: int | None = None
    resample: int = 3
    mean: tuple[float, float, float] = OPENAI_MEAN
    std: tuple[float, float, float] = OPENAI_STD

    def __call__(self, images: Tensor) -> Tensor:
        """Pictures `[B, H, W, 3]` in 0..1 to normalised ones `[B, 3, crop, crop]`, float32 on the CPU."""
        levels = (images.detach().float().clamp(0, 1) * 255).round().to(torch.uint8).cpu()
        rows = [self._cut(Image.fromarray(picture.numpy())) for picture in levels]
        return self.normalized(torch.stack(rows).permute(0, 3, 1, 2).float() / 255)

    def normalized(self, pixels: Tensor) -> Tensor:
        """Pictures `[B, 3, S, S]` in 0..1 with mean and standard deviation taken out; gradients pass."""
        mean, std = (torch.tensor(value).to(pixels)[:, None, None] for value in (self.mean, self.std))
        return (pixels - mean) / std

    def _cut(self, picture: Image.Image) -> Tensor:
        """One picture resized and cropped, uint8 `[crop, crop, 3]`."""
        resized = picture.resize(self._size(*picture.size), self.resample)
        left, top = ((edge - self.crop) // 2 for edge in resized.size)
        cut = resized.crop((left, top, left + self.crop, top + self.crop))
        return torch.frombuffer(bytearray(cut.tobytes()), dtype=torch.uint8).view(self.crop, self.crop, 3)

    def _size(self, width: int, height: int) -> tuple[int, int]:
        if self.shortest_edge is None:
            return self.crop, self.crop
        short = min(width, height)
        return self.shortest_edge * width // short, self.shortest_edge * height // short


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
        self, text: TextTower | None, vision: VisionTower | None, tokenizer: ClipTokenizer | None,
        picture_input: PictureInput | None, source: str,
    ) -> None:
        """Wrap built towers; `source` names their folder in errors."""
        self.model = Towers(text, vision).eval().requires_grad_(False)
        self.tokenizer, self.picture_input, self.source = tokenizer, picture_input, source
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
        """Side of the square picture that the vision tower sees, in px."""
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
        """Encode pictures `[B, H, W, 3]` in 0..1, of any size, to image embeddings `[B, D]`.

        Raises:
            MissingTower: the folder has no image encoder.
        """
        tower = self._vision()
        pixels = self.picture_input(images).to(tower.positions.device, tower.positions.dtype)
        return tower(pixels).float()

    def encode_pixels(self, pixels: Tensor) -> Tensor:
        """Encode pictures `[B, 3, S, S]` in 0..1 of `image_size` to `[B, D]`; gradients pass.

        Raises:
            MissingTower: the folder has no image encoder.
        """
        tower = self._vision()
        return tower(self.picture_input.normalized(pixels).to(tower.positions.dtype)).float()

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
            raise MissingTower(f"'{self.source}' has no image encoder: its CLIP cannot read pictures. For image "
                               "variations take the model folder that has one (karlo-v1-alpha-image-variations).")
        return self.model.vision
