"""Params dataclasses as plain dicts and back, so that a config can travel as JSON in a weights file."""

import dataclasses
from collections.abc import Mapping
from typing import Any, TypeVar

P = TypeVar("P")


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
        ValueError: naming unknown keys, or keys that are missing; the dataclass itself checks the values.
    """
    fields = {field.name: field for field in dataclasses.fields(cls)}  # type: ignore[arg-type]  # P is a dataclass; no bound says so in 3.10
    unknown = sorted(set(config) - set(fields))
    if unknown:
        raise ValueError(f"{cls.__name__}: unknown keys {unknown}; known are {sorted(fields)}")
    required = {name for name, field in fields.items() if field.default is dataclasses.MISSING}
    missing = sorted(required - set(config))
    if missing:
        raise ValueError(f"{cls.__name__}: missing keys {missing}; given are {sorted(config)}")
    return cls(**{key: tuple(value) if isinstance(value, list) else value for key, value in config.items()})


def require_positive(owner: str, **values: int) -> None:
    """Raise ValueError for the first of `values` that is not a positive whole number."""
    for name, value in values.items():
        if isinstance(value, bool) or not isinstance(value, int) or value < 1:
            raise ValueError(f"{owner}: {name} must be a positive whole number, got {value!r}")


def require_divisible(owner: str, name: str, value: int, by_name: str, by: int) -> None:
    """Raise ValueError, stating both numbers, where `value` is not a multiple of `by`."""
    if value % by:
        raise ValueError(f"{owner}: {name} {value} is not a multiple of {by_name} {by}")
