"""The conditioner of models trained here: feature maps that carry the layout, and an embedding added to the time's."""

from dataclasses import dataclass
from typing import ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..weights.computing import dtype_for
from .conditioning import Condition, check_text_widths, replace_dropped
from .frames import Frames, paste
from .linear import Linear
from .params import require_count, require_positive


@dataclass(frozen=True)
class MapConditionerParams:
    """The bundled model's conditioner: MLP of `depth` hidden layers, then feature maps.

    map_channels and map_sizes (side of the square map) have one entry a level of the UNet, 0 = no map. factors
    too: 0 = a map of free values, K = the sum of K products of a row profile, a column profile and a vector. With
    `frames`, the last `canvas_channels` of every map are what so many placed canvases of side `canvas` show (Frames).
    """

    embed_dim: int
    hidden: int
    time_embed_dim: int
    map_channels: tuple[int, ...]
    map_sizes: tuple[int, ...]
    depth: int = 2
    factors: tuple[int, ...] = ()
    frames: int = 0
    canvas: int = 8
    canvas_channels: int = 0
    kind: ClassVar[str] = "map"
    context_width: ClassVar[None] = None

    def __post_init__(self) -> None:
        """Raise ValueError for fields that are not positive or disagree."""
        require_positive(
            "MapConditionerParams",
            embed_dim=self.embed_dim,
            hidden=self.hidden,
            time_embed_dim=self.time_embed_dim,
            depth=self.depth,
        )
        require_positive("MapConditionerParams", levels=len(self.map_channels))
        for factor in self.factors:
            require_count("MapConditionerParams", factors=factor)
        for channels, size in zip(self.map_channels, self.map_sizes, strict=False):
            require_count("MapConditionerParams", map_channels=channels, map_sizes=size)
        if len(self.map_channels) != len(self.map_sizes):
            raise ValueError(
                f"MapConditionerParams: {len(self.map_channels)} map_channels, but {len(self.map_sizes)} map_sizes"
            )
        if self.factors and len(self.factors) != len(self.map_channels):
            raise ValueError(
                f"MapConditionerParams: {len(self.map_channels)} map_channels, but {len(self.factors)} factors"
            )
        for level, (channels, size) in enumerate(zip(self.map_channels, self.map_sizes, strict=True)):
            if (channels > 0) != (size > 0):
                raise ValueError(f"MapConditionerParams: level {level} has {channels} map channels of side {size}")
        self._check_frames()

    @property
    def maps(self) -> tuple[tuple[int, int], ...]:
        """(channels, side) of the map of each level."""
        return tuple(zip(self.map_channels, self.map_sizes, strict=True))

    def build(self) -> "MapConditioner":
        """Make the conditioner."""
        return MapConditioner(self)

    def _check_frames(self) -> None:
        require_count("MapConditionerParams", frames=self.frames, canvas_channels=self.canvas_channels)
        if (self.frames > 0) != (self.canvas_channels > 0):
            raise ValueError(f"MapConditionerParams: {self.frames} frames with {self.canvas_channels} canvas_channels")
        require_positive("MapConditionerParams", canvas=self.canvas)
        thin = [channels for channels in self.map_channels if 0 < channels <= self.canvas_channels]
        if thin:
            raise ValueError(
                f"MapConditionerParams: map_channels {thin} leave nothing beside {self.canvas_channels} canvas_channels"
            )


def whiten(embeds: Tensor) -> Tensor:
    """Each row of `[B, D]` to mean 0 and variance 1, in float32."""
    return F.layer_norm(embeds.float(), embeds.shape[-1:])


class MapConditioner(nn.Module):
    """Embeddings → MLP → a vector for the time embedding, and feature maps that carry the layout.

    A small decoder that gets the embedding through modulation alone draws shapeless blobs; maps condition every
    position separately. Both embeddings are normalised here (LayerNorm without weights), so that their scale does not
    matter.
    """

    needs_text, reads_text = False, True

    def __init__(self, params: MapConditionerParams) -> None:
        """Make the MLP, its heads, and the learned vectors that stand for a missing image or text."""
        super().__init__()
        self.params = params
        self.null_image = nn.Parameter(torch.zeros(params.embed_dim))
        self.null_text = nn.Parameter(torch.zeros(params.embed_dim))
        widths = [2 * params.embed_dim] + [params.hidden] * params.depth
        self.mlp = nn.ModuleList(Linear(a, b) for a, b in zip(widths[:-1], widths[1:], strict=True))
        for layer in self.mlp:
            # The default initialisation would let what tells two embeddings apart shrink tenfold on its way.
            nn.init.kaiming_normal_(layer.weight, nonlinearity="relu")
        self.embed = Linear(params.hidden, params.time_embed_dim)
        self.maps = nn.ModuleDict(
            {str(level): _make_map(params, level) for level, channels in enumerate(params.map_channels) if channels}
        )
        self.frames = None
        if params.frames:
            self.frames = Frames(
                2 * params.embed_dim, params.hidden, params.frames, params.canvas_channels, params.canvas
            )

    def forward(
        self,
        image_embeds: Tensor,
        text_embeds: Tensor | None = None,
        text_states: Tensor | None = None,
        text_mask: Tensor | None = None,
        drop_image: Tensor | None = None,
        drop_text: Tensor | None = None,
    ) -> Condition:
        """Compute embedding and maps; arguments as of `Conditioner`.

        `text_states` and `text_mask` are not read. A missing text and a dropped one are the same.

        Raises:
            ValueError: the text's embedding has another width.
        """
        dtype = dtype_for(self.null_image)
        image = replace_dropped(whiten(image_embeds).to(dtype), self.null_image, drop_image)
        if text_embeds is None:
            text = self.null_text.expand(len(image), -1)
        else:
            check_text_widths(self.params.embed_dim, None, text_embeds)
            text = replace_dropped(whiten(text_embeds).to(dtype), self.null_text, drop_text)
        embeds = h = torch.cat([image, text], dim=1)
        for layer in self.mlp:
            h = F.silu(layer(h))
        return {"embed": self.embed(h)} | self._maps(embeds, h)

    def _maps(self, embeds: Tensor, h: Tensor) -> Condition:
        maps = {f"maps.{level}": make(h) for level, make in self.maps.items()}
        if self.frames is None:
            return maps
        boxes, canvases = self.frames(embeds, h)
        joined = {name: torch.cat([own, paste(boxes, canvases, own.shape[-1])], dim=1) for name, own in maps.items()}
        return joined | {"boxes": boxes, "canvases": canvases}


def move_frames(condition: Condition, boxes: Tensor) -> Condition:
    """Paste the canvases of a Condition at other boxes.

    Training shows the UNet where things really are, and a user may choose where they are to be.

    Args:
        condition: with "canvases", "boxes" and "maps.<level>".
        boxes: `[B, K, 3]`.

    Raises:
        ValueError: the Condition has no canvases, or the boxes are of another count.
    """
    if "canvases" not in condition:
        raise ValueError("move_frames: this Condition has no canvases; its conditioner has no frames")
    if boxes.shape != condition["boxes"].shape:
        raise ValueError(f"move_frames: boxes {tuple(boxes.shape)} do not go with {tuple(condition['boxes'].shape)}")
    canvases, moved = condition["canvases"], {"boxes": boxes}
    for name in (name for name in condition if name.startswith("maps.")):
        own = condition[name][:, : -canvases.shape[2]]
        moved[name] = torch.cat([own, paste(boxes, canvases, own.shape[-1])], dim=1)
    return condition | moved


class FreeMap(Linear):
    """h `[B, hidden]` → a map `[B, channels, size, size]`, every value a weight row of its own."""

    def __init__(self, hidden: int, channels: int, size: int) -> None:
        """One linear layer."""
        super().__init__(hidden, channels * size * size)
        self.size = size

    def forward(self, h: Tensor) -> Tensor:
        """The map, laid out channels last as the UNet likes it."""
        return super().forward(h).unflatten(1, (self.size, self.size, -1)).permute(0, 3, 1, 2)


class FactoredMap(nn.Module):
    """h `[B, hidden]` → the sum over k of what_k(h) [channels] x row_k(h) [size] x column_k(h) [size].

    Content and position are separate factors; a `FreeMap` must learn each thing at each position.
    """

    def __init__(self, hidden: int, channels: int, size: int, factors: int) -> None:
        """One linear layer for all factors."""
        super().__init__()
        self.shape = (factors, channels, size)
        self.linear = Linear(hidden, factors * (channels + 2 * size))

    def forward(self, h: Tensor) -> Tensor:
        """The map `[B, channels, size, size]`."""
        factors, channels, size = self.shape
        what, row, column = self.linear(h).unflatten(1, (factors, -1)).split([channels, size, size], dim=2)
        # Profiles near 1 let the gradient reach all three from the start.
        left = (what * factors**-0.5)[..., None] * (1 + row)[:, :, None]
        return (left.flatten(2).mT @ (1 + column)).unflatten(1, (channels, size))


def _make_map(params: MapConditionerParams, level: int) -> FreeMap | FactoredMap:
    channels, size = params.map_channels[level] - params.canvas_channels, params.map_sizes[level]
    if params.factors and params.factors[level]:
        return FactoredMap(params.hidden, channels, size, params.factors[level])
    return FreeMap(params.hidden, channels, size)
