"""Reading configurations that come with weights: what is wrong with them becomes a `CheckpointError`, here alone.

Also what a foreign `config.json` must say, and what it may only say in one way.
"""

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeVar

from ..parsing import MalformedInput, parse_json, read_json
from .files import CheckpointError

Config = Mapping[str, Any]
C = TypeVar("C")
T = TypeVar("T")
MAX_CONFIG_BYTES = 64 << 20
"""No configuration, index or vocabulary is larger (a tokenizer of 250,000 tokens has 17 MB)."""


@contextmanager
def refused(place: str = "") -> Iterator[None]:
    """Turn every ValueError and OSError inside into a CheckpointError that says what `place` is, unless it is one."""
    try:
        yield
    except CheckpointError:
        raise
    except (ValueError, OSError) as error:
        raise CheckpointError(f"{place} is not usable: {error}" if place else str(error)) from error


def usable(place: str, build: Callable[[C], T], config: C) -> T:
    """Return what `build` makes of `config`.

    Raises:
        CheckpointError: it refuses it, by a ValueError; `place` leads the message.
    """
    with refused(place):
        return build(config)


def read_table(path: Path) -> dict[str, Any]:
    """Read a file that holds a JSON object, with or without a byte-order mark.

    Raises:
        CheckpointError: it is missing, no JSON, or no object.
    """
    try:
        return _table(read_json(path, MAX_CONFIG_BYTES), f"'{path}'")
    except MalformedInput as error:
        raise CheckpointError(str(error)) from error
    except (OSError, ValueError) as error:  # a ValueError: a name that no file can have
        raise CheckpointError(f"'{path}' cannot be read ({error}).") from error


def parse_table(text: str, place: str) -> dict[str, Any]:
    """Parse a JSON object, such as a file's header holds. Raises CheckpointError as `read_table`."""
    with refused():
        return _table(parse_json(text, place), place)


def is_file_name(name: str) -> bool:
    """Tell whether a name that a file states is that of a file in the same folder, on any system."""
    plain = name.isprintable() and bool(name.strip(". ")) and not set(name) & {"/", "\\", ":"}
    return plain and len(name.encode()) <= 255


def needs(config: Config, *keys: str) -> None:
    """Raise ValueError for a setting that is not there and has no default."""
    if missing := [key for key in keys if config.get(key) is None]:
        raise ValueError(f"it lacks {missing}, which have no default")


def require(config: Config, fixed: Config, or_none: bool = False) -> None:
    """Raise ValueError for a setting other than the one that our networks have."""
    for key, only in fixed.items():
        value = config.get(key, only)
        if value != only and not (or_none and value is None):
            raise ValueError(f"'{key}' is {str(value)[:60]!r}; supported is {only!r}")


def _table(value: Any, place: str) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise CheckpointError(f"{place} holds no JSON object.")
    return value
