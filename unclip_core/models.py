"""The parts of an unCLIP model as the pipelines take them, and the contracts that every family of models meets.

Text -> `Clip` -> `Prior` -> `Decoder` (with its `ImageCodec`) -> `Upsampler` -> image. A family may lack parts; a part
states the settings that it is sampled with unless the user chooses others (`StageSettings`). Nothing here reads files.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any, ClassVar, Literal, Protocol

from torch import Tensor, nn

from .clip.adapter import ClipAdapter, TextCondition
from .diffusion.samplers import SAMPLERS
from .diffusion.spec import DiffusionSpec
from .nets.upsampler import UpsamplerNet
from .weights.files import CheckpointError

PARTS = ("clip", "prior", "decoder", "upsampler")
"""The names of a model's parts, in the order in which data flows."""


MAX_SIDE = 4096
"""Longest side of an image that a decoder is asked for, px."""


class MissingPart(CheckpointError):
    """The model has no such part, and it was asked for."""


@dataclass(frozen=True)
class StageSettings:
    """How a stage is sampled.

    Attributes:
        steps: sampling steps, 1 or more; a prior of one pass does not read them.
        guidance_scale: of classifier-free guidance, 1 is none.
        sampler: a name in `SAMPLERS`.
    """

    steps: int
    guidance_scale: float = 1.0
    sampler: str = "ddim"
    __pydantic_config__: ClassVar = {"extra": "forbid"}

    def __post_init__(self) -> None:
        """Check the values; raises ValueError."""
        if isinstance(self.steps, bool) or not isinstance(self.steps, int) or self.steps < 1:
            raise ValueError(f"steps must be a whole number of 1 or more, got {self.steps!r}")
        if isinstance(self.guidance_scale, bool) or not isinstance(self.guidance_scale, int | float):
            raise ValueError(f"guidance_scale must be a number, got {self.guidance_scale!r}")
        if not math.isfinite(self.guidance_scale) or self.guidance_scale < 0:
            raise ValueError(f"guidance_scale must be 0 or more, got {self.guidance_scale!r}")
        if self.sampler not in SAMPLERS:
            raise ValueError(f"there is no sampler {self.sampler!r}; there are {', '.join(SAMPLERS)}")

    def over(
        self, steps: int | None = None, guidance_scale: float | None = None, sampler: str | None = None
    ) -> "StageSettings":
        """These settings with what is given in their place; None leaves one as it is."""
        given: dict[str, Any] = {"steps": steps, "guidance_scale": guidance_scale, "sampler": sampler}
        return replace(self, **{name: value for name, value in given.items() if value is not None})


PRIOR_SETTINGS = StageSettings(10, 2.0, "ddim")
DECODER_SETTINGS = StageSettings(8, 1.5, "dpmpp_2m")
UPSAMPLER_SETTINGS = StageSettings(4, 1.0, "ddim")
"""Those of parts that state none: models that were trained here before indexes told them."""


class ImageCodec(Protocol):
    """What a decoder's diffusion draws in, and the way from there to images and back.

    `encode` and `decode` are inverse to each other as far as the codec can tell images apart; both keep the batch's
    order and the device, and work in float32 outside of their own nets.
    """

    channels: int
    """Channels of the latents."""

    factor: int
    """How many times as wide and high as its latents an image is."""

    @property
    def limits(self) -> tuple[Tensor, Tensor] | None:
        """The least and the greatest number of its codebook in each channel, `[channels]`; None without a codebook."""
        ...

    @property
    def module(self) -> nn.Module | None:
        """What holds the codec's weights, to be placed beside the decoder's; None where there are none."""
        ...

    def encode(self, images: Tensor) -> Tensor:
        """Images `[B, 3, H, W]` in -1..1 to latents `[B, channels, H / factor, W / factor]`."""
        ...

    def decode(self, latents: Tensor) -> Tensor:
        """Latents `[B, channels, h, w]` to images `[B, 3, h * factor, w * factor]`, in -1..1 but for overshoot."""
        ...

    def quantised(self, latents: Tensor) -> Tensor:
        """The nearest vectors of the codebook, the gradient passed straight through; the latents where there is none.

        A diffusion's latents are decoded as they are: this is for what looks for codes.
        """
        ...

    def preview(self, latents: Tensor) -> Tensor:
        """A rough and cheap `decode` at any size, for live previews: `[B, 3, h', w']`."""
        ...


class PixelCodec:
    """The codec of decoders that draw pixels: images are their own latents."""

    channels, factor, module, limits = 3, 1, None, None

    def encode(self, images: Tensor) -> Tensor:
        """The images as they are."""
        return images

    def decode(self, latents: Tensor) -> Tensor:
        """The latents as they are."""
        return latents

    def quantised(self, latents: Tensor) -> Tensor:
        """The latents as they are."""
        return latents

    def preview(self, latents: Tensor) -> Tensor:
        """The latents as they are."""
        return latents


PIXELS = PixelCodec()


@dataclass(frozen=True)
class Clip:
    """The CLIP of a family."""

    family: str
    adapter: ClipAdapter

    @property
    def module(self) -> nn.Module:
        """What holds the weights."""
        return self.adapter.model


class OnePassPriorNet(Protocol):
    """What a prior without diffusion is: `net(noise, text_embeds, text_states, text_mask)` -> image embeddings.

    noise `[B, D]` is standard normal, each row of its own seed (a net that takes none ignores it); text_embeds
    `[B, D]`, text_states `[B, T, W]` and text_mask `[B, T]` as in `TextCondition`. Returns `[B, D]`. It is an
    `nn.Module` (Patel et al. 2023, ECLIPSE, section 4).
    """

    def __call__(self, noise: Tensor, text_embeds: Tensor, text_states: Tensor, text_mask: Tensor) -> Tensor:
        """Return the image embeddings."""
        ...


@dataclass(frozen=True)
class Prior:
    """Text embedding to image embedding (Ramesh et al. 2022, section 2.2), by diffusion or in one pass.

    Attributes:
        family: whose embeddings these are.
        net: a `PriorTransformer` or its like with the statistics of the embeddings; with `diffusion` None, a
            `OnePassPriorNet`.
        diffusion: the process; None for a prior that maps text to image embedding in one pass: steps, guidance and
            sampler then have no meaning.
        unit_norm: whether the family's image embeddings have length 1.
        settings: what it is sampled with by default.
    """

    family: str
    net: Any
    diffusion: DiffusionSpec | None
    unit_norm: bool
    settings: StageSettings = PRIOR_SETTINGS

    @property
    def module(self) -> nn.Module:
        """What holds the weights."""
        return self.net

    @property
    def one_pass(self) -> bool:
        """Whether it maps in one pass, without steps."""
        return self.diffusion is None


@dataclass(frozen=True)
class Decoder:
    """Image embedding to an image (Ramesh et al. 2022, section 2.1), drawn in a codec's latents.

    Attributes:
        family: whose embeddings it reads.
        net: the conditioner and the UNet, see `nets.decoder.DecoderNet` for the contract.
        diffusion: the process.
        image_size: side of its images, in px.
        blank_text: what CLIP says of the empty prompt, for a net that cannot do without a text and gets none.
        codec: latents to images and back.
        settings: what it is sampled with by default.
        any_size: whether it draws images of other sizes than its own as well.
        reads_beside: what its net sees beside the latents in every step: "masked" (an image with a hole, and the
            hole), "hint" (a picture of the depth) or nothing.
    """

    family: str
    net: Any
    diffusion: DiffusionSpec
    image_size: int
    blank_text: Callable[[], TextCondition] | None = None
    codec: ImageCodec = PIXELS
    settings: StageSettings = DECODER_SETTINGS
    any_size: bool = False
    reads_beside: Literal["masked", "hint"] | None = None

    @cached_property
    def module(self) -> nn.Module:
        """What holds the weights, those of the codec too."""
        return self.net if self.codec.module is None else nn.ModuleList([self.net, self.codec.module])

    @property
    def latent_shape(self) -> tuple[int, int, int]:
        """Shape `(C, s, s)` of an image's latents at the decoder's own size."""
        side = self.image_size // self.codec.factor
        return self.codec.channels, side, side

    def latent_shape_of(self, height: int, width: int) -> tuple[int, int, int]:
        """Shape `(C, h, w)` of the latents of an image of that size, which they may cover with something to spare.

        Raises:
            ValueError: the decoder draws its own size only, or a side is not from 1 to `MAX_SIDE` px.
        """
        if (height, width) != (self.image_size, self.image_size) and not self.any_size:
            raise ValueError(
                f"This decoder draws {self.image_size} × {self.image_size} px only, not {width} × {height}."
            )
        if not 1 <= min(height, width) <= max(height, width) <= MAX_SIDE:
            raise ValueError(f"An image has sides of 1 to {MAX_SIDE} px, not {width} × {height}.")
        stride = self.net.unet.stride
        h, w = (-(-side // (self.codec.factor * stride)) * stride for side in (height, width))
        return self.codec.channels, h, w


@dataclass(frozen=True)
class CodecPart:
    """The image codec of a decoder alone, as what is placed on a device."""

    family: str
    codec: ImageCodec

    @cached_property
    def module(self) -> nn.Module:
        """What holds the weights; empty where there are none."""
        return nn.Identity() if self.codec.module is None else self.codec.module


@dataclass(frozen=True)
class Upsampler:
    """A small image to one `scale` times as large.

    Attributes:
        family: the family whose decoder it goes with.
        net: the UNet of all steps, or of all but the last.
        diffusion: the process.
        scale: how many times as wide and high.
        last: the UNet of the last step, where that is another (Karlo tuned it for fine detail).
        clamp: whether the enlarged image is kept within -1..1; Karlo lets it overshoot.
        settings: what it is sampled with by default.
        second: the upsampler of what this one has made, where the model has one (Ramesh et al. 2022, section 2.1).
        from_size: side, in px, of the small images that a second upsampler is for.
    """

    family: str
    net: UpsamplerNet
    diffusion: DiffusionSpec
    scale: int
    last: UpsamplerNet | None = None
    clamp: bool = True
    settings: StageSettings = UPSAMPLER_SETTINGS
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
        """The one for small images of that size: the second where both sides are as long as those it is for."""
        if self.second is not None and min(height, width) >= self.second.from_size:
            return self.second
        return self


class PartReader(Protocol):
    """A model folder of some family: what reads its parts. Made by the family's `read`, see `families.registry`."""

    @property
    def family(self) -> str:
        """Whose embeddings its parts exchange; parts of another family are refused."""
        ...

    @property
    def small(self) -> bool:
        """Whether it is quick to read all of it at once."""
        ...

    @property
    def parts(self) -> frozenset[str]:
        """Which of `PARTS` the folder has."""
        ...

    def check(self) -> None:
        """Compare keys and shapes of all parts that are there with their configuration, without reading weights."""
        ...

    def clip(self) -> Clip:
        """Read the text and image encoders."""
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

    # A reader may also have `codec() -> ImageCodec`, where the decoder's codec can be read without the decoder.


@dataclass(frozen=True, eq=False)
class UnclipModel:
    """A model folder; each part is read when it is first asked for.

    Asking for a part that the model does not have raises `MissingPart`; `has` tells beforehand.
    """

    name: str
    folder: Path
    reader: PartReader

    @property
    def family(self) -> str:
        """The family that all parts belong to."""
        return self.reader.family

    def has(self, part: str) -> bool:
        """Whether the model has that one of `PARTS`."""
        return part in self.reader.parts

    @cached_property
    def clip(self) -> Clip:
        """Text and image encoders."""
        return self._read("clip")

    @cached_property
    def prior(self) -> Prior:
        """The prior."""
        return self._read("prior")

    @cached_property
    def decoder(self) -> Decoder:
        """The decoder."""
        return self._read("decoder")

    @cached_property
    def upsampler(self) -> Upsampler:
        """The upsampler."""
        return self._read("upsampler")

    @cached_property
    def codec(self) -> ImageCodec:
        """The decoder's image codec, for what needs nothing else of it; read alone where the family's reader can."""
        alone = getattr(self.reader, "codec", None)
        return self.decoder.codec if alone is None or "decoder" in vars(self) else alone()

    def _read(self, part: str) -> Any:
        if not self.has(part):
            there = ", ".join(name for name in PARTS if self.has(name)) or "no part at all"
            raise MissingPart(f"The model '{self.name}' has no '{part}'; it has {there}. Take a model that has one.")
        return getattr(self.reader, part)()
