"""CLIP behind one adapter over open_clip: text to embedding, token states and mask; image to embedding.

open_clip itself is imported to train a CLIP and for towers that are not plain vision transformers, and not before: its
import takes longer than drawing an image. What stands in for it gives the same numbers.
"""

import gzip
import io
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import torch
from torch import Tensor, nn

from ..nets.open_clip_vit import OpenClipVit, plain_params
from ..weights.files import load_strictly
from ..weights.meta_init import meta_init
from .adapter import ClipAdapter
from .image_input import OPENAI_MEAN, OPENAI_STD, ImageInput
from .tokenizer import ClipTokenizer, byte_vocabulary, openai_tokenizer


@dataclass(frozen=True)
class ClipConfig:
    """An open_clip model and what goes with it.

    Attributes:
        model: keyword arguments of `open_clip.model.CLIP` (`embed_dim`, `vision_cfg`, `text_cfg`, …).
        merges: the BPE merges of its tokenizer, one pair a line; None takes open_clip's own vocabulary.
        words: the words it was trained on, where that is a closed list; empty where it is open.
        mean: per-channel mean subtracted from images in 0..1.
        std: per-channel standard deviation that divides them.
        normalize: whether embeddings are scaled to unit length.
    """

    model: Mapping[str, Any]
    merges: str | None = None
    words: tuple[str, ...] = ()
    mean: tuple[float, float, float] = OPENAI_MEAN
    std: tuple[float, float, float] = OPENAI_STD
    normalize: bool = False

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> "ClipConfig":
        """The configuration as read from JSON."""
        known = {**data, "words": tuple(data.get("words", ()))}
        known |= {key: tuple(data[key]) for key in ("mean", "std") if key in data}
        return cls(**known)


def build_open_clip(config: ClipConfig) -> nn.Module:
    """The open_clip model of `config`, freshly initialised (fp32), on the default device."""
    from open_clip.model import CLIP

    return CLIP(**config.model)


def build_tokenizer(config: ClipConfig) -> Any:
    """open_clip's SimpleTokenizer with the merges and context length of `config`."""
    from open_clip.tokenizer import SimpleTokenizer

    context_length = config.model["text_cfg"]["context_length"]
    if config.merges is None:
        return SimpleTokenizer(context_length=context_length)
    packed = io.BytesIO(gzip.compress(f"#version\n{config.merges}".encode()))
    return SimpleTokenizer(bpe_path=packed, context_length=context_length)


def light_tokenizer(config: ClipConfig) -> ClipTokenizer:
    """A tokenizer that gives the ids of `build_tokenizer`'s, without open_clip."""
    context_length = int(config.model["text_cfg"]["context_length"])
    if config.merges is None:
        return openai_tokenizer(context_length)
    merges = [(first, second) for first, second in map(str.split, config.merges.split("\n"))]
    return ClipTokenizer(byte_vocabulary(merges), merges, context_length)


def text_states(model: nn.Module, ids: Tensor) -> tuple[Tensor, Tensor]:
    """Token states after the final LayerNorm `[B, T, W]` and the projected end-of-text state `[B, D]`.

    `ids` `[B, T]` may be shorter than the context: the text tower is causal, what follows the end has no effect.
    The end of text has the highest id of a row (Radford et al. 2021, section 2.4: "the [EOS] token").
    """
    tower = getattr(model, "text", model)
    length = ids.shape[1]
    x = tower.token_embedding(ids) + tower.positional_embedding[:length]
    x = tower.transformer(x, attn_mask=tower.attn_mask[:length, :length].to(x.dtype))
    states = tower.ln_final(x)
    pooled = states[torch.arange(len(ids), device=ids.device), ids.argmax(dim=-1)]
    return states, pooled @ tower.text_projection


class OpenClipAdapter(ClipAdapter):
    """A CLIP of open_clip's architectures."""

    def __init__(self, model: nn.Module, config: ClipConfig) -> None:
        """Wrap a model of open_clip, or an `OpenClipVit`; `from_weights` makes one with its weights."""
        super().__init__()
        self.model = model.eval().requires_grad_(False)
        self.config, self.tokenizer = config, light_tokenizer(config)
        self.normalize, self.words = config.normalize, config.words

    @classmethod
    def from_weights(cls, tensors: Mapping[str, Tensor], config: ClipConfig, source: str) -> "OpenClipAdapter":
        """Build the model of `config` and load `tensors` strictly.

        Raises:
            CheckpointError: keys or shapes of `source` do not fit.
        """
        plain = plain_params(config.model)
        if plain is None:
            model = build_open_clip(config)
        else:
            with meta_init():
                model = OpenClipVit(plain)
        load_strictly(model, tensors, source)
        return cls(model, config)

    @property
    def embed_dim(self) -> int:
        """Width `D` of the joint embedding space."""
        return int(self.config.model["embed_dim"])

    @property
    def context_length(self) -> int:
        """Number `T` of text tokens, start and end included."""
        return int(self.config.model["text_cfg"]["context_length"])

    @property
    def image_size(self) -> int:
        """Side of the square image that the vision tower sees, in px."""
        return int(self.config.model["vision_cfg"]["image_size"])

    @cached_property
    def image_input(self) -> ImageInput:
        """As open_clip's evaluation transform: bicubic to the shortest edge, cropped at the centre, normalised."""
        size, config = self.image_size, self.config
        return ImageInput(size, size, mean=config.mean, std=config.std, half_even=True)

    @property
    def temperature(self) -> float:
        """The one that it was trained to."""
        return float(self.model.logit_scale.exp())

    def read_tokens(self, ids: Tensor) -> tuple[Tensor, Tensor]:
        """Token ids `[B, T]` to token states `[B, T, W]` and embeddings `[B, D]`."""
        return text_states(self.model, ids)

    def read_pixels(self, pixels: Tensor) -> Tensor:
        """Normalised pixels `[B, 3, S, S]` to embeddings `[B, D]`."""
        return self.model.encode_image(pixels)
