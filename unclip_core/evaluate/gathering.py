"""What an evaluation keeps of the batches that it draws."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

from torch import Tensor
from torch.nn import functional as F

from .encoders import Encoder
from .generation import Pairs

SHOWN = 24
"""Pairs of images on the page."""


@dataclass
class Gathered:
    """What is kept of all batches: unit vectors, cosines, and the first images for the page."""

    true: list[Tensor] = field(default_factory=list)
    drawn: list[Tensor] = field(default_factory=list)
    texts: list[Tensor] = field(default_factory=list)
    prior_cosines: list[Tensor] = field(default_factory=list)
    text_cosines: list[Tensor] = field(default_factory=list)
    shown: list[tuple[str, Tensor, Tensor]] = field(default_factory=list)

    def add(self, pairs: Pairs, encoder: Encoder) -> None:
        """Encode a batch and keep what the measures need, and its images while the page has room."""
        self.true.append(encoder.images(pairs.true))
        self.drawn.append(encoder.images(pairs.drawn))
        if pairs.text_embeds is not None:
            self.texts.append(encoder.texts(pairs.captions))
        if pairs.text_embeds is not None and pairs.true_embeds is not None:
            self.prior_cosines.append(_cosines(pairs.prior_embeds, pairs.true_embeds))
            self.text_cosines.append(_cosines(pairs.text_embeds, pairs.true_embeds))
        room = SHOWN - len(self.shown)
        self.shown += list(zip(pairs.captions, pairs.true, pairs.drawn, strict=True))[:room]

    @classmethod
    def joined(cls, parts: Sequence["Gathered"]) -> "Gathered":
        """What several processes gathered, in the order of the batches."""
        whole = cls()
        for part in parts:
            for name in vars(whole):
                getattr(whole, name).extend(getattr(part, name))
        del whole.shown[SHOWN:]
        return whole


def gather(batches: Iterable[Pairs], encoder: Encoder) -> Gathered:
    """Encode all batches and keep what the measures need, and the images of the page."""
    kept = Gathered()
    for pairs in batches:
        kept.add(pairs, encoder)
    return kept


def _cosines(first: Tensor | None, second: Tensor) -> Tensor:
    assert first is not None, "pairs with texts have the prior's embeddings"
    return F.cosine_similarity(first.cpu().double(), second.cpu().double(), dim=-1)
