"""The four parts of an unCLIP model, as the pipelines take them, and where they come from."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Protocol

from torch import nn

from .clip.open_clip_adapter import ClipAdapter, TextCondition
from .clip.tower_adapter import TowerClip
from .diffusion.spec import DiffusionSpec
from .nets.decoder import DecoderNet
from .nets.prior import PriorTransformer
from .nets.upsampler import UpsamplerNet


@dataclass(frozen=True)
class Clip:
    """The CLIP of a family."""

    family: str
    adapter: ClipAdapter | TowerClip

    @property
    def module(self) -> nn.Module:
        """What holds the weights."""
        return self.adapter.model


@dataclass(frozen=True)
class Prior:
    """Text embedding to image embedding (Ramesh et al. 2022, section 2.2).

    Attributes:
        family: whose embeddings these are.
        net: the transformer, with the statistics of the embeddings.
        diffusion: the process.
        unit_norm: whether the family's image embeddings have length 1.
    """

    family: str
    net: PriorTransformer
    diffusion: DiffusionSpec
    unit_norm: bool

    @property
    def module(self) -> nn.Module:
        """What holds the weights."""
        return self.net


@dataclass(frozen=True)
class Decoder:
    """Image embedding to a small picture (Ramesh et al. 2022, section 2.1).

    Attributes:
        family: whose embeddings it reads.
        net: the conditioner and the UNet.
        diffusion: the process.
        image_size: side of its pictures, in px.
        blank_text: what CLIP says of the empty prompt, for a net that cannot do without a text and gets none.
    """

    family: str
    net: DecoderNet
    diffusion: DiffusionSpec
    image_size: int
    blank_text: Callable[[], TextCondition] | None = None

    @property
    def module(self) -> nn.Module:
        """What holds the weights."""
        return self.net


@dataclass(frozen=True)
class Upsampler:
    """A small picture to one `scale` times as large.

    Attributes:
        family: the family whose decoder it goes with.
        net: the UNet of all steps, or of all but the last.
        diffusion: the process.
        scale: how many times as wide and high.
        last: the UNet of the last step, where that is another (Karlo tuned it for fine detail).
        clamp: whether the enlarged picture is kept within -1..1; Karlo lets it overshoot.
        sampler: the name of the sampler that it was made for.
        second: the upsampler of what this one has made, where the model has one (Ramesh et al. 2022, section 2.1).
        from_size: side, in px, of the small pictures that a second upsampler is for.
    """

    family: str
    net: UpsamplerNet
    diffusion: DiffusionSpec
    scale: int
    last: UpsamplerNet | None = None
    clamp: bool = True
    sampler: str = "ddim"
    second: "Upsampler | None" = None
    from_size: int = 1

    @cached_property
    def module(self) -> nn.Module:
        """What holds the weights."""
        nets = [
            self.net,
            *([] if self.last is None else [self.last]),
            *([] if self.second is None else [self.second.module]),
        ]
        return nets[0] if len(nets) == 1 else nn.ModuleList(nets)

    def fitting(self, height: int, width: int) -> "Upsampler":
        """The one for small pictures of that size: the second where both sides are as long as those it is for."""
        takes_second = self.second is not None and min(height, width) >= self.second.from_size
        return self.second if takes_second else self


class PartReader(Protocol):
    """A model folder of some format: what reads its parts."""

    family: str
    small: bool
    """Whether it is quick to read all of it at once."""

    def check(self) -> None:
        """Compare keys and shapes of all parts that are there with their configuration, without reading weights."""
        ...

    def clip(self) -> Clip:
        """Read the text and picture encoders."""
        ...

    def prior(self) -> Prior:
        """Read the prior."""
        ...

    def decoder(self) -> Decoder:
        """Read the decoder."""
        ...

    def upsampler(self) -> Upsampler:
        """Read the upsampler."""
        ...


@dataclass(frozen=True, eq=False)
class UnclipModel:
    """A model folder; each part is read when it is first asked for."""

    name: str
    folder: Path
    reader: PartReader

    @property
    def family(self) -> str:
        """The family that all parts belong to."""
        return self.reader.family

    @cached_property
    def clip(self) -> Clip:
        """Text and picture encoders."""
        return self.reader.clip()

    @cached_property
    def prior(self) -> Prior:
        """The prior."""
        return self.reader.prior()

    @cached_property
    def decoder(self) -> Decoder:
        """The decoder."""
        return self.reader.decoder()

    @cached_property
    def upsampler(self) -> Upsampler:
        """The upsampler."""
        return self.reader.upsampler()
