"""What CLIP does: texts and images to embeddings, and which images show their text best."""

from collections.abc import Sequence

import torch
from torch import Tensor

from ..clip.adapter import TextCondition
from ..embedding.ranking import check_shares, rank
from ..models import Clip
from .images import check_images


@torch.no_grad()
def encode_text(clip: Clip, prompts: Sequence[str]) -> TextCondition:
    """CLIP's word for `B` prompts: embeddings `[B, D]`, token states, mask, and the empty prompt's for guidance.

    Raises:
        ValueError: there is no prompt at all.
    """
    _check_prompts(prompts)
    return clip.adapter.encode_text(prompts)


@torch.no_grad()
def embed_text(clip: Clip, prompts: Sequence[str]) -> Tensor:
    """CLIP's text embeddings `[B, D]` of `B` prompts alone: those of `encode_text`, in a fraction of its time.

    Raises:
        ValueError: there is no prompt at all.
    """
    _check_prompts(prompts)
    return clip.adapter.embed_text(prompts)


@torch.no_grad()
def encode_image(clip: Clip, images: Tensor) -> Tensor:
    """CLIP's image embeddings `[B, D]` of images `[B, H, W, 3]` in 0..1, of any size.

    Raises:
        ValueError: the tensor is not a batch of finite RGB images.
    """
    check_images(images)
    return clip.adapter.encode_image(images)


@torch.no_grad()
def rerank(clip: Clip, text: TextCondition, images: Tensor, keep: int) -> Tensor:
    """The `keep` images that CLIP finds nearest to their text, best first: `[B * keep, H, W, 3]`.

    CLIP ranks what a model draws ("we draw samples and rerank them with CLIP", as DALL·E did, Ramesh et al. 2021,
    section 2.6).

    Args:
        text: `B` texts.
        images: `[B * N, H, W, 3]` in 0..1: N candidates of the first text, then of the second, and so on.
        keep: 1..N.

    Raises:
        ValueError: the images are not as many for each text, or `keep` is out of range.
    """
    check_images(images)
    check_shares(len(images), len(text.embeds), keep)
    return images[rank(encode_image(clip, images), text.embeds, keep).rows.to(images.device)]


def _check_prompts(prompts: Sequence[str]) -> None:
    if not prompts:
        raise ValueError("There is no prompt to encode: give at least one (it may be empty text).")
