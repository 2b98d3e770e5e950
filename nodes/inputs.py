"""Widgets, and checks of their values: ComfyUI's own range check lets NaN pass, and a script has none."""

import inspect
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from . import defaults

Widget = tuple[Any, dict[str, Any]]


class InputError(ValueError):
    """A node cannot take a value; the message names the input, the value, and what is allowed."""


def check_arrived(value: Any, what: str, picked: str) -> Any:
    """Return `value` unless it is None, which an output of Pick hands on whose input is left open.

    Args:
        what: the value's name in the message.
        picked: that of Pick's input for such values.

    Raises:
        InputError: it is None.
    """
    if value is None:
        raise InputError(
            f"There is no {what}: nothing came over its link. If it comes from Pick, nothing is linked to Pick's input "
            f"'{picked}': link the candidates there too."
        )
    return value


def seed_widget() -> Widget:
    """Return a seed input with the canvas' "control after generate"."""
    return (
        "INT",
        {
            "default": defaults.SEED,
            "min": 0,
            "max": defaults.SEED_MAX,
            "control_after_generate": True,
            "tooltip": "The random numbers' seed. Same seed and inputs: same result.",
        },
    )


def int_widget(default: int, low: int, high: int, tooltip: str, **more: Any) -> Widget:
    """Return an input for a whole number in `low..high`."""
    return ("INT", {"default": default, "min": low, "max": high, "step": 1, "tooltip": tooltip, **more})


@dataclass(frozen=True)
class Number:
    """An input for a number in `low..high`: its widget, and the check of what comes in.

    Attributes:
        name: the input's.
        low: the least number.
        high: the greatest.
        step: of the widget's arrows; fine enough to show its default.
    """

    name: str
    low: float
    high: float
    step: float

    def widget(self, default: float, tooltip: str, **more: Any) -> Widget:
        """Return the widget with this default."""
        limits = {"default": default, "min": self.low, "max": self.high, "step": self.step}
        return ("FLOAT", {**limits, "tooltip": tooltip, **more})

    def check(self, value: Any) -> float:
        """Return `value` if it is in the range; NaN and infinity are not.

        Raises:
            InputError: it is not, or no number at all.
        """
        if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
            raise InputError(f"'{self.name}' must be a number from {self.low:g} to {self.high:g}, not {value!r}.")
        if not self.low <= value <= self.high:
            raise InputError(f"'{self.name}' is {value:g}; it must lie between {self.low:g} and {self.high:g}.")
        return float(value)


START, END = (Number(f"guidance_{side}", 0.0, 1.0, 0.05) for side in ("start", "end"))
"""Between which parts of a run guidance acts."""


def interval_widgets() -> dict[str, Widget]:
    """Return the inputs of the guidance interval, which end a node's optional inputs."""
    start = "Where in the run guidance begins: 0 with the first step, at pure noise. Steps without guidance are faster."
    end = "Where in the run guidance ends: 1 with the last step."
    return {
        "guidance_start": START.widget(defaults.GUIDANCE_START, start, advanced=True),
        "guidance_end": END.widget(defaults.GUIDANCE_END, end, advanced=True),
    }


def check_interval_widgets(
    guidance_start: Any = defaults.GUIDANCE_START, guidance_end: Any = defaults.GUIDANCE_END
) -> None:
    """Check the two inputs of `interval_widgets` together.

    Raises:
        InputError: as `check_interval`.
    """
    check_interval(guidance_start, guidance_end)


def check_interval(start: Any, end: Any) -> tuple[float, float]:
    """Convert the interval to the core's: (low, high) as fractions t / train_steps, of which 1 is pure noise.

    Raises:
        InputError: a number is out of range, or the end lies before the start.
    """
    if START.check(start) > END.check(end):
        raise InputError(f"'guidance_start' is {start:g}, after 'guidance_end', {end:g}: guidance would never act.")
    return round(1 - end, 9), round(1 - start, 9)  # 1 - 0.7 is a little more than 0.3


def check_int(name: str, value: Any, low: int, high: int) -> int:
    """Return `value` if it is a whole number in `low..high`.

    Raises:
        InputError: it is not a whole number, or out of range.
    """
    if isinstance(value, bool) or not isinstance(value, int):
        raise InputError(f"'{name}' must be a whole number from {low} to {high}, not {value!r}.")
    if not low <= value <= high:
        raise InputError(f"'{name}' is {value:,}; it must lie between {low:,} and {high:,}.")
    return value


def check_seed(value: Any) -> int:
    """Return `value` if it is a whole number; as a seed, negative and huge ones wrap around at 2**64.

    Raises:
        InputError: it is not a whole number.
    """
    if isinstance(value, bool) or not isinstance(value, int):
        raise InputError(f"'seed' must be a whole number, not {value!r}.")
    return value


def check_choice(name: str, value: Any, choices: Sequence[str]) -> str:
    """Return `value` if it is one of `choices`.

    Raises:
        InputError: it is none of them; the message lists them.
    """
    if value not in choices:
        raise InputError(f"'{name}' must be one of {', '.join(choices)}, not {value!r}.")
    return value


def check_text(name: str, value: Any) -> str:
    """Return `value` if it is a text.

    Raises:
        InputError: it is something else.
    """
    if not isinstance(value, str):
        raise InputError(f"'{name}' must be a text, not {value!r}.")
    return value


def checking(*relations: Callable[..., Any], **checks: Callable[[Any], Any]) -> classmethod:
    """Make a node's VALIDATE_INPUTS of the checks of some of its inputs: the first error's message, or True.

    Args:
        relations: checks of several inputs together, which they name as their parameters, with the inputs' defaults.
            They are asked once all of them are known.
        checks: by the input's name.

    ComfyUI reads from the method's parameters which inputs it validates, and skips its own range checks for them. It
    passes None for an input that is linked, which is checked once its value arrives, and omits one that is not given.
    """

    def validate(cls: type, *values: Any, **named: Any) -> bool | str:
        try:
            given = signature.bind(cls, *values, **named).arguments
            for name, value in given.items():
                if name in checks and value is not None:
                    checks[name](value)
            for relation in relations:
                together = {name: given[name] for name in inspect.signature(relation).parameters if name in given}
                if None not in together.values():
                    relation(**together)
        except InputError as error:
            return str(error)
        return True

    kind = inspect.Parameter.POSITIONAL_OR_KEYWORD
    together = [name for relation in relations for name in inspect.signature(relation).parameters]
    names = dict.fromkeys(["cls", *checks, *together])
    parameters = [
        inspect.Parameter(name, kind, default=inspect.Parameter.empty if name == "cls" else None) for name in names
    ]
    signature = validate.__signature__ = inspect.Signature(parameters)
    return classmethod(validate)
