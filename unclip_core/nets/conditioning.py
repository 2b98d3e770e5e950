"""How embeddings and text reach the decoder's UNet: the contract of every conditioner."""

from typing import ClassVar, Protocol

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .linear import Linear
from .widening import LayerNorm

Condition = dict[str, Tensor]
"""What a UNet is conditioned on: tensors, batch first, under these keys.

"embed" `[B, E]` is added to the time embedding; "context" `[B, S, W]` with "context_mask" `[B, S]` bool is attended;
"maps.<level>" `[B, C, h, w]` is added to the features that enter that level; "beside" `[B, C, H, W]` are further
channels of the noisy image (an inpainting decoder's image and mask, a hint). The UNet does not read "boxes"
`[B, K, 3]` and "canvases" `[B, K, C, n, n]`: where a `MapConditioner`'s frames lie, and what they show.
"""


class Conditioner(Protocol):
    """The contract of every conditioner, an `nn.Module`: embeddings and text in, a `Condition` out.

    It may give context tokens, maps and an added embedding together, whichever its UNet was built to read.
    """

    needs_text: bool
    """Whether it cannot do without a text: "no text" is then the encoding of the empty prompt."""

    reads_text: bool
    """Whether a text makes a difference to it."""

    null_image: Tensor
    """`[D]`, what stands for "no image embedding"."""

    def __call__(
        self,
        image_embeds: Tensor,
        text_embeds: Tensor | None = None,
        text_states: Tensor | None = None,
        text_mask: Tensor | None = None,
        drop_image: Tensor | None = None,
        drop_text: Tensor | None = None,
    ) -> Condition:
        """Return what the UNet is told.

        Args:
            image_embeds: `[B, D]`.
            text_embeds: `[B, D]`.
            text_states: token states `[B, T, W]`.
            text_mask: `[B, T]` bool.
            drop_image: `[B]` bool, rows whose image embedding is replaced by `null_image`.
            drop_text: `[B]` bool, rows whose text is dropped; only where `needs_text` is False.

        Raises:
            ValueError: a text is needed and there is none.
        """
        ...


class ConditionerParams(Protocol):
    """Shape of a conditioner, a frozen dataclass: what the UNet it is joined with must agree with."""

    kind: ClassVar[str]
    """How files name it."""

    @property
    def embed_dim(self) -> int:
        """Width of the image embeddings that it takes."""
        ...

    @property
    def time_embed_dim(self) -> int:
        """Width of the timestep's embedding, to which it adds."""
        ...

    @property
    def context_width(self) -> int | None:
        """Width of its context tokens; None where it gives none."""
        ...

    @property
    def maps(self) -> tuple[tuple[int, int], ...]:
        """(channels, side) of its map for each level of the UNet, (0, 0) where it gives none; () for none at all."""
        ...

    def build(self) -> nn.Module:
        """Make the `Conditioner`."""
        ...


def context_layers(
    embed_dim: int, text_width: int, context_dim: int, extra_tokens: int
) -> tuple[Linear, Linear, LayerNorm]:
    """The layers of context tokens: image embedding to `extra_tokens`, the text's token states, and their norm."""
    image_tokens = Linear(embed_dim, extra_tokens * context_dim)
    return image_tokens, Linear(text_width, context_dim), LayerNorm(context_dim)


def join_context(image_tokens: Tensor, text_tokens: Tensor, text_mask: Tensor) -> Condition:
    """Context of tokens of the image `[B, E, W]`, which are always attended, and then the text's `[B, T, W]`."""
    return {
        "context": torch.cat([image_tokens, text_tokens], dim=1),
        "context_mask": F.pad(text_mask, (image_tokens.shape[1], 0), value=True),
    }


def check_text_widths(
    embed_dim: int, text_width: int | None, text_embeds: Tensor, text_states: Tensor | None = None
) -> None:
    """Raise ValueError unless a text's embedding `[B, embed_dim]` and states `[B, T, text_width]` are a net's own.

    `text_width` None: the net reads no states.
    """
    states = None if text_width is None or text_states is None else text_states.shape[-1]
    if text_embeds.shape[-1] != embed_dim or states not in (None, text_width):
        wanted = f"{embed_dim}" if states is None else f"{embed_dim} numbers with token states of {text_width}"
        given = f"{text_embeds.shape[-1]}" if states is None else f"{text_embeds.shape[-1]} and {states}"
        raise ValueError(
            f"This net reads text embeddings of {wanted}; given are {given}: take the text encoder that it was "
            "trained with."
        )


def replace_dropped(embeds: Tensor, null: Tensor, drop: Tensor | None) -> Tensor:
    """Replace the rows of `embeds` `[B, D]` where `drop` `[B]` bool is set by `null` `[D]`."""
    return embeds if drop is None else torch.where(drop[:, None], null, embeds)
