"""Kandinsky 2.2's conditioner: context tokens and an added embedding, of the image embedding alone."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor, nn

from ..weights.computing import dtype_for
from .conditioning import Condition, replace_dropped
from .linear import Linear
from .memory_formats import Conv2d, following
from .params import require_positive
from .widening import LayerNorm

HINT_CHANNELS = (16, 16, 32, 32, 96, 96, 256)
HINT_LATENT_CHANNELS = 4
HINT_FACTOR = 8


@dataclass(frozen=True)
class ImageConditionerParams:
    """Widths of embedding, time embedding and context; number of context tokens; whether it reads a hint."""

    embed_dim: int
    time_embed_dim: int
    context_dim: int
    tokens: int = 32
    hint: bool = False
    kind: ClassVar[str] = "image"
    maps: ClassVar[tuple[tuple[int, int], ...]] = ()

    def __post_init__(self) -> None:
        """Raise ValueError for a number that is not positive."""
        numbers = {name: value for name, value in vars(self).items() if name != "hint"}
        require_positive("ImageConditionerParams", **numbers)

    @property
    def context_width(self) -> int:
        """Width of its context tokens."""
        return self.context_dim

    def build(self) -> "ImageConditioner":
        """Make the conditioner."""
        return ImageConditioner(self)


class ImageConditioner(nn.Module):
    """Projects the image embedding to context tokens and to what is added to the time embedding, each normalised.

    It has learned no "no image": the embedding of an empty picture stands for it. That is known to the CLIP of the
    model alone, so it is looked up when it is first needed, by `find_null`.
    """

    needs_text = reads_text = False

    def __init__(self, params: ImageConditionerParams) -> None:
        """Make the projections."""
        super().__init__()
        self.params = params
        self.tokens = Linear(params.embed_dim, params.tokens * params.context_dim)
        self.tokens_norm = LayerNorm(params.context_dim)
        self.embed = Linear(params.embed_dim, params.time_embed_dim)
        self.embed_norm = LayerNorm(params.time_embed_dim)
        if params.hint:
            self.hint = hint_encoder()
        self.find_null: Callable[[], Tensor] | None = None
        self._null: Tensor | None = None

    @property
    def null_image(self) -> Tensor:
        """`[D]`, the embedding that stands for "no image".

        Raises:
            ValueError: there is no CLIP that could tell.
        """
        if self._null is None:
            if self.find_null is None:
                raise ValueError(
                    "This decoder's guidance needs the embedding of an empty picture, and there is no CLIP that could "
                    "tell it: load the decoder together with its prior's folder, give a negative embedding, or set "
                    "guidance_scale to 1."
                )
            self._null = self.find_null().detach()
        return self._null.to(self.embed.weight.device, dtype_for(self.embed.weight))

    def forward(
        self,
        image_embeds: Tensor,
        text_embeds: Tensor | None = None,
        text_states: Tensor | None = None,
        text_mask: Tensor | None = None,
        drop_image: Tensor | None = None,
        drop_text: Tensor | None = None,
    ) -> Condition:
        """Compute embedding and context; arguments as of `Conditioner`. A text is not read."""
        image = image_embeds.to(dtype_for(self.embed.weight))
        if drop_image is not None:
            image = replace_dropped(image, self.null_image, drop_image)
        tokens = self.tokens(image).unflatten(1, (self.params.tokens, -1))
        return {"embed": self.embed_norm(self.embed(image)), "context": self.tokens_norm(tokens)}

    def read_hint(self, images: Tensor) -> Tensor:
        """Images `[B, 3, H, W]` in 0..1, such as depth maps, to what the UNet sees beside the latents.

        Returns:
            `[B, HINT_LATENT_CHANNELS, H / 8, W / 8]`.
        """
        given = images.to(self.embed.weight.device, dtype_for(self.embed.weight))
        return self.hint(following(given, self.hint[0].weight))


def hint_encoder() -> nn.Sequential:
    """Eight 3x3 convolutions with SiLU between; every second from the third on halves the size."""
    widths = (3, *HINT_CHANNELS)
    layers: list[nn.Module] = []
    for before, after in zip(widths[:-1], widths[1:], strict=True):
        stride = 2 if before != after and before != 3 else 1
        layers += [Conv2d(before, after, 3, stride=stride, padding=1), nn.SiLU()]
    return nn.Sequential(*layers, Conv2d(widths[-1], HINT_LATENT_CHANNELS, 3, padding=1))
