"""Steps, guidance and sampler of a stage: their widgets, their checks, and what "auto" takes in their place."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from ..unclip_core.diffusion.samplers import SAMPLERS
from ..unclip_core.models import Decoder, Prior, Upsampler
from . import defaults, inputs
from .inputs import InputError, Number, Widget

AS_SET = "as set"
MODELS_OWN = "the model's own"
NODES_OWN = "this node's own"
"""Where a setting can come from, as the node says it."""


class GuidanceNumber(Number):
    """The scale of classifier-free guidance: -1 for auto, or from 0 on."""

    def check(self, value: Any) -> float:
        """Return `value` if it is -1 or in the range.

        Raises:
            InputError: it is neither, or no number at all.
        """
        if not isinstance(value, bool) and value == defaults.AUTO_GUIDANCE:
            return defaults.AUTO_GUIDANCE
        return Number(self.name, defaults.GUIDANCE_MIN, self.high, self.step).check(value)


GUIDANCE = GuidanceNumber("guidance_scale", defaults.AUTO_GUIDANCE, defaults.GUIDANCE_MAX, 0.1)


def steps_widget(tooltip: str) -> Widget:
    """Return the input for the number of sampling steps; 0, the default, is auto."""
    return inputs.int_widget(defaults.AUTO_STEPS, defaults.AUTO_STEPS, defaults.STEPS_MAX, tooltip)


def guidance_widget(tooltip: str) -> Widget:
    """Return the input for the guidance scale; -1, the default, is auto."""
    return GUIDANCE.widget(defaults.AUTO_GUIDANCE, tooltip)


def sampler_widget(**more: Any) -> Widget:
    """Return the choice of a sampler: the registered ones and, last, auto, the default."""
    tooltip = (
        "How the steps are taken. dpmpp_2m and ddim need few steps; ddpm and dpmpp_sde add fresh noise. "
        "auto: the model's own."
    )
    return ([*SAMPLERS, defaults.AUTO_SAMPLER], {"default": defaults.AUTO_SAMPLER, "tooltip": tooltip, **more})


def check_steps(value: Any) -> int:
    """Return `value` if it is a number of sampling steps, or 0 for auto.

    Raises:
        InputError: it is not a whole number, or out of range.
    """
    return inputs.check_int("steps", value, defaults.AUTO_STEPS, defaults.STEPS_MAX)


def check_sampler(value: Any) -> str:
    """Return `value` if it is the name of a sampler, or "auto".

    Raises:
        InputError: no sampler has that name; the message lists those that there are.
    """
    names = (*SAMPLERS, defaults.AUTO_SAMPLER)
    if value not in names:
        raise InputError(f"There is no sampler {value!r}. There are: {', '.join(names)}.")
    return value


CHECKS = {"steps": check_steps, "guidance_scale": GUIDANCE.check, "sampler": check_sampler}
AUTO = {
    "steps": defaults.AUTO_STEPS,
    "guidance_scale": defaults.AUTO_GUIDANCE,
    "sampler": defaults.AUTO_SAMPLER,
}


@dataclass(frozen=True)
class Own:
    """A source of the settings that auto takes.

    Attributes:
        settings: by name; all of them or some.
        origin: whose they are, as the node says it.
    """

    settings: Mapping[str, Any]
    origin: str


def models_own(part: Prior | Decoder | Upsampler) -> Own:
    """Return the settings that a model states for this stage."""
    return Own(vars(part.settings), MODELS_OWN)


def nodes_own(**settings: Any) -> Own:
    """Return settings that a node takes with every model."""
    return Own(settings, NODES_OWN)


@dataclass(frozen=True)
class Chosen:
    """The settings that a stage runs with.

    Attributes:
        settings: by name, as the core takes them.
        origins: by name, where each comes from.
    """

    settings: Mapping[str, Any]
    origins: Mapping[str, str]

    @property
    def steps(self) -> int:
        """Sampling steps, 1 or more."""
        return self.settings["steps"]

    @property
    def text(self) -> str:
        """The settings in a line for the node, grouped by their origin."""
        words = {
            "steps": lambda value: f"{value} step" if value == 1 else f"{value} steps",
            "guidance_scale": lambda value: f"guidance {value:g}",
            "sampler": str,
        }
        groups: dict[str, list[str]] = {}
        for name, origin in self.origins.items():
            groups.setdefault(origin, []).append(words[name](self.settings[name]))
        return "; ".join(f"{', '.join(said)}: {origin}" for origin, said in groups.items())


def choose(given: Mapping[str, Any], *own: Own) -> Chosen:
    """Check the inputs `given`, and replace those left at auto by the first of `own` that has the setting.

    Args:
        given: the inputs that the node has, of "steps", "guidance_scale" and "sampler".
        own: by precedence; the last has every setting.

    Raises:
        InputError: an input is out of range, or no number or sampler at all.
    """
    asked = {name: CHECKS[name](value) for name, value in given.items()}
    found = {name: _resolve(name, value, own) for name, value in asked.items()}
    return Chosen(
        {name: value for name, (value, _) in found.items()}, {name: origin for name, (_, origin) in found.items()}
    )


def _resolve(name: str, value: Any, own: tuple[Own, ...]) -> tuple[Any, str]:
    if value != AUTO[name]:
        return value, AS_SET
    source = next(each for each in own if name in each.settings)
    return source.settings[name], source.origin
