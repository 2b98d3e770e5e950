"""What a foreign `config.json` must say, and what it may only say in one way."""

from collections.abc import Mapping
from typing import Any

Config = Mapping[str, Any]


def needs(config: Config, *keys: str) -> None:
    """Raise ValueError for a setting that is not there and has no default."""
    if missing := [key for key in keys if config.get(key) is None]:
        raise ValueError(f"it lacks {missing}, which have no default")


def require(config: Config, fixed: Config, or_none: bool = False) -> None:
    """Raise ValueError for a setting other than the one that our networks have."""
    for key, only in fixed.items():
        value = config.get(key, only)
        if value != only and not (or_none and value is None):
            raise ValueError(f"'{key}' is {value!r}; supported is {only!r}")
