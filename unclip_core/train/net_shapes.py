"""The shape and the diffusion process of a new net, from the tables `[net]` and `[diffusion]` of a configuration."""

from collections.abc import Callable, Mapping
from dataclasses import fields, replace
from typing import Any

from torch import nn

from ..diffusion.denoiser import ModelDenoiser
from ..diffusion.spec import DiffusionSpec
from ..families.karlo import presets as karlo
from ..families.native import presets as native
from ..nets.decoder import DecoderParams
from ..nets.params import params_to_dict
from ..nets.unet_params import UNetParams

PRESETS: dict[str, dict[str, Callable[[], Any]]] = {
    "prior": {"tiny": native.tiny_prior, "karlo": karlo.karlo_prior},
    "decoder": {"tiny": native.tiny_decoder, "karlo": karlo.karlo_decoder},
    "upsampler": {"tiny": native.tiny_upsampler, "karlo": karlo.karlo_super_res},
}


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
    """`below` with what is given in its place; tables within are merged alike."""
    both = {
        name: merged(below[name], value)
        for name, value in given.items()
        if isinstance(value, Mapping) and isinstance(below.get(name), dict)
    }
    return below | dict(given) | both


def new_process(stage: str, given: Mapping[str, Any]) -> DiffusionSpec:
    """The bundled model's process of that stage with what is given in its place.

    Raises ValueError for unknown settings and for values that make no process.
    """
    known = {item.name for item in fields(DiffusionSpec)}
    if unknown := sorted(set(given) - known):
        raise ValueError(f"unknown settings {['diffusion.' + name for name in unknown]}; known are {sorted(known)}.")
    spec = replace(native.TINY_DIFFUSION[stage], **given)
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
