"""CLIP behind one adapter over open_clip: text to embedding, token states and mask; image to embedding.

open_clip itself is imported to train a CLIP and for towers that are not plain vision transformers, and not before: its
import takes longer than drawing an image. What stands in for it gives the same numbers.
"""

import gzip
import io
import math
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from ..nets.open_clip_vit import OpenClipVit, plain_params
from ..nets.params import LIMIT, LIMITS, require_positive
from ..nets.widening import widened
from ..parsing import checked
from ..weights.config_checks import refused
from ..weights.files import CheckpointError, load_strictly
from ..weights.meta_init import meta_init
from .adapter import ClipAdapter
from .image_input import OPENAI_MEAN, OPENAI_STD, ImageInput
from .tokenizer import ClipTokenizer, byte_vocabulary, openai_tokenizer

OPENAI_TOKENS = 49408


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
    __pydantic_config__: ClassVar = {"extra": "forbid"}

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> "ClipConfig":
        """The configuration as read from JSON.

        Raises:
            ValueError: a key is not known, or a value of another type or out of range.
        """
        config = checked(cls, dict(data), "the CLIP's configuration")
        sizes = checked(_Sizes, dict(config.model), "the CLIP's model")
        context = {"context": sizes.text_cfg.context_length, "vocabulary": sizes.text_cfg.vocab_size}
        require_positive("ClipConfig", embed_dim=sizes.embed_dim, image_size=sizes.vision_cfg.image_size, **context)
        if not all(0 < value < math.inf for value in config.std) or not all(map(math.isfinite, config.mean)):
            raise ValueError(f"mean and std must be finite, std positive, got {config.mean} and {config.std}")
        return config


@dataclass(frozen=True)
class _VisionSizes:
    image_size: int


@dataclass(frozen=True)
class _TextSizes:
    context_length: int
    vocab_size: int = OPENAI_TOKENS


@dataclass(frozen=True)
class _Sizes:
    """What of open_clip's arguments is read here too, whatever the towers are."""

    embed_dim: int
    vision_cfg: _VisionSizes
    text_cfg: _TextSizes


def build_open_clip(config: ClipConfig) -> nn.Module:
    """The open_clip model of `config`, freshly initialised (fp32), on the default device."""
    from open_clip.model import CLIP

    return CLIP(**config.model)


def _foreign_towers(config: ClipConfig, tensors: Mapping[str, Tensor], source: str) -> nn.Module:
    """What open_clip builds of towers that only it knows, once its keys and shapes were found to be the tensors'."""
    _refuse_large(config.model, source)
    try:
        with meta_init():
            planned = build_open_clip(config)
        load_strictly(planned, tensors, source)
        return build_open_clip(config)
    except CheckpointError:
        raise
    except Exception as error:  # whatever open_clip makes of arguments that it does not expect
        raise CheckpointError(f"'{source}': open_clip builds no CLIP of its configuration ({error}).") from error


def _refuse_large(arguments: Any, source: str, name: str = "model") -> None:
    """Refuse arguments that would build a net without end, or have open_clip fetch another from the internet."""
    if isinstance(arguments, Mapping):
        for key, value in arguments.items():
            _refuse_large(value, source, str(key))
    elif isinstance(arguments, list | tuple):
        for value in arguments:
            _refuse_large(value, source, name)
    elif isinstance(arguments, int) and abs(arguments) > LIMITS.get(name.replace("vocab_size", "vocabulary"), LIMIT):
        raise CheckpointError(
            f"'{source}': its configuration says {name} {str(arguments)[:30]}, more than any net has."
        )
    elif arguments and (name == "hf_model_name" or "pretrained" in name):
        raise CheckpointError(f"'{source}': its configuration asks for weights from elsewhere ({name} {arguments!r}).")


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
    pairs = [line.split() for line in config.merges.split("\n")] if config.merges else []
    if bad := next((pair for pair in pairs if len(pair) != 2), None):
        raise ValueError(f"'{' '.join(bad)}' among its merges is no pair")
    merges = [(first, second) for first, second in pairs]
    vocabulary, room = byte_vocabulary(merges), config.model["text_cfg"].get("vocab_size", OPENAI_TOKENS)
    if len(vocabulary) > room:
        raise ValueError(f"it has {len(vocabulary):,} tokens, the text encoder {room:,}")
    return ClipTokenizer(vocabulary, merges, context_length)


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
    return states, pooled @ widened(tower.text_projection, pooled)


class OpenClipAdapter(ClipAdapter):
    """A CLIP of open_clip's architectures."""

    tokenizer: ClipTokenizer

    def __init__(self, model: nn.Module, config: ClipConfig) -> None:
        """Wrap a model of open_clip, or an `OpenClipVit`; `from_weights` makes one with its weights."""
        super().__init__()
        self.model = model.eval().requires_grad_(False)
        self.config, self.tokenizer = config, light_tokenizer(config)
        self.widens = isinstance(model, OpenClipVit)
        self.normalize, self.words = config.normalize, config.words

    @classmethod
    def from_weights(cls, tensors: Mapping[str, Tensor], config: ClipConfig, source: str) -> "OpenClipAdapter":
        """Build the model of `config` and load `tensors` strictly.

        Raises:
            CheckpointError: keys or shapes of `source` do not fit, or no such CLIP can be built.
        """
        with refused(f"The configuration in the header of '{source}'"):
            plain = plain_params(config.model)
        if plain is None:
            model = _foreign_towers(config, tensors, source)
        else:
            with meta_init():
                model = OpenClipVit(plain)
        load_strictly(model, tensors, source)
        with refused(f"The vocabulary of '{source}'"):
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
        return float(self.model.logit_scale.float().exp())

    def read_tokens(self, ids: Tensor) -> tuple[Tensor, Tensor]:
        """Token ids `[B, T]` to token states `[B, T, W]` and embeddings `[B, D]`."""
        return text_states(self.model, ids)

    def read_pixels(self, pixels: Tensor) -> Tensor:
        """Normalised pixels `[B, 3, S, S]` to embeddings `[B, D]`."""
        return self.model.encode_image(pixels)
