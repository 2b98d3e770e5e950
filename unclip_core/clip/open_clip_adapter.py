"""CLIP behind one adapter over open_clip: text to embedding, token states and mask; image to embedding.

open_clip itself is imported to train a CLIP and for towers that are not plain vision transformers, and not before: its
import takes longer than drawing an image. What stands in for it gives the same numbers.
"""

import gzip
import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ..nets.meta_init import bare
from ..nets.open_clip_vit import OpenClipVit, plain_params
from ..weights.files import load_strictly
from .image_input import OPENAI_MEAN, OPENAI_STD, ImageInput
from .tokenizer import ClipTokenizer, byte_vocabulary, openai_tokenizer


@dataclass(frozen=True)
class TextCondition:
    """What CLIP says of `B` prompts.

    Attributes:
        embeds: text embeddings `[B, D]`, in the family's norm.
        states: token states after the final LayerNorm `[B, T, W]`.
        mask: `[B, T]` bool, True at start, words and end, False at padding.
        null: what the same CLIP says of the empty prompt, one row: the other half of guidance.
    """

    embeds: Tensor
    states: Tensor
    mask: Tensor
    null: "TextCondition | None" = None

    def select(self, rows: Sequence[int] | Tensor) -> "TextCondition":
        """The condition of these rows, in this order (rows may repeat)."""
        index = torch.as_tensor(rows, device=self.embeds.device)
        return TextCondition(self.embeds[index], self.states[index], self.mask[index], self.null)

    def to(self, device: torch.device | str) -> "TextCondition":
        """The same condition on another device."""
        null = None if self.null is None else self.null.to(device)
        return TextCondition(self.embeds.to(device), self.states.to(device), self.mask.to(device), null)


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
    merges = [tuple(line.split()) for line in config.merges.split("\n")]
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


class ClipAdapter:
    """One CLIP: its open_clip model, tokenizer and preprocessing, with named results."""

    def __init__(self, model: nn.Module, config: ClipConfig) -> None:
        """Wrap a model of open_clip, or an `OpenClipVit`; use `ClipAdapter.from_weights` for one with its weights."""
        self.model = model.eval().requires_grad_(False)
        self.config = config
        self._tokenizer = light_tokenizer(config)
        self._null: TextCondition | None = None

    @classmethod
    def from_weights(cls, tensors: Mapping[str, Tensor], config: ClipConfig, source: str) -> "ClipAdapter":
        """Build the model of `config` and load `tensors` strictly.

        Raises:
            CheckpointError: keys or shapes of `source` do not fit.
        """
        plain = plain_params(config.model)
        if plain is None:
            model = build_open_clip(config)
        else:
            with bare():
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
    def _image_input(self) -> ImageInput:
        size, config = self.image_size, self.config
        return ImageInput(size, size, mean=config.mean, std=config.std, half_even=True)

    def tokenize(self, prompts: Sequence[str]) -> Tensor:
        """Token ids `[B, T]`, padded with 0 and, where too long, cut with the end of text kept."""
        return self._tokenizer.rows(prompts)[0]

    def token_counts(self, prompts: Sequence[str]) -> list[int]:
        """Tokens of each prompt, start and end included, before any cut."""
        return self._tokenizer.counts(prompts)

    def is_truncated(self, prompt: str) -> bool:
        """Whether the prompt has more tokens than the model reads."""
        return self.token_counts([prompt])[0] > self.context_length

    def unknown_words(self, prompt: str) -> list[str]:
        """The words of the prompt that a model with a closed vocabulary has never seen, each once, in order."""
        import regex

        if not self.config.words:
            return []
        known = set(self.config.words)
        words = regex.findall(r"[\p{L}\p{N}]+", prompt.lower())
        return list(dict.fromkeys(word for word in words if word not in known))

    def encode_text(self, prompts: Sequence[str]) -> TextCondition:
        """Encode `B` prompts, and with them the empty one; an empty string is a valid prompt."""
        if self._null is None:
            self._null = self._encode_text([""])
        return replace(self._encode_text(prompts), null=self._null.to(next(self.model.parameters()).device))

    def _encode_text(self, prompts: Sequence[str]) -> TextCondition:
        device = next(self.model.parameters()).device
        ids, lengths = self._tokenizer.rows(prompts)
        mask = torch.arange(self.context_length)[None] < lengths[:, None]
        states, pooled = text_states(self.model, ids.to(device))
        return TextCondition(self._in_norm(pooled.float()), states.float(), mask.to(device))

    def encode_image(self, images: Tensor) -> Tensor:
        """Encode images `[B, H, W, 3]` in 0..1, of any size, to image embeddings `[B, D]`.

        The image is resized so that its shortest edge fits (bicubic), cropped at the centre and normalised.
        """
        parameter = next(self.model.parameters())
        pixels = self.preprocess(images).to(parameter.device, parameter.dtype)
        return self._in_norm(self.model.encode_image(pixels).float())

    def encode_pixels(self, pixels: Tensor) -> Tensor:
        """Encode images `[B, 3, S, S]` in 0..1 of `image_size` to `[B, D]`; gradients pass."""
        dtype = next(self.model.parameters()).dtype
        return self._in_norm(self.model.encode_image(self._image_input.normalized(pixels).to(dtype)).float())

    @property
    def temperature(self) -> float:
        """What CLIP multiplies cosines by to make them logits (Radford et al. 2021, figure 3)."""
        return float(self.model.logit_scale.exp())

    def preprocess(self, images: Tensor) -> Tensor:
        """As open_clip's evaluation transform: `[B, H, W, 3]` in 0..1 to normalised `[B, 3, S, S]` float32."""
        return self._image_input(images)

    def _in_norm(self, embeds: Tensor) -> Tensor:
        return F.normalize(embeds, dim=-1) if self.config.normalize else embeds
