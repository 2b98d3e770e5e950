"""A CLIP of ComfyUI's own loaders under the contract of this pack's CLIPs, and the family that it belongs to."""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from ..unclip_core.clip.adapter import ClipAdapter, MissingTower, TextCondition
from ..unclip_core.clip.image_input import ImageInput
from ..unclip_core.embedding.arithmetic import similarity
from ..unclip_core.models import Clip
from . import defaults, host
from .inputs import InputError
from .sockets import PartValue

FAMILIES = {768: "karlo", 1024: "vit-h", 1280: "kandinsky22"}
"""Width of a stock CLIP's embeddings -> the model family in whose space they lie.

OpenAI's ViT-L/14 is Karlo's CLIP, LAION's ViT-bigG that of Kandinsky 2.2 and its ECLIPSE; no family here speaks LAION's
ViT-H.
"""

USUAL_SIDE = 224
"""Side of the images, px, that the encoders of `FAMILIES` see."""

CAPTIONS = ("a photo of a cat", "a picture of a kitten", "an airport")
"""The second means about the same as the first, the third does not, to every CLIP that was trained."""


def family_of(width: int, side: int = USUAL_SIDE) -> str:
    """Name the family of embeddings of that width, made of images of that side.

    ViT-L/14 at 336 px is another CLIP than the one at 224 px: its embeddings are none of Karlo's.
    """
    if width in FAMILIES and side == USUAL_SIDE:
        return FAMILIES[width]
    return f"clip-{width}" if side == USUAL_SIDE else f"clip-{width}-{side}px"


class StockAdapter(ClipAdapter):
    """A CLIP and a CLIP_VISION of ComfyUI's loaders, or one of the two. Embeddings are raw; ComfyUI moves the weights.

    It passes no gradients: guidance by CLIP and CLIP Optimise are for CLIPs of the pack's own loader.
    """

    source = "the CLIP of ComfyUI's loader"

    def __init__(self, clip: Any = None, clip_vision: Any = None, tower: str = defaults.STOCK_TOWER) -> None:
        """Wrap what is given; `tower` names one of the CLIP's text encoders, or is "auto".

        Raises:
            InputError: neither is given, one makes no embeddings, or the two make embeddings of different widths.
        """
        super().__init__()
        self.model, self.tokenizer = nn.Module(), None
        self._clip, self._vision = clip, clip_vision
        if clip is None and clip_vision is None:
            raise InputError("Neither 'clip' nor 'clip_vision' is connected: connect one of them, or both.")
        self.tower = "" if clip is None else host.choose_tower(clip, tower)
        widths = {}
        if clip is not None:
            widths[self.tower] = host.text_projection(clip, self.tower).shape[0]
        if clip_vision is not None:
            widths["CLIP_VISION"] = host.vision_projection(clip_vision).shape[0]
        if len(set(widths.values())) > 1:
            said = " and ".join(f"those of {name} {width}" for name, width in widths.items())
            raise InputError(f"Embeddings have one width within a CLIP, but {said} numbers: take two of the same CLIP.")
        self._embed_dim = next(iter(widths.values()))

    @property
    def family(self) -> str:
        """The model family in whose space the embeddings lie."""
        return family_of(self.embed_dim, USUAL_SIDE if self._vision is None else self._vision.image_size)

    @property
    def embed_dim(self) -> int:
        """Width `D` of the embeddings."""
        return self._embed_dim

    @property
    def context_length(self) -> int:
        """Tokens of a row."""
        return len(host.token_rows(self._text, self.tower, "")[0])

    @property
    def image_size(self) -> int:
        """Side of the images that the encoder sees, px."""
        return int(self._seeing.image_size)

    @property
    def image_input(self) -> ImageInput:
        """Not to be had: ComfyUI prepares the images itself."""
        raise self._no_gradients()

    @property
    def temperature(self) -> float:
        """As OpenAI's and LAION's models ended at."""
        return 100.0

    @property
    def has_text(self) -> bool:
        """Whether a CLIP is connected."""
        return self._clip is not None

    @property
    def has_vision(self) -> bool:
        """Whether a CLIP_VISION is connected."""
        return self._vision is not None

    @property
    def device(self) -> torch.device:
        """Where what it says is kept."""
        return host.intermediate_device()

    def read_tokens(self, ids: Tensor) -> tuple[Tensor, Tensor]:
        """Not to be had: a stock CLIP has tokens of its own."""
        raise self._no_gradients()

    def read_pixels(self, pixels: Tensor) -> Tensor:
        """Not to be had: gradients would have to pass."""
        raise self._no_gradients()

    def encode_pixels(self, pixels: Tensor) -> Tensor:
        """Not to be had: gradients would have to pass."""
        raise self._no_gradients()

    def token_counts(self, prompts: Sequence[str]) -> list[int]:
        """Tokens of each prompt, as many whole rows as it takes."""
        return [sum(map(len, host.token_rows(self._text, self.tower, prompt))) for prompt in prompts]

    def embed_text(self, prompts: Sequence[str]) -> Tensor:
        """Encode `B` prompts to their text embeddings `[B, D]` alone; ComfyUI pads them all the same."""
        return self._encode_text(prompts).embeds

    def encode_image(self, images: Tensor, crop: bool = True) -> Tensor:
        """Encode images `[B, H, W, 3]` in 0..1 to `[B, D]`: their centre, or without `crop` all, squashed."""
        return host.read_images(self._seeing, images, crop).to(self.device)

    def encode_zero_picture(self) -> Tensor:
        """The embedding `[1, D]` that stands for no image."""
        return host.read_zero_picture(self._seeing).to(self.device)

    def doubts(self) -> list[str]:
        """Return a sentence if the texts' embeddings do not tell what every trained CLIP tells apart.

        A clip_g is not asked: SDXL itself draws by its projection.
        """
        if self.tower == "clip_g":
            return []
        near, far = similarity(*(self._encode_text(texts).embeds for texts in (CAPTIONS[:1], CAPTIONS[1:])))[0].tolist()
        if near > far:
            return []
        return [
            f"To the {self.tower} of this CLIP '{CAPTIONS[0]}' is nearer to '{CAPTIONS[2]}' ({far:.2f}) than to "
            f"'{CAPTIONS[1]}' ({near:.2f}): its weights, or its text projection, are not those of a trained CLIP."
        ]

    def _encode_text(self, prompts: Sequence[str]) -> TextCondition:
        said = host.read_texts(self._text, self.tower, prompts)
        return TextCondition(said.embeds, said.states, said.mask).to(self.device)

    @property
    def _text(self) -> Any:
        if self._clip is None:
            raise MissingTower("This stock CLIP has no text encoder: connect 'clip' of its node too.")
        return self._clip

    @property
    def _seeing(self) -> Any:
        if self._vision is None:
            raise MissingTower("This stock CLIP has no image encoder: connect 'clip_vision' of its node too.")
        return self._vision

    @staticmethod
    def _no_gradients() -> InputError:
        return InputError(
            "A CLIP of ComfyUI's own loaders passes no gradients: CLIP guidance and CLIP Optimise need the CLIP of "
            "Load unCLIP Model."
        )


def stock_clip(clip: Any = None, clip_vision: Any = None, tower: str = defaults.STOCK_TOWER) -> PartValue[Clip]:
    """Return a stock CLIP as a part for the pack's nodes.

    Raises:
        InputError: as `StockAdapter`.
    """
    adapter = StockAdapter(clip, clip_vision, tower)
    return PartValue(Clip(adapter.family, adapter))
