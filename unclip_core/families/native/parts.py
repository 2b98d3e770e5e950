"""Parts of a model out of their tensors and the configuration in the header of their file."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

from torch import Tensor, nn

from ...clip.open_clip_adapter import ClipConfig, OpenClipAdapter
from ...diffusion.spec import DiffusionSpec
from ...models import Clip, Decoder, Prior, Upsampler
from ...nets.decoder import DecoderNet, DecoderParams
from ...nets.params import params_from_dict, require_positive
from ...nets.prior import PriorParams, PriorTransformer
from ...nets.upsampler import UpsamplerNet, UpsamplerParams
from ...parsing import checked
from ...weights.config_checks import refused
from ...weights.files import load_strictly
from ...weights.meta_init import meta_init
from ..statistics import check_statistics

Tensors = Mapping[str, Tensor]
Config = Mapping[str, Any]
H = TypeVar("H", bound="Header")
P = TypeVar("P")


@dataclass(frozen=True)
class Header:
    """What the header of every sampled part states."""

    net: dict[str, Any]
    diffusion: DiffusionSpec


@dataclass(frozen=True)
class PriorHeader(Header):
    """A prior's, see `Prior`."""

    unit_norm: bool


@dataclass(frozen=True)
class UpsamplerHeader(Header):
    """An upsampler's, see `Upsampler`."""

    scale: int
    from_size: int = 1

    def __post_init__(self) -> None:
        """Check the numbers; raises ValueError."""
        require_positive("the upsampler", scale=self.scale, from_size=self.from_size)


@dataclass(frozen=True)
class SecondUpsamplerHeader(UpsamplerHeader):
    """A second upsampler's, which has to say what it is for."""

    from_size: int = field()


def build_clip(family: str, tensors: Tensors, config: Config, source: str) -> Clip:
    """Build a CLIP. `source` is the file, as errors name it, also below. Raises CheckpointError, as all of these."""
    read = _configured(ClipConfig.from_dict, config, source)
    return Clip(family, OpenClipAdapter.from_weights(tensors, read, source))


def build_prior(family: str, tensors: Tensors, config: Config, source: str) -> Prior:
    """Build a prior."""
    header = _header(PriorHeader, config, source)
    params = _configured(lambda net: params_from_dict(PriorParams, net), header.net, source)
    net = _ready(lambda: PriorTransformer(params), tensors, source)
    check_statistics(net, Path(source))
    return Prior(family, net, header.diffusion, header.unit_norm)


def build_decoder(family: str, tensors: Tensors, config: Config, source: str) -> Decoder:
    """Build a decoder."""
    header = _header(Header, config, source)
    params = _configured(DecoderParams.from_dict, header.net, source)
    return Decoder(family, _ready(lambda: DecoderNet(params), tensors, source), header.diffusion, params.image_size)


def build_upsampler(family: str, tensors: Tensors, config: Config, source: str) -> Upsampler:
    """Build an upsampler."""
    return _upsampler(_header(UpsamplerHeader, config, source), family, tensors, source)


def build_second_upsampler(family: str, tensors: Tensors, config: Config, source: str) -> Upsampler:
    """Build an upsampler of what the first has made."""
    return _upsampler(_header(SecondUpsamplerHeader, config, source), family, tensors, source)


BUILDERS: dict[str, Callable[[str, Tensors, Config, str], Any]] = {
    "clip": build_clip,
    "prior": build_prior,
    "decoder": build_decoder,
    "upsampler": build_upsampler,
}
"""What builds each of `PARTS`."""


def _header(kind: type[H], config: Config, source: str) -> H:
    with refused():
        return checked(kind, dict(config), _place(source))


def _configured(build: Callable[[Any], P], config: Config, source: str) -> P:
    with refused(_place(source)):
        return build(config)


def _place(source: str) -> str:
    return f"The configuration in the header of '{source}'"


def _ready(build: Callable[[], nn.Module], tensors: Tensors, source: str) -> nn.Module:
    with meta_init():  # no random weights that would only be replaced
        net = build()
    load_strictly(net, tensors, source)
    return net.eval().requires_grad_(False)


def _upsampler(header: UpsamplerHeader, family: str, tensors: Tensors, source: str) -> Upsampler:
    params = _configured(lambda net: params_from_dict(UpsamplerParams, net), header.net, source)
    net = _ready(lambda: UpsamplerNet(params), tensors, source)
    return Upsampler(family, net, header.diffusion, header.scale, from_size=header.from_size)
