"""Structures that come from outside (JSON, TOML) as checked types; whatever is wrong becomes one sentence.

Every reader of a config, an index, a workflow, a journal or a server's answer goes through here, so that no file can
end a run with anything but a `MalformedInput`, and none of them has its own list of exceptions.
"""

import json
import re
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar, cast

from .output import legible

if TYPE_CHECKING:
    from pydantic import TypeAdapter, ValidationError

T = TypeVar("T")
MAX_TEXT_BYTES = 256 * 2**20  # far above any tokenizer or workflow, far below what hurts
_HALVES = re.compile("[\ud800-\udfff]")
_SHOWN = 3  # faults named in one message
_SHOWN_VALUE = 60  # characters of a faulty value that are quoted


class MalformedInput(ValueError):
    """Text that is not what it is read as; the message says where it came from, what is wrong, and what is needed."""


def read_text(path: Path, max_bytes: int = MAX_TEXT_BYTES) -> str:
    """Read a UTF-8 file, with or without a byte-order mark.

    Raises:
        MalformedInput: it is larger than `max_bytes`, or not UTF-8.
        OSError: it cannot be read.
    """
    if (size := path.stat().st_size) > max_bytes:
        raise MalformedInput(f"'{path}' has {size:,} bytes; at most {max_bytes:,} are read here.")
    return decode_text(path.read_bytes(), f"'{path}'")


def decode_text(data: bytes, name: str) -> str:
    """Decode UTF-8 bytes, with or without a byte-order mark. `name` leads the message of a MalformedInput."""
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise MalformedInput(f"{name} is not UTF-8 text (byte {error.start}). Save it as UTF-8.") from error


def parse_json(text: str | bytes, name: str) -> Any:
    """Parse JSON of any size and depth.

    Args:
        text: the JSON, with or without a byte-order mark.
        name: what it is, as the first words of an error: "'model_index.json'", "The answer of host:8188".

    Raises:
        MalformedInput: it is no JSON, or nested too deep.
    """
    try:
        return json.loads((decode_text(text, name) if isinstance(text, bytes) else text).removeprefix("\ufeff"))
    except RecursionError as error:
        raise MalformedInput(f"{name} is nested too deep to be read.") from error
    except json.JSONDecodeError as error:
        place = f"line {error.lineno}, column {error.colno}"
        raise MalformedInput(f"{name} is not valid JSON: {error.msg} ({place}).") from error
    except ValueError as error:  # a number of more digits than Python turns into one
        raise MalformedInput(f"{name} cannot be read as JSON: {error}.") from error


def read_json(path: Path, max_bytes: int = MAX_TEXT_BYTES) -> Any:
    """Read and parse a JSON file.

    Raises:
        MalformedInput: as of `read_text` and `parse_json`.
        OSError: it cannot be read.
    """
    return parse_json(read_text(path, max_bytes), f"'{path}'")


def read_toml(path: Path) -> dict[str, Any]:
    """Read and parse a TOML file.

    Raises:
        MalformedInput: as of `read_text`, or it is no TOML.
        OSError: it cannot be read.
    """
    try:
        import tomllib
    except ModuleNotFoundError:
        import tomli as tomllib  # type: ignore[no-redef]  # the same, before Python 3.11
    try:
        return tomllib.loads(read_text(path))
    except MalformedInput:
        raise
    except (ValueError, RecursionError) as error:
        raise MalformedInput(f"'{path}' is not valid TOML: {error or 'nested too deep'}.") from error


def checked(expected: type[T], value: Any, name: str) -> T:
    """Turn what was parsed into `expected`, every type and bound checked by pydantic; nothing is coerced.

    Args:
        expected: a pydantic model, a dataclass (its `__post_init__` runs), or an annotated type such as
            `dict[str, Annotated[int, Field(ge=1)]]`. Lists stand for tuples. Unknown keys are taken as the type says
            (`__pydantic_config__ = {"extra": "forbid"}` on a dataclass refuses them).
        value: what JSON can hold. Half a character in a text, which a paste can leave in a prompt, comes out escaped.
        name: what it is, as the first words of an error.

    Raises:
        MalformedInput: naming the first faults, each with its place and what was found there.
    """
    from pydantic import ValidationError

    try:
        # By way of JSON: strict, and yet a list is a tuple and a table is a dataclass there.
        adapter: TypeAdapter[T] = _adapter(cast(Any, expected))
        return adapter.validate_json(_HALVES.sub(_escaped, json.dumps(value, ensure_ascii=False)), strict=True)
    except ValidationError as error:
        raise MalformedInput(f"{name} is not usable: {_faults(error)}.") from error
    except RecursionError as error:
        raise MalformedInput(f"{name} is not usable: it is nested too deep.") from error
    except (TypeError, ValueError) as error:
        raise MalformedInput(f"{name} is not usable: {error}.") from error


def _escaped(half: re.Match[str]) -> str:
    """The JSON of half a character made legible: a backslash there is two."""
    return legible(half[0]).replace("\\", r"\\")


@cache
def _adapter(expected: Any) -> "TypeAdapter[Any]":
    from pydantic import TypeAdapter

    return TypeAdapter(expected)


def _faults(error: "ValidationError") -> str:
    """The first faults in a line: "layers: Input should be less than or equal to 512 (it is 1000000000)"."""
    faults = error.errors(include_url=False, include_context=False)
    said = "; ".join(_fault(fault) for fault in faults[:_SHOWN])
    return said + (f"; and {len(faults) - _SHOWN} more" if len(faults) > _SHOWN else "")


def _fault(fault: Any) -> str:
    place = ".".join(str(step) for step in fault["loc"])
    message = fault["msg"].removeprefix("Value error, ").rstrip(".")
    said = f"{place}: {message}" if place else message
    if fault["type"] in ("missing", "value_error"):
        return said
    found = repr(fault["input"])
    return f"{said} (it is {found if len(found) <= _SHOWN_VALUE else found[:_SHOWN_VALUE] + '…'})"
