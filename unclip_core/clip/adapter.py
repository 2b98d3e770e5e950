"""What every CLIP gives, whatever its nets: the contract that the rest of the core speaks to."""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import lru_cache

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ..weights.computing import dtype_for
from .image_input import ImageInput
from .tokenizer import ClipTokenizer

TEXTS_AT_ONCE = 64
"""Texts of about one length that `embed_text` reads together."""
_WORDS_AND_SIGNS = r"""[\p{L}\p{N}][\p{L}\p{M}\p{N}]*|[^\s\p{L}\p{N}\p{Ps}\p{Pe}\p{Pi}\p{Pf}\p{Pd}\p{Cc},.;:…'"]+"""
_PIECES = r"[\p{Han}\p{Hiragana}\p{Katakana}ー]|[^\p{Han}\p{Hiragana}\p{Katakana}ー]+"


def words_in(text: str) -> list[str]:
    """The words and signs of a text in lower case, without what parts them."""
    import regex

    return regex.findall(_WORDS_AND_SIGNS, text.lower())


def pieces_of(word: str) -> list[str]:
    """What of a word must be on a closed list: in writing without blanks each letter, elsewhere the word."""
    import regex

    return regex.findall(_PIECES, word)


@lru_cache(maxsize=4)
def _known(words: tuple[str, ...]) -> frozenset[str]:
    return frozenset((*words, "!", "?"))


class MissingTower(ValueError):
    """This CLIP has only one of its two encoders, and the other was asked for."""


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


def by_length(lengths: Tensor) -> tuple[Tensor, list[tuple[Tensor, int]]]:
    """Texts of these lengths `[B]` in groups of about one: each group's rows and its longest length.

    The first of the pair puts what the groups give, one after the other, back into the texts' own order.
    """
    ordered = lengths.argsort()
    return ordered.argsort(), [(rows, int(lengths[rows].max())) for rows in ordered.split(TEXTS_AT_ONCE)]


class ClipAdapter(ABC):
    """One CLIP: its nets, tokenizer and image preprocessing, with named results.

    Attributes:
        model: what holds the weights.
        normalize: whether embeddings are scaled to unit length.
        words: the words it was trained on, where that is a closed list; empty where it is open.
        tokenizer: None where the CLIP reads no text.
        source: its folder, as errors name it.
        widens: whether its layers widen weights that are held in fewer bits than a CPU computes in (`nets.widening`).
    """

    model: nn.Module
    normalize: bool = False
    words: tuple[str, ...] = ()
    tokenizer: ClipTokenizer | None
    source: str = "this model"
    widens: bool = False

    def __init__(self) -> None:
        self._null: TextCondition | None = None

    # ---- what a CLIP has to give ----

    @property
    @abstractmethod
    def embed_dim(self) -> int:
        """Width `D` of the joint embedding space."""

    @property
    @abstractmethod
    def context_length(self) -> int:
        """Number `T` of text tokens, start and end included. Raises MissingTower."""

    @property
    @abstractmethod
    def image_size(self) -> int:
        """Side of the square image that the vision tower sees, in px. Raises MissingTower."""

    @property
    @abstractmethod
    def image_input(self) -> ImageInput:
        """How images are made ready for the vision tower. Raises MissingTower."""

    @property
    @abstractmethod
    def temperature(self) -> float:
        """What CLIP multiplies cosines by to make them logits (Radford et al. 2021, figure 3)."""

    @property
    def has_text(self) -> bool:
        """Whether it has a text encoder."""
        return True

    @property
    def has_vision(self) -> bool:
        """Whether it has an image encoder."""
        return True

    @property
    def vision_is_late(self) -> bool:
        """Whether it has an image encoder that is not read yet, see `read_vision`."""
        return False

    def read_vision(self) -> None:  # noqa: B027  # most have nothing to put off
        """Read the image encoder now, where it was put off until an image comes, to where the text encoder lies."""

    @abstractmethod
    def read_tokens(self, ids: Tensor) -> tuple[Tensor, Tensor]:
        """Token ids `[B, T]` to token states after the final LayerNorm `[B, T, W]` and embeddings `[B, D]`, raw."""

    @abstractmethod
    def read_pixels(self, pixels: Tensor) -> Tensor:
        """Normalised pixels `[B, 3, S, S]` of `image_size` to embeddings `[B, D]`, raw; gradients pass."""

    def with_image_encoder(self, other: "ClipAdapter") -> "ClipAdapter":
        """This CLIP with the image encoder of another, which must make embeddings of the same space.

        Raises:
            ValueError: this one has its own, or the other's does not fit.
        """
        raise ValueError(f"'{self.source}' has an image encoder of its own: leave the other out.")

    # ---- what follows from it ----

    @property
    def device(self) -> torch.device:
        """Where the weights lie."""
        return next(self.model.parameters()).device

    @property
    def _dtype(self) -> torch.dtype:
        """What the model computes in; one whose layers widen nothing does so in what its weights are in."""
        parameter = next(self.model.parameters())
        return dtype_for(parameter) if self.widens else parameter.dtype

    @property
    def text_width(self) -> int:
        """Width `W` of the token states."""
        return self.encode_text([""]).states.shape[-1]

    def tokenize(self, prompts: Sequence[str]) -> Tensor:
        """Token ids `[B, T]`, padded and, where too long, cut with the end of text kept."""
        return self._text_tokenizer.rows(prompts)[0]

    def token_counts(self, prompts: Sequence[str]) -> list[int]:
        """Tokens of each prompt, start and end included, before any cut."""
        return self._text_tokenizer.counts(prompts)

    def is_truncated(self, prompt: str) -> bool:
        """Whether the prompt has more tokens than the model reads."""
        return self.token_counts([prompt])[0] > self.context_length

    def unknown_words(self, prompt: str) -> list[str]:
        """The words and signs of the prompt that the model has never seen, each once, in order.

        Of a closed vocabulary those are all that are not on its list, of an open one those that its tokenizer has no
        token for. Signs that stand together are one ("!!!"). Commas, quotes, brackets, dashes and what ends a sentence
        part words and ask for nothing: they are left out.
        """
        if not self.words:
            return self._text_tokenizer.without_tokens(prompt) if self.tokenizer is not None else []
        known = _known(tuple(self.words))
        unknown = (word for word in words_in(prompt) if any(piece not in known for piece in pieces_of(word)))
        return list(dict.fromkeys(unknown))

    def encode_text(self, prompts: Sequence[str]) -> TextCondition:
        """Encode `B` prompts, and with them the empty one; an empty string is a valid prompt.

        Raises:
            MissingTower: there is no text encoder.
        """
        if self._null is None:
            self._null = self._encode_text([""])
        return replace(self._encode_text(prompts), null=self._null.to(self.device))

    def embed_text(self, prompts: Sequence[str]) -> Tensor:
        """Encode `B` prompts to their text embeddings `[B, D]` alone, those of `encode_text`, in less time.

        Texts of about one length are read together, without what pads them to the whole context: text towers are
        causal, so that what follows the end of a text has no effect on its embedding.

        Raises:
            MissingTower: there is no text encoder.
        """
        ids, lengths = self._text_tokenizer.rows(prompts)
        order, groups = by_length(lengths)
        read = [self.read_tokens(ids[rows, :longest].to(self.device))[1] for rows, longest in groups]
        return self._in_norm(torch.cat(read)[order.to(self.device)].float())

    def encode_texts(self, prompts: Sequence[str]) -> TextCondition:
        """As `encode_text`, of many prompts in the manner of `embed_text`; states of padding are 0."""
        ids, lengths = self._text_tokenizer.rows(prompts)
        order, groups = by_length(lengths)
        read = [self.read_tokens(ids[rows, :longest].to(self.device)) for rows, longest in groups]
        states = torch.cat([F.pad(part.float(), (0, 0, 0, ids.shape[1] - part.shape[1])) for part, _ in read])
        embeds, order = torch.cat([part for _, part in read]).float(), order.to(self.device)
        mask = (torch.arange(ids.shape[1])[None] < lengths[:, None]).to(self.device)
        return TextCondition(self._in_norm(embeds[order]), states[order] * mask[..., None], mask)

    def encode_image(self, images: Tensor) -> Tensor:
        """Encode images `[B, H, W, 3]` in 0..1, of any size, to image embeddings `[B, D]`.

        Raises:
            MissingTower: there is no image encoder.
        """
        return self._in_norm(self.read_pixels(self.preprocess(images).to(self.device, self._dtype)).float())

    def encode_pixels(self, pixels: Tensor) -> Tensor:
        """Encode images `[B, 3, S, S]` in 0..1 of `image_size` to `[B, D]`; gradients pass.

        Raises:
            MissingTower: there is no image encoder.
        """
        return self._in_norm(self.read_pixels(self.image_input.normalized(pixels).to(self._dtype)).float())

    def preprocess(self, images: Tensor) -> Tensor:
        """Images `[B, H, W, 3]` in 0..1, of any size, to normalised pixels `[B, 3, S, S]`, float32 on the CPU."""
        return self.image_input(images)

    @property
    def _text_tokenizer(self) -> ClipTokenizer:
        if self.tokenizer is None:
            raise MissingTower(f"'{self.source}' has no text encoder: its CLIP cannot read text.")
        return self.tokenizer

    def _encode_text(self, prompts: Sequence[str]) -> TextCondition:
        ids, lengths = self._text_tokenizer.rows(prompts)
        states, embeds = self.read_tokens(ids.to(self.device))
        # The mask comes from the length: the padding's id can stand in a prompt too.
        mask = torch.arange(ids.shape[1])[None] < lengths[:, None]
        return TextCondition(self._in_norm(embeds.float()), states.float(), mask.to(self.device))

    def _in_norm(self, embeds: Tensor) -> Tensor:
        return F.normalize(embeds, dim=-1) if self.normalize else embeds
