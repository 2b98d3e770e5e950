"""Ranking of what was drawn by its similarity with the text, as CLIP sees it."""

from dataclasses import dataclass

import torch
from torch import Tensor

from .arithmetic import cosine

__all__ = ["Ranking", "check_keep", "check_shares", "rank"]


@dataclass(frozen=True, eq=False)
class Ranking:
    """How `B` texts rank their `N` candidates each.

    Attributes:
        scores: cosine of every candidate with its own text, `[B, N]` in -1..1.
        order: candidates' numbers of each text, the best first, `[B, N]`; of equals the earlier comes first.
        keep: how many of them stay, 1..N.
    """

    scores: Tensor
    order: Tensor
    keep: int

    @property
    def rows(self) -> Tensor:
        """Of the `B * N` candidates, text by text, the rows that stay, `[B * keep]`: each text's best first."""
        count = self.scores.shape[1]
        start = torch.arange(len(self.order), device=self.order.device)[:, None] * count
        return (self.order[:, : self.keep] + start).flatten()


def rank(embeds: Tensor, text_embeds: Tensor, keep: int) -> Ranking:
    """Rank image embeddings `[B * N, D]`, N of each text in turn, against text embeddings `[B, D]`.

    Raises:
        ValueError: the embeddings cannot be shared out evenly, `keep` is not in 1..N, or a row has no direction.
    """
    check_shares(len(embeds), len(text_embeds), keep)
    count = len(embeds) // len(text_embeds)
    scores = cosine(embeds, text_embeds.to(embeds).repeat_interleave(count, 0)).view(-1, count)
    return Ranking(scores, scores.argsort(dim=1, descending=True, stable=True), keep)


def check_shares(candidates: int, texts: int, keep: int) -> None:
    """Raise ValueError where `candidates` are not as many for each text, or `keep` of them cannot stay."""
    if texts < 1 or candidates % texts:
        raise ValueError(f"{candidates} candidates cannot be shared out evenly among {texts} texts.")
    check_keep(keep, candidates // texts)


def check_keep(keep: int, candidates: int) -> None:
    """Raise ValueError where `keep` is not in 1..candidates."""
    if not 1 <= keep <= candidates:
        raise ValueError(f"Cannot keep {keep} of {candidates} candidates: keep must lie in 1..{candidates}.")
