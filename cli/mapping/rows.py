"""A row of a table: its id, which names it in every run, and the seed that follows from it."""

import hashlib
import json
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from ..headless.values import whole

ID = "id"
SEED = "seed"
SEED_BITS = 53  # what JSON numbers hold exactly
DIGEST_BYTES = 16


@dataclass(frozen=True)
class Row:
    """What is to be made.

    Attributes:
        id: names the row; its image depends on this and on `values` alone.
        seed: 0..2**53 - 1.
        values: the table's columns, without those that are empty; of a collection, "index" and "name".
    """

    id: str
    seed: int
    values: Mapping[str, Any]


def make_rows(table: Iterable[Mapping[str, Any]], seed: int = 0, count: int = 1) -> Iterator[Row]:
    """Name the rows of a table, `count` times each; rows in which nothing stands are left out.

    The id is that of the column "id"; without one, a hash of all that the row says. The seed is the column "seed", or
    a hash of `seed` and the id. Of several copies, the second and later ones have "#2", "#3" … behind the id and a
    seed of their own, counted up where the column gives it.

    Raises:
        ValueError: a seed is no whole number.
    """
    for entry in table:
        values = {name: value for name, value in entry.items() if not _is_empty(value)}
        if not values:
            continue
        own = values.pop(ID, None)
        name = _content_id(values) if own is None else _text(own)
        given = values.pop(SEED, None)
        for copy in range(count):
            row_id = f"{name}#{copy + 1}" if copy else name
            yield Row(row_id, row_seed(row_id, seed) if given is None else _counted(given, copy, row_id), values)


def row_seed(row_id: str, seed: int = 0) -> int:
    """Return the seed of a row: 53 bits of BLAKE2b over the run's seed and the id."""
    data = hashlib.blake2b(f"{seed}\0{row_id}".encode("utf-8", "surrogatepass"), digest_size=8).digest()
    return int.from_bytes(data, "little") >> (64 - SEED_BITS)


def digest(row_id: str) -> bytes:
    """Return 16 bytes that stand for an id: a million of them are 16 MB."""
    return hashlib.blake2b(row_id.encode("utf-8", "surrogatepass"), digest_size=DIGEST_BYTES).digest()


def _content_id(values: Mapping[str, Any]) -> str:
    text = json.dumps({name: _text(value) for name, value in values.items()}, sort_keys=True)
    return hashlib.blake2b(text.encode(), digest_size=12).hexdigest()


def _text(value: Any) -> str:
    """A cell as text; a whole number that a column of floats holds is written as one."""
    return str(int(value)) if isinstance(value, float) and value.is_integer() else str(value)


def _is_empty(value: Any) -> bool:
    return value is None or value == "" or value != value


def _counted(given: Any, copy: int, row_id: str) -> int:
    number = whole(given)
    if number is None:
        raise ValueError(f"The seed of row '{row_id}' is {given!r}; it must be a whole number.")
    return (number + copy) % 2**SEED_BITS
