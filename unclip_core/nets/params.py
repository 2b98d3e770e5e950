"""Params dataclasses as plain dicts and back, so that a config can travel as JSON in a weights file."""

import dataclasses
from collections.abc import Mapping
from typing import Any, TypeVar

from ..parsing import checked

P = TypeVar("P")

LIMIT = 1 << 17
"""No width, number of channels or of tokens is larger: a damaged number must not build a net of a billion layers."""

LIMITS = {
    **dict.fromkeys(("blocks", "mid_blocks", "depth", "mlp_ratio", "reach"), 64),
    "levels": 16,
    "layers": 512,
    **dict.fromkeys(("frames", "canvas", "extra_tokens", "patch_size", "factors"), 1024),
    **dict.fromkeys(("map_sizes", "image_size"), 1 << 14),
    "vocabulary": 1 << 22,
    "mlp_width": 1 << 20,
}
"""The largest number by its name, where that is not `LIMIT`."""


def params_to_dict(params: Any) -> dict[str, Any]:
    """Return the fields of a params dataclass (nested ones too) as a dict that JSON can hold.

    Tuples become lists, so that the dict equals itself after a trip through JSON.
    """
    return _plain(dataclasses.asdict(params))


def _plain(value: object) -> Any:
    """Turn tuples into lists, all the way down."""
    if isinstance(value, dict):
        return {key: _plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    return value


def params_from_dict(cls: type[P], config: Mapping[str, Any]) -> P:
    """Build the params dataclass `cls` from the dict `config`; lists become tuples.

    Fields with a default may be missing.

    Raises:
        ValueError: naming unknown keys, keys that are missing, or values of another type; the dataclass itself checks
            the numbers.
    """
    check_keys(cls, config)
    return checked(cls, dict(config), cls.__name__)


def check_keys(cls: type, config: Any) -> None:
    """Raise ValueError where `config` is no mapping, or its keys are not those of the params dataclass `cls`."""
    if not isinstance(config, Mapping):
        raise ValueError(f"{cls.__name__}: a table of settings is needed, got {str(config)[:60]!r}")
    fields = {field.name: field for field in dataclasses.fields(cls)}
    unknown = sorted(map(str, set(config) - set(fields)))
    if unknown:
        raise ValueError(f"{cls.__name__}: unknown keys {unknown}; known are {sorted(fields)}")
    required = {name for name, field in fields.items() if field.default is dataclasses.MISSING}
    missing = sorted(required - set(config))
    if missing:
        raise ValueError(f"{cls.__name__}: missing keys {missing}; given are {sorted(config)}")


def require_positive(owner: str, **values: int) -> None:
    """Raise ValueError for the first of `values` that is not a positive whole number, or above its limit."""
    require_count(owner, 1, **values)


def require_count(owner: str, least: int = 0, **values: int) -> None:
    """Raise ValueError for the first of `values` that is not a whole number from `least` to its limit in `LIMITS`."""
    for name, value in values.items():
        if isinstance(value, bool) or not isinstance(value, int) or value < least:
            raise ValueError(
                f"{owner}: {name} must be {'a positive' if least else '0 or a positive'} whole number, got {value!r}"
            )
        if value > (limit := LIMITS.get(name, LIMIT)):
            raise ValueError(f"{owner}: {name} must be at most {limit:,}, got {str(value)[:30]}")


def require_small(owner: str, **values: float) -> None:
    """Raise ValueError for the first of `values` (an epsilon) that is not a number within 0..1, both excluded."""
    for name, value in values.items():
        if isinstance(value, bool) or not isinstance(value, int | float) or not 0 < value < 1:
            raise ValueError(f"{owner}: {name} must be a number between 0 and 1, got {value!r}")


def require_divisible(owner: str, name: str, value: int, by_name: str, by: int) -> None:
    """Raise ValueError, stating both numbers, where `value` is not a multiple of `by`."""
    if value % by:
        raise ValueError(f"{owner}: {name} {value} is not a multiple of {by_name} {by}")
