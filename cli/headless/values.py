"""One input of a node class, and the conversion of one value to what that input takes."""

from __future__ import annotations

import math
import re
from dataclasses import dataclass, field
from typing import Any

from ...unclip_core.parsing import checked
from .problems import cut

WIDGETS = frozenset({"INT", "FLOAT", "STRING", "BOOLEAN", "COMBO", "IMAGECOMPARE"})
_CHOICES_SHOWN = 20
_ZEROS = re.compile(r"(?<=\d)\.0+(?=\s*$)")  # a column of whole numbers with gaps is one of floats in pandas
_LEAST, _MOST = -(2**63), 2**64 - 1  # of a whole number: what a node can hand on to a tensor or a seed


@dataclass(frozen=True)
class InputSpec:
    """An entry of `INPUT_TYPES`.

    Attributes:
        name: the input's.
        type: a name, or several separated by commas.
        required: whether a node cannot run without it.
        options: what else is declared: min, max, default and the like.
        choices: of a COMBO only.
    """

    name: str
    type: str
    required: bool
    options: dict[str, Any] = field(default_factory=dict)
    choices: tuple[Any, ...] = ()

    @property
    def is_widget(self) -> bool:
        """Tell whether it takes a value, and not only a link."""
        return not self.options.get("forceInput") and bool(WIDGETS & set(self.type.split(",")))

    def accepts(self, received: Any) -> bool:
        """Tell whether an output of the type `received` may be linked here; "*" goes with everything."""
        if isinstance(received, (list, tuple)):
            received = "COMBO"
        here = {part.strip() for part in self.type.split(",")}
        there = {part.strip() for part in str(received).split(",")}
        return "*" in here | there or bool(here & there)


def check_plain(value: Any) -> None:
    """Refuse what JSON cannot hold: it could not be compared, quoted in an error, or written into an image.

    Raises:
        MalformedInput: another type, a number of thousands of digits, half a character, or nested too deep.
    """
    if not isinstance(value, str):  # any text is plain; what half a character means, each type of input says
        checked(Any, value, "this value")


def _shown(value: Any) -> str:
    """A value as an error quotes it."""
    return cut(repr(value))


def input_specs(node_class: Any) -> dict[str, InputSpec]:
    """Return the inputs of a V1 node class by name, required ones first, in the order of their declaration."""
    declared = node_class.INPUT_TYPES()
    return {
        name: _spec(name, tuple(entry), kind == "required")
        for kind in ("required", "optional")
        for name, entry in declared.get(kind, {}).items()
    }


def _spec(name: str, entry: tuple[Any, ...], required: bool) -> InputSpec:
    options = dict(entry[1]) if len(entry) > 1 else {}
    if isinstance(entry[0], (list, tuple)):
        return InputSpec(name, "COMBO", required, options, tuple(entry[0]))
    return InputSpec(name, str(entry[0]), required, options, tuple(options.get("options", ())))


def convert(value: Any, spec: InputSpec) -> Any:
    """Turn a widget's value into its input's type; text is read as that type.

    Raises:
        ValueError: it cannot be; the message goes behind the input's name.
    """
    if not spec.is_widget:
        raise ValueError(f"takes a link from a node that gives {spec.type}, not {_shown(value)}.")
    converters = {"INT": _integer, "FLOAT": _real, "STRING": _text, "BOOLEAN": _truth}
    if spec.type == "IMAGECOMPARE":
        return value  # what a slider on the canvas last showed: nothing that a node reads
    for kind in spec.type.split(","):
        if kind.strip() in converters:
            return converters[kind.strip()](value)
    return _choice(value, spec)


def check_range(value: Any, spec: InputSpec) -> None:
    """Check a converted value against its input's min and max, or its choices.

    Raises:
        ValueError: it lies outside, or is not among them.
    """
    if spec.type == "COMBO" and value not in spec.choices:
        shown = ", ".join(repr(choice) for choice in spec.choices[:_CHOICES_SHOWN])
        more = ", …" if len(spec.choices) > _CHOICES_SHOWN else ""
        raise ValueError(f"{_shown(value)} is none of its choices: {shown}{more}.")
    low, high = spec.options.get("min"), spec.options.get("max")
    if isinstance(value, (int, float)) and not isinstance(value, bool):
        if (low is not None and value < low) or (high is not None and value > high):
            raise ValueError(f"{_shown(value)} lies outside {low} to {high}.")


def _integer(value: Any) -> int:
    number = whole(value)
    if number is None:
        raise ValueError(f"takes a whole number, not {_shown(value)}.")
    if not _LEAST <= number <= _MOST:
        raise ValueError(f"takes a whole number of at most 64 bits, not {_shown(value)}.")
    return number


def whole(value: Any) -> int | None:
    """Return the whole number that a value is or says ("7", and "7.0" as pandas writes it); None where it is none."""
    if isinstance(value, int) and not isinstance(value, bool):
        return value
    if isinstance(value, float) and value.is_integer():
        return int(value)
    try:
        return int(_ZEROS.sub("", value)) if isinstance(value, str) else None
    except ValueError:
        return None


def _real(value: Any) -> float:
    message = f"takes a finite number, not {_shown(value)}."
    if isinstance(value, bool) or not isinstance(value, (int, float, str)):
        raise ValueError(message)
    try:
        number = float(value)
    except (ValueError, OverflowError):
        raise ValueError(message) from None
    if not math.isfinite(number):
        raise ValueError(message)
    return number


def _text(value: Any) -> str:
    if isinstance(value, str):
        try:
            value.encode()
        except UnicodeEncodeError as error:
            place = error.start + 1
            raise ValueError(f"holds half a character (a surrogate) at position {place}: delete it.") from None
        return value
    if isinstance(value, (int, float)) and not isinstance(value, bool):
        return str(value)
    raise ValueError(f"takes text, not {_shown(value)}.")


def _truth(value: Any) -> bool:
    if isinstance(value, (bool, int)) and value in (0, 1):
        return bool(value)
    if isinstance(value, str) and value.lower() in ("true", "false"):
        return value.lower() == "true"
    raise ValueError(f"takes true or false, not {_shown(value)}.")


def _choice(value: Any, spec: InputSpec) -> Any:
    if not isinstance(value, (str, int, float)):
        raise ValueError(f"takes one of its choices, not {_shown(value)}.")
    same = [choice for choice in spec.choices if str(choice) == str(value)]
    return same[0] if same else value
