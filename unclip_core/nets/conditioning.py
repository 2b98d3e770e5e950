"""How a CLIP embedding reaches the decoder's UNet: the contract of conditioners, and the kinds that there are.

A conditioner turns (image embedding, text) into a Condition: a plain dict of tensors, batch first, whose keys are
among "embed" [B, E] (added to the time embedding), "context" [B, S, W] with "context_mask" [B, S] bool
(attended), "maps.<level>" [B, C, h, w] (added to the features that enter that level), and, not read by
the UNet, "boxes" [B, K, 3] and "canvases" [B, K, C, n, n] (where the conditioner's frames lie and what they show, see
Frames).
"""

from collections.abc import Mapping
from typing import ClassVar, Protocol

import torch
from torch import Tensor, nn

from .params import params_from_dict

Condition = dict[str, Tensor]


class Conditioner(Protocol):
    """The contract of every conditioner, an `nn.Module`: embeddings and text in, a `Condition` out.

    It may give context tokens, maps and an added embedding together, whichever its UNet was built to read.
    """

    needs_text: bool
    """Whether it cannot do without a text: "no text" is then the encoding of the empty prompt."""

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

    embed_dim: int
    time_embed_dim: int

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


def replace_dropped(embeds: Tensor, null: Tensor, drop: Tensor | None) -> Tensor:
    """Rows of `embeds` [B, D] where `drop` [B] bool is set, replaced by `null` [D]."""
    return embeds if drop is None else torch.where(drop[:, None], null, embeds)


CONDITIONERS: dict[str, type] = {}
"""Params of conditioners by the kind that files name; each is registered where it is defined."""


def register_conditioner(params: type) -> type:
    """Let files name a further kind of conditioner, by its params' `kind`; returns the class, to be a decorator."""
    CONDITIONERS[params.kind] = params
    return params


def conditioner_params_from_dict(config: Mapping[str, object]) -> ConditionerParams:
    """Read params from a dict whose "kind" is one of `CONDITIONERS`. Raises ValueError for another kind."""
    fields = dict(config)
    kind = fields.pop("kind", None)
    if kind not in CONDITIONERS:
        raise ValueError(f"conditioner: kind must be one of {sorted(CONDITIONERS)}, got {kind!r}")
    return params_from_dict(CONDITIONERS[kind], fields)
