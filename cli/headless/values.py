"""One input of a node class, and the conversion of one value to what that input takes."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Any

WIDGETS = frozenset({"INT", "FLOAT", "STRING", "BOOLEAN", "COMBO"})
_CHOICES_SHOWN = 20


@dataclass(frozen=True)
class InputSpec:
    """An entry of `INPUT_TYPES`. type: a name or a comma-separated union; choices: of a COMBO only."""

    name: str
    type: str
    required: bool
    options: dict[str, Any] = field(default_factory=dict)
    choices: tuple[Any, ...] = ()

    @property
    def is_widget(self) -> bool:
        """Whether it takes a value, and not only a link."""
        return not self.options.get("forceInput") and bool(WIDGETS & set(self.type.split(",")))

    def accepts(self, received: Any) -> bool:
        """Whether an output of that type may be linked here; "*" goes with everything."""
        if isinstance(received, (list, tuple)):
            received = "COMBO"
        here = {part.strip() for part in self.type.split(",")}
        there = {part.strip() for part in str(received).split(",")}
        return "*" in here | there or bool(here & there)


def input_specs(node_class: Any) -> dict[str, InputSpec]:
    """The inputs of a V1 node class by name, required ones first, in the order of their declaration."""
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
    """A widget's value as its input's type; text is read as that type. ValueError says what is wrong."""
    if not spec.is_widget:
        raise ValueError(f"takes a link from a node that gives {spec.type}, not {value!r}.")
    converters = {"INT": _integer, "FLOAT": _real, "STRING": _text, "BOOLEAN": _truth}
    for kind in spec.type.split(","):
        if kind.strip() in converters:
            return converters[kind.strip()](value)
    return _choice(value, spec)


def check_range(value: Any, spec: InputSpec) -> None:
    """Raise ValueError where a number lies outside its input's min and max, or a choice is not listed."""
    if spec.type == "COMBO" and value not in spec.choices:
        shown = ", ".join(repr(choice) for choice in spec.choices[:_CHOICES_SHOWN])
        more = ", …" if len(spec.choices) > _CHOICES_SHOWN else ""
        raise ValueError(f"{value!r} is none of its choices: {shown}{more}.")
    low, high = spec.options.get("min"), spec.options.get("max")
    if isinstance(value, (int, float)) and not isinstance(value, bool):
        if (low is not None and value < low) or (high is not None and value > high):
            raise ValueError(f"{value} lies outside {low} to {high}.")


def _integer(value: Any) -> int:
    if isinstance(value, int) and not isinstance(value, bool):
        return value
    if isinstance(value, float) and value.is_integer():
        return int(value)
    if isinstance(value, str):
        try:
            return int(value)
        except ValueError:
            pass
    raise ValueError(f"takes a whole number, not {value!r}.")


def _real(value: Any) -> float:
    message = f"takes a finite number, not {value!r}."
    if isinstance(value, bool) or not isinstance(value, (int, float, str)):
        raise ValueError(message)
    try:
        number = float(value)
    except ValueError:
        raise ValueError(message) from None
    if not math.isfinite(number):
        raise ValueError(message)
    return number


def _text(value: Any) -> str:
    if isinstance(value, str):
        return value
    if isinstance(value, (int, float)) and not isinstance(value, bool):
        return str(value)
    raise ValueError(f"takes text, not {value!r}.")


def _truth(value: Any) -> bool:
    if isinstance(value, (bool, int)) and value in (0, 1):
        return bool(value)
    if isinstance(value, str) and value.lower() in ("true", "false"):
        return value.lower() == "true"
    raise ValueError(f"takes true or false, not {value!r}.")


def _choice(value: Any, spec: InputSpec) -> Any:
    same = [choice for choice in spec.choices if str(choice) == str(value)]
    return same[0] if same else value
