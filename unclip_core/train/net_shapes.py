"""The shape and the diffusion process of a new net, from the tables `[net]` and `[diffusion]` of a configuration."""

from collections.abc import Callable, Mapping
from dataclasses import asdict, fields
from typing import Any

from torch import nn

from ..diffusion.denoiser import ModelDenoiser
from ..diffusion.spec import DiffusionSpec
from ..families.karlo import presets as karlo
from ..families.native import presets as native
from ..families.native import small_presets as small
from ..nets.decoder import DecoderParams
from ..nets.params import params_to_dict
from ..nets.unet_params import UNetParams
from ..parsing import checked

PRESETS: dict[str, dict[str, Callable[[], Any]]] = {
    "prior": {"tiny": native.tiny_prior, "small": small.small_prior, "karlo": karlo.karlo_prior},
    "decoder": {"tiny": native.tiny_decoder, "small": small.small_decoder, "karlo": karlo.karlo_decoder},
    "upsampler": {"tiny": native.tiny_upsampler, "small": small.small_upsampler, "karlo": karlo.karlo_super_res},
}

ANY_KIND = ("embed_dim", "time_embed_dim", "text_width")
"""What conditioners of every kind are told alike."""
MOST_STEPS = 100_000
"""The most steps that a diffusion process is taken to have."""


def net_shape(stage: str, net: Mapping[str, Any]) -> dict[str, Any]:
    """The fields of a stage's params as given, over those of the preset that `net` names, table by table.

    Raises ValueError for an unknown preset.
    """
    given = dict(net)
    name = given.pop("preset", None)
    if name is None:
        return given
    if name not in PRESETS[stage]:
        raise ValueError(f"net.preset must be one of {sorted(PRESETS[stage])}, got {name!r}.")
    params = PRESETS[stage][name]()
    return merged(params.to_dict() if isinstance(params, DecoderParams) else params_to_dict(params), given)


def merged(below: dict[str, Any], given: Mapping[str, Any]) -> dict[str, Any]:
    """Return `below` with what is given in its place; tables within are merged alike.

    A table of another `kind` takes nothing over but what every kind has: its other keys mean nothing to it.
    """
    if given.get("kind", below.get("kind")) != below.get("kind"):
        below = {name: value for name, value in below.items() if name in ANY_KIND}
    both = {
        name: merged(below[name], value)
        for name, value in given.items()
        if isinstance(value, Mapping) and isinstance(below.get(name), dict)
    }
    return below | dict(given) | both


def new_process(stage: str, given: Mapping[str, Any], preset: str | None = None) -> DiffusionSpec:
    """Make the process of a stage's preset, the bundled model's where none is named, with what is given in its place.

    Raises ValueError for unknown settings and for values that make no process.
    """
    known = {item.name for item in fields(DiffusionSpec)}
    if unknown := sorted(set(given) - known):
        raise ValueError(f"unknown settings {['diffusion.' + name for name in unknown]}; known are {sorted(known)}.")
    below = (small.SMALL_DIFFUSION if preset == "small" else native.TINY_DIFFUSION)[stage]
    spec = checked(DiffusionSpec, asdict(below) | dict(given), "[diffusion]")
    if not 1 <= spec.train_steps <= MOST_STEPS:
        raise ValueError(f"diffusion.train_steps must be in 1..{MOST_STEPS:,}, got {spec.train_steps}.")
    try:
        ModelDenoiser(nn.Identity(), spec.table, spec.prediction, spec.variance)
        spec.steps(min(2, spec.train_steps))
    except KeyError as error:
        raise ValueError(f"diffusion: there is no schedule {error}.") from error
    except (TypeError, ValueError) as error:
        raise ValueError(f"diffusion: {error}") from error
    return spec


def check_channels(params: UNetParams, inner: int, drawn: int, spec: DiffusionSpec) -> None:
    """Check that a UNet takes `inner` channels and gives `drawn`, or twice as many with a learned variance.

    Raises ValueError.
    """
    wanted = 2 * drawn if spec.variance == "learned_range" else drawn
    if params.in_channels != inner or params.out_channels != wanted:
        raise ValueError(
            f"net: a UNet of {params.in_channels} channels in and {params.out_channels} out does not do: "
            f"here it takes {inner}, and with the variance '{spec.variance}' it gives {wanted}."
        )
