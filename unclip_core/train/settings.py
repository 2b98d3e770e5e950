"""Tables of a configuration as dataclasses: every key known, of the right type and in range."""

import math
from collections.abc import Mapping
from dataclasses import MISSING, fields
from types import UnionType
from typing import Any, Literal, Union, get_args, get_origin, get_type_hints

LARGEST = 2**53
"""The largest whole number in a configuration."""


def build_settings(kind: Any, table: Mapping[str, Any], where: str) -> Any:
    """Make a dataclass of a table.

    Args:
        kind: the dataclass.
        table: its fields by name.
        where: what goes before the names in errors.

    Raises:
        ValueError: a key is unknown or missing, or a value is of another type.
    """
    known = {item.name: item for item in fields(kind)}
    if unknown := sorted(set(table) - set(known)):
        raise ValueError(f"unknown settings {[where + name for name in unknown]}; known are {sorted(known)}.")
    needed = {n for n, item in known.items() if item.default is MISSING and item.default_factory is MISSING}
    if missing := sorted(needed - set(table)):
        raise ValueError(f"the settings {[where + name for name in missing]} are missing.")
    hints = get_type_hints(kind)
    return kind(**{name: _typed(where + name, value, hints[name]) for name, value in table.items()})


def _typed(name: str, value: Any, kind: Any) -> Any:
    """`value`, where it is of that type; a whole number is taken for a fraction too."""
    origin = get_origin(kind)
    if origin is Literal:
        if value not in get_args(kind):
            raise ValueError(f"{name} must be one of {list(get_args(kind))}, got {value!r}.")
        return value
    kinds = get_args(kind) if origin in (Union, UnionType) else (origin or kind,)
    if type(value) is int and abs(value) > LARGEST:
        raise ValueError(f"{name} is too large: at most {LARGEST:,} is taken.")
    if float in kinds and isinstance(value, int) and not isinstance(value, bool):
        return float(value)
    if not isinstance(value, kinds) or (isinstance(value, bool) and bool not in kinds):
        raise ValueError(f"{name} must be of the type {' or '.join(k.__name__ for k in kinds)}, got {value!r}.")
    return value


def require(table: str, values: Mapping[str, Any], low: float, high: float, *names: str) -> None:
    """Raise ValueError for the first of the named values that is not in `low`..`high`, or not finite."""
    for name in names:
        if not low <= values[name] <= high or math.isinf(values[name]):
            bounds = f"{low} or more" if high == math.inf else f"in {low}..{high}"
            raise ValueError(f"{table}.{name} must be {bounds}, got {values[name]}.")
